//! What requests see: every model with its versions and labels, in one immutable value behind one pointer.
//! Only the lifecycle manager stores into it. Must not know how versions come and go.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwap;
use gannet_models::{ModelName, Version};
use smallvec::SmallVec;

use crate::{
    InferError,
    control::lifecycle::{State, VersionStatus},
    metrics::LoadCounts,
    route::{Arm, LiveRoute, Sticky},
    servable::Servable,
    shadow::{Line, Watcher},
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
    /// Who answers requests that name no version; without one the highest version that is ready does.
    pub route: Option<RouteEntry>,
}

/// A model's route at one moment.
#[derive(Debug)]
pub struct RouteEntry {
    /// The route.
    pub live: Arc<LiveRoute>,
    /// By place in the split: the version that answers, by its place among the versions.
    answers: Vec<Option<usize>>,
    /// By place among the shadows: the way to it.
    pub lines: Vec<Arc<Line>>,
    /// By place among the shadows: the version that sees copies, if it is ready.
    shadows: Vec<Option<usize>>,
}

/// Who is to answer a request.
#[derive(Debug)]
pub struct Routed {
    /// Who answers.
    pub servable: Arc<Servable>,
    /// The arm it is in, if it named no version and the model has a route.
    pub arm: Option<Arm>,
    /// Who sees a copy of it.
    pub shadows: SmallVec<[Watcher; 1]>,
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

    /// Who answers a request to `model` and, if given, `version` (a version or a label). `key` finds the routing key
    /// in the request; it is called only where the model has a route and no version is named, and nothing is
    /// allocated otherwise.
    ///
    /// # Errors
    /// As [`TableReader::resolve`], and what `key` gives.
    pub fn route<'k>(
        &self,
        model: &str,
        version: Option<&str>,
        key: impl FnOnce(&Sticky) -> Result<Cow<'k, [u8]>, InferError>,
    ) -> Result<Routed, InferError> {
        let table = self.0.load();
        let Some((name, entry)) = table.models.get_key_value(model) else {
            return Err(InferError::UnknownModel(model.to_owned()));
        };
        let servable = match (version, &entry.route) {
            (None, None) => entry.latest().ok_or_else(|| entry.no_version(name))?,
            (None, Some(route)) => {
                let key = key(route.live.route.sticky())?;
                return route.choose(entry, &key).ok_or_else(|| entry.no_version(name));
            }
            (Some(version), _) => entry.named(name, version)?,
        };
        Ok(Routed { servable: Arc::clone(servable), arm: None, shadows: SmallVec::new() })
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
            None => entry.primary().ok_or_else(|| entry.no_version(name)),
            Some(version) => entry.named(name, version),
        }
    }
}

impl ModelEntry {
    /// Who answers where no version is named: the first version of the route or who stands in for it; without a route
    /// the highest version that is ready.
    #[must_use]
    pub fn primary(&self) -> Option<&Arc<Servable>> {
        match &self.route {
            Some(route) => self.servable(*route.answers.first()?),
            None => self.latest(),
        }
    }

    fn servable(&self, place: Option<usize>) -> Option<&Arc<Servable>> {
        self.versions.get(place?)?.servable.as_ref()
    }

    fn no_version(&self, model: &ModelName) -> InferError {
        InferError::NoVersion { model: model.clone(), reason: self.summary() }
    }

    /// The highest version that answers requests.
    #[must_use]
    pub fn latest(&self) -> Option<&Arc<Servable>> {
        self.versions.iter().rev().find_map(|version| version.servable.as_ref())
    }

    /// The entry of a version.
    #[must_use]
    pub fn version_entry(&self, version: &Version) -> Option<&VersionEntry> {
        self.versions.iter().find(|entry| entry.status.version == *version)
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

impl RouteEntry {
    /// The route over the versions of its model. Who is not ready is stood in for by the first version of the split,
    /// then by the others, the largest first, and last by the highest version that is ready and no shadow: a request
    /// that names no version is never failed because of a swap, nor answered by who is to be watched only.
    pub(crate) fn new(live: Arc<LiveRoute>, lines: Vec<Arc<Line>>, versions: &[VersionEntry]) -> Self {
        let route = &live.route;
        let ready = |version: &Version| {
            versions.iter().position(|entry| entry.status.version == *version && entry.servable.is_some())
        };
        let is_shadow = |version: &Version| route.shadows().iter().any(|shadow| shadow.version == *version);
        let last =
            versions.iter().rposition(|entry| entry.servable.is_some() && !is_shadow(&entry.status.version));
        let answers = (0..route.split().len()).map(|index| {
            let places = route.stand_ins(index).into_iter();
            places.filter_map(|other| ready(&route.split()[other].version)).next().or(last)
        });
        let answers = answers.collect();
        let shadows = route.shadows().iter().map(|shadow| ready(&shadow.version)).collect();
        Self { live, answers, lines, shadows }
    }

    fn choose(&self, entry: &ModelEntry, key: &[u8]) -> Option<Routed> {
        let route = &self.live.route;
        let key_hash = route.key_hash(key);
        let index = route.place(key_hash);
        let servable = Arc::clone(entry.servable(*self.answers.get(index)?)?);
        let arm = self.live.enter(index, key_hash, servable.version != route.split()[index].version);
        let mut shadows = SmallVec::new();
        for ((shadow, line), place) in route.shadows().iter().zip(&self.lines).zip(&self.shadows) {
            let watcher = entry.servable(*place).filter(|watcher| watcher.version != servable.version);
            if let Some(watcher) = watcher.filter(|_| shadow.sees(key)) {
                self.live.shadowed(&shadow.version, key_hash);
                shadows.push(Watcher { servable: Arc::clone(watcher), line: Arc::clone(line) });
            }
        }
        Some(Routed { servable, arm: Some(arm), shadows })
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
