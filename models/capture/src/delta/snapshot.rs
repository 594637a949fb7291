//! What a log adds up to, and how it goes on. Must not know what files hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    action::{self, Action, Add, Metadata, Protocol, Remove},
    checkpoint,
};
use crate::{CaptureError, Storage};

/// Commits from one checkpoint to the next.
const CHECKPOINT_EVERY: u64 = 10;
/// Times that somebody else may be first.
const ATTEMPTS_MAX: usize = 100;
/// Commits behind a checkpoint that are read, at most: more would be a log that is not ours.
const COMMITS_MAX: u64 = 1_000_000;
/// How long a file that was removed is remembered, in milliseconds: a day.
const TOMBSTONES_MS: i64 = 86_400_000;

const READER_VERSION: i32 = 1;
const WRITER_VERSION: i32 = 2;

/// A table at one version.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Snapshot {
    /// Of the last commit; `None`: there is no table.
    pub(crate) version: Option<u64>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) metadata: Option<Metadata>,
    /// By path.
    pub(crate) files: BTreeMap<String, Add>,
    /// Files that were removed, by path, as long as they are remembered.
    pub(crate) removed: BTreeMap<String, Remove>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LastCheckpoint {
    version: u64,
    size: u64,
}

pub(crate) fn log_key(root: &str, version: u64) -> String {
    format!("{root}/_delta_log/{version:020}.json")
}

pub(super) fn checkpoint_key(root: &str, version: u64) -> String {
    format!("{root}/_delta_log/{version:020}.checkpoint.parquet")
}

fn last_key(root: &str) -> String {
    format!("{root}/_delta_log/_last_checkpoint")
}

/// The version of the last checkpoint.
pub(crate) fn last_checkpoint(storage: &dyn Storage, root: &str) -> Result<Option<u64>, CaptureError> {
    let key = last_key(root);
    let Some(text) = storage.read(&key)? else { return Ok(None) };
    let last: LastCheckpoint =
        serde_json::from_slice(&text).map_err(|error| CaptureError::damaged(&key, error))?;
    Ok(Some(last.version))
}

/// Brings a snapshot up to the last commit.
pub(crate) fn load(storage: &dyn Storage, root: &str, snapshot: &mut Snapshot) -> Result<(), CaptureError> {
    // commits before a checkpoint may be gone, so what is older than it cannot be read on from
    let checkpoint =
        last_checkpoint(storage, root)?.filter(|last| snapshot.version.is_none_or(|own| own < *last));
    if let Some(version) = checkpoint {
        let key = checkpoint_key(root, version);
        let file = storage
            .read(&key)?
            .ok_or_else(|| CaptureError::damaged(&key, "the last checkpoint is missing"))?;
        let mut read = Snapshot::default();
        checkpoint::read(&key, file)?.into_iter().for_each(|action| read.apply(action));
        read.version = Some(version);
        read.check(&key)?;
        *snapshot = read;
    }
    for _ in 0..COMMITS_MAX {
        let next = snapshot.version.map_or(0, |version| version + 1);
        let key = log_key(root, next);
        let Some(text) = storage.read(&key)? else { return Ok(()) };
        action::read(&key, &text)?.into_iter().for_each(|action| snapshot.apply(action));
        snapshot.version = Some(next);
        snapshot.check(&key)?;
    }
    Err(CaptureError::damaged(root, format!("more than {COMMITS_MAX} commits behind the last checkpoint")))
}

/// Adds a commit behind the last one; whether it was needed, for what is there already is not added again. Removals
/// count only as long as their files are there.
pub(crate) fn commit(
    storage: &dyn Storage,
    root: &str,
    snapshot: &mut Snapshot,
    actions: &[Action],
) -> Result<bool, CaptureError> {
    let bytes = Bytes::from(action::write(actions)?);
    let adds: Vec<&Add> = actions.iter().filter_map(|action| action.add.as_ref()).collect();
    let removes: Vec<&Remove> = actions.iter().filter_map(|action| action.remove.as_ref()).collect();
    for _ in 0..ATTEMPTS_MAX {
        load(storage, root, snapshot)?;
        // a write that seemed to fail may have come through, and its file may have gone since
        let was_there =
            |add: &&Add| snapshot.files.contains_key(&add.path) || snapshot.removed.contains_key(&add.path);
        if !adds.is_empty() && adds.iter().all(was_there) {
            return Ok(false);
        }
        if let Some(gone) = removes.iter().find(|remove| !snapshot.files.contains_key(&remove.path)) {
            return Err(CaptureError::Conflict(format!(
                "{root}: {} was removed by somebody else",
                gone.path
            )));
        }
        let begins = actions.iter().any(|action| action.meta_data.is_some());
        if begins && snapshot.version.is_some() {
            return Ok(false);
        }
        let next = snapshot.version.map_or(0, |version| version + 1);
        if storage.create(&log_key(root, next), bytes.clone())? {
            actions.iter().cloned().for_each(|action| snapshot.apply(action));
            snapshot.version = Some(next);
            if next > 0 && next.is_multiple_of(CHECKPOINT_EVERY) {
                write_checkpoint(storage, root, snapshot)?;
            }
            return Ok(true);
        }
    }
    Err(CaptureError::Conflict(format!("{root}: others were first {ATTEMPTS_MAX} times")))
}

fn write_checkpoint(storage: &dyn Storage, root: &str, snapshot: &Snapshot) -> Result<(), CaptureError> {
    let Some(version) = snapshot.version else { return Ok(()) };
    let actions = snapshot.actions();
    let size = actions.len() as u64;
    storage.put(&checkpoint_key(root, version), checkpoint::write(&actions)?)?;
    let last = serde_json::to_vec(&LastCheckpoint { version, size });
    let last = last.map_err(|error| CaptureError::Unfit(error.to_string()))?;
    storage.put(&last_key(root), Bytes::from(last))
}

impl Snapshot {
    pub(crate) fn apply(&mut self, action: Action) {
        if let Some(protocol) = action.protocol {
            self.protocol = Some(protocol);
        }
        if let Some(metadata) = action.meta_data {
            self.metadata = Some(metadata);
        }
        if let Some(add) = action.add {
            self.removed.remove(&add.path);
            self.files.insert(add.path.clone(), add);
        }
        if let Some(remove) = action.remove {
            self.files.remove(&remove.path);
            self.removed.insert(remove.path.clone(), remove);
        }
        if let Some(info) = action.commit_info {
            self.removed.retain(|_, remove| remove.deletion_timestamp > info.timestamp - TOMBSTONES_MS);
        }
    }

    /// Everything, as a checkpoint says it.
    pub(super) fn actions(&self) -> Vec<Action> {
        let protocol =
            self.protocol.clone().map(|protocol| Action { protocol: Some(protocol), ..Action::default() });
        let metadata =
            self.metadata.clone().map(|data| Action { meta_data: Some(data), ..Action::default() });
        let adds = self.files.values().map(|add| {
            let mut add = add.clone();
            add.data_change = false;
            Action::add(add)
        });
        let removes = self.removed.values().map(|remove| {
            let mut remove = remove.clone();
            remove.data_change = false;
            Action { remove: Some(remove), ..Action::default() }
        });
        protocol.into_iter().chain(metadata).chain(adds).chain(removes).collect()
    }

    /// Whether this release may read and write the table.
    fn check(&self, key: &str) -> Result<(), CaptureError> {
        let Some(protocol) = &self.protocol else {
            return Err(CaptureError::damaged(key, "the table states no protocol"));
        };
        if protocol.min_reader_version > READER_VERSION || protocol.min_writer_version > WRITER_VERSION {
            return Err(CaptureError::damaged(
                key,
                format!(
                    "expected reader version {READER_VERSION} and writer version {WRITER_VERSION} at most, got {} and {}; \
                     somebody else changed the table's protocol",
                    protocol.min_reader_version, protocol.min_writer_version
                ),
            ));
        }
        match &self.metadata {
            None => Err(CaptureError::damaged(key, "the table states no columns")),
            Some(_) => Ok(()),
        }
    }

    /// Bytes of all its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.values().map(|add| u64::try_from(add.size).unwrap_or(0)).sum()
    }
}

impl Protocol {
    pub(crate) fn ours() -> Self {
        Self { min_reader_version: READER_VERSION, min_writer_version: WRITER_VERSION }
    }
}
