//! Who answered which request, remembered for a while in constant memory, and what was fed back of them. Requests are
//! noted on the path without a lock; outcomes come late, in bulk and more than once, and each counts once. Must not
//! know what is decided on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use gannet_models::{Signature, Version};
use gannet_stats::{moments::Moments, split::Split};

use super::tally::first_row;
use crate::{InferResponse, control::rollout::Arms};

/// Requests that are remembered, in buckets of [`WAYS`]; 3 MiB. The oldest of a bucket goes first.
pub const REQUESTS_MAX: usize = 1 << 18;
const WAYS: usize = 4;
/// Versions told apart.
pub const VERSIONS_MAX: usize = 16;
/// Metrics told apart.
pub const METRICS_MAX: usize = 8;
/// The metric that a label is turned into where the answer is a class: 1 where it was right, 0 where not.
pub const ACCURACY: &str = "accuracy";
/// The metric that a label is turned into where the answer is a value: how far it was off.
pub const ABSOLUTE_ERROR: &str = "absolute_error";
/// Cohorts that wait for their horizon.
const COHORTS: u64 = 256;

/// A slot: 28 bits of the id's hash, 24 of seconds, 4 of version, 8 of metrics that have come. 0 is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    tag: u64,
    seconds: u64,
    version: u64,
    metrics: u64,
}

const TAG_BITS: u32 = 28;
const SECONDS_BITS: u32 = 24;

impl Slot {
    fn pack(self) -> u64 {
        self.tag << 36 | (self.seconds & ((1 << SECONDS_BITS) - 1)) << 12 | self.version << 8 | self.metrics
    }

    fn unpack(bits: u64) -> Self {
        Self {
            tag: bits >> 36,
            seconds: bits >> 12 & ((1 << SECONDS_BITS) - 1),
            version: bits >> 8 & 0xf,
            metrics: bits & 0xff,
        }
    }
}

/// What a ledger is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerSpec {
    /// The versions, in the order in which they are told of.
    pub versions: Vec<Version>,
    /// The metrics that somebody waits for; values of others are not kept.
    pub metrics: BTreeSet<String>,
    /// How old a request is before what was fed back of it counts, in milliseconds: by then the outcomes that come
    /// early and those that come late are there alike.
    pub horizon_ms: u64,
    /// Metrics of which a value must be 0 to 1.
    pub rewards: bool,
}

/// One outcome of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The request's id.
    pub id: String,
    /// The version that answered it, if the caller knows.
    pub version: Option<String>,
    /// What would have been right: a class by its number, or a value.
    pub label: Option<f64>,
    /// By name.
    pub metrics: BTreeMap<String, f64>,
}

/// What became of outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fed {
    /// Values that count, or will at their horizon.
    pub accepted: u64,
    /// Outcomes of ids that are not, or no longer, known.
    pub unknown: u64,
    /// Values that had come before.
    pub repeated: u64,
    /// Values that nobody waits for.
    pub unused: u64,
}

/// Why outcomes are refused; none of them counts then.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FeedError {
    /// The version named is another than the one that answered.
    #[error(
        "[{index}].version: request '{id}' was answered by version '{answered}', got '{got}'; leave it out"
    )]
    OtherVersion {
        /// Place in the list.
        index: usize,
        /// The request.
        id: String,
        /// Who answered it.
        answered: String,
        /// Who is said to have.
        got: String,
    },
    /// A reward out of range.
    #[error("[{index}].metrics.{name}: expected a reward from 0 to 1 (scale it), got {got}")]
    Reward {
        /// Place in the list.
        index: usize,
        /// The metric.
        name: String,
        /// Its value.
        got: f64,
    },
}

/// By metric, of each version.
pub type Sums = BTreeMap<String, Vec<Moments>>;

/// Requests and their outcomes.
#[derive(Debug)]
pub struct Ledger {
    spec: LedgerSpec,
    metrics: Vec<String>,
    hash: Split,
    slots: Box<[AtomicU64]>,
    /// The predicted class or value of the request in the slot, as bits of an `f32`.
    predictions: Box<[AtomicU32]>,
    outcomes: Mutex<Outcomes>,
}

#[derive(Debug, Default)]
struct Outcomes {
    /// Requests from here on count.
    since_ms: u64,
    /// By the cohort's end, in milliseconds: not old enough yet.
    waiting: BTreeMap<u64, Sums>,
    mature: Sums,
    fed: Fed,
}

impl Ledger {
    /// Nothing remembered yet. Versions and metrics beyond the limits are not told apart.
    #[must_use]
    pub fn new(spec: LedgerSpec) -> Self {
        let free = |count: usize| 0..count;
        Self {
            metrics: spec.metrics.iter().take(METRICS_MAX).cloned().collect(),
            spec,
            hash: Split::new("ledger"),
            slots: free(REQUESTS_MAX).map(|_| AtomicU64::new(0)).collect(),
            predictions: free(REQUESTS_MAX).map(|_| AtomicU32::new(0)).collect(),
            outcomes: Mutex::default(),
        }
    }

    /// What it is for.
    #[must_use]
    pub fn spec(&self) -> &LedgerSpec {
        &self.spec
    }

    fn outcomes(&self) -> MutexGuard<'_, Outcomes> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slots that an id may be in, and its tag.
    fn place(&self, id: &str) -> (usize, u64) {
        let hash = self.hash.hash(id.as_bytes());
        let bucket = hash as usize % (REQUESTS_MAX / WAYS) * WAYS;
        // a tag of 0 would look free
        (bucket, (hash >> (64 - TAG_BITS)).max(1))
    }

    /// A request was answered. `signature` and `response` are looked at where labels are waited for.
    pub fn note(
        &self,
        id: &str,
        version: &Version,
        (signature, response): (&Signature, &InferResponse),
        now_ms: u64,
    ) {
        let Some(version) = self.spec.versions.iter().take(VERSIONS_MAX).position(|v| v == version) else {
            return;
        };
        let (bucket, tag) = self.place(id);
        let seconds = (now_ms / 1000) & ((1 << SECONDS_BITS) - 1);
        let age = |bits: u64| seconds.wrapping_sub(Slot::unpack(bits).seconds) & ((1 << SECONDS_BITS) - 1);
        let ways = bucket..bucket + WAYS;
        let at = ways.max_by_key(|slot| match self.slots[*slot].load(Ordering::Relaxed) {
            0 => u64::MAX - 1,
            // the same id once more
            bits if Slot::unpack(bits).tag == tag => u64::MAX,
            bits => age(bits),
        });
        let at = at.unwrap_or(bucket);
        if self.waits_for_labels() {
            let predicted = prediction(signature, response).unwrap_or(f32::NAN);
            self.predictions[at].store(predicted.to_bits(), Ordering::Relaxed);
        }
        let slot = Slot { tag, seconds, version: version as u64, metrics: 0 };
        self.slots[at].store(slot.pack(), Ordering::Release);
    }

    fn waits_for_labels(&self) -> bool {
        self.metrics.iter().any(|metric| metric == ACCURACY || metric == ABSOLUTE_ERROR)
    }

    fn find(&self, id: &str) -> Option<(usize, Slot)> {
        let (bucket, tag) = self.place(id);
        (bucket..bucket + WAYS).find_map(|at| {
            let bits = self.slots[at].load(Ordering::Acquire);
            let slot = Slot::unpack(bits);
            (bits != 0 && slot.tag == tag).then_some((at, slot))
        })
    }

    /// Takes outcomes in, all of them or none.
    ///
    /// # Errors
    /// [`FeedError`], for the first one that cannot be.
    pub fn feed(&self, outcomes: &[Outcome], now_ms: u64) -> Result<Fed, FeedError> {
        for (index, outcome) in outcomes.iter().enumerate() {
            self.check(index, outcome)?;
        }
        let mut fed = Fed::default();
        let mut sums = self.outcomes();
        for outcome in outcomes {
            let Some((at, slot)) = self.find(&outcome.id) else {
                fed.unknown += 1;
                continue;
            };
            let mut values: Vec<(&str, f64)> =
                outcome.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            let predicted = f64::from(f32::from_bits(self.predictions[at].load(Ordering::Relaxed)));
            if let Some(label) = outcome.label.filter(|_| self.waits_for_labels() && predicted.is_finite()) {
                values.push((ACCURACY, f64::from(u8::from(predicted == label))));
                values.push((ABSOLUTE_ERROR, (predicted - label).abs()));
            } else if outcome.label.is_some() {
                fed.unused += 1;
            }
            for (name, value) in values {
                let Some(metric) = self.metrics.iter().position(|metric| metric == name) else {
                    let derived = outcome.label.is_some() && (name == ACCURACY || name == ABSOLUTE_ERROR);
                    fed.unused += u64::from(!derived);
                    continue;
                };
                let bit = 1 << metric;
                let before = self.slots[at].fetch_or(bit, Ordering::Relaxed);
                if Slot::unpack(before).tag != slot.tag || before & bit != 0 {
                    fed.repeated += 1;
                    continue;
                }
                fed.accepted += 1;
                sums.add(&self.spec, (name, slot.version as usize, value), (millis(slot, now_ms), now_ms));
            }
        }
        sums.fed = sums.fed.plus(fed);
        Ok(fed)
    }

    fn check(&self, index: usize, outcome: &Outcome) -> Result<(), FeedError> {
        if let (Some(got), Some((_, slot))) = (&outcome.version, self.find(&outcome.id)) {
            let answered = self.spec.versions.get(slot.version as usize).map_or("?", Version::as_str);
            if answered != got {
                let (id, answered, got) = (outcome.id.clone(), answered.to_owned(), got.clone());
                return Err(FeedError::OtherVersion { index, id, answered, got });
            }
        }
        let mut rewards = outcome.metrics.iter().filter(|(name, _)| self.metrics.contains(name));
        match rewards.find(|(_, value)| self.spec.rewards && !(0.0..=1.0).contains(*value)) {
            Some((name, got)) => Err(FeedError::Reward { index, name: name.clone(), got: *got }),
            None => Ok(()),
        }
    }

    /// Outcomes of requests before `now_ms` no longer count.
    pub fn begin(&self, now_ms: u64) {
        let mut outcomes = self.outcomes();
        outcomes.since_ms = now_ms;
        outcomes.waiting.clear();
        outcomes.mature.clear();
    }

    /// What was fed back of requests that are old enough.
    #[must_use]
    pub fn mature(&self, now_ms: u64) -> Sums {
        let mut outcomes = self.outcomes();
        let old = now_ms.saturating_sub(self.spec.horizon_ms);
        while let Some(entry) = outcomes.waiting.first_entry().filter(|entry| *entry.key() <= old) {
            let cohort = entry.remove();
            merge(&mut outcomes.mature, cohort);
        }
        outcomes.mature.clone()
    }

    /// [`Ledger::mature`] of a version and the one that is to replace it.
    #[must_use]
    pub fn mature_arms(&self, now_ms: u64) -> BTreeMap<String, Arms<Moments>> {
        let arms = |versions: Vec<Moments>| {
            let [stable, candidate] = versions[..] else { return None };
            Some(Arms { candidate, stable })
        };
        self.mature(now_ms).into_iter().filter_map(|(name, versions)| Some((name, arms(versions)?))).collect()
    }

    /// What became of all outcomes.
    #[must_use]
    pub fn fed(&self) -> Fed {
        self.outcomes().fed
    }
}

/// When the request of a slot was answered: the seconds that the slot lacks are those before now.
fn millis(slot: Slot, now_ms: u64) -> u64 {
    let now = now_ms / 1000;
    let age = now.wrapping_sub(slot.seconds) & ((1 << SECONDS_BITS) - 1);
    (now - age.min(now)) * 1000
}

impl Outcomes {
    fn add(
        &mut self,
        spec: &LedgerSpec,
        (name, version, value): (&str, usize, f64),
        (at_ms, now_ms): (u64, u64),
    ) {
        // a request of the second in which counting began anew may be of before
        if at_ms < self.since_ms {
            return;
        }
        let width = (spec.horizon_ms / COHORTS).max(1000);
        let end = (at_ms / width + 1) * width;
        let sums = if end + spec.horizon_ms <= now_ms {
            &mut self.mature
        } else {
            self.waiting.entry(end).or_default()
        };
        let versions =
            sums.entry(name.to_owned()).or_insert_with(|| vec![Moments::default(); spec.versions.len()]);
        if let Some(moments) = versions.get_mut(version) {
            moments.push(value);
        }
    }
}

fn merge(into: &mut Sums, from: Sums) {
    for (name, versions) in from {
        match into.get_mut(&name) {
            Some(known) => known.iter_mut().zip(&versions).for_each(|(a, b)| a.merge(b)),
            None => {
                into.insert(name, versions);
            }
        }
    }
}

impl Fed {
    fn plus(self, other: Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            unknown: self.unknown + other.unknown,
            repeated: self.repeated + other.repeated,
            unused: self.unused + other.unused,
        }
    }
}

/// The class that the first row's last floating-point output holds most likely, or its value where it has one
/// column; without such an output the first value of the last one.
fn prediction(signature: &Signature, response: &InferResponse) -> Option<f32> {
    let outputs = || signature.outputs.iter().zip(&response.outputs);
    let (_, tensor) = outputs().rfind(|(spec, _)| spec.dtype.is_float()).or_else(|| outputs().next_back())?;
    let row = first_row(signature, tensor)?;
    match row.len() {
        0 => None,
        1 => Some(row[0] as f32),
        _ => {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
            best.map(|(class, _)| class as f32)
        }
    }
}

#[cfg(test)]
mod tests;
