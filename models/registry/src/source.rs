//! What a source says: the whole set of versions that it wants served. Must not know any kind of source.

use std::sync::Arc;

use gannet_models::{Artifact, ModelName, ModelSettings, Version, VersionLocation};

/// Something that models come from.
pub trait Source: Send {
    /// Its name in logs and metrics.
    fn name(&self) -> &str;

    /// Looks, and states everything that is wanted now. `now_ms` is the time since the epoch in milliseconds: it
    /// is compared with the times at which files were modified. Nothing but looking happens here.
    fn poll(&mut self, now_ms: u64) -> Poll;
}

/// One answer of a source. What it does not name is not wanted any more.
#[derive(Debug, Clone, PartialEq)]
pub struct Poll {
    /// Every model, sorted by name.
    pub models: Vec<AspiredModel>,
    /// Whether the source itself can be read.
    pub health: SourceHealth,
    /// What is wrong outside of any model.
    pub problems: Vec<String>,
    /// Whether `models` differs from the answer before.
    pub changed: bool,
    /// Whether something was found that has not been at rest for long enough to count yet.
    pub settling: bool,
    /// Whether a source has not given its first answer yet.
    pub pending: bool,
    /// Pointers that moved since the answer before, and whose move others decide about.
    pub moves: Vec<AliasMoved>,
}

/// A registry's pointer to a version moved, and the source keeps both versions until it is told which one stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasMoved {
    /// The model, by its name here.
    pub model: ModelName,
    /// What served until now.
    pub from: Version,
    /// Where it points to now; it is here already.
    pub to: Version,
}

/// One model, as wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct AspiredModel {
    /// Its name.
    pub name: ModelName,
    /// How to serve it.
    pub settings: Arc<ModelSettings>,
    /// The versions to serve, ascending, the settings' policy applied. Empty: none can be served; see `problems`.
    pub versions: Vec<AspiredVersion>,
    /// Every version that is there, ascending, for those who want others than the settings do.
    pub available: Vec<AspiredVersion>,
    /// What its owner has to mend, a line each.
    pub problems: Vec<String>,
}

/// One version, as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AspiredVersion {
    /// Its name.
    pub version: Version,
    /// Where its files lie.
    pub location: VersionLocation,
    /// Changes when the content may have changed. The same files keep it across restarts.
    pub fingerprint: u64,
    /// The files, where the source has put them into the store already.
    pub stored: Option<Artifact>,
    /// Where it came from, for people; `None`: from `location`.
    pub origin: Option<Arc<str>>,
}

/// Whether a source can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceHealth {
    /// The answer is what lies there now.
    Healthy,
    /// Part of the source cannot be read, and what it said last still stands.
    Stale {
        /// Why, for people.
        reason: String,
        /// Since when, in the time of `poll`.
        since_ms: u64,
    },
}
