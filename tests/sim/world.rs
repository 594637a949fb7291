//! The made-up world: sources that change their minds, loads that take long or fail, and the effects that the
//! manager, the loaders and the reaper have in the product. Must not judge; `check` does.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use gannet_models::{ModelName, Version};
use gannet_runtime::{
    Time,
    batch::{cost::ShapeCosts, policy::BatchPolicy, queue::Queue},
    control::{
        lifecycle::{Action, Lifecycle, LifecycleLimits},
        transition::SwapPolicy,
    },
    servable::Incarnation,
};

use super::{Fault, spec::Spec, traffic::Request, traffic::Run};
use crate::support::random::Random;

const MODELS: u64 = 3;
const VERSIONS: u64 = 5;
/// Things that happen from outside in one seed.
const OUTSIDE_EVENTS: u64 = 210;
/// Events of one seed, at most: more means that it never comes to rest.
const EVENTS_MAX: u64 = 100_000;
pub(super) const MS: u64 = 1_000_000;

pub(super) type Verdict = Result<(), String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Outside,
    LoadEnds(Incarnation),
    /// The reaper looks at a retired copy.
    Look(Incarnation),
    Join(usize),
    Cancel(usize),
    Deadline(usize),
    /// The list of an event loop's turn goes to the queue.
    Flush(Incarnation),
    Wake(Incarnation),
    RunEnds(Incarnation, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyState {
    Loading,
    Serving,
    Retired,
    Destroyed,
}

/// One load of one version, and its queue and instances.
pub(super) struct Copy {
    pub(super) model: ModelName,
    pub(super) spec: Spec,
    pub(super) state: CopyState,
    /// Requests that hold it: from their resolution to their answer.
    pub(super) holders: usize,
    pub(super) queue: Queue<usize>,
    pub(super) turn: Queue<usize>,
    pub(super) turn_order: Vec<usize>,
    /// What waits in `queue`, in the order in which it came: the plain truth that the queue is checked against.
    pub(super) order: Vec<usize>,
    pub(super) policy: BatchPolicy,
    pub(super) costs: ShapeCosts,
    pub(super) instances: Vec<Option<Run>>,
    pub(super) wake: Option<u64>,
}

/// How often what happened, over a seed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) events: u64,
    pub(super) loads: u64,
    pub(super) load_failures: u64,
    pub(super) replaced: u64,
    pub(super) destroyed: u64,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) expired: u64,
    pub(super) cancelled: u64,
    pub(super) refused: u64,
    pub(super) batches: u64,
    pub(super) shared_batches: u64,
    pub(super) memory_refusals: u64,
    pub(super) labels: u64,
}

impl Counts {
    fn each(&mut self) -> [&mut u64; 14] {
        let Self { events, loads, load_failures, replaced, destroyed, answered, failed, .. } = self;
        let Self { expired, cancelled, refused, batches, shared_batches, memory_refusals, labels, .. } = self;
        [
            events,
            loads,
            load_failures,
            replaced,
            destroyed,
            answered,
            failed,
            expired,
            cancelled,
            refused,
            batches,
            shared_batches,
            memory_refusals,
            labels,
        ]
    }

    pub(super) fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        self.each().into_iter().zip(other.each()).for_each(|(sum, more)| *sum += *more);
    }

    pub(super) fn smallest(&self) -> u64 {
        self.clone().each().into_iter().map(|count| *count).min().unwrap_or(0)
    }
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) fault: Option<Fault>,
    pub(super) now: Time,
    pub(super) limits: LifecycleLimits,
    pub(super) lifecycle: Lifecycle<Spec>,
    pub(super) copies: BTreeMap<Incarnation, Copy>,
    pub(super) requests: Vec<Request>,
    pub(super) wants: BTreeMap<ModelName, Vec<Spec>>,
    /// Contents whose load failed, and nothing changed since.
    pub(super) tried: BTreeMap<(ModelName, Version), u64>,
    /// What requests see.
    pub(super) published: BTreeMap<ModelName, Vec<(Version, Incarnation)>>,
    /// Models that served at the last publication.
    pub(super) ready: BTreeMap<ModelName, bool>,
    /// Models of which the lifecycle said that nothing more will happen.
    pub(super) settled: Vec<ModelName>,
    pub(super) counts: Counts,
    pub(super) trace: Vec<String>,
    tracing: bool,
    /// Retired and still in the published table.
    leaving: Vec<Incarnation>,
    contents: u64,
    outside_left: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    next_event: u64,
}

impl World {
    pub(super) fn new(seed: u64, fault: Option<Fault>, tracing: bool) -> Self {
        let mut random = Random::new(seed);
        let resources = random.percent(35) && fault != Some(Fault::UnloadsFirst);
        let limits = LifecycleLimits {
            policy: if resources { SwapPolicy::PreserveResources } else { SwapPolicy::PreserveAvailability },
            memory_bytes_max: random.percent(60).then(|| random.between(60, 200)),
            loads_max: random.between(1, 3) as usize,
        };
        let planted = match fault {
            Some(Fault::UnloadsFirst) => LifecycleLimits { policy: SwapPolicy::PreserveResources, ..limits },
            _ => limits,
        };
        let mut world = Self {
            random,
            fault,
            now: Time::from_ns(1_000 * MS),
            limits,
            lifecycle: Lifecycle::new(planted),
            copies: BTreeMap::new(),
            requests: Vec::new(),
            wants: BTreeMap::new(),
            tried: BTreeMap::new(),
            published: BTreeMap::new(),
            ready: BTreeMap::new(),
            settled: Vec::new(),
            counts: Counts::default(),
            trace: Vec::new(),
            tracing,
            leaving: Vec::new(),
            contents: 0,
            outside_left: OUTSIDE_EVENTS,
            events: BinaryHeap::new(),
            next_event: 0,
        };
        world.after(0, Event::Outside);
        world
    }

    /// From the first event to the last, each followed by all checks.
    pub(super) fn run(&mut self) -> Verdict {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = Time::from_ns(at);
            self.counts.events += 1;
            self.note(|| format!("{event:?}"));
            if self.counts.events > EVENTS_MAX {
                return Err("the world never comes to rest".into());
            }
            let drained = matches!(event, Event::Look(_));
            self.step(event)?;
            // the manager applies a burst of commands before it acts
            let more = matches!(event, Event::Outside | Event::LoadEnds(_)) && !self.events.is_empty();
            if more && self.random.percent(15) {
                self.settled.clear();
                continue;
            }
            self.act(drained)?;
            self.check()?;
        }
        self.check_quiet()
    }

    fn step(&mut self, event: Event) -> Verdict {
        match event {
            Event::Outside => self.outside(),
            Event::LoadEnds(incarnation) => self.load_ends(incarnation),
            Event::Look(incarnation) => self.look(incarnation),
            Event::Join(request) => self.join(request),
            Event::Cancel(request) => self.cancel(request),
            Event::Deadline(request) => self.deadline(request),
            Event::Flush(incarnation) => self.flush(incarnation),
            Event::Wake(incarnation) => self.wake(incarnation),
            Event::RunEnds(incarnation, instance) => self.run_ends(incarnation, instance),
        }
    }

    pub(super) fn after(&mut self, ns: u64, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((self.now.as_ns() + ns, self.next_event, event)));
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.tracing {
            self.trace.push(format!("{:>9} us  {}", (self.now.as_ns() - 1_000 * MS) / 1000, text()));
        }
    }

    fn outside(&mut self) -> Verdict {
        if self.outside_left == 0 {
            return Ok(());
        }
        self.outside_left -= 1;
        let pause = self.random.below(2 * MS);
        self.after(pause, Event::Outside);
        let model = ModelName::new(["a", "b", "c"][self.random.below(MODELS) as usize]).unwrap();
        match self.random.below(100) {
            0..65 => {
                let most = if self.random.percent(15) { 16 } else { 4 };
                for _ in 0..self.random.between(1, most) {
                    self.arrive(&model);
                }
            }
            65..85 => self.aspire(model),
            85..90 => {
                let version = self.any_version();
                self.note(|| format!("reload {model} {version}"));
                if self.lifecycle.reload(&model, &version) {
                    self.tried.remove(&(model, version));
                }
            }
            90..95 => {
                self.note(|| format!("retry {model}"));
                self.lifecycle.retry(&model);
                self.tried.retain(|(tried, _), _| *tried != model);
            }
            _ => return self.label(&model),
        }
        Ok(())
    }

    fn any_version(&mut self) -> Version {
        Version::new(&self.random.between(1, VERSIONS).to_string()).unwrap()
    }

    /// A source states its set anew.
    fn aspire(&mut self, model: ModelName) {
        let before = self.wants.get(&model).cloned().unwrap_or_default();
        let mut wants: Vec<Spec> = Vec::new();
        for _ in 0..[0, 1, 1, 1, 1, 1, 2, 2, 2, 3][self.random.below(10) as usize] {
            let version = self.any_version();
            let held = before.iter().find(|spec| spec.version == version);
            let content = held.map(|spec| spec.content).filter(|_| self.random.percent(60));
            self.contents += 1;
            if wants.iter().all(|spec| spec.version != version) {
                wants.push(Spec { version, content: content.unwrap_or(self.contents) });
            }
        }
        self.note(|| format!("{model} wants {wants:?}"));
        self.tried.retain(|(tried, version), content| {
            *tried != model || wants.iter().any(|w| w.version == *version && w.content == *content)
        });
        self.lifecycle.aspire(&model, wants.clone(), BTreeMap::new());
        self.wants.insert(model, wants);
    }

    /// A label is given exactly when the version serves.
    fn label(&mut self, model: &ModelName) -> Verdict {
        let version = self.any_version();
        let status = self.lifecycle.status(model);
        let serves = status.iter().any(|s| s.version == version && s.serving.is_some());
        let given = self.lifecycle.set_label(model, "stable", Some(&version)).is_ok();
        self.counts.labels += u64::from(given);
        if given == serves { Ok(()) } else { Err(format!("label: {model} {version} serves: {serves}")) }
    }

    fn load_ends(&mut self, incarnation: Incarnation) -> Verdict {
        let copy = self.copies.get_mut(&incarnation).ok_or("a load that was never asked for")?;
        let (model, spec) = (copy.model.clone(), copy.spec.clone());
        if spec.is_broken() || self.random.percent(8) {
            copy.state = CopyState::Destroyed;
            self.counts.load_failures += 1;
            let before = self.lifecycle.status(&model);
            self.lifecycle.load_failed(&model, incarnation, "it was to fail".into());
            self.tried.insert((model.clone(), spec.version), spec.content);
            if self.fault == Some(Fault::RetriesAtOnce) {
                self.lifecycle.retry(&model);
            }
            let after = self.lifecycle.status(&model);
            let lost = before
                .iter()
                .filter_map(|s| s.serving)
                .find(|held| after.iter().all(|s| s.serving != Some(*held)));
            return lost.map_or(Ok(()), |lost| Err(format!("(i) a failed load took {lost} away")));
        }
        copy.state = CopyState::Serving;
        let action = match self.lifecycle.loaded(&model, incarnation) {
            Some(Action::Retire(old)) if old != incarnation && self.fault == Some(Fault::RetiresTheNew) => {
                Some(Action::Retire(incarnation))
            }
            action => action,
        };
        let serves = action != Some(Action::Retire(incarnation));
        let wanted = self.wants.get(&model).is_some_and(|wants| wants.contains(&spec));
        if serves && !wanted {
            return Err(format!("(i) {model} {spec:?} begins to serve and is not wanted"));
        }
        self.counts.replaced += u64::from(action.is_some());
        action.map_or(Ok(()), |action| self.perform(action, false))
    }

    /// The reaper destroys a copy that nobody holds; until then it looks again.
    fn look(&mut self, incarnation: Incarnation) -> Verdict {
        let copy = &self.copies[&incarnation];
        let busy = copy.instances.iter().any(Option::is_some) || !copy.turn_order.is_empty();
        let held = copy.holders > 0 && self.fault != Some(Fault::DestroysHeld);
        if busy || held {
            self.after(5 * MS, Event::Look(incarnation));
            return Ok(());
        }
        self.check_destroyed(incarnation)?;
        let copy = self.copies.get_mut(&incarnation).ok_or("no such copy")?;
        copy.state = CopyState::Destroyed;
        copy.order.clear();
        let left: Vec<usize> = copy.queue.drain().map(|entry| entry.payload).collect();
        left.iter().for_each(|&request| self.requests[request].deliveries += 1);
        self.counts.destroyed += 1;
        self.lifecycle.destroyed(incarnation);
        Ok(())
    }

    /// The manager's part: all actions, then one publication, then the reaper gets what was retired.
    fn act(&mut self, drained: bool) -> Verdict {
        while let Some(action) = self.lifecycle.next_action() {
            self.perform(action, drained)?;
        }
        self.published.clear();
        for model in self.lifecycle.models() {
            let serving =
                |s: &gannet_runtime::control::lifecycle::VersionStatus| Some((s.version.clone(), s.serving?));
            let versions = self.lifecycle.status(model).iter().filter_map(serving).collect();
            self.published.insert(model.clone(), versions);
        }
        let refused = |model: &ModelName| {
            self.lifecycle.status(model).iter().any(|s| s.reason.starts_with("not loaded"))
        };
        self.counts.memory_refusals += self.lifecycle.models().filter(|model| refused(model)).count() as u64;
        for incarnation in std::mem::take(&mut self.leaving) {
            let pause = self.random.below(10 * MS);
            self.after(pause, Event::Look(incarnation));
        }
        Ok(())
    }

    fn perform(&mut self, action: Action<Spec>, drained: bool) -> Verdict {
        self.note(|| format!("  {action:?}"));
        self.check_action(&action, drained)?;
        match action {
            Action::Load { model, incarnation, wanted } => {
                self.counts.loads += 1;
                let long = if self.random.percent(10) { 200 * MS } else { 20 * MS };
                let takes = self.random.below(long);
                self.after(takes, Event::LoadEnds(incarnation));
                let copy = self.new_copy(model, wanted);
                self.copies.insert(incarnation, copy);
            }
            Action::Retire(incarnation) => {
                self.copies.get_mut(&incarnation).ok_or("(c) a copy that never was")?.state =
                    CopyState::Retired;
                self.leaving.push(incarnation);
            }
        }
        Ok(())
    }

    fn new_copy(&mut self, model: ModelName, spec: Spec) -> Copy {
        let random = &mut self.random;
        let policy = BatchPolicy {
            rows_max: [1, 4, 8][random.below(3) as usize],
            delay_ns_max: if random.percent(40) { random.below(MS) } else { 0 },
            preferred_rows: if random.percent(20) { vec![2, 4] } else { Vec::new() },
        };
        let instances = (0..random.between(1, 2)).map(|_| None).collect();
        Copy {
            model,
            spec,
            state: CopyState::Loading,
            holders: 0,
            queue: Queue::default(),
            turn: Queue::default(),
            turn_order: Vec::new(),
            order: Vec::new(),
            policy,
            costs: ShapeCosts::default(),
            instances,
            wake: None,
        }
    }
}
