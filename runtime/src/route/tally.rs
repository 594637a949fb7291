//! What became of the requests of two versions that are compared, since their shares changed last: counted on the
//! path without a lock or an allocation, read by whoever judges. Must not know what is decided on it.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use gannet_models::Signature;

use super::{
    cells::{CELLS, Cells},
    latency::Latencies,
};
use crate::{InferError, InferResponse, Tensor, control::rollout, tensor};
use rollout::{Arms, EventCounts, StableLatency};

/// Scores of the stable version whose quantiles become the bins' edges.
const SCORES_FIRST: usize = 256;
const BINS: usize = 16;
/// A window is over when so many of its cells are taken: keys that share one would be counted as one.
const WINDOW_CELLS_MAX: u64 = CELLS as u64 / 50;
/// Users are counted until half of the cells are taken; what follows would say nothing new of the shares.
const USER_CELLS_MAX: u64 = CELLS as u64 / 2;

/// Of which of the two versions something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The version that serves today.
    Stable,
    /// The version that is to replace it.
    Candidate,
}

/// What is to be counted beside requests and failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// Requests carry a key of their user: an event is counted once for each user and window.
    pub by_user: bool,
    /// The distribution of the scores.
    pub scores: bool,
}

/// Counts of both versions. Whoever counts anew begins with another one.
#[derive(Debug)]
pub struct Tally {
    wishes: Wishes,
    arms: [ArmTally; 2],
    /// Slower is an event; 0 while nobody knows.
    slow_ns: AtomicU64,
    first: Mutex<Vec<f64>>,
    edges: OnceLock<Vec<f64>>,
}

#[derive(Debug, Default)]
struct ArmTally {
    requests: AtomicU64,
    users: Cells,
    tried: Cells,
    trials: AtomicU64,
    failed: Events,
    slow: Events,
    /// Trials since it is known what is slow.
    timed: Cells,
    timed_trials: AtomicU64,
    latencies: Latencies,
    bins: [AtomicU64; BINS],
    /// Failures of the model without an answer in between, now and at most.
    failures_in_a_row: AtomicU32,
    failures_in_a_row_max: AtomicU32,
}

/// Events, once for each user and window.
#[derive(Debug, Default)]
struct Events {
    seen: Cells,
    count: AtomicU64,
}

/// How a request ended, as far as it says something of the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Answered,
    /// The model failed.
    Crashed,
    /// The model did not like a value, which may be the request's fault: both versions meet as many of those.
    Disliked,
    /// It was refused for want of room or time, or too late.
    Late,
}

impl Tally {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(wishes: Wishes) -> Self {
        Self {
            wishes,
            arms: Default::default(),
            slow_ns: AtomicU64::new(0),
            first: Mutex::default(),
            edges: OnceLock::new(),
        }
    }

    fn arm(&self, side: Side) -> &ArmTally {
        &self.arms[side as usize]
    }

    /// A request was assigned to a version, whoever answers it.
    pub(super) fn assigned(&self, side: Side, hash: u64) {
        let arm = self.arm(side);
        arm.requests.fetch_add(1, Ordering::Relaxed);
        self.saw(side, hash);
    }

    /// A user was seen.
    pub(super) fn saw(&self, side: Side, hash: u64) {
        if self.wishes.by_user && self.arms.iter().all(|arm| arm.users.taken() < USER_CELLS_MAX) {
            self.arm(side).users.add(hash);
        }
    }

    /// A request that the version answered, or should have, came to its end after `ns`. One that did not fit its
    /// signature was never given to it.
    pub(super) fn ended(
        &self,
        side: Side,
        hash: u64,
        (signature, result): (&Signature, Result<&InferResponse, &InferError>),
        ns: u64,
    ) {
        let Some(ended) = ended(result) else { return };
        let arm = self.arm(side);
        // a request without a user is a user of its own
        let is_first = |cells: &Cells| !self.wishes.by_user || cells.add(hash);
        arm.trials.fetch_add(u64::from(is_first(&arm.tried)), Ordering::Relaxed);
        match ended {
            Ended::Answered => arm.failures_in_a_row.store(0, Ordering::Relaxed),
            Ended::Crashed => {
                let row = arm.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
                arm.failures_in_a_row_max.fetch_max(row, Ordering::Relaxed);
            }
            Ended::Disliked | Ended::Late => {}
        }
        if ended != Ended::Answered && is_first(&arm.failed.seen) {
            arm.failed.count.fetch_add(1, Ordering::Relaxed);
        }
        if ended == Ended::Answered {
            arm.latencies.record(ns);
        }
        let slow_ns = self.slow_ns.load(Ordering::Relaxed);
        // what comes too late or not at all is slow as well
        if slow_ns > 0 && matches!(ended, Ended::Answered | Ended::Late) {
            arm.timed_trials.fetch_add(u64::from(is_first(&arm.timed)), Ordering::Relaxed);
            if (ns > slow_ns || ended == Ended::Late) && is_first(&arm.slow.seen) {
                arm.slow.count.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Some(score) = result.ok().filter(|_| self.wishes.scores).and_then(|r| score(signature, r)) {
            self.score(side, score);
        }
    }

    fn score(&self, side: Side, score: f64) {
        if let Some(edges) = self.edges.get() {
            let bin = edges.partition_point(|edge| *edge <= score);
            self.arm(side).bins[bin].fetch_add(1, Ordering::Relaxed);
        } else if side == Side::Stable {
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.push(score);
            if first.len() == SCORES_FIRST {
                let mut sorted = std::mem::take(&mut *first);
                sorted.sort_by(f64::total_cmp);
                let mut edges: Vec<f64> = (1..BINS).map(|bin| sorted[bin * SCORES_FIRST / BINS]).collect();
                edges.dedup();
                let _ = self.edges.set(edges);
            }
        }
    }

    /// From here on a request that takes longer is slow.
    pub fn set_slow(&self, us: f64) {
        self.slow_ns.store((us * 1000.0).max(1.0) as u64, Ordering::Relaxed);
    }

    /// Begins a new window, in which every user is counted again, if `is_due` or the cells run out.
    pub fn turn_window(&self, is_due: bool) {
        let is_full = |arm: &ArmTally| arm.tried.taken().max(arm.timed.taken()) > WINDOW_CELLS_MAX;
        if self.wishes.by_user && (is_due || self.arms.iter().any(is_full)) {
            for arm in &self.arms {
                [&arm.tried, &arm.timed, &arm.failed.seen, &arm.slow.seen].into_iter().for_each(Cells::clear);
            }
        }
    }

    fn both<T>(&self, read: impl Fn(&ArmTally) -> T) -> Arms<T> {
        Arms { candidate: read(self.arm(Side::Candidate)), stable: read(self.arm(Side::Stable)) }
    }

    /// Requests assigned.
    #[must_use]
    pub fn requests(&self) -> Arms<u64> {
        self.both(|arm| arm.requests.load(Ordering::Relaxed))
    }

    /// Users seen, about; `None` where requests carry no key.
    #[must_use]
    pub fn users(&self) -> Option<Arms<u64>> {
        self.wishes.by_user.then(|| self.both(|arm| arm.users.estimate()))
    }

    /// Requests that failed, were refused or came too late.
    #[must_use]
    pub fn errors(&self) -> EventCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let events = self.both(|arm| read(&arm.failed.count));
        EventCounts { events, trials: self.both(|arm| read(&arm.trials)) }
    }

    /// Slow requests, since it is known what is slow.
    #[must_use]
    pub fn slow(&self) -> Option<EventCounts> {
        (self.slow_ns.load(Ordering::Relaxed) > 0).then(|| {
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            let events = self.both(|arm| read(&arm.slow.count));
            EventCounts { events, trials: self.both(|arm| read(&arm.timed_trials)) }
        })
    }

    /// The stable version's 99th percentile.
    #[must_use]
    pub fn stable_latency(&self) -> Option<StableLatency> {
        let latencies = &self.arm(Side::Stable).latencies;
        let p99_us = latencies.quantile_us(0.99)?;
        Some(StableLatency { p99_us, requests: latencies.count() })
    }

    /// Latencies of a version.
    #[must_use]
    pub fn latencies(&self, side: Side) -> &Latencies {
        &self.arm(side).latencies
    }

    /// Scores by bin; `None` until the stable version's first ones have said where the bins are.
    #[must_use]
    pub fn scores(&self) -> Option<Arms<Vec<u64>>> {
        let bins = self.edges.get()?.len() + 1;
        Some(self.both(|arm| arm.bins[..bins].iter().map(|bin| bin.load(Ordering::Relaxed)).collect()))
    }

    /// Failures of the candidate's model without an answer in between, at most.
    #[must_use]
    pub fn crashes_in_a_row(&self) -> u32 {
        self.arm(Side::Candidate).failures_in_a_row_max.load(Ordering::Relaxed)
    }
}

/// `None`: it says nothing of the version.
fn ended(result: Result<&InferResponse, &InferError>) -> Option<Ended> {
    match result {
        Ok(_) => Some(Ended::Answered),
        Err(InferError::Backend { .. }) => Some(Ended::Crashed),
        Err(InferError::Invalid(_)) => Some(Ended::Disliked),
        Err(InferError::QueueFull { .. } | InferError::Unaffordable { .. } | InferError::Expired { .. }) => {
            Some(Ended::Late)
        }
        Err(_) => None,
    }
}

/// The largest value of the first row of the last output of numbers, floating-point ones first: the score of the
/// class that is predicted, or the value.
fn score(signature: &Signature, response: &InferResponse) -> Option<f64> {
    let outputs = || signature.outputs.iter().zip(&response.outputs);
    let (_, tensor) = outputs().rfind(|(spec, _)| spec.dtype.is_float()).or_else(|| outputs().next_back())?;
    let row = first_row(signature, tensor)?;
    row.into_iter().filter(|value| value.is_finite()).reduce(f64::max)
}

/// The values of one row.
pub(super) fn first_row(signature: &Signature, tensor: &Tensor) -> Option<Vec<f64>> {
    let rows = if signature.batched { tensor.shape.first().copied().unwrap_or(1) } else { 1 };
    let length = tensor.data.len().checked_div(rows)?;
    let shape = tensor.shape.clone();
    tensor::values(&Tensor { dtype: tensor.dtype, shape, data: tensor.data.slice(..length) })
}

#[cfg(test)]
mod tests;
