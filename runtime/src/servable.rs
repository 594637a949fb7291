//! One loaded version: its queue, its instances, its costs and its counts. Must not know tables, routes, or how
//! it came to be loaded.

mod answering;
pub mod instance;
pub mod turn;

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use gannet_models::{ModelName, ModelSettings, Signature, Version, settings::Batching};
use tokio::sync::oneshot;

pub use self::answering::Answering;
use self::instance::{By, Worker};
use crate::{
    InferError, InferRequest, InferResponse, Time,
    batch::{
        assemble::Layout,
        cost::{Costs, ShapeCosts},
        policy::{self, BatchPolicy, Dispatch, Load},
        queue::{Entry, GroupKey, Queue},
    },
    capture::{Attached, Tap},
    clock,
    drift::{Baseline, Drift},
    metrics::{ModelStats, Outcome},
    request::{Checked, Contract, Tensors},
};

/// How long an I/O thread may be kept by a batch that it runs itself, in nanoseconds. Measured: running inline won
/// over handing over up to 240 us.
pub(crate) const INLINE_NS_MAX: u64 = 250_000;

/// What identifies one loaded copy among all that ever were.
pub type Incarnation = u64;

/// What [`Servable::run_apart`] gives.
#[derive(Debug)]
pub(crate) struct Apart {
    pub(crate) outputs: Tensors,
    pub(crate) rows: usize,
    /// How long the thread worked.
    pub(crate) own_ns: u64,
}

/// A request in the queue.
#[derive(Debug)]
pub struct Pending {
    inputs: Tensors,
    arrived: Time,
    reply: oneshot::Sender<Result<InferResponse, InferError>>,
}

/// One loaded version. Shared by the table, the requests that use it, and its own threads.
#[derive(Debug)]
pub struct Servable {
    /// The logical model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Which load of it.
    pub incarnation: Incarnation,
    /// Inputs, outputs, and whether there is a batch axis.
    pub signature: Signature,
    /// As configured.
    pub settings: Arc<ModelSettings>,
    /// What runs it.
    pub engine: Engine,
    /// Learned costs.
    pub costs: ShapeCosts,
    /// Counts since it was loaded.
    pub stats: ModelStats,
    /// What its data looked like when it was trained, if that is known.
    pub baseline: Option<Arc<Baseline>>,
    /// Who looks at a share of its requests.
    pub drift: Option<Arc<Drift>>,
    /// Where copies of its requests go, if any are wanted.
    pub tap: Option<Attached>,
    layout: Layout,
    policy: BatchPolicy,
    queue: Mutex<Queue<Pending>>,
    joined: Condvar,
    /// Length of `queue`, readable without its lock.
    queue_length: AtomicUsize,
    /// Requests and rows not yet taken into a batch, those in the lists of I/O threads included.
    waiting: AtomicUsize,
    waiting_rows: AtomicUsize,
    inflight: AtomicUsize,
    workers: Vec<Mutex<Worker>>,
    /// By worker: when its run is expected to end; 0 while it is idle.
    busy_until_ns: Vec<AtomicU64>,
    stop: AtomicBool,
}

/// What runs a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine {
    /// The backend's name, such as `onnxruntime`.
    pub name: &'static str,
    /// Triton's name for the pair of engine and format, such as `onnxruntime_onnx`.
    pub platform: &'static str,
    /// The file that it was opened from, such as `model.onnx`.
    pub model_file: &'static str,
}

/// What a loader made, to be turned into a [`Servable`].
#[derive(Debug)]
pub struct Loaded {
    /// The logical model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Which load of it.
    pub incarnation: Incarnation,
    /// With `batched` decided.
    pub signature: Signature,
    /// As configured.
    pub settings: Arc<ModelSettings>,
    /// What runs it.
    pub engine: Engine,
    /// One for each instance, at least one.
    pub workers: Vec<Worker>,
    /// Costs learned at warm-up.
    pub costs: ShapeCosts,
    /// Rows that one run takes at most; 1 without a batch axis.
    pub rows_max: usize,
    /// What its data looked like when it was trained, if that is known.
    pub baseline: Option<Arc<Baseline>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Servable {
    /// Builds the servable; its instance threads come from [`Servable::start`].
    #[must_use]
    pub fn new(loaded: Loaded) -> Self {
        let settings = &loaded.settings;
        let policy = BatchPolicy {
            rows_max: loaded.rows_max.max(1),
            delay_ns_max: settings.queue_delay_us_max * 1000,
            preferred_rows: settings.preferred_batch_rows.clone(),
        };
        Self {
            layout: Layout::new(&loaded.signature, &settings.padding),
            policy,
            queue: Mutex::default(),
            joined: Condvar::new(),
            queue_length: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            waiting_rows: AtomicUsize::new(0),
            inflight: AtomicUsize::new(0),
            busy_until_ns: loaded.workers.iter().map(|_| AtomicU64::new(0)).collect(),
            workers: loaded.workers.into_iter().map(Mutex::new).collect(),
            stop: AtomicBool::new(false),
            model: loaded.model,
            version: loaded.version,
            incarnation: loaded.incarnation,
            signature: loaded.signature,
            settings: loaded.settings,
            engine: loaded.engine,
            costs: loaded.costs,
            stats: ModelStats::default(),
            baseline: loaded.baseline,
            drift: None,
            tap: None,
        }
    }

    /// Has a share of its requests looked at, if any is wanted.
    pub fn watch(&mut self, drift: &Arc<Drift>) {
        self.drift = drift.attach(self).then(|| Arc::clone(drift));
    }

    /// Has a share of its requests copied, if any is wanted.
    pub fn copy_to(&mut self, tap: &Arc<Tap>) {
        self.tap = tap.attach(self);
    }

    /// Starts one thread for each instance. Threads inherit the caller's priority: never call it on a loader.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self: &Arc<Self>) -> std::io::Result<Vec<JoinHandle<()>>> {
        let start = |index: usize| {
            let servable = Arc::clone(self);
            let name = format!("run {} {}", self.model, self.version);
            std::thread::Builder::new()
                .name(name.chars().take(15).collect())
                .spawn(move || servable.instance_loop(index))
        };
        let threads: std::io::Result<Vec<_>> = (0..self.workers.len()).map(start).collect();
        if threads.is_err() {
            self.stop();
        }
        threads
    }

    /// Tells the instance threads to end once nothing waits.
    pub fn stop(&self) {
        let queue = lock(&self.queue);
        self.stop.store(true, Ordering::Release);
        drop(queue);
        self.joined.notify_all();
    }

    /// What a request to this servable must fit.
    #[must_use]
    pub fn contract(&self) -> Contract<'_> {
        let rows_max = match self.settings.batching {
            Batching::Stated(rows) => Some(rows),
            Batching::Inferred | Batching::Off => None,
        };
        Contract { model: self.model.as_str(), signature: &self.signature, rows_max }
    }

    /// Rows that run together at most.
    #[must_use]
    pub fn rows_max(&self) -> usize {
        self.policy.rows_max
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Requests taken in and not answered.
    #[must_use]
    pub fn inflight(&self) -> usize {
        self.inflight.load(Ordering::Relaxed)
    }

    /// Number of instances.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.workers.len()
    }

    /// Counts a request that did not fit the contract.
    pub fn refused(&self, arrived: Time) {
        self.finished(Outcome::Invalid, arrived);
    }

    /// Takes one request in. It is answered when the returned future is awaited; dropping that takes the request
    /// out before it runs.
    ///
    /// # Errors
    /// [`InferError`], the variants that refuse: a full queue, an unaffordable or expired deadline.
    pub fn submit(self: &Arc<Self>, request: InferRequest) -> Result<Answering, InferError> {
        let arrived = request.arrived;
        let group = self.layout.group(&request.inputs);
        let deadline = self.deadline(&request);
        if let Err(refusal) = self.admit(&request, &group, deadline) {
            self.finished(outcome_of(&refusal), arrived);
            return Err(refusal);
        }
        self.inflight.fetch_add(1, Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.waiting_rows.fetch_add(request.rows, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let entry = Entry {
            rows: request.rows,
            group,
            priority: self.priority(request.priority),
            queued: arrived,
            deadline,
            payload: Pending { inputs: request.inputs, arrived, reply },
        };
        if let Some(entry) = turn::join(self, entry) {
            self.enqueue(|queue| queue.push(entry));
        }
        Ok(Answering::new(Arc::clone(self), answer, arrived, deadline))
    }

    /// [`Servable::submit`] and its answer.
    ///
    /// # Errors
    /// [`InferError`], every variant that names a servable.
    pub async fn infer(self: &Arc<Self>, request: InferRequest) -> Result<InferResponse, InferError> {
        self.submit(request)?.await
    }

    /// Runs one request on the calling thread, as soon as the last instance is free: neither in a batch with others
    /// nor counted, and nothing is learnt of its cost, which depends on the thread's priority. Requests to this very
    /// version may have to wait for it.
    ///
    /// # Errors
    /// [`InferError::Invalid`] and [`InferError::Backend`].
    pub(crate) fn run_apart(&self, request: &Checked) -> Result<Apart, InferError> {
        let last = self.workers.last().expect("a servable has at least one worker");
        lock(last).run_apart(self, request)
    }

    /// What a run of so many rows usually costs its thread, in nanoseconds.
    pub(crate) fn own_ns(&self, inputs: &Tensors, rows: usize) -> Option<u64> {
        self.costs.table(&self.layout.group(inputs)).own_ns(rows.min(self.policy.rows_max))
    }

    /// Counts a request's end.
    fn finished(&self, outcome: Outcome, arrived: Time) {
        let now = clock::now();
        self.stats.finished(outcome, now.ns_since(arrived), clock::wall_ms(now));
    }

    fn priority(&self, asked: u32) -> u32 {
        match (asked, self.settings.priority_levels) {
            (_, 0) => 0,
            (0, _) => self.settings.priority_default,
            (asked, levels) => asked.min(levels),
        }
    }

    fn deadline(&self, request: &InferRequest) -> Option<Time> {
        let default_us = self.settings.timeout_us_default;
        let default = (default_us > 0).then(|| request.arrived.plus_ns(default_us * 1000));
        if self.settings.timeout_override { request.deadline.or(default) } else { default }
    }

    /// Whether the request may come in: room in the queue, and time to answer it.
    fn admit(
        &self,
        request: &InferRequest,
        group: &GroupKey,
        deadline: Option<Time>,
    ) -> Result<(), InferError> {
        let waiting = self.waiting();
        if waiting >= self.settings.queue_requests_max {
            return Err(InferError::QueueFull {
                model: self.model.clone(),
                waiting,
                limit: self.settings.queue_requests_max,
                retry_after_ms: self.retry_after_ms(group),
            });
        }
        let Some(deadline) = deadline else { return Ok(()) };
        let now = clock::now();
        let budget_ns = deadline.ns_since(now);
        if budget_ns == 0 {
            return Err(expired(request.arrived, deadline));
        }
        let load = Load {
            waiting_rows: self.waiting_rows.load(Ordering::Relaxed),
            busy_ns: self.busy_ns(now),
            instances: self.workers.len(),
            rows_max: self.policy.rows_max,
        };
        policy::affordable(load, request.rows, budget_ns, self.costs.table(group)).map_err(|needed_ns| {
            InferError::Unaffordable {
                model: self.model.clone(),
                budget_us: budget_ns / 1000,
                needed_us: needed_ns / 1000,
                waiting,
                retry_after_ms: self.retry_after_ms(group),
            }
        })
    }

    /// Until the first worker is free.
    fn busy_ns(&self, now: Time) -> u64 {
        let left = |until: &AtomicU64| Time::from_ns(until.load(Ordering::Relaxed)).ns_since(now);
        self.busy_until_ns.iter().map(left).min().unwrap_or(0)
    }

    /// When the queue that stands is likely to be gone.
    fn retry_after_ms(&self, group: &GroupKey) -> u64 {
        let rows_max = self.policy.rows_max;
        let cost_ns = self.costs.table(group).median_ns(rows_max).unwrap_or(0);
        let batches =
            self.waiting_rows.load(Ordering::Relaxed).div_ceil(rows_max).div_ceil(self.workers.len());
        (batches as u64).saturating_mul(cost_ns).div_ceil(1_000_000).max(1)
    }

    /// Puts requests into the shared queue and wakes one instance.
    fn enqueue(&self, put: impl FnOnce(&mut Queue<Pending>)) {
        let mut queue = lock(&self.queue);
        put(&mut queue);
        self.queue_length.store(queue.len(), Ordering::Release);
        drop(queue);
        self.joined.notify_one();
    }

    /// Runs the list of one event-loop turn: here, as far as that is cheap and an instance is free, else by an
    /// instance's own thread. Whether some of it is left for this thread's next turn.
    fn flush(self: &Arc<Self>, list: &mut Queue<Pending>) -> bool {
        if self.runs_inline(list) {
            for (index, worker) in self.workers.iter().enumerate() {
                let mut worker = match worker.try_lock() {
                    Ok(worker) => worker,
                    Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => continue,
                };
                let mut spent_ns = 0;
                while !list.is_empty() && spent_ns <= INLINE_NS_MAX {
                    let take = |batch: &mut instance::Batch<'_>| batch.fill(list, self.policy.rows_max);
                    contain(|| spent_ns += worker.run_next(self, index, By::EventLoop, take));
                }
                return !list.is_empty();
            }
        }
        self.enqueue(|queue| queue.append(list));
        false
    }

    /// Each batch of the list is cheap, its cost is known, and nobody waits before it.
    fn runs_inline(&self, list: &Queue<Pending>) -> bool {
        let is_cheap = |(group, rows): (&GroupKey, usize)| {
            let own_ns = self.costs.table(group).own_ns(rows.min(self.policy.rows_max));
            own_ns.is_some_and(|own_ns| own_ns <= INLINE_NS_MAX)
        };
        self.policy.delay_ns_max == 0
            && self.queue_length.load(Ordering::Acquire) == 0
            && list.lanes().all(is_cheap)
    }

    /// The life of an instance thread: capacity first, then work.
    fn instance_loop(self: &Arc<Self>, index: usize) {
        while self.wait_for_work() {
            let mut worker = lock(&self.workers[index]);
            let take = |batch: &mut instance::Batch<'_>| {
                let mut queue = lock(&self.queue);
                let Dispatch::Run { rows_max } = self.dispatch(&queue, clock::now()) else { return };
                batch.fill(&mut queue, rows_max);
                self.queue_length.store(queue.len(), Ordering::Release);
                if !queue.is_empty() {
                    drop(queue);
                    self.joined.notify_one();
                }
            };
            contain(|| {
                worker.run_next(self, index, By::Instance, take);
            });
        }
    }

    /// What an idle instance does; a stopping one no longer waits for company.
    fn dispatch(&self, queue: &Queue<Pending>, now: Time) -> Dispatch {
        match policy::dispatch(queue.head(), &self.policy, now) {
            Dispatch::WaitUntil(_) if self.stop.load(Ordering::Acquire) => {
                Dispatch::Run { rows_max: self.policy.rows_max }
            }
            decided => decided,
        }
    }

    /// Blocks until a batch may go; false when the servable stops and nothing waits.
    fn wait_for_work(&self) -> bool {
        let mut queue = lock(&self.queue);
        loop {
            let now = clock::now();
            queue = match self.dispatch(&queue, now) {
                Dispatch::Run { .. } => return true,
                Dispatch::Idle if self.stop.load(Ordering::Acquire) => return false,
                Dispatch::Idle => self.joined.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Dispatch::WaitUntil(due) => {
                    self.joined.wait_timeout(queue, due - now).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// Runs one batch; a fault in our own code costs that batch and not the thread. Engines' panics are caught closer by.
fn contain(run: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
        tracing::error!("a batch was lost to a panic; its requests were answered with an error");
    }
}

fn expired(arrived: Time, deadline: Time) -> InferError {
    InferError::Expired {
        waited_us: clock::now().ns_since(arrived) / 1000,
        budget_us: deadline.ns_since(arrived) / 1000,
    }
}

fn outcome_of(error: &InferError) -> Outcome {
    match error {
        InferError::Invalid(_) => Outcome::Invalid,
        InferError::QueueFull { .. } | InferError::Unaffordable { .. } | InferError::ShuttingDown => {
            Outcome::Rejected
        }
        InferError::Expired { .. } => Outcome::Expired,
        InferError::Cancelled => Outcome::Cancelled,
        InferError::Backend { .. }
        | InferError::UnknownModel(_)
        | InferError::UnknownVersion { .. }
        | InferError::NotReady { .. }
        | InferError::NoVersion { .. } => Outcome::Failed,
    }
}
