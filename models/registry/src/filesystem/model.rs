//! One model's folder, remembered from look to look: what of it has settled, and what was good last.
//! Must not know of other models, nor of roots that vanish.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use gannet_models::{
    ModelError, ModelName, ModelSettings, SETTINGS_FILES, Version, VersionLocation, read_settings,
    scan::{Entry, ScannedFile, Stamp, entry, fingerprint, is_ignored, scan_under},
};

use super::{FilesystemOptions, settle::Settle};
use crate::{AspiredModel, AspiredVersion, beside};

/// When and how a look is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) now_ms: u64,
    /// Whether nothing was looked at before: then files that were left alone for long enough count at once.
    pub(super) first: bool,
    pub(super) options: &'a FilesystemOptions,
    /// The folder that links must not leave, as given and as it is.
    pub(super) root: &'a Path,
    pub(super) canonical_root: &'a Path,
}

impl Look<'_> {
    /// Whether a file of this age may count at the first look.
    pub(super) fn rested(&self, stamps: impl IntoIterator<Item = Stamp>) -> bool {
        let latest = (i128::from(self.now_ms) - i128::from(self.options.settle_ms)) * 1_000_000;
        self.first && stamps.into_iter().all(|stamp| stamp.modified_ns <= latest)
    }
}

/// A model's folder.
#[derive(Debug)]
pub(super) struct ModelFolder {
    name: ModelName,
    path: PathBuf,
    settings: SettingsState,
    versions: BTreeMap<Version, VersionState>,
    /// The answer before, which stands while the folder cannot be understood.
    last: Option<AspiredModel>,
}

#[derive(Debug, Default)]
struct SettingsState {
    seen: Option<Settle<u64>>,
    /// The settled state that was read.
    read: Option<u64>,
    good: Option<Arc<ModelSettings>>,
    problem: Option<String>,
}

#[derive(Debug)]
struct VersionState {
    seen: Settle<Content>,
    /// The fingerprint of the last settled content that had a model file.
    good: Option<u64>,
}

/// What a version's folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Missing,
    Empty,
    NoModelFile(u64),
    Model(u64),
}

/// What lies directly in a model's folder.
#[derive(Debug, Default)]
struct Listing {
    files: Vec<ScannedFile>,
    folders: Vec<Version>,
    problems: Vec<String>,
}

impl ModelFolder {
    pub(super) fn new(name: ModelName, path: PathBuf) -> Self {
        Self { name, path, settings: SettingsState::default(), versions: BTreeMap::new(), last: None }
    }

    /// What was said last.
    pub(super) fn last(&self) -> Option<&AspiredModel> {
        self.last.as_ref()
    }

    /// Whether something in it has not been at rest for long enough to count.
    pub(super) fn is_settling(&self) -> bool {
        let versions = self.versions.values().any(|version| version.seen.settled().is_none());
        versions || self.settings.seen.as_ref().is_some_and(|seen| seen.settled().is_none())
    }

    /// Looks at the folder. `None`: it is no model (yet).
    pub(super) fn poll(&mut self, look: &Look<'_>) -> Option<&AspiredModel> {
        let listing = match list(&self.path, look) {
            Ok(listing) => listing,
            Err(error) => return self.keep(vec![error.to_string()]),
        };
        let has_settings_file = listing.files.iter().any(|file| SETTINGS_FILES.contains(&file.name.as_str()));
        self.settings.poll(&self.path, &listing.files, has_settings_file, look);
        let mut problems = listing.problems;
        let version_problems = self.poll_versions(&listing.folders, look);
        if let Some(problem) = self.settings.problem.clone() {
            problems.push(problem);
            return self.keep(problems);
        }
        problems.extend(version_problems);
        let settings = self.settings.good.clone()?;
        let available = self.available(look);
        let good: Vec<Version> = available.iter().map(|aspired| aspired.version.clone()).collect();
        let chosen = settings.version_policy.choose(&good);
        let versions: Vec<AspiredVersion> =
            available.iter().filter(|aspired| chosen.contains(&aspired.version)).cloned().collect();
        let nothing_settling = self.versions.values().all(|version| version.seen.settled().is_some());
        if versions.is_empty() && problems.is_empty() && nothing_settling {
            let model_file = listing.files.iter().any(|file| look.options.known_files.contains(&file.name));
            let served_before = self.last.as_ref().is_some_and(|last| !last.versions.is_empty());
            if has_settings_file || model_file || served_before || !self.versions.is_empty() {
                problems.push(self.nothing_to_serve(look.options));
            }
        }
        let silent = versions.is_empty() && problems.is_empty();
        self.last = (!silent).then(|| AspiredModel {
            name: self.name.clone(),
            settings,
            versions,
            available,
            problems,
        });
        self.last.as_ref()
    }

    /// The last good answer stands, with what keeps a new one from being given.
    fn keep(&mut self, problems: Vec<String>) -> Option<&AspiredModel> {
        let last = self.last.get_or_insert_with(|| AspiredModel {
            name: self.name.clone(),
            settings: Arc::default(),
            versions: Vec::new(),
            available: Vec::new(),
            problems: Vec::new(),
        });
        last.problems = problems;
        Some(last)
    }

    fn poll_versions(&mut self, found: &[Version], look: &Look<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        let settle_ms = look.options.settle_ms;
        for (version, state) in &mut self.versions {
            if !found.contains(version) {
                state.seen.observe(Content::Missing, look.now_ms, settle_ms);
            }
        }
        for version in found {
            let path = self.path.join(version.as_str());
            match content(&path, look) {
                Err(error) => problems.push(error.to_string()),
                Ok((content, rested)) => {
                    let new = || VersionState { seen: Settle::new(content, look.now_ms, rested), good: None };
                    let state = self.versions.entry(version.clone()).or_insert_with(new);
                    state.seen.observe(content, look.now_ms, settle_ms);
                }
            }
        }
        self.versions.retain(|_, state| state.seen.settled() != Some(&Content::Missing));
        for (version, state) in &mut self.versions {
            match state.seen.settled() {
                Some(Content::Model(fingerprint)) => state.good = Some(*fingerprint),
                Some(Content::NoModelFile(_)) => problems.push(format!(
                    "{}: expected {}, got other files only; name the model file so, or move the folder away",
                    self.path.join(version.as_str()).display(),
                    look.options.known_files.join(" or "),
                )),
                Some(Content::Missing | Content::Empty) | None => {}
            }
        }
        problems
    }

    /// Every version whose content is good, ascending.
    fn available(&self, look: &Look<'_>) -> Vec<AspiredVersion> {
        let aspired = |(version, state): (&Version, &VersionState)| {
            let location = VersionLocation {
                path: self.path.join(version.as_str()),
                root: look.root.to_owned(),
                stored_as: None,
            };
            let fingerprint = state.good?;
            Some(AspiredVersion {
                version: version.clone(),
                location,
                fingerprint,
                stored: None,
                origin: None,
            })
        };
        self.versions.iter().filter_map(aspired).collect()
    }

    fn nothing_to_serve(&self, options: &FilesystemOptions) -> String {
        let file = options.known_files.first().map_or("model.onnx", String::as_str);
        let expected = format!("expected a version such as 1/{file}");
        if self.versions.values().any(|version| version.good.is_some()) {
            let found: Vec<&str> = self.versions.keys().map(Version::as_str).collect();
            let (path, found) = (self.path.display(), found.join(", "));
            return format!(
                "{path}: expected one of the versions that the settings name, got {found}; add it or change them"
            );
        }
        format!(
            "{}: {expected}, got none; put the model file into a folder named for its version",
            self.path.display()
        )
    }
}

impl SettingsState {
    fn poll(&mut self, model_dir: &Path, files: &[ScannedFile], has_file: bool, look: &Look<'_>) {
        // The files beside the settings may be label files, which are part of them.
        let seen_now = if has_file { fingerprint(files) } else { 0 };
        let rested = || look.rested(files.iter().map(|file| file.stamp));
        let seen = self.seen.get_or_insert_with(|| Settle::new(seen_now, look.now_ms, rested()));
        seen.observe(seen_now, look.now_ms, look.options.settle_ms);
        let Some(&settled) = seen.settled().filter(|settled| self.read != Some(**settled)) else { return };
        self.read = Some(settled);
        match read_settings(model_dir) {
            Ok(settings) => {
                self.problem = None;
                if self.good.as_deref() != Some(&settings) {
                    self.good = Some(Arc::new(settings));
                }
            }
            Err(error) => self.problem = Some(error.to_string()),
        }
    }
}

fn list(path: &Path, look: &Look<'_>) -> Result<Listing, ModelError> {
    let mut listing = Listing::default();
    for item in fs::read_dir(path).map_err(ModelError::io(path, "list"))? {
        let item = item.map_err(ModelError::io(path, "list"))?;
        let name = item.file_name();
        let Some(name) = name.to_str().filter(|name| !is_ignored(name)) else { continue };
        match entry(&item, look.canonical_root) {
            Ok(Entry::File(stamp)) => {
                listing.files.push(ScannedFile { name: name.to_owned(), path: item.path(), stamp });
            }
            Ok(Entry::Folder) => match Version::new(name) {
                Ok(version) => listing.folders.push(version),
                Err(error) => listing.problems.push(format!("{}: {error}", path.join(name).display())),
            },
            Ok(Entry::Other) => {}
            Err(error) => listing.problems.push(error.to_string()),
        }
    }
    listing.files.sort_by(|a, b| a.name.cmp(&b.name));
    listing.folders.sort();
    Ok(listing)
}

/// What a version's folder holds, and whether it has been so for long enough already.
fn content(path: &Path, look: &Look<'_>) -> Result<(Content, bool), ModelError> {
    let location = VersionLocation { path: path.to_owned(), root: look.root.to_owned(), stored_as: None };
    let mut files = scan_under(&location, look.canonical_root, &look.options.limits)?;
    if files.is_empty() {
        return Ok((Content::Empty, false));
    }
    let has_model_file = files.iter().any(|file| look.options.known_files.contains(&file.name));
    // what the files are held to counts as they do
    files.extend(beside::scanned(path));
    let print = fingerprint(&files);
    let content = if has_model_file { Content::Model(print) } else { Content::NoModelFile(print) };
    // The folder's own time tells of a copy under way that keeps its files' times.
    let folder = || fs::metadata(path).map(|metadata| Stamp::from(&metadata)).ok();
    let rested = look.first && look.rested(files.iter().map(|file| file.stamp).chain(folder()));
    Ok((content, rested))
}
