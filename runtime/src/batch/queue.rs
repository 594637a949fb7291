//! The requests that wait for one servable: bounded, by priority, in groups of equal shape. A plain value
//! without locks, so that it can be simulated. Must not know what a request is, or when a batch goes.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::Time;

/// What decides whether two requests may share a batch: the lengths of all variable axes but the batch axis.
/// Empty where every axis is fixed.
pub type GroupKey = SmallVec<[usize; 2]>;

/// Entries whose memory an empty lane may keep.
const SPARE_MAX: usize = 1024;

/// One waiting request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// Rows it brings, at least 0.
    pub rows: usize,
    /// Its shape group.
    pub group: GroupKey,
    /// 0 and 1 are first.
    pub priority: u32,
    /// When it joined.
    pub queued: Time,
    /// When its answer becomes worthless.
    pub deadline: Option<Time>,
    /// The request itself.
    pub payload: T,
}

/// Entries of one priority and one group, oldest first.
#[derive(Debug)]
struct Lane<T> {
    priority: u32,
    group: GroupKey,
    entries: VecDeque<(u64, Entry<T>)>,
}

/// The waiting requests of one servable.
#[derive(Debug)]
pub struct Queue<T> {
    /// Never holds an empty lane.
    lanes: Vec<Lane<T>>,
    /// The memory of a lane that ran empty, for the next one.
    spare: VecDeque<(u64, Entry<T>)>,
    length: usize,
    next_sequence: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What the policy needs to know of the requests that would go next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// When the first of them joined.
    pub queued: Time,
    /// Rows that wait in its group, over all priorities.
    pub rows: usize,
}

impl<T> Queue<T> {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self { lanes: Vec::new(), spare: VecDeque::new(), length: 0, next_sequence: 0 }
    }

    /// Requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Puts `entry` behind those of its priority and group. The bound is the caller's to keep.
    pub fn push(&mut self, entry: Entry<T>) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.length += 1;
        let same = |lane: &&mut Lane<T>| lane.priority == entry.priority && lane.group == entry.group;
        if let Some(lane) = self.lanes.iter_mut().find(same) {
            lane.entries.push_back((sequence, entry));
            return;
        }
        let mut entries = std::mem::take(&mut self.spare);
        let (priority, group) = (entry.priority, entry.group.clone());
        entries.push_back((sequence, entry));
        self.lanes.push(Lane { priority, group, entries });
    }

    /// Moves everything from `other` to here, keeping its order.
    pub fn append(&mut self, other: &mut Self) {
        let mut moved: Vec<(u64, Entry<T>)> = other.lanes.drain(..).flat_map(|lane| lane.entries).collect();
        other.length = 0;
        moved.sort_unstable_by_key(|(sequence, _)| *sequence);
        for (_, entry) in moved {
            self.push(entry);
        }
    }

    /// The lane that goes first: the lowest priority number, then the oldest head.
    fn first_lane(&self) -> Option<usize> {
        let order = |lane: &Lane<T>| (lane.priority, lane.entries.front().map(|(sequence, _)| *sequence));
        (0..self.lanes.len()).min_by_key(|&index| order(&self.lanes[index]))
    }

    /// The batch that would go next, or `None` when nothing waits.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        let first = &self.lanes[self.first_lane()?];
        let group = self.lanes.iter().filter(|lane| lane.group == first.group);
        let rows = group.flat_map(|lane| &lane.entries).map(|(_, entry)| entry.rows).sum();
        Some(Head { queued: first.entries.front()?.1.queued, rows })
    }

    /// Takes the next batch: entries of one group, by priority, then by age, `rows_max` rows at most (a single
    /// entry may bring more). Entries for which `gone` holds are taken out on the way and put into `dropped`.
    pub fn take(
        &mut self,
        rows_max: usize,
        gone: &mut dyn FnMut(&Entry<T>) -> bool,
        batch: &mut Vec<Entry<T>>,
        dropped: &mut Vec<Entry<T>>,
    ) {
        let mut rows = 0;
        let mut group: Option<GroupKey> = None;
        while let Some(index) = self.next_of(group.as_ref()) {
            let lane = &mut self.lanes[index];
            let Some((_, entry)) = lane.entries.front() else { break };
            let leaves = gone(entry);
            if !leaves && !batch.is_empty() && rows + entry.rows > rows_max {
                break;
            }
            let Some((_, entry)) = lane.entries.pop_front() else { break };
            self.length -= 1;
            if lane.entries.is_empty() {
                let lane = self.lanes.swap_remove(index);
                if lane.entries.capacity() <= SPARE_MAX {
                    self.spare = lane.entries;
                }
            }
            if leaves {
                dropped.push(entry);
                continue;
            }
            rows += entry.rows;
            group.get_or_insert_with(|| entry.group.clone());
            batch.push(entry);
            if rows >= rows_max {
                break;
            }
        }
    }

    /// The lane to take from next: any while the group is open, then only that group's.
    fn next_of(&self, group: Option<&GroupKey>) -> Option<usize> {
        let Some(group) = group else { return self.first_lane() };
        let lanes = self.lanes.iter().enumerate().filter(|(_, lane)| lane.group == *group);
        lanes
            .min_by_key(|(_, lane)| (lane.priority, lane.entries.front().map(|(sequence, _)| *sequence)))
            .map(|(index, _)| index)
    }

    /// Rows that wait in each lane, with its group. A group may come several times.
    pub fn lanes(&self) -> impl Iterator<Item = (&GroupKey, usize)> {
        self.lanes.iter().map(|lane| (&lane.group, lane.entries.iter().map(|(_, entry)| entry.rows).sum()))
    }

    /// Takes everything out, in no particular order.
    pub fn drain(&mut self) -> impl Iterator<Item = Entry<T>> + '_ {
        self.length = 0;
        self.lanes.drain(..).flat_map(|lane| lane.entries.into_iter().map(|(_, entry)| entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(payload: u32, rows: usize, group: usize, priority: u32) -> Entry<u32> {
        Entry {
            rows,
            group: GroupKey::from_slice(&[group]),
            priority,
            queued: Time::from_ns(u64::from(payload)),
            deadline: None,
            payload,
        }
    }

    /// Takes all batches out of a queue filled with `entries`; payloads of each batch.
    fn check(entries: &[Entry<u32>], rows_max: usize, gone: &[u32], expected: &[&[u32]]) {
        let mut queue = Queue::default();
        let mut turn = Queue::default();
        for entry in entries {
            turn.push(entry.clone());
        }
        queue.append(&mut turn);
        assert!(turn.is_empty());
        let mut batches: Vec<Vec<u32>> = Vec::new();
        let mut dropped = Vec::new();
        while !queue.is_empty() {
            let mut batch = Vec::new();
            queue.take(rows_max, &mut |e| gone.contains(&e.payload), &mut batch, &mut dropped);
            batches.push(batch.iter().map(|e| e.payload).collect());
        }
        assert_eq!(batches, expected);
        assert_eq!(dropped.len(), gone.len());
    }

    #[test]
    fn batches_fill_up_in_order() {
        let all: Vec<_> = (0..5).map(|i| entry(i, 1, 0, 0)).collect();
        check(&all, 3, &[], &[&[0, 1, 2], &[3, 4]]);
    }

    #[test]
    fn a_large_request_goes_alone_and_is_never_starved() {
        let all = [entry(0, 1, 0, 0), entry(1, 9, 0, 0), entry(2, 1, 0, 0)];
        check(&all, 3, &[], &[&[0], &[1], &[2]]);
    }

    #[test]
    fn groups_never_mix() {
        let all = [entry(0, 1, 0, 0), entry(1, 1, 7, 0), entry(2, 1, 0, 0), entry(3, 1, 7, 0)];
        check(&all, 8, &[], &[&[0, 2], &[1, 3]]);
    }

    #[test]
    fn priority_goes_first_and_lower_ones_fill_the_batch() {
        let all = [entry(0, 1, 0, 2), entry(1, 1, 0, 2), entry(2, 1, 0, 1), entry(3, 1, 5, 1)];
        check(&all, 2, &[], &[&[2, 0], &[3], &[1]]);
    }

    #[test]
    fn those_who_left_are_dropped_and_take_no_room() {
        let all: Vec<_> = (0..4).map(|i| entry(i, 1, 0, 0)).collect();
        check(&all, 2, &[0, 2], &[&[1, 3]]);
        check(&all, 2, &[0, 1, 2, 3], &[&[]]);
    }

    #[test]
    fn head_counts_its_group_over_priorities() {
        let mut queue = Queue::default();
        assert_eq!(queue.head(), None);
        for e in [entry(5, 2, 1, 2), entry(6, 3, 0, 1), entry(7, 4, 1, 1), entry(8, 1, 0, 2)] {
            queue.push(e);
        }
        assert_eq!(queue.head(), Some(Head { queued: Time::from_ns(6), rows: 4 }));
    }
}
