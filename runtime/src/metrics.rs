//! Every metric: its name, its labels, its buckets, and how it is counted without waiting. Per-version series are
//! rendered here, because they must vanish with the version. Must not know who scrapes, or how.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

pub mod process;
mod render;

pub use self::render::{
    OtaSample, render, render_capture, render_drift, render_loads, render_ota, render_rollouts, render_routes,
};

/// Threads that count on their own; more share.
const SHARDS: usize = 16;

/// Upper bounds of the latency buckets, in nanoseconds: 10 us to 10 s, and one above.
pub const LATENCY_BOUNDS_NS: [u64; 24] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    350_000,
    500_000,
    750_000,
    1_000_000,
    1_500_000,
    2_000_000,
    3_500_000,
    5_000_000,
    7_500_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds of the batch size buckets.
pub const ROWS_BOUNDS: [u64; 24] = [
    0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096, 8192, 16384, 32768,
    65536,
];

const BUCKETS: usize = 25;

/// A histogram of one thread: buckets and sum, in plain units.
#[derive(Debug)]
struct HistogramShard {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for HistogramShard {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl HistogramShard {
    fn record(&self, bounds: &[u64; BUCKETS - 1], value: u64, times: u64) {
        let bucket = bounds.partition_point(|&bound| bound < value);
        self.buckets[bucket].fetch_add(times, Ordering::Relaxed);
        self.sum.fetch_add(value * times, Ordering::Relaxed);
    }
}

/// A histogram merged over threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Samples in each bucket, not cumulated; the last has no upper bound.
    pub buckets: [u64; BUCKETS],
    /// Sum of the samples.
    pub sum: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum: 0 }
    }
}

impl HistogramSnapshot {
    /// Number of samples.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Ok,
    /// Did not fit the model.
    Invalid,
    /// Refused: queue full, or unaffordable.
    Rejected,
    /// Its deadline passed.
    Expired,
    /// The caller left.
    Cancelled,
    /// The model failed.
    Failed,
}

impl Outcome {
    /// All, in the order of their label values.
    pub const ALL: [Self; 6] =
        [Self::Ok, Self::Invalid, Self::Rejected, Self::Expired, Self::Cancelled, Self::Failed];

    /// The label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        ["ok", "invalid", "rejected", "expired", "cancelled", "failed"][self as usize]
    }
}

/// Times of a batch and their sums over requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the metrics' documentation")]
pub enum Phase {
    Request,
    Queue,
    Assemble,
    Compute,
    Scatter,
}

const PHASES: usize = 5;
const PHASE_NAMES: [(&str, &str); PHASES] = [
    ("request", "From the arrival of a whole request to its answer"),
    ("queue", "From arrival to the start of assembly, by request"),
    ("assemble", "Gathering a batch"),
    ("compute", "One run of the model over a batch"),
    ("scatter", "Handing the outputs of a batch to its requests"),
];

#[derive(Debug, Default)]
struct Shard {
    outcomes: [AtomicU64; 6],
    phases: [HistogramShard; PHASES],
    batch_rows: HistogramShard,
    /// Sums over requests of the durations of the batches they were in.
    request_phase_ns: [AtomicU64; PHASES],
    failed_ns: AtomicU64,
    last_ms: AtomicU64,
}

/// What one servable counts.
#[derive(Debug, Default)]
pub struct ModelStats {
    shards: [OnceLock<Box<Shard>>; SHARDS],
    /// By exact number of rows; touched once a batch.
    batch_sizes: Mutex<BTreeMap<usize, BatchSize>>,
}

/// Batch sizes told apart in the statistics; further ones are counted in the histogram alone.
const BATCH_SIZES_MAX: usize = 256;

/// Batches of one exact size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchSize {
    /// Batches that ran.
    pub count: u64,
    /// Their total time in each part, in nanoseconds.
    pub assemble_ns: u64,
    /// See `assemble_ns`.
    pub compute_ns: u64,
    /// See `assemble_ns`.
    pub scatter_ns: u64,
}

/// One batch that ran.
#[derive(Debug, Clone, Copy)]
pub struct BatchSample {
    /// Requests in it.
    pub requests: u64,
    /// Rows in it.
    pub rows: usize,
    /// Duration of each part, in nanoseconds.
    pub assemble_ns: u64,
    /// See `assemble_ns`.
    pub compute_ns: u64,
    /// See `assemble_ns`.
    pub scatter_ns: u64,
}

fn slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SLOT: Cell<usize> = const { Cell::new(usize::MAX) });
    SLOT.with(|slot| {
        if slot.get() == usize::MAX {
            slot.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        slot.get()
    })
}

impl ModelStats {
    fn shard(&self) -> &Shard {
        self.shards[slot()].get_or_init(Box::default)
    }

    /// A request's time in the queue.
    pub fn queued(&self, ns: u64) {
        self.shard().phases[Phase::Queue as usize].record(&LATENCY_BOUNDS_NS, ns, 1);
    }

    /// A batch that ran and was answered.
    pub fn batch(&self, sample: &BatchSample) {
        let shard = self.shard();
        let parts = [
            (Phase::Assemble, sample.assemble_ns),
            (Phase::Compute, sample.compute_ns),
            (Phase::Scatter, sample.scatter_ns),
        ];
        for (phase, ns) in parts {
            shard.phases[phase as usize].record(&LATENCY_BOUNDS_NS, ns, 1);
            shard.request_phase_ns[phase as usize].fetch_add(ns * sample.requests, Ordering::Relaxed);
        }
        shard.batch_rows.record(&ROWS_BOUNDS, sample.rows as u64, 1);
        let mut sizes = self.batch_sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if sizes.len() < BATCH_SIZES_MAX || sizes.contains_key(&sample.rows) {
            let size = sizes.entry(sample.rows).or_default();
            size.count += 1;
            size.assemble_ns += sample.assemble_ns;
            size.compute_ns += sample.compute_ns;
            size.scatter_ns += sample.scatter_ns;
        }
    }

    /// Batches by exact number of rows, ascending.
    #[must_use]
    pub fn batch_sizes(&self) -> Vec<(usize, BatchSize)> {
        let sizes = self.batch_sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.iter().map(|(rows, size)| (*rows, *size)).collect()
    }

    /// A request's end. `wall_ms` is the wall clock, for Triton's `last_inference`.
    pub fn finished(&self, outcome: Outcome, ns: u64, wall_ms: u64) {
        let shard = self.shard();
        shard.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        if outcome == Outcome::Ok {
            shard.phases[Phase::Request as usize].record(&LATENCY_BOUNDS_NS, ns, 1);
            shard.last_ms.store(wall_ms, Ordering::Relaxed);
        } else {
            shard.failed_ns.fetch_add(ns, Ordering::Relaxed);
        }
    }

    /// All threads merged.
    #[must_use]
    pub fn snapshot(&self) -> StatsSnapshot {
        let mut all = StatsSnapshot::default();
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            let read = |atomic: &AtomicU64| atomic.load(Ordering::Relaxed);
            let merge = |into: &mut HistogramSnapshot, from: &HistogramShard| {
                for (a, b) in into.buckets.iter_mut().zip(&from.buckets) {
                    *a += read(b);
                }
                into.sum += read(&from.sum);
            };
            for (into, from) in all.outcomes.iter_mut().zip(&shard.outcomes) {
                *into += read(from);
            }
            for (into, from) in all.phases.iter_mut().zip(&shard.phases) {
                merge(into, from);
            }
            for (into, from) in all.request_phase_ns.iter_mut().zip(&shard.request_phase_ns) {
                *into += read(from);
            }
            merge(&mut all.batch_rows, &shard.batch_rows);
            all.failed_ns += read(&shard.failed_ns);
            all.last_ms = all.last_ms.max(read(&shard.last_ms));
        }
        all.request_phase_ns[Phase::Queue as usize] = all.phases[Phase::Queue as usize].sum;
        all.request_phase_ns[Phase::Request as usize] = all.phases[Phase::Request as usize].sum;
        all
    }
}

/// What one servable counted, over all threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    outcomes: [u64; 6],
    phases: [HistogramSnapshot; PHASES],
    /// Rows of each batch.
    pub batch_rows: HistogramSnapshot,
    request_phase_ns: [u64; PHASES],
    /// Time of requests that were not answered, in nanoseconds.
    pub failed_ns: u64,
    /// Wall clock of the last answer, in milliseconds since 1970.
    pub last_ms: u64,
}

impl StatsSnapshot {
    /// Requests that ended so.
    #[must_use]
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }

    /// The histogram of one phase, in nanoseconds.
    #[must_use]
    pub fn phase(&self, phase: Phase) -> &HistogramSnapshot {
        &self.phases[phase as usize]
    }

    /// Sum over requests of the time their batch spent in `phase`, in nanoseconds: Triton's definition.
    #[must_use]
    pub fn request_ns(&self, phase: Phase) -> u64 {
        self.request_phase_ns[phase as usize]
    }

    /// Requests that were not answered.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.outcomes[1..].iter().sum()
    }
}

/// One version's figures at the time of a scrape.
#[derive(Debug, Clone)]
pub struct VersionSample {
    /// Label `model`.
    pub model: String,
    /// Label `version`.
    pub version: String,
    /// Its counts.
    pub stats: StatsSnapshot,
    /// Requests that wait.
    pub queue_depth: usize,
    /// Requests that were taken in and are not answered.
    pub inflight: usize,
}

/// Loads and swaps of one version since its model is known, whether or not it is held now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadCounts {
    /// Loads that ended well.
    pub ok: u64,
    /// Loads that failed.
    pub failed: u64,
    /// Times a copy of this version took over from another copy or version.
    pub swaps: u64,
}

/// Label values of versions that one model may have in [`LoadCounts`]; further ones are counted as `other`.
pub const LOAD_VERSIONS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_over_threads_and_renders() {
        let stats = std::sync::Arc::new(ModelStats::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    stats.queued(15_000);
                    let sample = BatchSample {
                        requests: 2,
                        rows: 8,
                        assemble_ns: 1000,
                        compute_ns: 2000,
                        scatter_ns: 500,
                    };
                    stats.batch(&sample);
                    stats.finished(Outcome::Ok, 30_000, 7);
                    stats.finished(Outcome::Expired, 50_000, 7);
                });
            }
        });
        let snapshot = stats.snapshot();
        assert_eq!(snapshot.outcome(Outcome::Ok), 4);
        assert_eq!(snapshot.failed(), 4);
        assert_eq!(snapshot.batch_rows.sum, 32);
        assert_eq!(snapshot.request_ns(Phase::Compute), 16_000);
        let sample = VersionSample {
            model: "a\"b".into(),
            version: "1".into(),
            stats: snapshot,
            queue_depth: 3,
            inflight: 4,
        };
        let page = render(&[sample], false);
        for line in [
            "gannet_requests_total{model=\"a\\\"b\",version=\"1\",outcome=\"ok\"} 4",
            "gannet_queue_seconds_bucket{model=\"a\\\"b\",version=\"1\",le=\"0.00001\"} 0",
            "gannet_queue_seconds_bucket{model=\"a\\\"b\",version=\"1\",le=\"0.00002\"} 4",
            "gannet_queue_seconds_count{model=\"a\\\"b\",version=\"1\"} 4",
            "gannet_batch_rows_sum{model=\"a\\\"b\",version=\"1\"} 32",
            "nv_inference_count{model=\"a\\\"b\",version=\"1\"} 32",
            "nv_inference_exec_count{model=\"a\\\"b\",version=\"1\"} 4",
            "nv_inference_request_failure{model=\"a\\\"b\",version=\"1\",reason=\"REJECTED\"} 4",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
        assert!(!render(&[], true).contains("nv_"));
    }
}
