//! What one guard knows: the evidence of harm so far, and how bad the candidate can still be. Must not know stages,
//! time or what is decided.

use gannet_stats::{event_share::StageCounts, special::log_sum_exp};
use serde::{Deserialize, Serialize};

use super::{
    evidence::Evidence,
    plan::{Guard, Measure, Traffic},
};

mod measures;

/// What a guard carries from look to look and from stage to stage.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GuardMemory {
    /// Evidence of closed epochs, added up, by component.
    closed: Vec<f64>,
    /// Evidence of this epoch at the last look, by component.
    current: Vec<f64>,
    /// Events of closed epochs.
    closed_stages: Vec<StageCounts>,
    /// Events of this epoch at the last look.
    current_stage: Option<StageCounts>,
    /// Mixture variance of this epoch, chosen at its first useful look.
    tau2: Option<f64>,
}

/// What a guard says of the candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Worse than tolerated: the rollout ends.
    Harm,
    /// Worse than the margin is ruled out.
    Safe,
    /// Neither yet.
    Unsure,
    /// Nothing was counted that it could judge.
    NoData,
    /// It looks at nothing that this stage has.
    NotMeasured,
}

/// In what estimate and bounds are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Candidate's rate by the stable version's.
    Ratio,
    /// Candidate's rate less the stable version's.
    Difference,
    /// Largest distance of the distribution functions at the bins' edges, 0 to 1.
    Distance,
    /// Share of pairs that differ.
    Rate,
    /// How much worse, relative to the stable version's mean.
    Relative,
}

/// A guard at the last look, as the admin interface shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuardReport {
    /// The guard.
    pub name: String,
    /// What it says.
    pub verdict: Verdict,
    /// The candidate's observations in this stage.
    pub n: u64,
    /// About how many it takes until the candidate can go on, if it stays as it looks; `None`: it would not.
    pub needed: Option<u64>,
    /// In what the next four are.
    pub unit: Unit,
    /// The likeliest value.
    pub estimate: Option<f64>,
    /// Lower bound, at any time.
    pub lower: Option<f64>,
    /// Upper bound, at any time.
    pub upper: Option<f64>,
    /// Where the upper bound must lie to go on.
    pub margin: f64,
    /// Evidence of harm over all stages.
    pub log_e: f64,
    /// Evidence at which the rollout ends.
    pub limit: f64,
}

/// The fixed part of a look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) traffic: Traffic,
    pub(super) evidence: &'a Evidence,
    pub(super) latency_threshold_us: Option<f64>,
    /// Of every bound.
    pub(super) alpha: f64,
    pub(super) log_e_limit: f64,
    pub(super) min_requests: u64,
}

/// What a measure finds in one look.
#[derive(Debug, Clone, PartialEq)]
struct Finding {
    n: u64,
    unit: Unit,
    estimate: Option<f64>,
    lower: Option<f64>,
    upper: Option<f64>,
    margin: f64,
}

impl GuardMemory {
    /// Evidence over all epochs. Several components are one bet split evenly: their mean is evidence as each is.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        let at = |values: &[f64], index: usize| values.get(index).copied().unwrap_or(0.0);
        let components = self.closed.len().max(self.current.len());
        if components == 0 {
            return 0.0;
        }
        let sums = (0..components).map(|index| at(&self.closed, index) + at(&self.current, index));
        log_sum_exp(sums) - (components as f64).ln()
    }

    pub(super) fn tau2(&self) -> Option<f64> {
        self.tau2
    }

    /// The shares of the traffic change: what was found is kept, and counting begins anew.
    pub(super) fn close(&mut self) {
        self.closed.resize(self.closed.len().max(self.current.len()), 0.0);
        self.closed.iter_mut().zip(&self.current).for_each(|(closed, current)| *closed += current);
        self.current.clear();
        self.closed_stages.extend(self.current_stage.take());
        self.tau2 = None;
    }

    /// Sets this epoch's evidence. Where the components are others than before, what was closed becomes one number.
    fn set(&mut self, components: Vec<f64>) {
        if !self.closed.is_empty() && self.closed.len() != components.len() {
            self.current.clear();
            self.closed = vec![self.log_e(); components.len()];
        }
        self.current = components;
    }
}

/// Looks at the evidence of this epoch.
pub(super) fn look(guard: &Guard, memory: &mut GuardMemory, look: Look<'_>) -> GuardReport {
    let measured = match (guard.measure, look.traffic) {
        // a shadow waits until nobody else wants the core: how long its answers take says nothing
        (Measure::Disagreement, Traffic::Weight(_))
        | (Measure::Metric(_) | Measure::Latency, Traffic::Shadow(_)) => false,
        (Measure::Disagreement, Traffic::Shadow(_)) => true,
        _ => look.traffic.share().is_some(),
    };
    let finding = if measured { measures::find(guard, memory, look) } else { None };
    let log_e = memory.log_e();
    let blank =
        Finding { n: 0, unit: Unit::Ratio, estimate: None, lower: None, upper: None, margin: guard.margin };
    let verdict = match &finding {
        _ if log_e >= look.log_e_limit => Verdict::Harm,
        None if measured => Verdict::NoData,
        None => Verdict::NotMeasured,
        Some(found) if found.upper.is_some_and(|upper| upper <= found.margin) => Verdict::Safe,
        Some(_) => Verdict::Unsure,
    };
    let found = finding.unwrap_or(blank);
    GuardReport {
        name: guard.name.clone(),
        verdict,
        n: found.n,
        needed: found.needed(),
        unit: found.unit,
        estimate: found.estimate,
        lower: found.lower,
        upper: found.upper,
        margin: found.margin,
        log_e,
        limit: look.log_e_limit,
    }
}

impl Finding {
    /// Widths shrink with the square root of what they rest on.
    fn needed(&self) -> Option<u64> {
        let (estimate, upper) = (self.estimate?, self.upper?);
        if upper <= self.margin {
            return Some(self.n);
        }
        let room = self.margin - estimate;
        let needed = self.n as f64 * ((upper - estimate) / room).powi(2);
        (room > 0.0 && needed.is_finite()).then_some(needed.ceil() as u64)
    }
}
