//! What keeps a table bounded: old files are taken out of the log first and removed later, and what crashes left behind
//! goes. Must not know when that is done.

use std::collections::BTreeSet;

use crate::{
    CaptureError, Table,
    delta::{Action, commit, last_checkpoint},
    storage::MAKING,
};

/// How long a file that was taken out of the table can still be read, in milliseconds: ten minutes.
const GRACE_MS: i64 = 600_000;
/// How long a file may lie there without being in the log, in milliseconds: a day.
pub(super) const ORPHAN_MS: i64 = 86_400_000;
/// How long commits that a checkpoint holds are kept, in milliseconds: a day.
const LOG_MS: i64 = 86_400_000;

/// What is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// How long rows are kept, in milliseconds; `None`: for ever.
    pub retention_ms: Option<i64>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// Files taken out of the table.
    pub removed: u64,
    /// Files that were deleted: taken out long enough ago, or never put in.
    pub deleted: u64,
    /// Bytes of what is left, what waits for its deletion included.
    pub bytes: u64,
}

impl Table {
    /// Takes out what is too old, and deletes what nobody reads any more.
    ///
    /// # Errors
    /// [`CaptureError::Store`] and [`CaptureError::Conflict`]: the next time does the rest.
    pub fn keep(&mut self, keep: Keep, now_ms: i64) -> Result<Kept, CaptureError> {
        let mut kept = Kept::default();
        self.refresh()?;
        if let Some(retention_ms) = keep.retention_ms {
            let old = |added_ms: i64| added_ms < now_ms.saturating_sub(retention_ms);
            let files = self.snapshot.files.values().filter(|add| old(add.modification_time));
            let mut actions: Vec<Action> = files.map(|add| Action::remove(add, now_ms)).collect();
            if !actions.is_empty() {
                kept.removed = actions.len() as u64;
                actions.insert(0, Action::info("DELETE", now_ms));
                commit(&*self.storage, &self.root, &mut self.snapshot, &actions)?;
            }
        }
        self.sweep(now_ms, &mut kept)?;
        Ok(kept)
    }

    fn sweep(&self, now_ms: i64, kept: &mut Kept) -> Result<(), CaptureError> {
        let checkpoint = last_checkpoint(&*self.storage, &self.root)?.unwrap_or(0);
        let live: BTreeSet<String> = self.snapshot.files.keys().map(|path| self.key(path)).collect();
        let log = self.key("_delta_log/");
        for item in self.storage.list(&self.root)? {
            let since = |from_ms: i64, span_ms: i64| from_ms < now_ms.saturating_sub(span_ms);
            let name = item.key.rsplit('/').next().unwrap_or_default();
            let path = item.key.strip_prefix(&self.root).map(|path| path.trim_start_matches('/'));
            let removed = path.and_then(|path| self.snapshot.removed.get(path));
            let goes = if let Some(name) = item.key.strip_prefix(&log) {
                let number = name.split('.').next().and_then(|number| number.parse::<u64>().ok());
                let is_old = number.is_some_and(|number| number < checkpoint);
                (is_old || name.starts_with(MAKING)) && since(item.modified_ms, LOG_MS)
            } else if live.contains(&item.key) {
                false
            } else if let Some(remove) = removed {
                since(remove.deletion_timestamp, GRACE_MS)
            } else {
                (name.ends_with(".parquet") || name.starts_with(MAKING)) && since(item.modified_ms, ORPHAN_MS)
            };
            if goes {
                self.storage.delete(&item.key)?;
                kept.deleted += 1;
            } else {
                kept.bytes += item.size;
            }
        }
        Ok(())
    }
}
