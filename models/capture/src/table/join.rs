//! Joining: many small files of a day become one. Rows stay as they are, none is there twice, and whoever reads the old
//! files meanwhile reads them to their end. Must not know when that is done.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;

use super::{File, rows_of};
use crate::{
    CaptureError, Table, decode,
    delta::{Action, Add, commit},
    encode,
    layout::PARTITION,
};

/// Files of about the same size that are worth joining: each row is written again a few times at most, once for each size.
const TOGETHER_MIN: usize = 8;
/// Bytes below which files are of the smallest size; each further one is as many times larger as files are joined.
const SMALL_BYTES: i64 = 64 << 10;

/// Which files are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join<'a> {
    /// Whose files; `None`: everybody's. Two who join the same get in each other's way.
    pub instance: Option<&'a str>,
    /// Bytes of files together that become one.
    pub bytes_max: u64,
    /// Milliseconds between the oldest and the newest: so much longer the oldest rows live.
    pub span_ms: i64,
}

/// What was joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Joined {
    /// Files before.
    pub files: u64,
    /// Files of them after.
    pub into: u64,
}

impl Table {
    /// Joins files once, as far as the table is known; nothing is asked of the store where none are to be joined.
    ///
    /// # Errors
    /// [`CaptureError::Store`], [`CaptureError::Conflict`]: somebody removed one of them meanwhile. Nothing is half done.
    pub fn join(&mut self, join: &Join<'_>, now_ms: i64) -> Result<Joined, CaptureError> {
        let mut joined = Joined::default();
        let Some(group) = group(self.files(), join) else { return Ok(joined) };
        let mut batches: Vec<RecordBatch> = Vec::new();
        for add in &group {
            for batch in decode::batches(&add.path, self.read_file(&add.path)?, None)? {
                batches.push(batch?);
            }
        }
        let rows = batches.iter().map(RecordBatch::num_rows).sum::<usize>() as u64;
        let content = encode::write(&batches, &self.layout)?;
        let date = group[0].partition_values.get(PARTITION).cloned().flatten().unwrap_or_default();
        let new = File::new(join.instance.unwrap_or("joined"), &date, content, rows);
        let mut actions = vec![Action::info("OPTIMIZE", now_ms)];
        actions.extend(group.iter().map(|add| Action::remove(add, now_ms)));
        let mut action = new.action(now_ms);
        if let Some(add) = &mut action.add {
            add.modification_time = group.iter().map(|add| add.modification_time).max().unwrap_or(now_ms);
        }
        actions.push(action);
        // no row is new, and none is gone
        for action in &mut actions {
            if let Some(add) = &mut action.add {
                add.data_change = false;
            }
            if let Some(remove) = &mut action.remove {
                remove.data_change = false;
            }
        }
        self.storage.put(&self.key(&new.path), new.content.clone())?;
        if let Err(error) = commit(&*self.storage, &self.root, &mut self.snapshot, &actions) {
            // it may hold what somebody has just erased
            self.storage.delete(&self.key(&new.path))?;
            return Err(error);
        }
        joined.files += group.len() as u64;
        joined.into += 1;
        Ok(joined)
    }
}

/// The first files that are to be joined, oldest first. Pure.
fn group<'a>(files: impl Iterator<Item = &'a Add>, join: &Join<'_>) -> Option<Vec<Add>> {
    let bytes_max = i64::try_from(join.bytes_max).unwrap_or(i64::MAX);
    let mut alike: BTreeMap<(String, u32), Vec<&Add>> = BTreeMap::new();
    for add in files {
        let (_, name) = add.path.rsplit_once('/').unwrap_or(("", &add.path));
        let ours = join.instance.is_none_or(|instance| File::is_of(name, instance));
        let date = add.partition_values.get(PARTITION).cloned().flatten();
        if let Some(date) = date.filter(|_| ours && add.size <= bytes_max / 2 && rows_of(add) > 0) {
            alike.entry((date, magnitude(add.size))).or_default().push(add);
        }
    }
    for files in alike.values_mut() {
        files.sort_by_key(|add| (add.modification_time, &add.path));
        let mut rest = &files[..];
        while let Some(first) = rest.first() {
            let mut bytes = 0;
            let fits = |add: &&&Add| {
                bytes += add.size;
                bytes <= bytes_max && add.modification_time - first.modification_time <= join.span_ms
            };
            let count = rest.iter().take_while(fits).count();
            // what fills a file is worth it whatever their number
            if count >= TOGETHER_MIN || (count >= 2 && bytes > bytes_max) {
                return Some(rest[..count].iter().map(|add| (*add).clone()).collect());
            }
            rest = &rest[count.max(1)..];
        }
    }
    None
}

/// How large a file is, in steps of as many times as files are joined.
fn magnitude(size: i64) -> u32 {
    let steps = u64::try_from(size / SMALL_BYTES).unwrap_or(0);
    steps.checked_ilog(TOGETHER_MIN as u64).map_or(0, |steps| steps + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, day: &str, size: i64, at: i64) -> Add {
        Add {
            path: format!("{PARTITION}={day}/{name}.parquet"),
            partition_values: [(PARTITION.to_owned(), Some(day.to_owned()))].into(),
            size,
            modification_time: at,
            data_change: true,
            stats: Some("{\"numRecords\":5}".to_owned()),
        }
    }

    /// As long as what tells files apart.
    fn unique(at: i64) -> String {
        format!("{at:08}-0000-4000-8000-000000000000")
    }

    #[test]
    fn files_that_are_alike_are_joined() {
        let join = Join { instance: Some("host.a"), bytes_max: 1 << 20, span_ms: 1000 };
        let check = |files: &[Add], expected: &[&str]| {
            let found = group(files.iter(), &join).unwrap_or_default();
            let names = found.iter().map(|add| add.path.split(['/', '.']).nth(1).unwrap());
            assert_eq!(names.collect::<Vec<_>>(), expected);
        };
        let many = |count: i64, change: &dyn Fn(i64, &mut Add)| -> Vec<Add> {
            (0..count)
                .map(|at| {
                    let mut add = file(&format!("host-a-{}", unique(at)), "2026-11-01", 1000, at);
                    change(at, &mut add);
                    add
                })
                .collect()
        };
        let names: Vec<String> = (0..8).map(|at| format!("host-a-{}", unique(at))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        check(&many(7, &|_, _| ()), &[]);
        check(&many(8, &|_, _| ()), &names);
        // of one day, of one size, of one writer, of about one time
        check(&many(8, &|at, add| add.size = if at == 3 { 70_000 } else { 1000 }), &[]);
        let other = file("x", "2026-11-02", 1000, 3);
        check(
            &many(8, &|at, add| {
                if at == 3 {
                    add.partition_values.clone_from(&other.partition_values)
                }
            }),
            &[],
        );
        // nor of one whose name only begins as ours does
        for writer in ["host-b", "host-a-b"] {
            let foreign = |at, add: &mut Add| {
                if at == 3 {
                    add.path = format!("{PARTITION}=2026-11-01/{writer}-{}.parquet", unique(3));
                }
            };
            check(&many(8, &foreign), &[]);
        }
        check(&many(8, &|at, add| add.modification_time = at * 150), &[]);
        // as many as fit, and few that fill a file; what is large stays
        let halves = many(9, &|_, add| add.size = 400_000);
        assert_eq!(group(halves.iter(), &join).unwrap().len(), 2);
        check(&many(9, &|_, add| add.size = 600_000), &[]);
    }

    #[test]
    fn sizes_are_told_apart_in_steps() {
        let sizes = [0, 65_535, 65_536, 524_287, 524_288, i64::MAX];
        assert_eq!(sizes.map(magnitude), [0, 0, 1, 1, 2, 16]);
    }
}
