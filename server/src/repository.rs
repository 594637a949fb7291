//! The model repository as the server runs it: what the sources hold, what is wanted of it, and the one thread that
//! brings the two together. Must not know protocols, nor how a version is loaded.

mod all;
mod sync;
mod upload;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use crossbeam::channel::{Sender, bounded};
use gannet_models::{Artifact, IngestLimits, ModelName, ModelSettings, Store, Version};
use gannet_registry::{
    AliasMoved, FetchLimits, FilesystemOptions, FilesystemSource, Registry, RegistryOptions, SourceSpec,
    SourceUri, Trust,
};
use gannet_runtime::{
    backend::Backend,
    control::{lifecycle::State as VersionState, manager::Control},
};
use tokio::sync::oneshot;

use crate::{
    backends,
    respond::{Kind, Refusal},
};

/// Requests to the repository that may wait.
const REQUESTS_MAX: usize = 256;

/// Who decides what is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ControlMode {
    /// The folders do, and they are watched.
    #[default]
    Poll,
    /// The load and unload calls do.
    Explicit,
    /// What was found at the start is served, for ever.
    None,
}

/// How the repository is run.
#[derive(Debug)]
pub struct RepositoryOptions {
    /// Repositories, model folders or model files.
    pub paths: Vec<PathBuf>,
    /// Where the content-addressed store and uploads are.
    pub state_dir: PathBuf,
    /// Who decides.
    pub mode: ControlMode,
    /// Models to load at the start in [`ControlMode::Explicit`]; empty: all.
    pub load_models: Vec<String>,
    /// Time between two looks.
    pub scan: Duration,
    /// Time a version's files must have been at rest.
    pub settle: Duration,
    /// The most that is read from one version.
    pub ingest: IngestLimits,
    /// I/O threads, each of which could run an instance of its own.
    pub event_loops: usize,
    /// Whether every file may be a program, whatever its model's settings say.
    pub allow_torchscript: bool,
    /// How far the thread that copies and hashes models steps back, 0 (not at all) to 19.
    pub nice: i32,
    /// Whose signatures are wanted.
    pub trust: Trust,
    /// Registries that are followed; `None`: none now, and none can be added.
    pub registry: Option<FollowOptions>,
}

/// How registries are followed.
pub struct FollowOptions {
    /// The registries.
    pub sources: Vec<SourceSpec>,
    /// Bounds of what is fetched.
    pub limits: FetchLimits,
    /// What this server is called there.
    pub server: String,
    /// Who decides about traffic when a pointer moves, for sources that leave it to others.
    pub on_alias_moved: AliasHook,
}

/// Told that a pointer moved before the new version can answer; whether it takes care of the rest, and calls
/// [`Registry::settle`] in the end. Otherwise the new version replaces the old one. It must not wait.
pub type AliasHook = Arc<dyn Fn(&AliasMoved, &Arc<Registry>) -> bool + Send + Sync>;

impl std::fmt::Debug for FollowOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FollowOptions").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// A load request's own configuration and files.
#[derive(Debug, Clone, Default)]
pub struct LoadOverride {
    /// A model configuration in JSON.
    pub config: Option<String>,
    /// (`<version>/<file>`, content); with them the repository's own versions are not used.
    pub files: Vec<(String, Bytes)>,
}

/// A model as it was found.
#[derive(Debug, Clone)]
pub struct KnownModel {
    /// As configured.
    pub settings: Arc<ModelSettings>,
    /// The versions found.
    pub versions: Vec<Version>,
    /// The files of those that the control plane was told to serve.
    pub artifacts: BTreeMap<Version, Artifact>,
    /// What is wrong with it.
    pub problems: Vec<String>,
    /// Versions that could not even be copied or given an engine, and why; `problems` names them too.
    pub refused: BTreeMap<Version, String>,
    /// Whether it is to be served.
    pub wanted: bool,
}

/// What was found at the last look.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// By name.
    pub models: BTreeMap<ModelName, KnownModel>,
    /// Faults that belong to no single model.
    pub problems: Vec<String>,
    /// Why the sources could not be read, while they cannot.
    pub stale: Option<String>,
    /// Whether a registry has not given its first answer yet, and nothing of it was here.
    pub pending: bool,
}

/// One line of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model.
    pub name: String,
    /// The version; empty while none is known.
    pub version: String,
    /// `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why.
    pub reason: String,
}

enum Request {
    /// A registry has something to say.
    News,
    Look {
        reply: oneshot::Sender<()>,
    },
    Load {
        model: ModelName,
        change: LoadOverride,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Unload {
        model: ModelName,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Select {
        model: ModelName,
        version: Version,
        wanted: bool,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Stop,
}

/// The repository, seen by endpoints.
#[derive(Debug)]
pub struct Repository {
    requests: Sender<Request>,
    inventory: Arc<ArcSwap<Inventory>>,
    looked: Arc<AtomicBool>,
    /// Set once every model that the first look found was served or refused; stays set.
    was_ready: AtomicBool,
    control: Control,
    mode: ControlMode,
    registry: Option<Arc<Registry>>,
}

impl Repository {
    /// Opens the store, looks once, and starts the thread.
    ///
    /// # Errors
    /// A text when a path cannot be a repository or the store cannot be opened.
    pub fn start(
        mut options: RepositoryOptions,
        backends: Vec<Arc<dyn Backend>>,
        control: Control,
    ) -> Result<(Self, Vec<JoinHandle<()>>), String> {
        let store = Store::open(&options.state_dir.join("store")).map_err(|error| error.to_string())?;
        let store = Arc::new(store);
        let (requests, receiver) = bounded(REQUESTS_MAX);
        let mut threads = Vec::new();
        let follow = options.registry.take();
        // folders are looked at like those of the repository
        let (folders, followed): (Vec<SourceSpec>, Vec<SourceSpec>) = follow
            .iter()
            .flat_map(|follow| follow.sources.clone())
            .partition(|spec| matches!(spec.uri, SourceUri::File(_)));
        options.paths.extend(folders.into_iter().filter_map(|spec| match spec.uri {
            SourceUri::File(path) => Some(path),
            _ => None,
        }));
        let mut sources = vec![filesystem(&options, &backends)?];
        let mut registry = None;
        let mut on_alias_moved: AliasHook = Arc::new(|_, _| false);
        if let Some(follow) = follow {
            on_alias_moved = Arc::clone(&follow.on_alias_moved);
            let (started, thread) = follow_registries(&options, follow, &store, requests.clone())?;
            sources.push(started.source());
            for spec in followed {
                started.add(spec).map_err(|error| error.to_string())?;
            }
            threads.push(thread);
            registry = Some(started);
        }
        let inventory = Arc::new(ArcSwap::from_pointee(Inventory::default()));
        let looked = Arc::new(AtomicBool::new(false));
        let mode = options.mode;
        let sync = sync::Sync::new(sync::Parts {
            options,
            store,
            source: Box::new(all::All(sources)),
            backends,
            control: control.clone(),
            inventory: Arc::clone(&inventory),
            looked: Arc::clone(&looked),
            registry: registry.clone(),
            on_alias_moved,
        });
        let start = || -> io::Result<JoinHandle<()>> {
            std::thread::Builder::new().name("gannet-sync".into()).spawn(move || sync.run(&receiver))
        };
        threads.push(start().map_err(|error| format!("no thread for the repository: {error}"))?);
        let was_ready = AtomicBool::new(false);
        Ok((Self { requests, inventory, looked, was_ready, control, mode, registry }, threads))
    }

    /// The registries that are followed.
    #[must_use]
    pub fn registry(&self) -> Option<&Arc<Registry>> {
        self.registry.as_ref()
    }

    /// What was found at the last look.
    #[must_use]
    pub fn inventory(&self) -> Arc<Inventory> {
        self.inventory.load_full()
    }

    /// Whether the first look is done and every model that was wanted then and can be served has had a version that
    /// serves. A model that comes later is announced by its own readiness and does not take the server's away.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        if self.was_ready.load(Ordering::Relaxed) {
            return true;
        }
        let ready = self.looked.load(Ordering::Acquire) && self.all_settled();
        if ready {
            self.was_ready.store(true, Ordering::Relaxed);
        }
        ready
    }

    fn all_settled(&self) -> bool {
        let table = self.control.table().snapshot();
        let inventory = self.inventory.load();
        if inventory.pending {
            return false;
        }
        let mut wanted =
            inventory.models.iter().filter(|(_, known)| known.wanted && !known.versions.is_empty());
        wanted.all(|(name, known)| match table.model(name.as_str()) {
            Some(entry) => {
                // one that waits for a loader is unavailable too, but was not refused
                let refused =
                    |version| entry.version_entry(version).is_some_and(|found| found.status.refused);
                entry.latest().is_some() || known.artifacts.keys().all(refused)
            }
            // what could not even be copied or given an engine will not come by itself
            None => !known.problems.is_empty(),
        })
    }

    /// Every version that is known, served or not.
    #[must_use]
    pub fn index(&self, ready_only: bool) -> Vec<IndexEntry> {
        let table = self.control.table().snapshot();
        let inventory = self.inventory.load();
        let mut entries = Vec::new();
        for (name, entry) in table.models() {
            entries.extend(entry.versions.iter().map(|version| IndexEntry {
                name: name.to_string(),
                version: version.status.version.to_string(),
                state: version.status.state.index_name(),
                reason: version.status.reason.clone(),
            }));
        }
        for (name, known) in &inventory.models {
            let line = |version: String, reason: String| IndexEntry {
                name: name.to_string(),
                version,
                state: VersionState::Unavailable.index_name(),
                reason,
            };
            let held = table.model(name.as_str());
            let reason =
                if known.problems.is_empty() { "unloaded".into() } else { known.problems.join("; ") };
            if held.is_none() && known.versions.is_empty() {
                entries.push(line(String::new(), reason.clone()));
            }
            for version in
                known.versions.iter().filter(|v| held.and_then(|m| m.version(v.as_str())).is_none())
            {
                match (known.refused.get(version), held) {
                    (Some(why), _) => entries.push(line(version.to_string(), why.clone())),
                    (None, None) => entries.push(line(version.to_string(), reason.clone())),
                    // on its way to the control plane
                    (None, Some(_)) => {}
                }
            }
        }
        entries.retain(|entry| !ready_only || entry.state == VersionState::Ready.index_name());
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }

    /// Looks at the sources now and waits for what follows of it to be done for `model`.
    pub async fn look(&self, model: Option<ModelName>) {
        let (reply, done) = oneshot::channel();
        if self.requests.send(Request::Look { reply }).is_ok() {
            let _ = done.await;
        }
        if let Some(model) = model {
            let _ = self.control.settle(model).await;
        }
    }

    /// Loads a model (again), in [`ControlMode::Explicit`]; returns once it serves.
    ///
    /// # Errors
    /// A refusal when the mode forbids it, the model is unknown, or it cannot be loaded.
    pub async fn load(&self, model: &str, change: LoadOverride) -> Result<(), Refusal> {
        self.check_mode()?;
        let model = parse_name(model)?;
        let (reply, done) = oneshot::channel();
        self.ask(Request::Load { model: model.clone(), change, reply }, done).await?;
        let statuses = self.control.settle(model.clone()).await.unwrap_or_default();
        let failed: Vec<String> = statuses
            .iter()
            .filter(|status| status.refused)
            .map(|status| format!("version '{}' is at {}", status.version, status.describe()))
            .collect();
        let serves = statuses.iter().any(gannet_runtime::control::lifecycle::VersionStatus::is_ready);
        if serves && failed.is_empty() {
            return Ok(());
        }
        let why = if failed.is_empty() { "it has no versions".into() } else { failed.join("; ") };
        Err(Refusal::invalid(format!("failed to load '{model}': {why}")))
    }

    /// Stops serving a model, in [`ControlMode::Explicit`].
    ///
    /// # Errors
    /// A refusal when the mode forbids it or the model is unknown.
    pub async fn unload(&self, model: &str) -> Result<(), Refusal> {
        self.check_mode()?;
        let model = parse_name(model)?;
        let (reply, done) = oneshot::channel();
        self.ask(Request::Unload { model: model.clone(), reply }, done).await?;
        let _ = self.control.settle(model).await;
        Ok(())
    }

    /// Adds one version to those that are wanted of a model, or takes it out, in [`ControlMode::Explicit`]. Returns
    /// once the control plane was told; [`Control::settle`] waits for what follows.
    ///
    /// # Errors
    /// A refusal when the mode forbids it, or the repository has no such version.
    pub async fn select_version(
        &self,
        model: ModelName,
        version: Version,
        wanted: bool,
    ) -> Result<(), Refusal> {
        self.check_mode()?;
        let (reply, done) = oneshot::channel();
        self.ask(Request::Select { model, version, wanted, reply }, done).await
    }

    /// Who decides what is served.
    #[must_use]
    pub fn mode(&self) -> ControlMode {
        self.mode
    }

    /// Ends the thread.
    pub fn stop(&self) {
        if let Some(registry) = &self.registry {
            registry.stop();
        }
        let _ = self.requests.send(Request::Stop);
    }

    async fn ask(
        &self,
        request: Request,
        answer: oneshot::Receiver<Result<(), Refusal>>,
    ) -> Result<(), Refusal> {
        let stopping = || Refusal::new(Kind::Unavailable, "the server is shutting down");
        self.requests.try_send(request).map_err(|error| match error {
            crossbeam::channel::TrySendError::Full(_) => Refusal::new(
                Kind::Exhausted,
                format!("{REQUESTS_MAX} repository requests wait already; try again"),
            ),
            crossbeam::channel::TrySendError::Disconnected(_) => stopping(),
        })?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Whether calls decide what is served.
    ///
    /// # Errors
    /// A refusal in the protocol's own words when they do not.
    pub fn check_mode(&self) -> Result<(), Refusal> {
        match self.mode {
            ControlMode::Explicit => Ok(()),
            ControlMode::Poll => Err(Refusal::new(
                Kind::Forbidden,
                "explicit model load / unload is not allowed if polling is enabled; start with \
                 --model-control explicit",
            )),
            ControlMode::None => Err(Refusal::new(
                Kind::Forbidden,
                "explicit model load / unload is not allowed with --model-control none; use explicit",
            )),
        }
    }
}

/// Everything that lies in folders.
fn filesystem(
    options: &RepositoryOptions,
    backends: &[Arc<dyn Backend>],
) -> Result<Box<dyn gannet_registry::Source>, String> {
    let source_options = FilesystemOptions {
        settle_ms: u64::try_from(options.settle.as_millis()).unwrap_or(u64::MAX),
        known_files: backends::known_files(backends),
        limits: options.ingest,
        ..FilesystemOptions::default()
    };
    let source =
        FilesystemSource::new(options.paths.clone(), source_options).map_err(|error| error.to_string())?;
    Ok(Box::new(source))
}

/// Starts the thread that follows registries.
fn follow_registries(
    options: &RepositoryOptions,
    follow: FollowOptions,
    store: &Arc<Store>,
    requests: Sender<Request>,
) -> Result<(Arc<Registry>, JoinHandle<()>), String> {
    let nice = options.nice.min(18);
    Registry::start(RegistryOptions {
        dir: options.state_dir.join("registry"),
        store: Arc::clone(store),
        limits: follow.limits,
        trust: Arc::new(options.trust.clone()),
        server: follow.server,
        // when the queue is full, a look is due anyway
        news: Box::new(move || drop(requests.try_send(Request::News))),
        // not idle: news must come through on a busy machine, and hashing is done at the speed of the network
        on_thread: Box::new(move || gannet_runtime::control::manager::step_back(nice)),
    })
    .map_err(|error| error.to_string())
}

fn parse_name(model: &str) -> Result<ModelName, Refusal> {
    ModelName::new(model).map_err(|error| Refusal::invalid(format!("model name: {error}")))
}
