//! Whether the data changes, or what a model makes of it: a share of the requests is handed to one thread of the lowest
//! priority, which holds one row of each against the version's baseline. A request that is not sampled counts down a
//! number; none ever waits. What devices see comes by the same thread. Must not know HTTP, files, or who is told.

pub mod baseline;
mod build;
mod devices;
mod feedback;
mod plan;
mod pressure;
mod report;
mod row;
mod sampler;
mod version;
mod watch;
mod worker;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender, bounded};
use gannet_models::ModelName;

use self::devices::DeviceRow;
pub use self::{
    baseline::Baseline,
    build::{Builder, CellValue},
    devices::{DeviceBundle, DeviceInput},
    report::{Alarm, Estimate, FeatureReport, Fed, Report, Source, State},
};
use crate::{
    InferError, InferResponse,
    request::{Checked, Tensors},
    route::ledger::Outcome,
    servable::Servable,
};

/// Samples that wait for the thread; more are dropped and counted.
const SAMPLES_MAX: usize = 4096;
/// Bytes of their tensors together.
const SAMPLE_BYTES_MAX: usize = 32 << 20;
/// Calls with outcomes that wait for it.
const OUTCOMES_MAX: usize = 64;
/// Rows of devices that wait for it; more are dropped and counted.
const DEVICE_ROWS_MAX: usize = 4096;
/// The share that is sampled where nobody says otherwise: so far apart, rows hardly follow each other.
pub const RATE: f64 = 0.01;

/// How it is watched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DriftConfig {
    /// Share of a model's requests that is sampled, unless its settings say otherwise; 0 watches only such models.
    pub rate: f64,
    /// Share of a core that the thread may take; it samples less before it takes more.
    pub cpu_ratio_max: f64,
    /// Days with one false alarm among them on average, all models and features together.
    pub budget_days: f64,
    /// Rows after which a window ends.
    pub window_rows: u64,
    /// Milliseconds after which it ends with fewer, of at least 500.
    pub window_ms: u64,
    /// How far the thread steps back.
    pub nice: i32,
}

impl Default for DriftConfig {
    fn default() -> Self {
        Self {
            rate: RATE,
            cpu_ratio_max: 0.01,
            budget_days: 30.0,
            window_rows: 10_000,
            window_ms: 3_600_000,
            nice: 19,
        }
    }
}

/// The way to the thread, which ends with [`Drift::stop`].
#[derive(Debug)]
pub struct Drift {
    config: DriftConfig,
    samples: Sender<Sample>,
    outcomes: Sender<(ModelName, Vec<Outcome>)>,
    device_rows: Sender<DeviceRow>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Samples that wait, and the bytes of their tensors.
    held: AtomicUsize,
    bytes: AtomicUsize,
    dropped: AtomicU64,
    /// Rows of devices that wait.
    device_rows: AtomicUsize,
    device_rows_dropped: AtomicU64,
    /// The largest rate of any model, and what it is multiplied with to stay within the budget; as bits.
    rate_max: AtomicU64,
    factor: AtomicU64,
    reports: ArcSwap<Vec<Arc<Report>>>,
    stop: AtomicBool,
}

/// A sampled request before it is answered.
#[derive(Debug)]
pub struct Sampled {
    inputs: Tensors,
    rows: usize,
}

/// A sampled request with its answer.
#[derive(Debug)]
struct Sample {
    servable: Arc<Servable>,
    id: String,
    inputs: Tensors,
    outputs: Tensors,
    rows: usize,
    bytes: usize,
}

/// The thread's ends.
struct Ends {
    samples: Receiver<Sample>,
    outcomes: Receiver<(ModelName, Vec<Outcome>)>,
    device_rows: Receiver<DeviceRow>,
}

impl Drift {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(config: DriftConfig) -> io::Result<(Arc<Self>, JoinHandle<()>)> {
        // one more, so that the queue itself is never full: its sender would wait for a thread that takes from it
        let (samples, receiver) = bounded(SAMPLES_MAX + 1);
        let (outcomes, told) = bounded(OUTCOMES_MAX);
        let (device_rows, heard) = bounded(DEVICE_ROWS_MAX + 1);
        let shared = Arc::new(Shared::default());
        shared.factor.store(1f64.to_bits(), Ordering::Relaxed);
        let seen = Arc::clone(&shared);
        let ends = Ends { samples: receiver, outcomes: told, device_rows: heard };
        let run = move || worker::run(&ends, &seen, config);
        let thread = std::thread::Builder::new().name("gannet-drift".into()).spawn(run)?;
        Ok((Arc::new(Self { config, samples, outcomes, device_rows, shared }), thread))
    }

    /// What was found so far, by model and version; behind those, of devices by model and sequence.
    #[must_use]
    pub fn reports(&self) -> Arc<Vec<Arc<Report>>> {
        self.shared.reports.load_full()
    }

    /// Sampled requests that were not looked at, because too many or too large ones waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// What rates are multiplied with now, so that the thread stays within its budget.
    #[must_use]
    pub fn factor(&self) -> f64 {
        f64::from_bits(self.shared.factor.load(Ordering::Relaxed))
    }

    /// Hands outcomes of requests over; those of sampled ones count. False when too many calls wait.
    pub fn feed(&self, model: &ModelName, outcomes: Vec<Outcome>) -> bool {
        self.outcomes.try_send((model.clone(), outcomes)).is_ok()
    }

    /// Hands over what a device says: by input of its bundle, a value or nothing. Never waits; false when it was dropped,
    /// because too many wait.
    pub fn device_row(&self, bundle: &Arc<DeviceBundle>, values: Vec<Option<f64>>) -> bool {
        let waiting = &self.shared.device_rows;
        let fits = waiting.fetch_add(1, Ordering::Relaxed) < DEVICE_ROWS_MAX;
        let row = DeviceRow { bundle: Arc::clone(bundle), values };
        let taken = fits && self.device_rows.try_send(row).is_ok();
        if !taken {
            waiting.fetch_sub(1, Ordering::Relaxed);
            self.shared.device_rows_dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Rows of devices that were not looked at, because too many waited.
    #[must_use]
    pub fn device_rows_dropped(&self) -> u64 {
        self.shared.device_rows_dropped.load(Ordering::Relaxed)
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// The share of a version's requests that is wanted.
    fn rate(&self, servable: &Servable) -> f64 {
        servable.settings.drift_rate.unwrap_or(self.config.rate).clamp(0.0, 1.0)
    }

    /// Lets a version's requests be sampled at its rate; whether that is any.
    pub(crate) fn attach(&self, servable: &Servable) -> bool {
        let rate = self.rate(servable);
        // of positive numbers, the greater has the greater bits
        self.shared.rate_max.fetch_max(rate.to_bits(), Ordering::Relaxed);
        rate > 0.0
    }

    #[cold]
    fn draw(&self, servable: &Servable, request: &Checked) -> Option<Box<Sampled>> {
        let most = f64::from_bits(self.shared.rate_max.load(Ordering::Relaxed));
        if !sampler::draw(most * self.factor(), self.rate(servable) / most) {
            return None;
        }
        Some(Box::new(Sampled { inputs: request.inputs.clone(), rows: request.rows }))
    }

    fn offer(&self, sample: Sample) {
        let (bytes, shared) = (sample.bytes, &self.shared);
        let held = shared.held.fetch_add(1, Ordering::Relaxed) + 1;
        let held_bytes = shared.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let fits = held <= SAMPLES_MAX && held_bytes <= SAMPLE_BYTES_MAX;
        if !fits || self.samples.try_send(sample).is_err() {
            shared.held.fetch_sub(1, Ordering::Relaxed);
            shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Sampled {
    /// Keeps what a sample takes, if the request is one: no bytes are copied.
    #[must_use]
    #[inline]
    pub fn new(servable: &Servable, request: &Checked) -> Option<Box<Self>> {
        let drift = servable.drift.as_ref()?;
        if sampler::is_due() { drift.draw(servable, request) } else { None }
    }

    /// Hands it over with what was answered; a request that was not answered says nothing.
    pub fn answered(self, servable: &Arc<Servable>, id: &str, answer: &Result<InferResponse, InferError>) {
        let (Some(drift), Ok(response)) = (&servable.drift, answer) else { return };
        let size = |tensors: &Tensors| tensors.iter().map(|tensor| tensor.data.len()).sum::<usize>();
        drift.offer(Sample {
            servable: Arc::clone(servable),
            id: id.to_owned(),
            bytes: size(&self.inputs) + size(&response.outputs),
            inputs: self.inputs,
            outputs: response.outputs.clone(),
            rows: self.rows,
        });
    }
}

#[cfg(test)]
mod tests;
