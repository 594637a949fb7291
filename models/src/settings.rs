//! How a model is to be served, whoever wrote it down (`model.toml`, `config.pbtxt`, a load request, or nobody).
//! Must not know file formats: those are parsed into this, once, and validated there.

use std::{collections::BTreeMap, sync::Arc};

use crate::{DType, Version};

/// Rows a batch may hold when nobody said anything and nothing could be measured.
pub const BATCH_ROWS_INFERRED: usize = 64;
/// Rows up to which batches are tried at load when nobody said anything.
pub const BATCH_ROWS_TRIED: usize = 256;
/// Requests that may wait for one servable when nobody said anything.
pub const QUEUE_REQUESTS_MAX: usize = 1024;
/// Time that warm-up may take when nobody said anything, in milliseconds.
pub const WARM_UP_MS_MAX: u64 = 2000;
/// The most instances of one servable.
pub const INSTANCES_MAX: usize = 256;

/// Everything that may be said about serving one model. `Default` is what an ONNX file alone gets.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSettings {
    /// The backend's name; `None` picks the one that knows the version's file.
    pub backend: Option<String>,
    /// Batch axis and the most rows that run together.
    pub batching: Batching,
    /// How long the first request of a batch may wait for company, in microseconds. 0: never.
    pub queue_delay_us_max: u64,
    /// Batch sizes to stop at once reached, ascending; empty: any.
    pub preferred_batch_rows: Vec<usize>,
    /// Priority levels: requests name 1 (first) to this; 0 means one level.
    pub priority_levels: u32,
    /// The level of a request that names none (1 to `priority_levels`; 0 when there is one level).
    pub priority_default: u32,
    /// Requests that may wait; one more is refused.
    pub queue_requests_max: usize,
    /// Deadline of a request that names none, in microseconds; 0: none.
    pub timeout_us_default: u64,
    /// Whether a request may shorten or lengthen that deadline.
    pub timeout_override: bool,
    /// Sessions that run side by side; `None`: chosen at load, by what a run costs.
    pub instances: Option<usize>,
    /// Threads inside one run. 1: the instance's own; more: taken from the process-wide pool.
    pub threads: usize,
    /// Where it runs.
    pub device: Device,
    /// Which of the versions found are to be served.
    pub version_policy: VersionPolicy,
    /// Names for versions, such as `stable`.
    pub labels: BTreeMap<String, Version>,
    /// Runs before the first request.
    pub warm_up: WarmUp,
    /// Variable axes padded up to a bucket, so that requests of different lengths share a batch.
    pub padding: Vec<Padding>,
    /// Types and shapes stated by the configuration; checked against the model where it has its own.
    pub inputs: Vec<TensorDeclaration>,
    /// As for `inputs`.
    pub outputs: Vec<TensorDeclaration>,
    /// Free key/value pairs of the configuration (Triton's `parameters`).
    pub parameters: BTreeMap<String, String>,
    /// Whether its files may be code of their own (TorchScript), although nobody vouches for them.
    pub allow_torchscript: bool,
    /// Memory this model is said to need, in bytes; `None`: estimated from its files.
    pub memory_bytes: Option<u64>,
    /// Share of its requests that is sampled to see drift, 0 to 1; `None`: the server's.
    pub drift_rate: Option<f64>,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            backend: None,
            batching: Batching::Inferred,
            queue_delay_us_max: 0,
            preferred_batch_rows: Vec::new(),
            priority_levels: 0,
            priority_default: 0,
            queue_requests_max: QUEUE_REQUESTS_MAX,
            timeout_us_default: 0,
            timeout_override: true,
            instances: None,
            threads: 1,
            device: Device::Cpu,
            version_policy: VersionPolicy::Latest(1),
            labels: BTreeMap::new(),
            warm_up: WarmUp::default(),
            padding: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            parameters: BTreeMap::new(),
            allow_torchscript: false,
            memory_bytes: None,
            drift_rate: None,
        }
    }
}

impl ModelSettings {
    /// Whether a version loaded with `other` need not be loaded again for `self`. Which versions are served, and
    /// under which labels, is no property of a loaded version.
    #[must_use]
    pub fn loads_alike(&self, other: &Self) -> bool {
        let mut same = other.clone();
        same.version_policy.clone_from(&self.version_policy);
        same.labels.clone_from(&self.labels);
        *self == same
    }
}

/// Whether and how far requests are batched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// A batch axis where the model has one; the rows that measure best at load; a larger request is split.
    Inferred,
    /// No batch axis.
    Off,
    /// A batch axis, and a request of more rows is refused.
    Stated(usize),
}

/// Which versions of a model are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The highest `n`.
    Latest(usize),
    /// All that are found.
    All,
    /// These, as far as they are found.
    Specific(Vec<Version>),
}

impl VersionPolicy {
    /// The versions to serve out of those found, ascending.
    #[must_use]
    pub fn choose(&self, found: &[Version]) -> Vec<Version> {
        let mut chosen: Vec<Version> = match self {
            Self::Specific(wanted) => found.iter().filter(|v| wanted.contains(v)).cloned().collect(),
            Self::All | Self::Latest(_) => found.to_vec(),
        };
        chosen.sort();
        if let Self::Latest(n) = self {
            chosen.drain(..chosen.len().saturating_sub(*n));
        }
        chosen
    }
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor.
    Cpu,
    /// A CUDA device, by index. Refused where it is missing, never replaced by the processor.
    Cuda(usize),
}

/// Runs made before a version is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmUp {
    /// Whether to run at all.
    pub enabled: bool,
    /// When to stop early, in milliseconds.
    pub ms_max: u64,
}

impl Default for WarmUp {
    fn default() -> Self {
        Self { enabled: true, ms_max: WARM_UP_MS_MAX }
    }
}

/// Padding of one variable axis, named by its symbol.
#[derive(Debug, Clone, PartialEq)]
pub struct Padding {
    /// The axis' symbol, as the model names it.
    pub axis: Arc<str>,
    /// Lengths to pad to, ascending. A longer request keeps its own length.
    pub buckets: Vec<usize>,
    /// The value padded with, in every input that has the axis.
    pub value: f64,
}

/// An input or output as a configuration states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorDeclaration {
    /// The tensor's name.
    pub name: String,
    /// The element type, when stated.
    pub dtype: Option<DType>,
    /// Axes without the batch axis, -1 for variable ones; `None`: not stated.
    pub dims: Option<Vec<i64>>,
    /// Class names of an output, index by index, already read from their file.
    pub labels: Option<Arc<[String]>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_policies_choose() {
        let versions =
            |texts: &[&str]| -> Vec<Version> { texts.iter().map(|t| Version::new(t).unwrap()).collect() };
        let check = |policy: VersionPolicy, expected: &[&str]| {
            assert_eq!(policy.choose(&versions(&["10", "9", "v1", "2"])), versions(expected), "{policy:?}");
        };
        check(VersionPolicy::Latest(1), &["v1"]);
        check(VersionPolicy::Latest(2), &["10", "v1"]);
        check(VersionPolicy::All, &["2", "9", "10", "v1"]);
        check(VersionPolicy::Specific(versions(&["2", "77"])), &["2"]);
    }
}
