//! What requests see: every model with its versions and labels, in one immutable value behind one pointer.
//! Only the lifecycle manager stores into it. Must not know how versions come and go.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwap;
use gannet_models::{ModelName, Version};

use crate::{
    InferError,
    control::lifecycle::{State, VersionStatus},
    metrics::LoadCounts,
    servable::Servable,
};

/// All models at one moment.
#[derive(Debug, Default)]
pub struct ServingTable {
    models: HashMap<ModelName, ModelEntry>,
}

/// One model at one moment.
#[derive(Debug)]
pub struct ModelEntry {
    /// Its versions, ascending.
    pub versions: Vec<VersionEntry>,
    /// Names for versions.
    pub labels: BTreeMap<String, Version>,
    /// Loads and swaps by version.
    pub loads: BTreeMap<String, LoadCounts>,
}

/// One version at one moment.
#[derive(Debug)]
pub struct VersionEntry {
    /// Version, state and reason.
    pub status: VersionStatus,
    /// Present while the state is [`State::Ready`].
    pub servable: Option<Arc<Servable>>,
}

/// The pointer that requests read and the manager stores into.
#[derive(Debug, Clone, Default)]
pub struct TableReader(Arc<ArcSwap<ServingTable>>);

impl TableReader {
    /// The table now. Keep it for the length of a listing, never across an await on the data path.
    #[must_use]
    pub fn snapshot(&self) -> Arc<ServingTable> {
        self.0.load_full()
    }

    /// The servable that answers for `model` and, if given, `version` (a version or a label).
    ///
    /// # Errors
    /// [`InferError::UnknownModel`], [`InferError::UnknownVersion`], [`InferError::NotReady`],
    /// [`InferError::NoVersion`].
    pub fn resolve(&self, model: &str, version: Option<&str>) -> Result<Arc<Servable>, InferError> {
        self.0.load().resolve(model, version).cloned()
    }

    /// The manager's end.
    pub(crate) fn publish(&self, table: ServingTable) {
        self.0.store(Arc::new(table));
    }
}

impl ServingTable {
    /// A table of these models.
    pub(crate) fn new(models: HashMap<ModelName, ModelEntry>) -> Self {
        Self { models }
    }

    /// The entry of a model.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&ModelEntry> {
        self.models.get(name)
    }

    /// All models by name.
    #[must_use]
    pub fn models(&self) -> BTreeMap<&ModelName, &ModelEntry> {
        self.models.iter().collect()
    }

    /// See [`TableReader::resolve`].
    ///
    /// # Errors
    /// As there.
    pub fn resolve(&self, model: &str, version: Option<&str>) -> Result<&Arc<Servable>, InferError> {
        let Some((name, entry)) = self.models.get_key_value(model) else {
            return Err(InferError::UnknownModel(model.to_owned()));
        };
        match version {
            None => entry
                .latest()
                .ok_or_else(|| InferError::NoVersion { model: name.clone(), reason: entry.summary() }),
            Some(version) => entry.named(name, version),
        }
    }
}

impl ModelEntry {
    /// The highest version that answers requests.
    #[must_use]
    pub fn latest(&self) -> Option<&Arc<Servable>> {
        self.versions.iter().rev().find_map(|version| version.servable.as_ref())
    }

    /// The entry of a version or label.
    #[must_use]
    pub fn version(&self, text: &str) -> Option<&VersionEntry> {
        let named = |text: &str| self.versions.iter().find(|entry| entry.status.version.as_str() == text);
        named(text).or_else(|| named(self.labels.get(text)?.as_str()))
    }

    fn named(&self, model: &ModelName, text: &str) -> Result<&Arc<Servable>, InferError> {
        let Some(entry) = self.version(text) else {
            return Err(InferError::UnknownVersion {
                model: model.clone(),
                version: text.to_owned(),
                served: self.summary(),
            });
        };
        entry.servable.as_ref().ok_or_else(|| InferError::NotReady {
            model: model.clone(),
            version: entry.status.version.clone(),
            reason: entry.status.describe(),
        })
    }

    /// All versions with their states, and labels, on one line.
    fn summary(&self) -> String {
        let versions = self.versions.iter().map(|v| format!("{} {}", v.status.version, v.status.describe()));
        let labels = self.labels.iter().map(|(label, version)| format!("label {label} = {version}"));
        let all: Vec<String> = versions.chain(labels).collect();
        if all.is_empty() { "no version was found".into() } else { all.join("; ") }
    }
}

impl VersionStatus {
    /// State and reason on one line.
    #[must_use]
    pub fn describe(&self) -> String {
        match self.reason.as_str() {
            "" => self.state.index_name().into(),
            reason => format!("{}: {reason}", self.state.index_name()),
        }
    }

    /// Whether it answers requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }
}
