//! What every source has said and what of it is here, in one place that followers write and the server reads. Must not
//! know how anything is fetched.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use gannet_models::{Artifact, Digest, ModelName, ModelSettings, Version, VersionLocation};
use serde::Serialize;

use crate::{AliasMoved, AspiredModel, AspiredVersion, Poll, SourceHealth, fetch::Progress};

/// The wall clock in milliseconds.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A version that is here.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// What it looked like at the registry.
    pub(crate) tag: String,
    pub(crate) artifact: Artifact,
    pub(crate) fetched_ms: u64,
}

/// One model of a source.
#[derive(Debug, Clone, Default)]
pub(crate) struct Followed {
    pub(crate) settings: Arc<ModelSettings>,
    /// Name and text of the settings file that the registry has beside the model.
    pub(crate) settings_file: Option<(String, String)>,
    /// What is to be served, all of it here. Of two of a rollout the one that served before comes first.
    pub(crate) aspired: Vec<Version>,
    /// Where the registry's own pointer led at the last look.
    pub(crate) target: Option<Version>,
    pub(crate) held: BTreeMap<Version, Held>,
    pub(crate) problems: Vec<String>,
    /// Versions that were rolled back here, and why, while the registry still points to them.
    pub(crate) rolled_back: BTreeMap<Version, String>,
}

/// One source.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) uri: String,
    pub(crate) kind: &'static str,
    /// What was here at the start has been read.
    pub(crate) loaded: bool,
    /// A look has ended, well or not.
    pub(crate) tried: bool,
    pub(crate) stale_since_ms: Option<u64>,
    pub(crate) last_success_ms: Option<u64>,
    pub(crate) last_error: Option<String>,
    pub(crate) models: BTreeMap<ModelName, Followed>,
    pub(crate) problems: Vec<String>,
    pub(crate) moves: Vec<AliasMoved>,
    pub(crate) fetching: Vec<(ModelName, Version, Arc<Progress>)>,
    pub(crate) requests: Arc<AtomicU64>,
    pub(crate) changed: bool,
}

/// All sources.
pub(crate) struct Board {
    rows: Mutex<BTreeMap<String, Row>>,
    /// A source went since the last answer.
    removed: AtomicBool,
    news: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}

/// One source as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceState {
    /// Its name.
    pub name: String,
    /// As it was written; it holds no credentials.
    pub uri: String,
    /// Such as `mlflow`.
    pub kind: &'static str,
    /// `starting`, `fetching`, `healthy` or `stale`.
    pub state: &'static str,
    /// Since when what is served may differ from what the registry says, in milliseconds since 1970.
    pub stale_since: Option<u64>,
    /// When it last agreed.
    pub last_success: Option<u64>,
    /// What is to be served.
    pub aspired: Vec<AspiredState>,
    /// What went wrong last, until a look goes well.
    pub last_error: Option<String>,
    /// What is wrong with what the registry holds.
    pub problems: Vec<String>,
    /// Downloads under way.
    pub fetching: Vec<FetchState>,
    /// Requests made so far.
    pub requests: u64,
}

/// One model of a source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AspiredState {
    /// Its name here.
    pub model: String,
    /// The versions to be served.
    pub versions: Vec<String>,
    /// Where the registry's pointer leads, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points_to: Option<String>,
    /// Versions kept here beside those.
    pub kept: Vec<String>,
    /// What is wrong with it.
    pub problems: Vec<String>,
    /// Versions that were rolled back here although the registry points to them, and why.
    pub rolled_back: BTreeMap<String, String>,
}

/// One download.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FetchState {
    /// The model.
    pub model: String,
    /// Its version.
    pub version: String,
    /// Bytes that are here.
    pub bytes_done: u64,
    /// Bytes in all, as far as the registry says.
    pub bytes: u64,
}

impl Board {
    /// `news` is called whenever something is to be looked at; it must not wait.
    pub(crate) fn new(news: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { rows: Mutex::default(), removed: AtomicBool::new(false), news }
    }

    pub(crate) fn rows(&self) -> MutexGuard<'_, BTreeMap<String, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes one source's row, and tells that there is news.
    pub(crate) fn change<T>(&self, source: &str, change: impl FnOnce(&mut Row) -> T) -> Option<T> {
        let result = {
            let mut rows = self.rows();
            let row = rows.get_mut(source)?;
            row.changed = true;
            change(row)
        };
        (self.news)();
        Some(result)
    }

    /// Takes a source away with everything that it wanted; whether there was one.
    pub(crate) fn remove(&self, source: &str) -> bool {
        let there = self.rows().remove(source).is_some();
        self.removed.store(true, Ordering::Release);
        (self.news)();
        there
    }

    /// Changes a row in what nobody acts upon.
    pub(crate) fn note(&self, source: &str, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.rows().get_mut(source) {
            change(row);
        }
    }

    pub(crate) fn read<T>(&self, source: &str, read: impl FnOnce(&Row) -> T) -> Option<T> {
        self.rows().get(source).map(read)
    }

    /// Digests of everything that is here; `None` until all that was here at the start is known.
    pub(crate) fn held(&self) -> Option<HashSet<Digest>> {
        let rows = self.rows();
        if !rows.values().all(|row| row.loaded) {
            return None;
        }
        let held =
            rows.values().flat_map(|row| row.models.values()).flat_map(|followed| followed.held.values());
        Some(held.map(|held| held.artifact.digest()).collect())
    }

    /// Everything wanted of all sources.
    pub(crate) fn poll(&self) -> Poll {
        let mut rows = self.rows();
        let mut models: BTreeMap<ModelName, AspiredModel> = BTreeMap::new();
        let (mut problems, mut stale, mut moves) = (Vec::new(), Vec::new(), Vec::new());
        let (mut changed, mut pending) = (self.removed.swap(false, Ordering::AcqRel), false);
        for (source, row) in rows.iter_mut() {
            changed |= std::mem::take(&mut row.changed);
            pending |= !row.loaded || (!row.tried && row.models.is_empty());
            moves.append(&mut row.moves);
            problems.extend(row.problems.iter().map(|problem| format!("source '{source}': {problem}")));
            if let Some(since) = row.stale_since_ms {
                stale.push((
                    since,
                    format!("source '{source}': {}", row.last_error.as_deref().unwrap_or("no answer")),
                ));
            }
            for (name, followed) in &row.models {
                match models.get_mut(name) {
                    Some(first) => first.problems.push(format!(
                        "source '{source}': expected model names to differ between sources, got '{name}' again; the \
                         source whose name comes first wins: rename this one"
                    )),
                    None => drop(models.insert(name.clone(), followed.aspired_model(name, &row.uri))),
                }
            }
        }
        let since_ms = stale.iter().map(|(since, _)| *since).min();
        let health = match since_ms {
            None => SourceHealth::Healthy,
            Some(since_ms) => {
                let reasons: Vec<String> = stale.into_iter().map(|(_, reason)| reason).collect();
                SourceHealth::Stale { reason: reasons.join("\n"), since_ms }
            }
        };
        Poll {
            models: models.into_values().collect(),
            health,
            problems,
            changed,
            settling: false,
            pending,
            moves,
        }
    }

    /// Every source, for people.
    pub(crate) fn states(&self) -> Vec<SourceState> {
        self.rows().iter().map(|(name, row)| row.state(name)).collect()
    }
}

impl Followed {
    fn aspired_model(&self, name: &ModelName, uri: &str) -> AspiredModel {
        let one = |(version, held): (&Version, &Held)| {
            let dir = held.artifact.dir().to_owned();
            AspiredVersion {
                version: version.clone(),
                location: VersionLocation { path: dir.clone(), root: dir, stored_as: None },
                fingerprint: held.artifact.digest().short(),
                stored: Some(held.artifact.clone()),
                origin: Some(Arc::from(uri)),
            }
        };
        let aspired = self.held.iter().filter(|(version, _)| self.aspired.contains(version));
        AspiredModel {
            name: name.clone(),
            settings: Arc::clone(&self.settings),
            versions: aspired.map(one).collect(),
            available: self.held.iter().map(one).collect(),
            problems: self.problems.clone(),
        }
    }
}

impl Row {
    fn state(&self, name: &str) -> SourceState {
        let state = match () {
            () if !self.fetching.is_empty() => "fetching",
            () if self.stale_since_ms.is_some() => "stale",
            () if self.last_success_ms.is_some() => "healthy",
            () => "starting",
        };
        let fetching = self.fetching.iter().map(|(model, version, progress)| FetchState {
            model: model.to_string(),
            version: version.to_string(),
            bytes_done: progress.bytes_done.load(Ordering::Relaxed),
            bytes: progress.bytes_total.load(Ordering::Relaxed),
        });
        let aspired = self.models.iter().map(|(model, followed)| AspiredState {
            model: model.to_string(),
            versions: followed.aspired.iter().map(Version::to_string).collect(),
            points_to: followed.target.as_ref().map(Version::to_string),
            kept: followed
                .held
                .keys()
                .filter(|v| !followed.aspired.contains(v))
                .map(Version::to_string)
                .collect(),
            problems: followed.problems.clone(),
            rolled_back: followed.rolled_back.iter().map(|(v, why)| (v.to_string(), why.clone())).collect(),
        });
        SourceState {
            name: name.to_owned(),
            uri: self.uri.clone(),
            kind: self.kind,
            state,
            stale_since: self.stale_since_ms,
            last_success: self.last_success_ms,
            aspired: aspired.collect(),
            last_error: self.last_error.clone(),
            problems: self.problems.clone(),
            fetching: fetching.collect(),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }
}
