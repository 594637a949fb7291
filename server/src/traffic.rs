//! Who changes routes and labels, and carries rollouts out: one thread, so that of two writers one learns of the other.
//! What it changed is in the state folder before it is told, and holds after a restart. Must not know HTTP, nor how a
//! route is followed.

mod aliases;
mod bandits;
mod check;
mod log;
mod rollouts;
mod saved;
mod trial;

use std::{collections::BTreeMap, io, path::Path, sync::Arc, thread::JoinHandle, time::Duration};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use gannet_models::{ModelName, Version};
use gannet_registry::{AliasMoved, Registry};
use gannet_runtime::{
    control::{
        manager::{Control, TrafficChange},
        rollout::PlanFile,
    },
    route::{Judge, Route, RouteFile},
};
use tokio::sync::oneshot;

pub use self::aliases::SavedMove;
use self::bandits::Bandits;
pub use self::check::no_route;
pub use self::log::{Logs, RolloutLog};
use self::rollouts::Rollouts;
pub use self::rollouts::{Shown, ShownRollout, Wish, no_rollout};
pub use self::saved::{Saved, SavedModel, SavedRoute};
use self::saved::{SavedFile, Writer};
use crate::respond::{Kind, Refusal};

/// Time between two looks at rollouts and at routes that learn.
const LOOK: Duration = Duration::from_millis(250);
/// Changes that may wait.
const CHANGES_MAX: usize = 64;
/// Labels of one model that are set by hand.
const LABELS_MAX: usize = 256;

/// What a writer knows of the route that it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// It is one of these revisions.
    Revision(Vec<u64>),
    /// There is one.
    Present,
    /// There is none.
    Absent,
}

/// A change and who waits for it.
enum Change {
    Route {
        model: ModelName,
        /// `None`: no route any more.
        file: Option<RouteFile>,
        condition: Condition,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Label {
        model: ModelName,
        label: String,
        /// `None`: the label is taken away.
        version: Option<Version>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Start {
        model: ModelName,
        plan: Box<PlanFile>,
        actor: String,
        reply: oneshot::Sender<Result<u64, Refusal>>,
    },
    Wish {
        wish: Box<Wish>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Alias {
        moved: AliasMoved,
        registry: Arc<Registry>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Registry(Arc<Registry>),
    Stop,
}

/// Routes, labels and rollouts, seen by endpoints.
#[derive(Debug)]
pub struct Traffic {
    changes: Sender<Change>,
    saved: Arc<ArcSwap<Saved>>,
    shown: Arc<ArcSwap<Shown>>,
    logs: Logs,
}

impl Traffic {
    /// Puts in force what the state folder holds, and starts the thread. Call it before any model is loaded.
    ///
    /// # Errors
    /// When what the folder holds cannot be read or is no such file, or the system gives no thread.
    pub fn start(state_dir: &Path, control: Control) -> Result<(Self, JoinHandle<()>), String> {
        let file = SavedFile::new(state_dir);
        let writer = file.lock().map_err(|error| error.to_string())?;
        if writer.is_none() {
            tracing::warn!(
                folder = %state_dir.display(),
                "another process changes routes and labels in this state folder; this one only follows what it found"
            );
        }
        let found = file.read()?;
        let saved = Arc::new(ArcSwap::from_pointee(Saved::default()));
        let shown = Arc::new(ArcSwap::from_pointee(Shown::default()));
        let logs = Logs::new(state_dir);
        let mut keeper = Keeper {
            control,
            file,
            writer,
            saved: Arc::clone(&saved),
            shown: Arc::clone(&shown),
            rollouts: Rollouts::new(logs.clone()),
            bandits: Bandits::default(),
            registry: None,
        };
        keeper.restore(found)?;
        let (changes, receiver) = bounded(CHANGES_MAX);
        let start = || -> io::Result<JoinHandle<()>> {
            std::thread::Builder::new().name("gannet-traffic".into()).spawn(move || keeper.run(&receiver))
        };
        let thread = start().map_err(|error| format!("no thread for routes and labels: {error}"))?;
        Ok((Self { changes, saved, shown, logs }, thread))
    }

    /// What is in force.
    #[must_use]
    pub fn saved(&self) -> Arc<Saved> {
        self.saved.load_full()
    }

    /// Gives a model a route, or takes it away with `None`. Returns once requests follow it and it would outlast a
    /// crash. The same route once more changes nothing.
    ///
    /// # Errors
    /// A refusal that names every fault; nothing is changed then.
    pub async fn set_route(
        &self,
        model: ModelName,
        file: Option<RouteFile>,
        condition: Condition,
    ) -> Result<(), Refusal> {
        let (reply, done) = oneshot::channel();
        self.ask(Change::Route { model, file, condition, reply }, done).await
    }

    /// Gives a label to a version that serves, or takes it away with `None`. Returns as [`Traffic::set_route`].
    ///
    /// # Errors
    /// [`Kind::Conflict`] when the version does not serve or there is no such label.
    pub async fn set_label(
        &self,
        model: ModelName,
        label: String,
        version: Option<Version>,
    ) -> Result<(), Refusal> {
        let (reply, done) = oneshot::channel();
        self.ask(Change::Label { model, label, version, reply }, done).await
    }

    /// Every rollout as it stands.
    #[must_use]
    pub fn rollouts(&self) -> Arc<Shown> {
        self.shown.load_full()
    }

    /// Where the logs of rollouts are.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Begins a rollout and gives its number. Returns as [`Traffic::set_route`].
    ///
    /// # Errors
    /// A refusal that names every fault; nothing is changed then.
    pub async fn start_rollout(
        &self,
        model: ModelName,
        plan: PlanFile,
        actor: String,
    ) -> Result<u64, Refusal> {
        let (reply, done) = oneshot::channel();
        self.ask(Change::Start { model, plan: Box::new(plan), actor, reply }, done).await
    }

    /// Obeys a wish for a rollout. Returns as [`Traffic::set_route`].
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Precondition`], and [`Kind::Conflict`] when it is over.
    pub async fn wish(&self, wish: Wish) -> Result<(), Refusal> {
        let (reply, done) = oneshot::channel();
        self.ask(Change::Wish { wish: Box::new(wish), reply }, done).await
    }

    /// What a registry calls when a pointer moved that others decide about. It waits until no request can go to the new
    /// version by itself; false: the move is not taken care of.
    pub fn alias_hook(&self) -> impl Fn(&AliasMoved, &Arc<Registry>) -> bool + Send + Sync + 'static {
        let changes = self.changes.clone();
        move |moved, registry| {
            let (reply, done) = oneshot::channel();
            let change = Change::Alias { moved: moved.clone(), registry: Arc::clone(registry), reply };
            let taken = changes.try_send(change).is_ok().then(|| done.blocking_recv().ok()).flatten();
            match taken {
                Some(Ok(())) => true,
                Some(Err(refusal)) => {
                    tracing::warn!(model = %moved.model, reason = %refusal.message, "no rollout for a moved pointer");
                    false
                }
                None => false,
            }
        }
    }

    /// Tells who is to be told how moves of before this process ended.
    pub fn follow(&self, registry: Arc<Registry>) {
        let _ = self.changes.send(Change::Registry(registry));
    }

    /// Ends the thread.
    pub fn stop(&self) {
        let _ = self.changes.send(Change::Stop);
    }

    async fn ask<T>(
        &self,
        change: Change,
        done: oneshot::Receiver<Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        self.changes.try_send(change).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::new(
                Kind::Exhausted,
                format!("{CHANGES_MAX} changes of routes and labels wait already; try again"),
            ),
            TrySendError::Disconnected(_) => stopping(),
        })?;
        done.await.unwrap_or_else(|_| Err(stopping()))
    }
}

fn stopping() -> Refusal {
    Refusal::new(Kind::Unavailable, "the server is shutting down")
}

/// The thread's own.
struct Keeper {
    control: Control,
    file: SavedFile,
    /// The right to write; `None` while another process has it.
    writer: Option<Writer>,
    saved: Arc<ArcSwap<Saved>>,
    shown: Arc<ArcSwap<Shown>>,
    rollouts: Rollouts,
    bandits: Bandits,
    /// Who is told how moves of its pointers ended.
    registry: Option<Arc<Registry>>,
}

impl Keeper {
    fn run(mut self, changes: &Receiver<Change>) {
        loop {
            let change = if self.rollouts.is_idle() && self.bandits.is_idle() && self.is_settled() {
                changes.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                changes.recv_timeout(LOOK)
            };
            let change = match change {
                Ok(change) => change,
                Err(RecvTimeoutError::Timeout) => {
                    self.look();
                    self.learn();
                    self.follow_moves();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            match change {
                Change::Alias { moved, registry, reply } => {
                    let _ = reply.send(self.alias_moved(&moved, &registry));
                }
                Change::Registry(registry) => self.registry = Some(registry),
                Change::Start { model, plan, actor, reply } => {
                    let _ = reply.send(self.start_rollout(&model, &plan, &actor));
                }
                Change::Wish { wish, reply } => {
                    let _ = reply.send(self.wish(&wish));
                }
                Change::Route { model, file, condition, reply } => {
                    let _ = reply.send(self.route(&model, file, &condition));
                }
                Change::Label { model, label, version, reply } => {
                    let _ = reply.send(self.label(&model, &label, version));
                }
                Change::Stop => return,
            }
        }
    }

    /// Tells the control plane all that was saved, before any of it can be asked for.
    fn restore(&mut self, saved: Saved) -> Result<(), String> {
        for (model, kept) in &saved.models {
            self.control.restore_labels(model.clone(), kept.labels.clone());
            let route = kept.route.as_ref().map(|kept| Route::new(model.as_str(), &kept.route));
            let route = route.transpose().map_err(|faults| {
                format!("{}: the route of '{model}': {faults}; {}", self.file.path().display(), saved::ADVICE)
            })?;
            let judge = self.learner(model, kept);
            let change = TrafficChange { route, judge, labels: None };
            self.control.set_traffic(model.clone(), change);
        }
        self.saved.store(Arc::new(saved));
        // who does not write does not decide: then the one that does carries rollouts out
        if self.writer.is_some() { rollouts::restore(self) } else { Ok(()) }
    }

    fn route(
        &mut self,
        model: &ModelName,
        file: Option<RouteFile>,
        condition: &Condition,
    ) -> Result<(), Refusal> {
        self.take_over()?;
        self.rolls_out(model)?;
        let mut saved = Saved::clone(&self.saved.load());
        let before = saved.models.get(model).and_then(|kept| kept.route.as_ref());
        check::condition(model, before, condition)?;
        if before.map(|kept| &kept.route) == file.as_ref() {
            return match file {
                Some(_) => Ok(()),
                None => Err(check::no_route(model)),
            };
        }
        let route = match &file {
            Some(file) => Some(check::route(model, file, self.control.table())?),
            None => None,
        };
        saved.revision += 1;
        let revision = saved.revision;
        let kept = saved.models.entry(model.clone()).or_default();
        kept.route = file.map(|route| SavedRoute { revision, route });
        kept.rewards.clear();
        self.write(&saved)?;
        let judge = saved.models.get(model).map_or_else(Judge::default, |kept| self.learner(model, kept));
        self.control.set_traffic(model.clone(), TrafficChange { route, judge, labels: None });
        self.follow(saved)
    }

    fn label(&mut self, model: &ModelName, label: &str, version: Option<Version>) -> Result<(), Refusal> {
        self.take_over()?;
        let mut saved = Saved::clone(&self.saved.load());
        let labels = saved.models.get(model).map(|kept| kept.labels.clone()).unwrap_or_default();
        if labels.len() >= LABELS_MAX && !labels.contains_key(label) {
            return Err(Refusal::new(
                Kind::Conflict,
                format!(
                    "'{model}' has {LABELS_MAX} labels that were set by calls; set one of them again instead"
                ),
            ));
        }
        let done = self.control.set_label(model.clone(), label.to_owned(), version.clone());
        done.blocking_recv().map_err(|_| stopping())?.map_err(|why| Refusal::new(Kind::Conflict, why))?;
        saved.models.entry(model.clone()).or_default().labels.insert(label.to_owned(), version);
        self.write(&saved).inspect_err(|_| self.control.restore_labels(model.clone(), labels))?;
        self.follow(saved)
    }

    /// Waits until requests see what was told.
    fn follow(&self, saved: Saved) -> Result<(), Refusal> {
        let published = self.control.published().blocking_recv();
        self.saved.store(Arc::new(saved));
        published.map_err(|_| stopping())
    }

    /// Becomes the one who writes, if the process that was is gone, with what that one wrote last.
    fn take_over(&mut self) -> Result<(), Refusal> {
        if self.writer.is_some() {
            return Ok(());
        }
        let internal = |why: String| Refusal::new(Kind::Internal, why);
        let Some(writer) = self.file.lock().map_err(|error| internal(error.to_string()))? else {
            return Err(Refusal::new(
                Kind::Conflict,
                format!(
                    "another process changes routes and labels in {}; change them there, or give this server a state \
                     folder of its own with --state",
                    self.file.path().display()
                ),
            ));
        };
        let mut found = self.file.read().map_err(internal)?;
        // what the other one took away is to be told too
        for model in self.saved.load().models.keys() {
            found.models.entry(model.clone()).or_default();
        }
        self.writer = Some(writer);
        self.restore(found).inspect_err(|_| self.writer = None).map_err(internal)
    }

    fn write(&self, saved: &Saved) -> Result<(), Refusal> {
        let writer = self.writer.as_ref().ok_or_else(stopping)?;
        self.file.write(writer, saved).map_err(|error| {
            let path = self.file.path().display();
            Refusal::new(
                Kind::Internal,
                format!("{path} could not be written, and nothing was changed: {error}; see to the disk and try again"),
            )
        })
    }
}

/// Labels by model, as they are saved.
pub type Labels = BTreeMap<String, Option<Version>>;
