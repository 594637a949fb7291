//! Erasing a request: files that hold it are written again without it, and the old ones are deleted at once. Must not
//! know who asks.

use arrow_array::{Array as _, BooleanArray, RecordBatch, cast::AsArray as _};
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;

use super::{File, keep::ORPHAN_MS};
use crate::{
    CaptureError, Table, decode,
    delta::{Action, Add, commit},
    encode,
    layout::PARTITION,
};

/// Times that a server may be first.
const ATTEMPTS_MAX: usize = 16;

/// What was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Erased {
    /// Rows.
    pub rows: u64,
    /// Files that held them.
    pub files: u64,
    /// Files that hold the request and are just being added: ask again once they are.
    pub being_written: u64,
}

impl Table {
    /// Erases every row of a request, from the table and from files that are not in it any more.
    ///
    /// # Errors
    /// [`CaptureError::Store`], [`CaptureError::Conflict`]: ask again; nothing is half done.
    pub fn erase(&mut self, id: &str, now_ms: i64) -> Result<Erased, CaptureError> {
        let mut tried =
            Err(CaptureError::Conflict(format!("{}: others were first {ATTEMPTS_MAX} times", self.root)));
        for _ in 0..ATTEMPTS_MAX {
            self.refresh()?;
            // after a conflict somebody has removed or added meanwhile: look again
            match self.erase_once(id, now_ms) {
                Err(CaptureError::Conflict(_)) => {}
                done => {
                    tried = done;
                    break;
                }
            }
        }
        let mut erased = tried?;
        self.erase_outside(id, now_ms, &mut erased)?;
        Ok(erased)
    }

    fn erase_once(&mut self, id: &str, now_ms: i64) -> Result<Erased, CaptureError> {
        let mut erased = Erased::default();
        let mut actions = vec![Action::info("DELETE", now_ms)];
        let mut old: Vec<Add> = Vec::new();
        let mut written: Vec<String> = Vec::new();
        for add in self.snapshot.files.values() {
            let file = self.read_file(&add.path)?;
            let held = count(&add.path, file.clone(), id)?;
            if held == 0 {
                continue;
            }
            erased.rows += held;
            erased.files += 1;
            actions.push(Action::remove(add, now_ms));
            old.push(add.clone());
            let date = add.partition_values.get(PARTITION).cloned().flatten().unwrap_or_default();
            if let Some((content, rows)) = self.without(&add.path, file, id)? {
                let new = File::new("erased", &date, content, rows);
                self.storage.put(&self.key(&new.path), new.content.clone())?;
                written.push(new.path.clone());
                let mut action = new.action(now_ms);
                // it is as old as it was: erasing does not make rows live longer
                if let Some(new) = &mut action.add {
                    new.modification_time = add.modification_time;
                }
                actions.push(action);
            }
        }
        if old.is_empty() {
            return Ok(erased);
        }
        if let Err(error) = commit(&*self.storage, &self.root, &mut self.snapshot, &actions) {
            for path in &written {
                self.storage.delete(&self.key(path))?;
            }
            return Err(error);
        }
        for add in &old {
            self.storage.delete(&self.key(&add.path))?;
        }
        Ok(erased)
    }

    /// A file's rows but those of the request; `None` when no others are left.
    fn without(&self, path: &str, file: Bytes, id: &str) -> Result<Option<(Bytes, u64)>, CaptureError> {
        let mut kept: Vec<RecordBatch> = Vec::new();
        for batch in decode::batches(path, file, None)? {
            let batch = batch?;
            let others: BooleanArray = holds(path, &batch, id)?.into_iter().map(|held| Some(!held)).collect();
            let batch =
                filter_record_batch(&batch, &others).map_err(|error| CaptureError::damaged(path, error))?;
            if batch.num_rows() > 0 {
                kept.push(batch);
            }
        }
        let rows = kept.iter().map(RecordBatch::num_rows).sum::<usize>() as u64;
        if rows == 0 {
            return Ok(None);
        }
        Ok(Some((encode::write(&kept, &self.layout)?, rows)))
    }

    /// Files that were taken out of the table and not deleted yet, and those that a crash left.
    fn erase_outside(&self, id: &str, now_ms: i64, erased: &mut Erased) -> Result<(), CaptureError> {
        for item in self.storage.list(&self.root)? {
            let path = item.key.strip_prefix(&self.root).unwrap_or_default().trim_start_matches('/');
            if !path.ends_with(".parquet")
                || path.starts_with("_delta_log")
                || self.snapshot.files.contains_key(path)
            {
                continue;
            }
            let Some(file) = self.storage.read(&item.key)? else { continue };
            // what cannot be read was not written whole, and is in no table
            let held = count(path, file, id).unwrap_or(0);
            if held == 0 {
                continue;
            }
            let is_out = self.snapshot.removed.contains_key(path);
            if is_out || item.modified_ms < now_ms.saturating_sub(ORPHAN_MS) {
                self.storage.delete(&item.key)?;
                erased.files += 1;
            } else {
                erased.being_written += 1;
            }
        }
        Ok(())
    }
}

/// By row of a batch: whether it is the request's.
fn holds(path: &str, batch: &RecordBatch, id: &str) -> Result<Vec<bool>, CaptureError> {
    let ids = batch.column_by_name("request_id").and_then(|column| column.as_string_opt::<i32>());
    let ids = ids.ok_or_else(|| CaptureError::damaged(path, "the column 'request_id' is missing"))?;
    Ok((0..ids.len()).map(|row| !ids.is_null(row) && ids.value(row) == id).collect())
}

/// How many rows of a file are the request's.
fn count(path: &str, file: Bytes, id: &str) -> Result<u64, CaptureError> {
    let mut count = 0;
    for batch in decode::batches(path, file, Some(&["request_id"]))? {
        count += holds(path, &batch?, id)?.into_iter().filter(|held| *held).count() as u64;
    }
    Ok(count)
}
