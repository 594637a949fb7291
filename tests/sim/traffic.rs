//! Requests in the made-up world: they resolve, join, wait, run, are cancelled or too late. The decisions are the
//! runtime's own; the effects are those of `servable` and `instance`.

use gannet_models::ModelName;
use gannet_runtime::{
    Time,
    batch::{
        cost::Costs,
        policy::{self, Dispatch, Load},
        queue::{Entry, GroupKey},
    },
    servable::Incarnation,
};

use super::{
    Fault,
    check::Taken,
    world::{Event, MS, Verdict, World},
};

/// Requests that may wait for one copy.
const QUEUE_REQUESTS_MAX: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    Failed,
    Expired,
    Cancelled,
    Refused,
}

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) copy: Incarnation,
    pub(super) rows: usize,
    pub(super) group: GroupKey,
    pub(super) priority: u32,
    pub(super) deadline: Option<Time>,
    /// What its caller got or did.
    pub(super) answer: Option<Answer>,
    pub(super) joined: bool,
    /// Times that a copy let go of it.
    pub(super) deliveries: u64,
    pub(super) runs: u64,
}

/// A batch at work.
pub(super) struct Run {
    batch: Vec<usize>,
    ends: Time,
    fails: bool,
}

impl World {
    pub(super) fn arrive(&mut self, model: &ModelName) {
        let serving = self.published.get(model).filter(|versions| !versions.is_empty());
        let Some(versions) = serving else { return };
        let random = &mut self.random;
        let chosen = if random.percent(70) {
            versions.len() - 1
        } else {
            random.below(versions.len() as u64) as usize
        };
        let copy = versions[chosen].1;
        let deadline = random.percent(35).then(|| self.now.plus_ns(random.between(50_000, 20 * MS)));
        let rows = if random.percent(8) { random.between(5, 20) } else { random.between(0, 3) };
        self.requests.push(Request {
            copy,
            rows: rows as usize,
            group: GroupKey::from_slice(&[random.between(1, 3) as usize]),
            priority: [0, 0, 1, 2][random.below(4) as usize],
            deadline,
            answer: None,
            joined: false,
            deliveries: 0,
            runs: 0,
        });
        let request = self.requests.len() - 1;
        let late = if random.percent(10) { random.below(40 * MS) } else { 0 };
        let leaves = random.percent(15).then(|| random.below(3 * MS));
        let count = self.copies.get_mut(&copy);
        count.expect("what is published exists").holders += 1;
        self.after(late, Event::Join(request));
        if let Some(leaves) = leaves {
            self.after(leaves, Event::Cancel(request));
        }
        if let Some(deadline) = deadline {
            self.after(deadline.ns_since(self.now), Event::Deadline(request));
        }
        self.note(|| format!("  request {request} to {copy}"));
    }

    /// The caller's end: it counts once, later ones are not heard.
    fn close(&mut self, request: usize, answer: Answer) {
        let record = &mut self.requests[request];
        if record.answer.is_some() {
            return;
        }
        record.answer = Some(answer);
        let counts = &mut self.counts;
        *match answer {
            Answer::Ok => &mut counts.answered,
            Answer::Failed => &mut counts.failed,
            Answer::Expired => &mut counts.expired,
            Answer::Cancelled => &mut counts.cancelled,
            Answer::Refused => &mut counts.refused,
        } += 1;
        let copy = self.requests[request].copy;
        self.copies.get_mut(&copy).expect("copies are kept").holders -= 1;
    }

    /// The copy's end.
    fn deliver(&mut self, request: usize, answer: Answer) {
        self.requests[request].deliveries += 1;
        self.close(request, answer);
    }

    pub(super) fn cancel(&mut self, request: usize) -> Verdict {
        self.close(request, Answer::Cancelled);
        Ok(())
    }

    pub(super) fn deadline(&mut self, request: usize) -> Verdict {
        self.close(request, Answer::Expired);
        Ok(())
    }

    /// Admission, and the way into the queue: alone, or with others of its event loop's turn.
    pub(super) fn join(&mut self, request: usize) -> Verdict {
        let record = self.requests[request].clone();
        if record.answer.is_some() {
            return Ok(());
        }
        self.check_usable(record.copy)?;
        let now = self.now;
        let copy = self.copies.get_mut(&record.copy).ok_or("no such copy")?;
        let waiting = copy.order.len() + copy.turn_order.len();
        let waiting_rows = copy.order.iter().chain(&copy.turn_order).map(|&r| self.requests[r].rows).sum();
        let busy = |run: &Option<Run>| run.as_ref().map_or(0, |run| run.ends.ns_since(now));
        let load = Load {
            waiting_rows,
            busy_ns: copy.instances.iter().map(busy).min().unwrap_or(0),
            instances: copy.instances.len(),
            rows_max: copy.policy.rows_max,
        };
        let affordable = record.deadline.is_none_or(|deadline| {
            policy::affordable(load, record.rows, deadline.ns_since(now), copy.costs.table(&record.group))
                .is_ok()
        });
        if waiting >= QUEUE_REQUESTS_MAX || !affordable {
            self.close(request, Answer::Refused);
            return Ok(());
        }
        self.requests[request].joined = true;
        let entry = Entry {
            rows: record.rows,
            group: record.group,
            priority: record.priority,
            queued: now,
            deadline: record.deadline,
            payload: request,
        };
        if self.random.percent(50) {
            copy.turn.push(entry);
            copy.turn_order.push(request);
            if copy.turn_order.len() == 1 {
                let pause = self.random.below(30_000);
                self.after(pause, Event::Flush(record.copy));
            }
            return Ok(());
        }
        copy.queue.push(entry);
        copy.order.push(request);
        self.dispatch(record.copy)
    }

    pub(super) fn flush(&mut self, incarnation: Incarnation) -> Verdict {
        let copy = self.copies.get_mut(&incarnation).ok_or("no such copy")?;
        copy.queue.append(&mut copy.turn);
        copy.order.append(&mut copy.turn_order);
        self.dispatch(incarnation)
    }

    pub(super) fn wake(&mut self, incarnation: Incarnation) -> Verdict {
        self.copies.get_mut(&incarnation).ok_or("no such copy")?.wake = None;
        self.dispatch(incarnation)
    }

    pub(super) fn run_ends(&mut self, incarnation: Incarnation, instance: usize) -> Verdict {
        self.check_usable(incarnation)?;
        let copy = self.copies.get_mut(&incarnation).ok_or("no such copy")?;
        let run = copy.instances[instance].take().ok_or("a run that never began")?;
        for request in run.batch {
            self.deliver(request, if run.fails { Answer::Failed } else { Answer::Ok });
        }
        self.dispatch(incarnation)
    }

    /// Every idle instance pulls what the policy lets it.
    fn dispatch(&mut self, incarnation: Incarnation) -> Verdict {
        loop {
            let now = self.now;
            let copy = self.copies.get_mut(&incarnation).ok_or("no such copy")?;
            let Some(instance) = copy.instances.iter().position(Option::is_none) else { return Ok(()) };
            match policy::dispatch(copy.queue.head(), &copy.policy, now) {
                Dispatch::Idle => return Ok(()),
                Dispatch::WaitUntil(due) => {
                    if copy.wake.is_none_or(|wake| wake > due.as_ns()) {
                        copy.wake = Some(due.as_ns());
                        self.after(due.ns_since(now), Event::Wake(incarnation));
                    }
                    return Ok(());
                }
                Dispatch::Run { rows_max } => self.pull(incarnation, instance, rows_max)?,
            }
        }
    }

    fn pull(&mut self, incarnation: Incarnation, instance: usize, rows_max: usize) -> Verdict {
        let taken = self.take(incarnation, rows_max);
        self.note(|| format!("  {incarnation} runs {:?}, drops {:?}", taken.batch, taken.dropped));
        self.check_taken(incarnation, &taken)?;
        let copy = self.copies.get_mut(&incarnation).ok_or("no such copy")?;
        copy.order.retain(|request| !taken.batch.contains(request) && !taken.dropped.contains(request));
        for request in taken.dropped {
            self.deliver(request, Answer::Expired);
        }
        if taken.batch.is_empty() {
            return Ok(());
        }
        self.counts.batches += 1;
        self.counts.shared_batches += u64::from(taken.batch.len() > 1);
        taken.batch.iter().for_each(|&request| self.requests[request].runs += 1);
        let rows: usize = taken.batch.iter().map(|&request| self.requests[request].rows).sum();
        let cost_ns = (300_000 + 60_000 * rows as u64) * self.random.between(50, 150) / 100;
        let group = &self.requests[taken.batch[0]].group;
        let fails = self.random.percent(4);
        let copy = self.copies.get_mut(&incarnation).ok_or("no such copy")?;
        copy.costs.table(group).record(rows, cost_ns, cost_ns);
        copy.instances[instance] = Some(Run { batch: taken.batch, ends: self.now.plus_ns(cost_ns), fails });
        self.after(cost_ns, Event::RunEnds(incarnation, instance));
        Ok(())
    }

    /// As `Batch::fill` of the runtime.
    fn take(&mut self, incarnation: Incarnation, rows_max: usize) -> Taken {
        let (now, fault, requests) = (self.now, self.fault, &self.requests);
        let copy = self.copies.get_mut(&incarnation).expect("copies are kept");
        let rows = copy.queue.head().map_or(0, |head| head.rows.min(rows_max));
        let costs = &copy.costs;
        let mut gone = |entry: &Entry<usize>| {
            let cost_ns = costs.table(&entry.group).median_ns(rows).unwrap_or(0);
            let left = requests[entry.payload].answer.is_some() && fault != Some(Fault::ForgetsCancelled);
            left || policy::too_late(entry.deadline, now, cost_ns)
        };
        let (mut batch, mut dropped) = (Vec::new(), Vec::new());
        copy.queue.take(rows_max, &mut gone, &mut batch, &mut dropped);
        if fault == Some(Fault::MixesGroups) {
            copy.queue.take(rows_max, &mut gone, &mut batch, &mut dropped);
        }
        let late = dropped.iter().all(|entry| {
            let cost_ns = costs.table(&entry.group).median_ns(rows).unwrap_or(0);
            requests[entry.payload].answer.is_some() || policy::too_late(entry.deadline, now, cost_ns)
        });
        let ids = |entries: Vec<Entry<usize>>| entries.into_iter().map(|entry| entry.payload).collect();
        Taken { rows_max, batch: ids(batch), dropped: ids(dropped), dropped_rightly: late }
    }
}
