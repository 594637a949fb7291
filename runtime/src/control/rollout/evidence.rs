//! What was counted of both versions since the stage began. Must not know who counts or how.
//!
//! What was not counted is `None`, never zero: a guard without data holds the candidate where it is.

use std::collections::BTreeMap;

use gannet_stats::moments::Moments;
use serde::{Deserialize, Serialize};

/// The same thing of both versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Arms<T> {
    /// Of the candidate.
    pub candidate: T,
    /// Of the version that it is compared with; in a shadow stage, on the shadowed requests alone.
    pub stable: T,
}

/// Events and the trials that could have been one. Where keys are sticky, count one event for each user and window:
/// a user's failures come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventCounts {
    /// Trials with an event.
    pub events: Arms<u64>,
    /// All trials.
    pub trials: Arms<u64>,
}

/// Answers of both versions to the same requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PairCounts {
    /// Pairs compared.
    pub pairs: u64,
    /// Pairs that differ by more than the comparison tolerates.
    pub disagreed: u64,
}

/// Latencies of the stable version so far, from which the threshold of the latency guard is frozen once.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct StableLatency {
    /// Its 99th percentile, in microseconds.
    pub p99_us: f64,
    /// Requests behind it.
    pub requests: u64,
}

/// Everything counted since the stage began; the counts only grow until the next epoch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// [`super::State::epoch`] for which it was counted; counts of another are not looked at.
    pub epoch: u32,
    /// Requests answered.
    pub requests: Arms<u64>,
    /// Users (routing keys) seen; `None` where requests carry no key.
    pub users: Option<Arms<u64>>,
    /// Requests that failed.
    pub errors: Option<EventCounts>,
    /// Latencies of the stable version.
    pub stable_latency: Option<StableLatency>,
    /// Requests slower than [`super::State::latency_threshold_us`], counted since that is known.
    pub slow: Option<EventCounts>,
    /// Scores by bin, with the same bins for both.
    pub outputs: Option<Arms<Vec<u64>>>,
    /// Shadowed pairs.
    pub pairs: Option<PairCounts>,
    /// Metrics that were fed back, by name; of cohorts old enough to have their labels.
    pub metrics: BTreeMap<String, Arms<Moments>>,
    /// Crashes of the candidate without an answer in between.
    pub crashes_in_a_row: u32,
    /// Why the candidate does not serve at all.
    pub candidate_failed: Option<String>,
}
