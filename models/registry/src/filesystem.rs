//! Models in folders. A look reads names, sizes and times; contents are read by whoever copies them.
//!
//! The rules, each with a test in `filesystem/tests.rs`:
//! * Nothing counts until it looked the same for `settle_ms`: new versions, new content, changed settings, and
//!   removals too, because many a script removes a folder before it copies the new one. At the first look, what
//!   was modified longer ago than that counts at once.
//! * A root that is missing, unreadable, or replaced by one without models makes the source stale; what it said
//!   last stands. Removing versions or models from a root that is still the same is a wish.
//! * A model whose settings are broken keeps its last good settings and versions. A version whose folder lost its
//!   model file keeps its last good content: only removing the folder removes the version.
//! * What is wrong with one model is told with that model, and touches no other.
//!
//! Must not know how versions are fetched or loaded.

mod layout;
mod model;
mod root;
mod settle;

use std::{collections::BTreeMap, path::PathBuf};

use gannet_models::{IngestLimits, ModelName};

use self::root::Root;
use crate::{AspiredModel, Poll, RegistryError, Source, SourceHealth};

/// How folders are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesystemOptions {
    /// How long something must look the same before it counts, in milliseconds.
    pub settle_ms: u64,
    /// The model files that backends know, such as `model.onnx`.
    pub known_files: Vec<String>,
    /// Models of one root, at most.
    pub models_max: usize,
    /// Files and bytes of one version, at most.
    pub limits: IngestLimits,
}

impl Default for FilesystemOptions {
    fn default() -> Self {
        Self {
            settle_ms: 500,
            known_files: vec!["model.onnx".to_owned()],
            models_max: 10_000,
            limits: IngestLimits::default(),
        }
    }
}

/// A source that watches folders and files.
#[derive(Debug)]
pub struct FilesystemSource {
    options: FilesystemOptions,
    roots: Vec<Root>,
    last: Vec<AspiredModel>,
}

impl FilesystemSource {
    /// Looks at what each path is: a repository, one model's folder, or a model file.
    ///
    /// # Errors
    /// [`RegistryError::Roots`] with a line for every path that is none of these.
    pub fn new(paths: Vec<PathBuf>, options: FilesystemOptions) -> Result<Self, RegistryError> {
        let (mut roots, mut faults) = (Vec::new(), Vec::new());
        for path in paths {
            match layout::detect(&path, &options.known_files) {
                Ok(layout) => roots.push(Root::new(path, layout)),
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(RegistryError::Roots(faults));
        }
        Ok(Self { options, roots, last: Vec::new() })
    }

    /// Every root's models; of two with one name, the one of the root given first.
    fn merged(&self) -> Vec<AspiredModel> {
        let mut models: BTreeMap<&ModelName, AspiredModel> = BTreeMap::new();
        for root in &self.roots {
            for model in root.aspired() {
                let first = models.get_mut(&model.name);
                if let Some(first) = first {
                    first.problems.push(format!(
                        "{}: expected model names to differ between roots, got '{}' again; the root given first \
                         wins: rename or remove this one",
                        root.path.display(),
                        model.name
                    ));
                } else {
                    models.insert(&model.name, model.clone());
                }
            }
        }
        models.into_values().collect()
    }

    fn health(&self) -> SourceHealth {
        let stale: Vec<&(String, u64)> = self.roots.iter().filter_map(|root| root.stale.as_ref()).collect();
        match stale.iter().map(|(_, since_ms)| *since_ms).min() {
            None => SourceHealth::Healthy,
            Some(since_ms) => {
                let reasons: Vec<&str> = stale.iter().map(|(reason, _)| reason.as_str()).collect();
                SourceHealth::Stale { reason: reasons.join("\n"), since_ms }
            }
        }
    }
}

impl Source for FilesystemSource {
    fn name(&self) -> &str {
        "filesystem"
    }

    fn poll(&mut self, now_ms: u64) -> Poll {
        for root in &mut self.roots {
            root.poll(now_ms, &self.options);
        }
        let models = self.merged();
        let changed = models != self.last;
        self.last.clone_from(&models);
        let problems = self.roots.iter().flat_map(|root| root.problems.clone()).collect();
        let settling = self.roots.iter().any(Root::is_settling);
        Poll { models, health: self.health(), problems, changed, settling, pending: false, moves: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
