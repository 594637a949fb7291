//! The one thread that changes what is served: it applies events to the [`Lifecycle`], carries out its actions and
//! publishes the table. Must not decide anything: the lifecycle and the transition policy do.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
};

use crossbeam::channel::{Receiver, Sender, bounded};
use gannet_models::{ModelName, Version};
use tokio::sync::oneshot;

use super::{
    lifecycle::{Action, Lifecycle, LifecycleLimits, VersionStatus},
    loader::{self, LoadSpec, Qualify},
    reaper::{self, Retired},
};
use crate::{
    backend::Backend,
    capture::Tap,
    drift::Drift,
    metrics::process,
    route::{Judge, LiveRoute, Route, Shadow},
    servable::{Incarnation, Loaded, Servable},
    shadow::Line,
    table::{ModelEntry, RouteEntry, ServingTable, TableReader, VersionEntry},
};

/// Commands that may wait for the manager.
const COMMANDS_MAX: usize = 4096;

/// Commands applied before the table is published again.
const COMMANDS_A_PUBLISH: usize = 256;

/// What the control plane needs.
pub struct ControlConfig {
    /// Limits and policy.
    pub limits: LifecycleLimits,
    /// Every engine.
    pub backends: Vec<Arc<dyn Backend>>,
    /// Reads golden requests.
    pub qualify: Arc<dyn Qualify>,
    /// How far the threads that load and free models step back, 0 (not at all) to 19.
    pub loader_nice: i32,
    /// Who looks at a share of the requests.
    pub drift: Option<Arc<Drift>>,
    /// Where copies of requests go, if anywhere.
    pub tap: Option<Arc<Tap>>,
}

enum Command {
    Aspire {
        model: ModelName,
        aspired: Vec<LoadSpec>,
        labels: BTreeMap<String, Version>,
    },
    Retry {
        model: ModelName,
    },
    Reload {
        model: ModelName,
        version: Version,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Label {
        model: ModelName,
        label: String,
        version: Option<Version>,
        reply: oneshot::Sender<Result<(), String>>,
    },
    RestoreLabels {
        model: ModelName,
        labels: BTreeMap<String, Option<Version>>,
    },
    Traffic {
        model: ModelName,
        change: Box<TrafficChange>,
    },
    Published {
        reply: oneshot::Sender<()>,
    },
    Settle {
        model: ModelName,
        reply: oneshot::Sender<Vec<VersionStatus>>,
    },
    Ended {
        model: ModelName,
        incarnation: Incarnation,
        result: Result<Box<Loaded>, String>,
    },
    Destroyed(Incarnation),
    Stop,
}

/// How the requests of a model go from the next table on, all at once.
#[derive(Debug, Default)]
pub struct TrafficChange {
    /// Who answers requests that name no version; `None`: its highest version that is ready.
    pub route: Option<Route>,
    /// What is noted of them.
    pub judge: Judge,
    /// Labels, as [`Control::restore_labels`] takes them; `None`: as they are.
    pub labels: Option<BTreeMap<String, Option<Version>>>,
}

/// The control plane, seen by those who want something of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    commands: Sender<Command>,
    table: TableReader,
}

impl Control {
    /// Starts the manager, its loaders and the reaper.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(config: ControlConfig) -> io::Result<(Self, JoinHandle<()>)> {
        let (commands, receiver) = bounded(COMMANDS_MAX);
        let table = TableReader::default();
        let done = commands.clone();
        let report = move |incarnation| {
            let _ = done.send(Command::Destroyed(incarnation));
        };
        let (retire, reaper) = reaper::start(config.backends.clone(), config.loader_nice, report)?;
        let loads_max = config.limits.loads_max.max(1);
        let (jobs, queue) = bounded::<LoadJob>(loads_max);
        for index in 0..loads_max {
            start_loader(index, queue.clone(), commands.clone(), &config)?;
        }
        let manager = Manager {
            lifecycle: Lifecycle::new(LifecycleLimits { loads_max, ..config.limits }),
            servables: HashMap::new(),
            waiters: Vec::new(),
            routes: BTreeMap::new(),
            unpublished: Vec::new(),
            table: table.clone(),
            jobs,
            retire,
            drift: config.drift,
            tap: config.tap,
        };
        let run = move || {
            manager.run(&receiver);
            let _ = reaper.join();
        };
        let thread = std::thread::Builder::new().name("gannet-manager".into()).spawn(run)?;
        Ok((Self { commands, table }, thread))
    }

    /// What requests see.
    #[must_use]
    pub fn table(&self) -> &TableReader {
        &self.table
    }

    /// States the whole set of versions wanted of `model`.
    pub fn aspire(&self, model: ModelName, aspired: Vec<LoadSpec>, labels: BTreeMap<String, Version>) {
        self.send(Command::Aspire { model, aspired, labels });
    }

    /// Lets loads that failed be tried again.
    pub fn retry(&self, model: ModelName) {
        self.send(Command::Retry { model });
    }

    /// Loads a fresh copy of a wanted version, and swaps it in.
    pub fn reload(&self, model: ModelName, version: Version) -> oneshot::Receiver<Result<(), String>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Reload { model, version, reply });
        answer
    }

    /// Gives `label` to a version that serves; `None` takes it away.
    pub fn set_label(
        &self,
        model: ModelName,
        label: String,
        version: Option<Version>,
    ) -> oneshot::Receiver<Result<(), String>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Label { model, label, version, reply });
        answer
    }

    /// Sets labels as [`Control::set_label`] set them in another process, whether their versions serve yet or not.
    pub fn restore_labels(&self, model: ModelName, labels: BTreeMap<String, Option<Version>>) {
        self.send(Command::RestoreLabels { model, labels });
    }

    /// Changes how the requests of a model go. It holds from the next table on, whether the versions serve yet or
    /// not, and while the model comes and goes.
    pub fn set_traffic(&self, model: ModelName, change: TrafficChange) {
        self.send(Command::Traffic { model, change: Box::new(change) });
    }

    /// Answers once everything sent before is in the table that requests see.
    pub fn published(&self) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Published { reply });
        answer
    }

    /// The states of a model once nothing more is going on with it. Commands sent before are done then.
    pub fn settle(&self, model: ModelName) -> oneshot::Receiver<Vec<VersionStatus>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Settle { model, reply });
        answer
    }

    /// Ends the control plane; what is served stays served until its last holder lets go.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    fn send(&self, command: Command) {
        // fails only after the manager ended: then there is nobody to act and nothing to act upon
        let _ = self.commands.send(command);
    }
}

struct LoadJob {
    model: ModelName,
    incarnation: Incarnation,
    spec: LoadSpec,
}

struct Held {
    servable: Arc<Servable>,
    threads: Vec<JoinHandle<()>>,
}

/// A route, and the ways to its shadows.
struct HeldRoute {
    live: Arc<LiveRoute>,
    lines: Vec<Arc<Line>>,
}

struct Waiter {
    model: ModelName,
    reply: oneshot::Sender<Vec<VersionStatus>>,
}

struct Manager {
    lifecycle: Lifecycle<LoadSpec>,
    /// Every servable that serves.
    servables: HashMap<Incarnation, Held>,
    waiters: Vec<Waiter>,
    routes: BTreeMap<ModelName, HeldRoute>,
    /// Who waits for the next table.
    unpublished: Vec<oneshot::Sender<()>>,
    table: TableReader,
    jobs: Sender<LoadJob>,
    retire: Sender<Retired>,
    drift: Option<Arc<Drift>>,
    tap: Option<Arc<Tap>>,
}

impl Manager {
    fn run(mut self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.recv() {
            let mut retired = Vec::new();
            let mut stop = matches!(command, Command::Stop);
            self.apply(command, &mut retired);
            // a burst of commands costs one publish
            for command in commands.try_iter().take(COMMANDS_A_PUBLISH) {
                stop |= matches!(command, Command::Stop);
                self.apply(command, &mut retired);
            }
            if stop {
                self.retire_all(retired);
                break;
            }
            while let Some(action) = self.lifecycle.next_action() {
                self.perform(action, &mut retired);
            }
            // one store; the old table dies with its last reader, the servables it held with the reaper's clone
            self.publish();
            self.retire_all(retired);
            self.answer_waiters();
        }
        self.table.publish(ServingTable::default());
        let rest: Vec<Held> = self.servables.drain().map(|(_, held)| held).collect();
        self.retire_all(rest);
    }

    fn retire_all(&self, retired: Vec<Held>) {
        for held in retired {
            // fails only when the reaper is gone: then the process is ending
            let _ = self.retire.send(Retired { servable: held.servable, threads: held.threads });
        }
    }

    fn apply(&mut self, command: Command, retired: &mut Vec<Held>) {
        match command {
            Command::Aspire { model, aspired, labels } => self.lifecycle.aspire(&model, aspired, labels),
            Command::Retry { model } => self.lifecycle.retry(&model),
            Command::Reload { model, version, reply } => {
                let missing =
                    || format!("version '{version}' of '{model}' is not wanted, or is being loaded already");
                let _ = reply.send(self.lifecycle.reload(&model, &version).then_some(()).ok_or_else(missing));
            }
            Command::Label { model, label, version, reply } => {
                let _ = reply.send(self.lifecycle.set_label(&model, &label, version.as_ref()));
            }
            Command::RestoreLabels { model, labels } => self.lifecycle.restore_labels(&model, labels),
            Command::Traffic { model, change } => self.traffic(model, *change),
            Command::Published { reply } => self.unpublished.push(reply),
            Command::Settle { model, reply } => self.waiters.push(Waiter { model, reply }),
            Command::Ended { model, incarnation, result } => self.ended(&model, incarnation, result, retired),
            Command::Destroyed(incarnation) => self.lifecycle.destroyed(incarnation),
            Command::Stop => {}
        }
    }

    fn traffic(&mut self, model: ModelName, change: TrafficChange) {
        let TrafficChange { route, judge, labels } = change;
        if let Some(labels) = labels {
            self.lifecycle.restore_labels(&model, labels);
        }
        let before = self.routes.remove(&model);
        if let Some(route) = route {
            let live = Arc::new(LiveRoute::after(before.as_ref().map(|held| &*held.live), route, judge));
            let line = |shadow: &Shadow| {
                let same = |line: &&Arc<Line>| {
                    line.version == shadow.version && line.tolerances == shadow.tolerances
                };
                let known = before.as_ref().and_then(|held| held.lines.iter().find(same)).cloned();
                known.unwrap_or_else(|| Line::start(shadow.version.clone(), shadow.tolerances.clone()))
            };
            let lines = live.route.shadows().iter().map(line).collect();
            self.routes.insert(model, HeldRoute { live, lines });
        }
    }

    fn ended(
        &mut self,
        model: &ModelName,
        incarnation: Incarnation,
        result: Result<Box<Loaded>, String>,
        retired: &mut Vec<Held>,
    ) {
        // the threads are started here and not by the loader: they must not inherit its low priority
        let started = result.and_then(|loaded| {
            let mut servable = Servable::new(*loaded);
            if let Some(drift) = &self.drift {
                servable.watch(drift);
            }
            if let Some(tap) = &self.tap {
                servable.copy_to(tap);
            }
            let servable = Arc::new(servable);
            let threads =
                servable.start().map_err(|error| format!("no thread for its instances: {error}"))?;
            Ok(Held { servable, threads })
        });
        match started {
            Ok(held) => {
                tracing::info!(%model, version = %held.servable.version, "loaded");
                self.servables.insert(incarnation, held);
                if let Some(action) = self.lifecycle.loaded(model, incarnation) {
                    self.perform(action, retired);
                }
            }
            Err(reason) => {
                tracing::warn!(%model, %reason, "load refused");
                self.lifecycle.load_failed(model, incarnation, reason);
            }
        }
    }

    fn perform(&mut self, action: Action<LoadSpec>, retired: &mut Vec<Held>) {
        match action {
            Action::Load { model, incarnation, wanted } => {
                // never waits: the lifecycle asks for no more loads than there are loaders
                let _ = self.jobs.send(LoadJob { model, incarnation, spec: wanted });
            }
            Action::Retire(incarnation) => retired.extend(self.servables.remove(&incarnation)),
        }
    }

    fn publish(&self) {
        let entry = |model: &ModelName| {
            let version = |status: VersionStatus| {
                let held = status.serving.and_then(|incarnation| self.servables.get(&incarnation));
                VersionEntry { servable: held.map(|h| Arc::clone(&h.servable)), status }
            };
            let versions: Vec<_> = self.lifecycle.status(model).into_iter().map(version).collect();
            let (labels, loads) = (self.lifecycle.labels(model), self.lifecycle.loads(model));
            let route = self
                .routes
                .get(model)
                .map(|HeldRoute { live, lines }| RouteEntry::new(Arc::clone(live), lines.clone(), &versions));
            (model.clone(), ModelEntry { versions, labels, loads, route })
        };
        self.table.publish(ServingTable::new(self.lifecycle.models().map(entry).collect()));
    }

    fn answer_waiters(&mut self) {
        for reply in self.unpublished.drain(..) {
            let _ = reply.send(());
        }
        for waiter in std::mem::take(&mut self.waiters) {
            if self.lifecycle.settled(&waiter.model) {
                let _ = waiter.reply.send(self.lifecycle.status(&waiter.model));
            } else {
                self.waiters.push(waiter);
            }
        }
    }
}

/// Lowers the calling thread's priority, 0 (not at all) to 19: copying, loading and freeing models must not be felt
/// by requests that share the core. At 19 it only runs while nobody else wants the core: a nice value alone lets it
/// finish its slice of some milliseconds first.
pub fn step_back(nice: i32) {
    use thread_priority::{
        NormalThreadSchedulePolicy::Idle, ThreadPriority, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };
    if nice >= 19 {
        let idle = ThreadSchedulePolicy::Normal(Idle);
        match set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle) {
            Ok(()) => return,
            Err(error) => tracing::debug!(?error, "no idle scheduling for background threads"),
        }
    }
    let this = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(this), nice) {
        tracing::debug!(%error, "background threads keep the normal priority");
    }
}

fn start_loader(
    index: usize,
    jobs: Receiver<LoadJob>,
    done: Sender<Command>,
    config: &ControlConfig,
) -> io::Result<()> {
    let qualify = Arc::clone(&config.qualify);
    let nice = config.loader_nice;
    let run = move || {
        step_back(nice);
        while let Ok(LoadJob { model, incarnation, spec }) = jobs.recv() {
            let load = || loader::load(&model, incarnation, &spec, &*qualify);
            let result = catch_unwind(AssertUnwindSafe(load))
                .unwrap_or_else(|_| Err("the engine panicked while loading".into()))
                .map(Box::new)
                .map_err(|reason| format!("failed to load '{model}' from {}: {reason}", spec.origin));
            if result.is_err() {
                spec.backend.release_memory();
            }
            drop(spec);
            if done.send(Command::Ended { model, incarnation, result }).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name(format!("gannet-loader-{index}")).spawn(run).map(|_| ())
}

/// Process-wide counters of the control plane, described once the recorder is set.
pub fn describe_metrics(version: &'static str, runtime: &str) {
    process::describe(version, runtime);
}
