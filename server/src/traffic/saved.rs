//! The file of routes and labels in the state folder: replaced as a whole, so that a crash leaves the one before or
//! the new one. Must not know what is in a route.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use gannet_models::ModelName;
use gannet_runtime::{control::rollout::bandit::Arm as Rewards, route::RouteFile};
use serde::{Deserialize, Serialize};

use super::{Labels, SavedMove};

/// The form of the file; another release may have another.
const FORMAT: u32 = 1;

/// What to do about a file that cannot be used.
pub(super) const ADVICE: &str =
    "put back a copy that is whole, or remove the file to begin without routes and labels";

/// Everything that was set by calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    format: u32,
    /// Counts the changes of all routes, so that no revision comes twice.
    pub revision: u64,
    /// By model.
    pub models: BTreeMap<ModelName, SavedModel>,
}

/// What was set of one model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedModel {
    /// Its route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<SavedRoute>,
    /// Its labels; `null`: taken away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// What a route that learns has learnt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewards: Vec<Rewards>,
    /// The move of a registry's pointer that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_move: Option<SavedMove>,
}

/// A route and when it was set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedRoute {
    /// The change that set it.
    pub revision: u64,
    /// As it was written.
    pub route: RouteFile,
}

/// Where the file is.
#[derive(Debug)]
pub(super) struct SavedFile {
    folder: PathBuf,
    path: PathBuf,
}

/// The right to write it: one process has it, and loses it with its life.
#[derive(Debug)]
pub(super) struct Writer(#[expect(dead_code, reason = "the lock goes with the file")] File);

impl Default for Saved {
    fn default() -> Self {
        Self { format: FORMAT, revision: 0, models: BTreeMap::new() }
    }
}

impl SavedFile {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.to_owned(), path: state_dir.join("traffic.json") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the right to write; `None`: another process has it.
    pub(super) fn lock(&self) -> io::Result<Option<Writer>> {
        let path = self.folder.join("traffic.lock");
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        fs::create_dir_all(&self.folder).map_err(named)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(named)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Writer(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(named(error)),
        }
    }

    /// What is saved; nothing where there is no file.
    pub(super) fn read(&self) -> Result<Saved, String> {
        let path = self.path.display();
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
            Err(error) => return Err(format!("{path} cannot be read: {error}")),
        };
        let saved: Saved = serde_json::from_slice(&bytes)
            .map_err(|error| format!("{path}: expected saved routes and labels: {error}; {ADVICE}"))?;
        if saved.format != FORMAT {
            let got = saved.format;
            return Err(format!(
                "{path}: expected format {FORMAT}, got {got}: another release wrote it; {ADVICE}"
            ));
        }
        Ok(saved)
    }

    /// Replaces the file; it is on the disk when this returns.
    pub(super) fn write(&self, _: &Writer, saved: &Saved) -> io::Result<()> {
        let beside = self.folder.join("traffic.json.new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(saved)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use gannet_models::Version;
    use gannet_runtime::route::WeightFile;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_one_process_writes() {
        let folder = tempfile::tempdir().unwrap();
        let file = SavedFile::new(folder.path());
        assert_eq!(file.read().unwrap(), Saved::default());
        let writer = file.lock().unwrap().unwrap();
        assert!(file.lock().unwrap().is_none(), "a second one may not write");
        let mut saved = Saved { revision: 7, ..Saved::default() };
        let split = vec![WeightFile { version: "1".into(), weight_bp: 10_000 }];
        let route = RouteFile { split, ..RouteFile::default() };
        let labels = [("next", Some(Version::new("2").unwrap())), ("old", None)];
        let labels = labels.map(|(label, version)| (label.to_owned(), version)).into();
        let model = SavedModel {
            route: Some(SavedRoute { revision: 7, route }),
            labels,
            rewards: Vec::new(),
            alias_move: None,
        };
        saved.models.insert(ModelName::new("m").unwrap(), model);
        file.write(&writer, &saved).unwrap();
        assert_eq!(file.read().unwrap(), saved);
        drop(writer);
        assert!(file.lock().unwrap().is_some(), "the right to write goes with who has it");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = SavedFile::new(folder.path());
        let check = |text: &str, part: &str| {
            fs::write(file.path(), text).unwrap();
            let why = file.read().unwrap_err();
            assert!(why.contains(part) && why.contains("traffic.json") && why.contains(ADVICE), "{why}");
        };
        check("{\"format\": 1, ", "line 1");
        check("{\"format\": 2, \"revision\": 0, \"models\": {}}", "expected format 1, got 2");
        check("{\"format\": 1, \"revision\": 0, \"models\": {}, \"more\": 1}", "unknown field `more`");
    }
}
