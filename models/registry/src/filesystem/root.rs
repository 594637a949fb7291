//! One path given on the command line, remembered from look to look. Must not know of other paths.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use gannet_models::{
    ModelName, ModelSettings, Version, VersionLocation,
    scan::{Entry, entry, fingerprint, is_ignored, scan_under},
};

use super::{
    FilesystemOptions,
    layout::Layout,
    model::{Look, ModelFolder},
    settle::Settle,
};
use crate::{AspiredModel, AspiredVersion};

/// A root and what is known of it.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) path: PathBuf,
    layout: Layout,
    /// What folder the root was when it was last read.
    identity: Option<Identity>,
    models: BTreeMap<ModelName, Known>,
    /// A file given by itself, instead of `models`.
    file: Option<Settle<u64>>,
    file_aspired: Option<AspiredModel>,
    looked: bool,
    /// Why and since when the root cannot be read.
    pub(super) stale: Option<(String, u64)>,
    pub(super) problems: Vec<String>,
}

#[derive(Debug)]
struct Known {
    folder: ModelFolder,
    present: Settle<bool>,
}

impl Root {
    pub(super) fn new(path: PathBuf, layout: Layout) -> Self {
        let identity = identity(&path).ok();
        Self {
            path,
            layout,
            identity,
            models: BTreeMap::new(),
            file: None,
            file_aspired: None,
            looked: false,
            stale: None,
            problems: Vec::new(),
        }
    }

    /// What was said last, which still stands while the root is stale.
    pub(super) fn aspired(&self) -> impl Iterator<Item = &AspiredModel> {
        self.models.values().filter_map(|known| known.folder.last()).chain(&self.file_aspired)
    }

    /// Whether something in it has not been at rest for long enough to count.
    pub(super) fn is_settling(&self) -> bool {
        let model = |known: &Known| known.present.settled().is_none() || known.folder.is_settling();
        self.models.values().any(model) || self.file.as_ref().is_some_and(|file| file.settled().is_none())
    }

    /// Looks at the root.
    pub(super) fn poll(&mut self, now_ms: u64, options: &FilesystemOptions) {
        let result = match self.layout.clone() {
            Layout::File { name, stored_as } => self.poll_file(&name, &stored_as, now_ms, options),
            Layout::Model(name) => {
                self.poll_folders(now_ms, options, |root| Ok(vec![(name.clone(), root.into())]))
            }
            Layout::Repository => {
                let mut problems = Vec::new();
                let canonical = self.path.canonicalize();
                let result = self.poll_folders(now_ms, options, |root| {
                    model_folders(root, &canonical?, options.models_max, &mut problems)
                });
                self.problems = problems;
                result
            }
        };
        match result {
            Ok(()) => {
                self.stale = None;
                self.looked = true;
            }
            Err(reason) => {
                let since_ms = self.stale.take().map_or(now_ms, |(_, since_ms)| since_ms);
                self.stale = Some((format!("{}: {reason}", self.path.display()), since_ms));
            }
        }
    }

    /// Polls every model folder that `find` finds. The error says why the root counts as vanished.
    fn poll_folders(
        &mut self,
        now_ms: u64,
        options: &FilesystemOptions,
        find: impl FnOnce(&Path) -> io::Result<Vec<(ModelName, PathBuf)>>,
    ) -> Result<(), String> {
        let unreadable = |error: io::Error| format!("cannot be read: {error}; what was there last stays");
        let now = identity(&self.path).map_err(unreadable)?;
        let canonical_root = self.path.canonicalize().map_err(unreadable)?;
        fs::read_dir(&self.path).map_err(unreadable)?;
        let found = find(&self.path).map_err(unreadable)?;
        let replaced = self.identity.is_some_and(|before| before != now);
        if replaced && found.iter().all(|(_, path)| is_bare(path)) {
            return Err(
                "was replaced by a folder without models, as when a volume is unmounted; what was there \
                        last stays"
                    .to_owned(),
            );
        }
        self.identity = Some(now);
        let root = self.path.clone();
        let look =
            Look { now_ms, first: !self.looked, options, root: &root, canonical_root: &canonical_root };
        for (name, known) in &mut self.models {
            if found.binary_search_by(|(found, _)| found.cmp(name)).is_err() {
                known.present.observe(false, now_ms, options.settle_ms);
            }
        }
        self.models.retain(|_, known| known.present.settled() != Some(&false));
        for (name, path) in found {
            let known = self.models.entry(name.clone()).or_insert_with(|| Known {
                folder: ModelFolder::new(name, path),
                present: Settle::new(true, now_ms, true),
            });
            known.present.observe(true, now_ms, options.settle_ms);
            known.folder.poll(&look);
        }
        Ok(())
    }

    fn poll_file(
        &mut self,
        name: &ModelName,
        stored_as: &str,
        now_ms: u64,
        options: &FilesystemOptions,
    ) -> Result<(), String> {
        let root = self.path.parent().unwrap_or(Path::new("")).to_owned();
        let location = VersionLocation {
            path: self.path.clone(),
            root: root.clone(),
            stored_as: Some(stored_as.to_owned()),
        };
        let files = scan_under(&location, &root, &options.limits)
            .map_err(|error| format!("cannot be read: {error}; what was there last stays"))?;
        let seen = fingerprint(&files);
        let look = Look { now_ms, first: !self.looked, options, root: &root, canonical_root: &root };
        let rested = look.rested(files.iter().map(|file| file.stamp));
        let settle = self.file.get_or_insert_with(|| Settle::new(seen, now_ms, rested));
        settle.observe(seen, now_ms, options.settle_ms);
        if let Some(&fingerprint) = settle.settled() {
            let version = Version::new("1").map_err(|error| error.to_string())?;
            let versions =
                vec![AspiredVersion { version, location, fingerprint, stored: None, origin: None }];
            self.file_aspired = Some(AspiredModel {
                name: name.clone(),
                settings: Arc::new(ModelSettings::default()),
                available: versions.clone(),
                versions,
                problems: Vec::new(),
            });
        }
        Ok(())
    }
}

/// Device, inode and time of birth, which tells apart two folders that had the same inode one after the other.
type Identity = (u64, u64, Option<SystemTime>);

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), metadata.created().ok()))
}

/// Whether a model's folder holds nothing that Gannet would look at. (A repository finds no folder at all.)
fn is_bare(path: &Path) -> bool {
    let hidden = |item: &io::Result<fs::DirEntry>| {
        item.as_ref().is_ok_and(|item| item.file_name().to_str().is_none_or(is_ignored))
    };
    fs::read_dir(path).map_or(true, |mut items| items.all(|item| hidden(&item)))
}

/// The folders of a repository, sorted, as far as their names are model names.
fn model_folders(
    root: &Path,
    canonical_root: &Path,
    models_max: usize,
    problems: &mut Vec<String>,
) -> io::Result<Vec<(ModelName, PathBuf)>> {
    let mut folders = Vec::new();
    for item in fs::read_dir(root)? {
        let item = item?;
        let name = item.file_name();
        let Some(name) = name.to_str().filter(|name| !is_ignored(name)) else { continue };
        match entry(&item, canonical_root) {
            Ok(Entry::Folder) => match ModelName::new(name) {
                Ok(name) => folders.push((name, item.path())),
                Err(error) => problems.push(format!("{}: {error}", item.path().display())),
            },
            Ok(Entry::File(_) | Entry::Other) => {}
            Err(error) => problems.push(error.to_string()),
        }
    }
    folders.sort();
    if folders.len() > models_max {
        problems.push(format!(
            "{}: expected at most {models_max} models, got {}; the rest, from '{}' on, is left out",
            root.display(),
            folders.len(),
            folders[models_max].0
        ));
        folders.truncate(models_max);
    }
    Ok(folders)
}
