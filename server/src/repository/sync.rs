//! The thread that looks at the sources, copies what is new into the store, and tells the control plane what is
//! wanted. Owns all of its state. Must not know protocols.

mod asked;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use gannet_models::{
    Artifact, Digest, ModelName, ModelSettings, Store, Version, VersionLocation, store::Collected,
};
use gannet_registry::{AspiredModel, AspiredVersion, Poll, Registry, Source, SourceHealth};
use gannet_runtime::{
    backend::Backend,
    clock,
    control::{loader::LoadSpec, manager::Control},
};

use super::{AliasHook, ControlMode, Inventory, KnownModel, RepositoryOptions, Request};
use crate::backends;

/// How long a start or a load waits for files that are still being copied.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Time between two looks while waiting for that.
const SETTLE_LOOK: Duration = Duration::from_millis(20);

/// What a look told.
struct Look {
    /// There is something to do about it.
    news: bool,
    /// Something is still being copied, or asked for for the first time.
    settling: bool,
}

/// What the thread is made of.
pub(super) struct Parts {
    pub(super) options: RepositoryOptions,
    pub(super) store: Arc<Store>,
    pub(super) source: Box<dyn Source>,
    pub(super) backends: Vec<Arc<dyn Backend>>,
    pub(super) control: Control,
    pub(super) inventory: Arc<ArcSwap<Inventory>>,
    pub(super) looked: Arc<AtomicBool>,
    pub(super) registry: Option<Arc<Registry>>,
    pub(super) on_alias_moved: AliasHook,
}

pub(super) struct Sync {
    parts: Parts,
    /// The last look.
    found: BTreeMap<ModelName, AspiredModel>,
    source_problems: Vec<String>,
    stale: Option<String>,
    pending: bool,
    /// Models that were asked for, in explicit mode.
    asked: BTreeMap<ModelName, Asked>,
    /// Models that the control plane was told of, with what it was told.
    told: BTreeMap<ModelName, Told>,
    /// Artifacts by where they were found, so that nothing is copied twice.
    artifacts: HashMap<(ModelName, Version), (u64, Artifact)>,
    /// Versions that could not be copied, and why.
    refused: BTreeMap<(ModelName, Version), (u64, String)>,
    /// Whether the store holds copies that nobody wants any more.
    rubbish: bool,
    /// What registries were told of our versions.
    told_registries: report::Reporter,
}

/// A model that was asked for, with its own configuration and files if any.
#[derive(Default)]
struct Asked {
    settings: Option<Arc<ModelSettings>>,
    versions: Option<Vec<(Version, VersionLocation)>>,
    /// The versions wanted of those there are; `None`: all.
    only: Option<BTreeSet<Version>>,
    /// Counts the requests, so that a repeated upload is read again.
    generation: u64,
}

struct Told {
    specs: Vec<LoadSpec>,
    labels: BTreeMap<String, Version>,
}

/// One version to be had: from the source, or uploaded.
struct Candidate {
    version: Version,
    location: VersionLocation,
    fingerprint: u64,
    /// As a registry has brought it.
    stored: Option<Artifact>,
    origin: Option<Arc<str>>,
}

impl Candidate {
    fn of(aspired: &AspiredVersion) -> Self {
        let AspiredVersion { version, location, fingerprint, stored, origin } = aspired.clone();
        Self { version, location, fingerprint, stored, origin }
    }
}

impl Sync {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            found: BTreeMap::new(),
            source_problems: Vec::new(),
            stale: None,
            pending: false,
            asked: BTreeMap::new(),
            told: BTreeMap::new(),
            artifacts: HashMap::new(),
            refused: BTreeMap::new(),
            rubbish: false,
            told_registries: report::Reporter::default(),
        }
    }

    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        gannet_runtime::control::manager::step_back(self.parts.options.nice);
        self.start();
        self.parts.looked.store(true, Ordering::Release);
        // with registries there is something to tell now and then, whatever the mode
        let watches = self.parts.options.mode == ControlMode::Poll || self.parts.registry.is_some();
        loop {
            let next = if watches {
                requests.recv_timeout(self.parts.options.scan)
            } else {
                requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match next {
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Request::News) => self.look_and_reconcile(),
                Ok(Request::Look { reply }) => {
                    self.look_and_reconcile();
                    let _ = reply.send(());
                }
                Ok(Request::Load { model, change, reply }) => self.load(&model, &change, reply),
                Ok(Request::Unload { model, reply }) => {
                    let _ = reply.send(self.unload(&model));
                }
                Ok(Request::Select { model, version, wanted, reply }) => {
                    let _ = reply.send(self.select(&model, &version, wanted));
                }
                Err(RecvTimeoutError::Timeout) if self.parts.options.mode == ControlMode::Poll => {
                    self.look_and_reconcile();
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.report();
        }
    }

    /// The first look: what was copied here just before the start counts once it has settled.
    fn start(&mut self) {
        let deadline = clock::now() + SETTLE_WAIT_MAX;
        loop {
            let settling = self.look_now().settling;
            self.ask_at_start();
            self.reconcile_all();
            if !settling || clock::now() >= deadline {
                break;
            }
            std::thread::park_timeout(SETTLE_LOOK);
        }
        let wanted = self.parts.options.load_models.iter();
        for name in wanted.filter(|name| *name != "*" && !self.found.contains_key(name.as_str())) {
            tracing::error!(model = %name, "--load-model names a model that is not in any repository");
        }
        self.collect();
    }

    /// Looks until nothing of what a load asks for is still being copied.
    fn look_settled(&mut self) {
        let deadline = clock::now() + SETTLE_WAIT_MAX;
        while self.look_now().settling && clock::now() < deadline {
            std::thread::park_timeout(SETTLE_LOOK);
        }
    }

    fn look_and_reconcile(&mut self) {
        if self.parts.options.mode == ControlMode::None {
            return;
        }
        let news = self.look_now().news;
        if news {
            self.reconcile_all();
        }
        if news || self.rubbish {
            self.collect();
        }
    }

    /// Looks at the source once.
    fn look_now(&mut self) -> Look {
        let poll = self.parts.source.poll(clock::wall_ms(clock::now()));
        let Poll { models, health, problems, changed, settling, pending, moves } = poll;
        if let Some(registry) = &self.parts.registry {
            for moved in &moves {
                // before the control plane hears of the new version
                if !(self.parts.on_alias_moved)(moved, registry) {
                    tracing::warn!(model = %moved.model, from = %moved.from, to = %moved.to, "nobody rolls it out: it is swapped");
                    registry.settle(&moved.model, &moved.to, "");
                }
            }
        }
        let stale = match health {
            SourceHealth::Healthy => None,
            SourceHealth::Stale { reason, .. } => Some(reason),
        };
        if stale != self.stale {
            match &stale {
                Some(reason) => {
                    tracing::warn!(%reason, "the repository cannot be read; what is served stays")
                }
                None => tracing::info!("the repository can be read again"),
            }
        }
        for problem in problems.iter().filter(|problem| !self.source_problems.contains(problem)) {
            tracing::warn!("{problem}");
        }
        let news = changed
            || pending != self.pending
            || stale != self.stale
            || problems != self.source_problems
            || !self.refused.is_empty();
        self.found = models.into_iter().map(|model| (model.name.clone(), model)).collect();
        (self.stale, self.source_problems, self.pending) = (stale, problems, pending);
        Look { news, settling: settling || pending }
    }

    fn ask_at_start(&mut self) {
        if self.parts.options.mode != ControlMode::Explicit {
            return;
        }
        let wanted = &self.parts.options.load_models;
        let all = wanted.is_empty() || wanted.iter().any(|name| name == "*");
        for name in self.found.keys().filter(|name| all || wanted.iter().any(|w| w == name.as_str())) {
            self.asked.entry(name.clone()).or_default();
        }
    }

    /// Tells the control plane what is wanted of every model, as far as that changed.
    fn reconcile_all(&mut self) {
        let known: HashSet<ModelName> =
            self.found.keys().chain(self.told.keys()).chain(self.asked.keys()).cloned().collect();
        for model in known {
            self.reconcile(&model);
        }
        self.publish_inventory();
    }

    fn reconcile(&mut self, model: &ModelName) {
        let explicit = self.parts.options.mode == ControlMode::Explicit;
        let wanted = if explicit { self.asked.contains_key(model) } else { self.found.contains_key(model) };
        let Some(settings) = self.settings(model).filter(|_| wanted) else {
            if self.told.remove(model).is_some() {
                self.parts.control.aspire(model.clone(), Vec::new(), BTreeMap::new());
            }
            return;
        };
        let candidates = self.candidates(model);
        let specs: Vec<LoadSpec> =
            candidates.iter().filter_map(|candidate| self.spec(model, candidate, &settings)).collect();
        if specs.is_empty() && !candidates.is_empty() && self.told.contains_key(model) {
            // a source that delivers nothing usable never takes away what serves
            return;
        }
        let told = Told { specs, labels: settings.labels.clone() };
        if self.told.get(model).is_some_and(|before| before.same(&told)) {
            return;
        }
        self.parts.control.aspire(model.clone(), told.specs.clone(), told.labels.clone());
        self.told.insert(model.clone(), told);
    }

    fn settings(&self, model: &ModelName) -> Option<Arc<ModelSettings>> {
        let asked = self.asked.get(model).and_then(|asked| asked.settings.clone());
        asked.or_else(|| self.found.get(model).map(|found| Arc::clone(&found.settings)))
    }

    /// What is wanted of what there is.
    fn candidates(&self, model: &ModelName) -> Vec<Candidate> {
        let mut candidates = self.available(model);
        if let Some(only) = self.asked.get(model).and_then(|asked| asked.only.as_ref()) {
            candidates.retain(|candidate| only.contains(&candidate.version));
        }
        candidates
    }

    fn available(&self, model: &ModelName) -> Vec<Candidate> {
        if let Some(asked) = self.asked.get(model)
            && let Some(versions) = &asked.versions
        {
            let fingerprint = asked.generation;
            let candidate = |(version, location): &(Version, VersionLocation)| Candidate {
                version: version.clone(),
                location: location.clone(),
                fingerprint,
                stored: None,
                origin: None,
            };
            let names: Vec<Version> = versions.iter().map(|(version, _)| version.clone()).collect();
            let chosen =
                asked.settings.as_ref().map_or(names.clone(), |own| own.version_policy.choose(&names));
            return versions.iter().filter(|(version, _)| chosen.contains(version)).map(candidate).collect();
        }
        let Some(found) = self.found.get(model) else { return Vec::new() };
        let asked = self.asked.get(model);
        let wished = asked.is_some_and(|asked| asked.settings.is_some() || asked.only.is_some());
        let versions = if wished { &found.available } else { &found.versions };
        let settings = self.settings(model).unwrap_or_else(|| Arc::clone(&found.settings));
        let names: Vec<Version> = versions.iter().map(|v| v.version.clone()).collect();
        let chosen = match asked.and_then(|asked| asked.only.as_ref()) {
            Some(_) => names,
            None => settings.version_policy.choose(&names),
        };
        versions.iter().filter(|v| chosen.contains(&v.version)).map(Candidate::of).collect()
    }

    /// The version as it is to be loaded, copied into the store; the copy before it when this one cannot be had.
    fn spec(
        &mut self,
        model: &ModelName,
        from: &Candidate,
        settings: &Arc<ModelSettings>,
    ) -> Option<LoadSpec> {
        let artifact = self.artifact(model, from)?;
        let backend = match backends::choose(&self.parts.backends, &artifact, settings) {
            Ok(backend) => backend,
            Err(reason) => {
                self.refuse(model, from, reason);
                return None;
            }
        };
        let class_labels = match gannet_models::read_version_labels(artifact.dir()) {
            Ok(labels) => labels,
            Err(error) => {
                self.refuse(model, from, error.to_string());
                return None;
            }
        };
        let origin =
            from.origin.clone().unwrap_or_else(|| Arc::from(from.location.path.display().to_string()));
        let (version, settings) = (from.version.clone(), Arc::clone(settings));
        let event_loops = self.parts.options.event_loops;
        let options = &self.parts.options;
        // a program that somebody trusted has signed may run too
        let may_run_code = settings.allow_torchscript
            || options.allow_torchscript
            || (backend.runs_code() && options.trust.is_signed(artifact.dir(), model, &from.version));
        Some(LoadSpec {
            version,
            artifact,
            settings,
            class_labels,
            backend,
            may_run_code,
            origin,
            event_loops,
        })
    }

    fn artifact(&mut self, model: &ModelName, from: &Candidate) -> Option<Artifact> {
        let key = (model.clone(), from.version.clone());
        let before = self.artifacts.get(&key).map(|(fingerprint, artifact)| (*fingerprint, artifact.clone()));
        if let Some((fingerprint, artifact)) = &before
            && *fingerprint == from.fingerprint
        {
            return Some(artifact.clone());
        }
        let ingested = match &from.stored {
            Some(stored) => Ok(stored.clone()),
            None => self.ingest(model, from),
        };
        match ingested {
            Ok(artifact) => {
                self.refused.remove(&key);
                self.artifacts.insert(key, (from.fingerprint, artifact.clone()));
                Some(artifact)
            }
            Err(why) => {
                self.refuse(model, from, why);
                before.map(|(_, artifact)| artifact)
            }
        }
    }

    /// Copies a version out of a folder, if its files are those of a list beside it, and its signature is as wanted.
    fn ingest(&self, model: &ModelName, from: &Candidate) -> Result<Artifact, String> {
        let ingested = self.parts.store.ingest(&from.location, &self.parts.options.ingest);
        let artifact = ingested.map_err(|error| error.to_string())?;
        gannet_registry::beside::check(&from.location.path, &artifact)?;
        self.parts.options.trust.check(artifact.dir(), model, &from.version)?;
        Ok(artifact)
    }

    fn refuse(&mut self, model: &ModelName, from: &Candidate, reason: String) {
        let key = (model.clone(), from.version.clone());
        if self.refused.get(&key).is_none_or(|(_, known)| *known != reason) {
            tracing::warn!(%model, version = %from.version, %reason, "version refused");
        }
        self.refused.insert(key, (from.fingerprint, reason));
    }

    fn publish_inventory(&self) {
        let explicit = self.parts.options.mode == ControlMode::Explicit;
        let problems = |name: &ModelName, own: &[String]| {
            let refused = self.refused.iter().filter(|((model, _), _)| model == name);
            let refused = refused.map(|((_, version), (_, reason))| format!("version {version}: {reason}"));
            own.iter().cloned().chain(refused).collect()
        };
        let refused = |name: &ModelName| -> BTreeMap<Version, String> {
            let refused = self.refused.iter().filter(|((model, _), _)| model == name);
            refused.map(|((_, version), (_, reason))| (version.clone(), reason.clone())).collect()
        };
        let artifacts = |name: &ModelName| -> BTreeMap<Version, Artifact> {
            let specs = self.told.get(name).into_iter().flat_map(|told| &told.specs);
            specs.map(|spec| (spec.version.clone(), spec.artifact.clone())).collect()
        };
        let mut models: BTreeMap<ModelName, KnownModel> = BTreeMap::new();
        for (name, found) in &self.found {
            let known = KnownModel {
                settings: Arc::clone(&found.settings),
                versions: found.versions.iter().map(|v| v.version.clone()).collect(),
                artifacts: artifacts(name),
                problems: problems(name, &found.problems),
                refused: refused(name),
                wanted: !explicit || self.asked.contains_key(name),
            };
            models.insert(name.clone(), known);
        }
        for (name, asked) in &self.asked {
            if let (Some(settings), Some(versions)) = (&asked.settings, &asked.versions) {
                let versions = versions.iter().map(|(version, _)| version.clone()).collect();
                let settings = Arc::clone(settings);
                let (problems, artifacts, refused) = (problems(name, &[]), artifacts(name), refused(name));
                models.insert(
                    name.clone(),
                    KnownModel { settings, versions, artifacts, problems, refused, wanted: true },
                );
            }
        }
        let inventory = Inventory {
            models,
            problems: self.source_problems.clone(),
            stale: self.stale.clone(),
            pending: self.pending,
        };
        self.parts.inventory.store(Arc::new(inventory));
    }

    /// Drops what is no longer wanted from the store.
    fn collect(&mut self) {
        let wanted: HashSet<(ModelName, Version)> = self
            .told
            .iter()
            .flat_map(|(model, told)| told.specs.iter().map(|spec| (model.clone(), spec.version.clone())))
            .collect();
        self.artifacts.retain(|key, _| wanted.contains(key));
        self.refused.retain(|(model, version), _| {
            self.found.get(model).is_some_and(|found| found.versions.iter().any(|v| v.version == *version))
        });
        let mut keep: HashSet<Digest> =
            self.artifacts.values().map(|(_, artifact)| artifact.digest()).collect();
        if let Some(registry) = &self.parts.registry {
            // until it is known what is here, everything stays
            let Some(held) = registry.held() else { return };
            keep.extend(held);
        }
        let collected = self.parts.store.collect(&keep);
        // what still drains can go at a later look
        self.rubbish =
            matches!(collected, Ok(Collected::Removed(_))) && self.parts.store.holds_more_than(&keep);
        if let Err(error) = collected {
            tracing::warn!(%error, "the store could not be tidied");
        }
    }
}

impl Told {
    fn same(&self, other: &Self) -> bool {
        use gannet_runtime::control::lifecycle::Wanted;
        self.labels == other.labels
            && self.specs.len() == other.specs.len()
            && self.specs.iter().zip(&other.specs).all(|(a, b)| a.same(b))
    }
}
