//! Which version a request without one goes to: a split of all keys among versions, and shadows that see copies.
//! [`RouteFile`] as it is written, [`Route`] once checked; choosing is a pure function of the key. Must not know
//! tables, servables, JSON, HTTP, or where a key is found.

mod cells;
mod check;
pub mod latency;
pub mod ledger;
pub mod tally;

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use gannet_models::Version;
use gannet_stats::split::{self, BASIS_POINTS, Split};
use serde::{Deserialize, Serialize};

pub use check::RouteFaults;
use ledger::Ledger;
use tally::{Side, Tally};

use crate::{InferError, InferResponse, Time, clock, control::rollout::bandit::Policy, servable::Servable};

/// A route as it is written.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteFile {
    /// The versions that answer. The first one gets what the others leave, and stands in for them.
    pub split: Vec<WeightFile>,
    /// The versions that see copies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadow: Vec<ShadowFile>,
    /// What keeps a user with a version; by default the request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyFile>,
    /// The name of the split; by default the model's name. Another name is an independent split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Lets the shares learn from rewards; the weights of the split are where it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandit: Option<BanditFile>,
}

/// Shares that learn, as they are written. No test is made on them, and none may be: a rollout is for that.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanditFile {
    /// The metric, 0 to 1, that is fed back as a reward.
    pub reward: String,
    /// `thompson`, as by default, or `epsilon_greedy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// For `epsilon_greedy`: the share of the requests that any version may answer; by default 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
}

/// A version's share as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightFile {
    /// The version.
    pub version: String,
    /// Its share in hundredths of a percent, 0 to 10000; all of them sum to 10000.
    pub weight_bp: u32,
}

/// A shadow as it is written.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowFile {
    /// The version.
    pub version: String,
    /// The share of the keys whose requests it sees, 0.0001 to 1.
    pub fraction: f64,
    /// By output: the relative difference that counts as none; 0.001 for those that are not named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tolerance: BTreeMap<String, f64>,
}

/// A sticky key as it is written: `header` or `parameter`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StickyFile {
    /// The key is the value of this header (of this metadata, over gRPC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The key is the value of this parameter of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Whether a request without the key is refused, as by default, or assigned by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
}

/// A checked route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    split: Vec<Weight>,
    /// The buckets of every version but the first.
    ranges: Vec<(Range<u32>, usize)>,
    shadows: Vec<Shadow>,
    sticky: Sticky,
    key_split: Split,
    bandit: Option<BanditSpec>,
}

/// Shares that learn.
#[derive(Debug, Clone, PartialEq)]
pub struct BanditSpec {
    /// The metric that is the reward.
    pub reward: String,
    /// How shares follow from rewards.
    pub policy: Policy,
}

/// A version and its share of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// The version.
    pub version: Version,
    /// Its share in hundredths of a percent.
    pub weight_bp: u32,
}

/// A version that sees copies.
#[derive(Debug, Clone, PartialEq)]
pub struct Shadow {
    /// The version.
    pub version: Version,
    /// The share of the keys whose requests it sees, in hundredths of a percent.
    pub share_bp: u32,
    /// By output.
    pub tolerances: BTreeMap<String, f64>,
    /// Its own, so that who is copied says nothing of who answers.
    split: Split,
}

/// What keeps a user with a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// Where the key is.
    pub key: StickyKey,
    /// Whether a request without the key is refused; otherwise its id is the key.
    pub required: bool,
}

/// Where a request carries its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StickyKey {
    /// Its id; a new one where it has none.
    RequestId,
    /// The value of this header, in small letters.
    Header(String),
    /// The value of this parameter.
    Parameter(String),
}

/// A route that is in force, with what happened on it.
#[derive(Debug)]
pub struct LiveRoute {
    /// The route.
    pub route: Route,
    /// By place in the split; a version keeps its counts from one route of a model to the next.
    pub counts: Vec<Arc<ArmCounts>>,
    /// Who looks at the requests.
    pub judge: Judge,
}

/// What is noted of a route's requests while somebody judges its versions.
#[derive(Debug, Clone, Default)]
pub struct Judge {
    /// The version on trial, with what became of its requests and of the others'.
    pub trial: Option<(Version, Arc<Tally>)>,
    /// Who answered which request.
    pub ledger: Option<Arc<Ledger>>,
}

/// Requests of one version of a split.
#[derive(Debug, Default)]
pub struct ArmCounts {
    requests: AtomicU64,
    fallbacks: AtomicU64,
}

/// The arm that a request is in: the version that its key is assigned to. Another one answers while that one is not
/// ready.
#[derive(Debug, Clone)]
pub struct Arm {
    live: Arc<LiveRoute>,
    index: usize,
    key_hash: u64,
}

impl Route {
    /// Checks a route of the model that is called `model`. Whether there are such versions is not looked at.
    ///
    /// # Errors
    /// [`RouteFaults`], all of them.
    pub fn new(model: &str, file: &RouteFile) -> Result<Self, RouteFaults> {
        check::route(model, file)
    }

    /// The versions that answer, in the order in which they were written.
    #[must_use]
    pub fn split(&self) -> &[Weight] {
        &self.split
    }

    /// The versions that see copies.
    #[must_use]
    pub fn shadows(&self) -> &[Shadow] {
        &self.shadows
    }

    /// What keeps a user with a version.
    #[must_use]
    pub fn sticky(&self) -> &Sticky {
        &self.sticky
    }

    /// How the shares learn, if they do.
    #[must_use]
    pub fn bandit(&self) -> Option<&BanditSpec> {
        self.bandit.as_ref()
    }

    /// The place in the split of the version that a key is assigned to: the same one in every process.
    #[must_use]
    pub fn assign(&self, key: &[u8]) -> usize {
        self.place(self.key_hash(key))
    }

    /// What assigns a key.
    pub(crate) fn key_hash(&self, key: &[u8]) -> u64 {
        self.key_split.hash(key)
    }

    /// [`Route::assign`] of a key with this hash.
    pub(crate) fn place(&self, key_hash: u64) -> usize {
        let bucket = split::bucket_of(key_hash);
        self.ranges.iter().find(|(range, _)| range.contains(&bucket)).map_or(0, |(_, index)| *index)
    }

    /// Places in the split, in the order in which they stand in for the version at `index`: itself, the first one,
    /// then the others by their share.
    #[must_use]
    pub fn stand_ins(&self, index: usize) -> Vec<usize> {
        let mut others: Vec<usize> = (1..self.split.len()).filter(|other| *other != index).collect();
        others.sort_by_key(|other| std::cmp::Reverse(self.split[*other].weight_bp));
        let first = (index != 0).then_some(0);
        std::iter::once(index).chain(first).chain(others).collect()
    }

    /// The buckets of every version but the first. The second grows from the lowest bucket up, the third from the
    /// highest down, and further ones follow on either side. So with up to three versions, raising one's share at
    /// the expense of the first one only moves keys between the two. No rule could do that for more: of two
    /// versions that may each have any bucket that a third one leaves, both would have to get the same ones.
    fn ranges(split: &[Weight]) -> Vec<(Range<u32>, usize)> {
        let (mut low, mut high) = (0, BASIS_POINTS);
        let place = |(index, weight): (usize, &Weight)| {
            let range = if index % 2 == 1 {
                low += weight.weight_bp;
                low - weight.weight_bp..low
            } else {
                high -= weight.weight_bp;
                high..high + weight.weight_bp
            };
            (range, index)
        };
        split.iter().enumerate().skip(1).map(place).collect()
    }
}

impl Shadow {
    /// Whether it sees a copy of the requests with this key.
    #[must_use]
    pub fn sees(&self, key: &[u8]) -> bool {
        self.split.is_candidate(key, self.share_bp)
    }
}

impl LiveRoute {
    /// The route in force after `before`.
    #[must_use]
    pub fn after(before: Option<&Self>, route: Route, judge: Judge) -> Self {
        let known = |version: &Version| {
            let live = before?;
            let index = live.route.split.iter().position(|weight| weight.version == *version)?;
            live.counts.get(index).cloned()
        };
        let counts = route.split.iter().map(|weight| known(&weight.version).unwrap_or_default()).collect();
        Self { route, counts, judge }
    }

    /// The side of a version that somebody judges.
    fn side(&self, version: &Version) -> Option<(Side, &Tally)> {
        let (candidate, tally) = self.judge.trial.as_ref()?;
        Some((if version == candidate { Side::Candidate } else { Side::Stable }, tally))
    }

    /// A shadow on trial sees a copy of a request with this key.
    pub(crate) fn shadowed(&self, version: &Version, key_hash: u64) {
        if let Some((Side::Candidate, tally)) = self.side(version) {
            tally.saw(Side::Candidate, key_hash);
        }
    }

    /// Puts a request into the arm of its key. `falls_back` tells whether another version answers for it.
    #[must_use]
    pub fn enter(self: &Arc<Self>, index: usize, key_hash: u64, falls_back: bool) -> Arm {
        let counts = &self.counts[index];
        counts.requests.fetch_add(1, Ordering::Relaxed);
        if falls_back {
            counts.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
        if let Some((side, tally)) = self.side(&self.route.split[index].version) {
            tally.assigned(side, key_hash);
        }
        Arm { live: Arc::clone(self), index, key_hash }
    }
}

impl ArmCounts {
    /// Requests assigned to it.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Those of them that another version answered, because it was not ready.
    #[must_use]
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Relaxed)
    }
}

impl Arm {
    /// The version that the request is assigned to.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.live.route.split[self.index].version
    }

    /// The request came to its end: notes what that says of the version, if somebody judges it. A version that stood
    /// in for the one of the arm says nothing.
    pub fn ended(
        &self,
        servable: &Servable,
        id: &str,
        arrived: Time,
        result: Result<&InferResponse, &InferError>,
    ) {
        let Judge { trial, ledger } = &self.live.judge;
        if (trial.is_none() && ledger.is_none()) || servable.version != *self.version() {
            return;
        }
        let now = clock::now();
        if let Some((side, tally)) = self.live.side(&servable.version) {
            tally.ended(side, self.key_hash, (&servable.signature, result), now.ns_since(arrived));
        }
        if let (Some(ledger), Ok(response)) = (ledger, result) {
            ledger.note(id, &servable.version, (&servable.signature, response), clock::wall_ms(now));
        }
    }
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            StickyKey::RequestId => f.write_str("the request's id"),
            StickyKey::Header(name) => write!(f, "the header '{name}'"),
            StickyKey::Parameter(name) => write!(f, "the parameter '{name}'"),
        }
    }
}

#[cfg(test)]
mod tests;
