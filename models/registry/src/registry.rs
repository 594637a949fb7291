//! All sources that are followed over a network, on one thread with an event loop of its own, seen by the server
//! through plain calls that never wait for it. Must not know how anything is served.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use gannet_models::{Digest, ModelName, Store, Version};
use tokio::{
    sync::{Notify, mpsc},
    task::{JoinSet, LocalSet},
};

use crate::{
    Poll, RegistryError, Source, SourceSpec,
    board::{Board, Row, SourceState},
    catalogue::Catalogue,
    fetch::{FetchLimits, Fetcher},
    follow::{Follower, Shared},
    mlflow::write::{Tell, VersionReport, Writer},
    trust::Trust,
    uri::SourceUri,
};

/// Sources followed at once.
pub const SOURCES_MAX: usize = 1000;
/// Calls that wait for the thread.
const COMMANDS_MAX: usize = 1024;

/// What the thread is made of.
pub struct RegistryOptions {
    /// For downloads under way and lists of what is here; on the store's file system.
    pub dir: PathBuf,
    /// The store.
    pub store: Arc<Store>,
    /// Bounds of all fetches.
    pub limits: FetchLimits,
    /// Whose signatures are wanted.
    pub trust: Arc<Trust>,
    /// What this server is called in the registries' tags.
    pub server: String,
    /// Called whenever [`Registry::source`] has something new to say. It must not wait.
    pub news: Box<dyn Fn() + Send + Sync>,
    /// Called once on the thread, before anything else.
    pub on_thread: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryOptions").field("dir", &self.dir).finish_non_exhaustive()
    }
}

enum Command {
    Add(Box<SourceSpec>),
    Remove(String),
    Tell(Tell),
}

/// The thread, seen by others.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    dir: PathBuf,
    commands: mpsc::Sender<Command>,
    /// Told even when there is no room for another command.
    stop: Arc<Notify>,
    /// By source: how to ask for a look, and what registered model of which server it follows.
    nudges: Mutex<HashMap<String, (Arc<Notify>, SourceUri)>>,
    dropped: AtomicU64,
}

impl Registry {
    /// Starts the thread; sources are added to it.
    ///
    /// # Errors
    /// When the system gives no thread or event loop.
    pub fn start(options: RegistryOptions) -> Result<(Arc<Self>, JoinHandle<()>), RegistryError> {
        let RegistryOptions { dir, store, limits, trust, server, news, on_thread } = options;
        let fault = |error: std::io::Error| {
            RegistryError::Source(format!("the registry thread did not start: {error}"))
        };
        std::fs::create_dir_all(dir.join("partial")).map_err(fault)?;
        let fetcher = Fetcher::new(store, dir.join("partial"), limits, trust);
        let shared = Arc::new(Shared { board: Board::new(news), fetcher, writer: Writer::new(&server) });
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("gannet-registry-disk")
            .max_blocking_threads(4)
            .build()
            .map_err(fault)?;
        let stop = Arc::new(Notify::new());
        let registry = Arc::new(Self {
            shared: Arc::clone(&shared),
            dir: dir.clone(),
            commands,
            stop: Arc::clone(&stop),
            nudges: Mutex::default(),
            dropped: AtomicU64::new(0),
        });
        let thread = Thread { shared, dir, registry: Arc::downgrade(&registry), stop };
        let run = move || {
            on_thread();
            // one thread: nothing of a follower needs to cross to another
            runtime.block_on(LocalSet::new().run_until(thread.run(receiver)));
            // a step that blocks on a disk that hangs must not keep the process
            runtime.shutdown_background();
        };
        let handle = std::thread::Builder::new().name("gannet-registry".into()).spawn(run).map_err(fault)?;
        Ok((registry, handle))
    }

    /// Follows one more source.
    ///
    /// # Errors
    /// A text when there is one of that name, or too many.
    pub fn add(&self, spec: SourceSpec) -> Result<(), RegistryError> {
        let name = spec.name.to_string();
        let fault = |what: String| Err(RegistryError::Source(what));
        {
            let mut rows = self.shared.board.rows();
            if rows.contains_key(&name) {
                return fault(format!(
                    "there is a source '{name}' already; choose another name, or remove it first"
                ));
            }
            if rows.len() >= SOURCES_MAX {
                return fault(format!("expected at most {SOURCES_MAX} sources"));
            }
            let row = Row { uri: spec.uri_text.clone(), kind: spec.uri.kind(), ..Row::default() };
            rows.insert(name.clone(), row);
        }
        let nudge = (Arc::new(Notify::new()), spec.uri.clone());
        self.nudges().insert(name.clone(), nudge);
        if self.commands.try_send(Command::Add(Box::new(spec))).is_err() {
            self.shared.board.rows().remove(&name);
            self.nudges().remove(&name);
            return fault("the registry thread is busy or has ended; try again".to_owned());
        }
        Ok(())
    }

    /// Follows a source no more. Its models are no longer wanted. Whether there was one.
    pub fn remove(&self, source: &str) -> bool {
        self.nudges().remove(source);
        let there = self.shared.board.remove(source);
        let _ = self.commands.try_send(Command::Remove(source.to_owned()));
        there
    }

    /// The sources as one.
    #[must_use]
    pub fn source(self: &Arc<Self>) -> Box<dyn Source> {
        Box::new(RemoteSource(Arc::clone(&self.shared)))
    }

    /// Every source, for people.
    #[must_use]
    pub fn states(&self) -> Vec<SourceState> {
        self.shared.board.states()
    }

    /// Digests of everything that must stay in the store; `None` until that is known.
    #[must_use]
    pub fn held(&self) -> Option<HashSet<Digest>> {
        self.shared.board.held()
    }

    /// Looks soon at the sources that follow `model` of a tracking server; `None`: at all of them. How many those are.
    pub fn nudge(&self, model: Option<&str>) -> usize {
        use crate::uri::MlflowTarget::{Alias, Latest, Logged, Run, Stage, Version};
        let follows = |uri: &SourceUri| {
            let Some(wanted) = model else { return true };
            let SourceUri::Mlflow { target, .. } = uri else { return false };
            match target {
                Alias { model, .. } | Version { model, .. } | Stage { model, .. } | Latest { model } => {
                    model == wanted
                }
                Logged { .. } | Run { .. } => false,
            }
        };
        let nudges = self.nudges();
        let found = nudges.values().filter(|(_, uri)| follows(uri));
        found.map(|(nudge, _)| nudge.notify_one()).count()
    }

    /// Tells the registries how versions fare here. Never waits; what does not fit is dropped and counted.
    pub fn report(&self, reports: Vec<VersionReport>) {
        self.tell(Tell::Versions(reports));
    }

    /// Tells a model's tracking server values of its monitoring run. Never waits.
    pub fn metrics(&self, model: ModelName, version: Version, values: Vec<(String, f64)>) {
        self.tell(Tell::Metrics { model, version, values, at_ms: crate::board::wall_ms() });
    }

    fn tell(&self, tell: Tell) {
        if self.commands.try_send(Command::Tell(tell)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends a rollout that a moved pointer began: `stays` is served from now on. When that is not where the pointer
    /// leads, the pointer is left alone, the version it leads to is marked at the registry with `reason`, and it is not
    /// taken up again until the pointer moves.
    pub fn settle(&self, model: &ModelName, stays: &Version, reason: &str) {
        let sources: Vec<String> = {
            let rows = self.shared.board.rows();
            let has =
                |row: &Row| row.models.get(model).is_some_and(|followed| followed.held.contains_key(stays));
            rows.iter().filter(|(_, row)| has(row)).map(|(name, _)| name.clone()).collect()
        };
        for source in sources {
            let marked = self.shared.board.change(&source, |row| {
                let followed = row.models.get_mut(model)?;
                followed.aspired = vec![stays.clone()];
                let refused = followed.target.clone().filter(|target| target != stays)?;
                followed.rolled_back.insert(refused.clone(), reason.to_owned());
                Some(refused)
            });
            self.save(&source);
            let Some(refused) = marked.flatten() else {
                // it may have been marked before
                let (model, version, state) = (model.clone(), stays.clone(), "ready".to_owned());
                self.report(vec![VersionReport { model, version, state, reason: String::new() }]);
                continue;
            };
            tracing::warn!(%model, version = %refused, %stays, reason, "rolled back here; the registry's pointer is left alone");
            let state = "rolled_back".to_owned();
            let report =
                VersionReport { model: model.clone(), version: refused, state, reason: reason.to_owned() };
            self.report(vec![report]);
        }
    }

    fn save(&self, source: &str) {
        let rows = self.shared.board.rows();
        let Some(row) = rows.get(source) else { return };
        let (uri, models) = (row.uri.clone(), row.models.clone());
        drop(rows);
        if let Err(error) = Catalogue::new(&self.dir.join("catalogue"), source).save(&uri, &models) {
            tracing::warn!(source, %error, "what is here could not be noted down");
        }
    }

    /// Ends the thread; what is under way is given up and goes on at the next start.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    fn nudges(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Arc<Notify>, SourceUri)>> {
        self.nudges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The event loop's state.
struct Thread {
    shared: Arc<Shared>,
    dir: PathBuf,
    registry: std::sync::Weak<Registry>,
    stop: Arc<Notify>,
}

impl Thread {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut followers = JoinSet::new();
        let mut running = HashMap::new();
        let writing = self.shared.writer.start();
        loop {
            let command = tokio::select! {
                biased;
                () = self.stop.notified() => break,
                command = commands.recv() => command,
            };
            let Some(command) = command else { break };
            match command {
                Command::Tell(tell) => self.shared.writer.tell(tell),
                Command::Remove(name) => {
                    self.shared.writer.forget(&name);
                    if let Some(handle) = running.remove(&name) {
                        let handle: tokio::task::AbortHandle = handle;
                        handle.abort();
                    }
                    Catalogue::new(&self.dir.join("catalogue"), &name).remove();
                }
                Command::Add(spec) => {
                    let name = spec.name.to_string();
                    if let Some(follower) = self.follower(*spec) {
                        running.insert(name, followers.spawn_local(follower.run()));
                    }
                }
            }
        }
        writing.abort();
        followers.abort_all();
        while followers.join_next().await.is_some() {}
    }

    /// Reads what is here of a source, and makes its follower.
    fn follower(&mut self, spec: SourceSpec) -> Option<Follower> {
        let name = spec.name.to_string();
        let catalogue = Catalogue::new(&self.dir.join("catalogue"), &name);
        let models = catalogue.load(&spec.uri_text, &self.shared.fetcher.store);
        let requests = self.shared.board.change(&name, |row| {
            row.models = models;
            row.loaded = true;
            Arc::clone(&row.requests)
        })?;
        let nudge = self.registry.upgrade()?.nudges().get(&name).map(|(nudge, _)| Arc::clone(nudge))?;
        match Follower::new(spec, Arc::clone(&self.shared), catalogue, (nudge, &requests)) {
            Ok(follower) => {
                if let crate::kind::Kind::Mlflow(mlflow) = &follower.kind {
                    self.shared.writer.follow(&name, mlflow.subject());
                }
                Some(follower)
            }
            Err(error) => {
                self.shared.board.change(&name, |row| {
                    row.tried = true;
                    row.stale_since_ms = Some(crate::board::wall_ms());
                    row.last_error = Some(error.to_string());
                });
                None
            }
        }
    }
}

struct RemoteSource(Arc<Shared>);

impl Source for RemoteSource {
    fn name(&self) -> &str {
        "registry"
    }

    fn poll(&mut self, _: u64) -> Poll {
        self.0.board.poll()
    }
}
