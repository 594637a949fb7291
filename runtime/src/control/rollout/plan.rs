//! What an operator wants of a rollout: [`PlanFile`] as it is written, [`Plan`] once checked. All faults are reported
//! together. Must not know JSON, state or evidence.

use std::fmt::Write as _;

use gannet_models::{ModelName, Version};
use serde::{Deserialize, Serialize};

use super::freeze::{FreezeFile, FreezeWindow};

mod check;

pub use check::PlanFaults;

/// Defaults of every stage: enough requests and users for the guards to mean something, and half an hour for what
/// only time shows.
const MIN_REQUESTS: u64 = 1000;
const MIN_USERS: u64 = 200;
const MIN_SECONDS: u64 = 30 * 60;

/// Share of rollouts of a harmless candidate that go back by mistake, at most.
const ALPHA: f64 = 0.01;

/// After so many crashes in a row nothing needs to be tested.
const CRASHES_MAX: u32 = 5;

const COOL_DOWN_SECONDS: u64 = 60 * 60;

/// A plan as it is written.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// The version to roll out.
    pub candidate: String,
    /// The version to compare with; by default the one that serves.
    pub baseline: Option<String>,
    /// In order; by default shadow, 1, 5, 25, 50 and 100 %.
    pub stages: Option<Vec<StageFile>>,
    /// What must not get worse; by default the error rate and the latency.
    pub guards: Option<Vec<GuardFile>>,
    /// Probability of a wrong rollback, over all guards and looks.
    pub alpha: Option<f64>,
    /// When the candidate does not go on.
    #[serde(default)]
    pub freeze: Vec<FreezeFile>,
    /// How long after a rollback no rollout of the model begins.
    pub cool_down_seconds: Option<u64>,
    /// Crashes in a row that end the rollout.
    pub crashes_max: Option<u32>,
    /// Name of the split of users; by default made of model and candidate.
    pub salt: Option<String>,
    /// How old a request is before the metrics fed back of it count; by default 0.
    pub horizon_seconds: Option<u64>,
}

/// A stage as it is written: `shadow` or `weight_bp`, and what it takes at least.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageFile {
    /// Share of the requests that the candidate answers unseen, above 0 to 1.
    pub shadow: Option<f64>,
    /// Share of the users that the candidate answers, in hundredths of a percent, 1 to 10000.
    pub weight_bp: Option<u32>,
    /// Requests that the candidate answers at least.
    pub min_requests: Option<u64>,
    /// Users that it answers at least.
    pub min_users: Option<u64>,
    /// How long the stage lasts at least.
    pub min_seconds: Option<u64>,
}

/// A guard as it is written.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardFile {
    /// `error_rate`, `latency`, `output_drift`, `disagreement`, or `metric:` and the name of a metric fed back.
    pub name: String,
    /// How much worse than the baseline is no reason to go back.
    pub tolerance: Option<f64>,
    /// How much worse must be ruled out to go on.
    pub margin: Option<f64>,
    /// For the rates: or how much the rate may be higher, as a plain difference.
    pub margin_absolute: Option<f64>,
    /// For a metric: which way is better.
    pub better: Option<Better>,
}

/// Which way a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// As conversions.
    Higher,
    /// As costs.
    Lower,
}

/// What the candidate answers during a stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// This share of the requests a second time, unseen.
    Shadow(f64),
    /// The users of so many basis points.
    Weight(u32),
}

/// A checked stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What the candidate answers.
    pub traffic: Traffic,
    /// Requests that it answers at least.
    pub min_requests: u64,
    /// Users that it answers at least.
    pub min_users: u64,
    /// How long the stage lasts at least.
    pub min_seconds: u64,
}

/// What a guard looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Share of requests that fail, as a ratio.
    ErrorRate,
    /// Share of requests slower than the stable version's 99th percentile at the start, as a ratio.
    Latency,
    /// Distribution of the scores: rollback on the ratio of any bin, going on by the largest distance of the
    /// distribution functions.
    OutputDrift,
    /// Share of shadowed pairs that differ.
    Disagreement,
    /// Mean of a metric fed back, relative to the stable version's.
    Metric(Better),
}

/// A checked guard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// Its name.
    pub name: String,
    /// What it looks at.
    pub measure: Measure,
    /// Up to here is no reason to go back.
    pub tolerance: f64,
    /// What must be ruled out to go on.
    pub margin: f64,
    /// Or, for rates, this difference.
    pub margin_absolute: f64,
}

/// A checked plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The model.
    pub model: String,
    /// The version to compare with.
    pub baseline: String,
    /// The version to roll out.
    pub candidate: String,
    /// In order; at least one.
    pub stages: Vec<Stage>,
    /// At least one.
    pub guards: Vec<Guard>,
    /// Probability of a wrong rollback, over all guards and looks.
    pub alpha: f64,
    /// When the candidate does not go on.
    pub freeze: Vec<FreezeWindow>,
    /// How long after a rollback no rollout of the model begins.
    pub cool_down_seconds: u64,
    /// Crashes in a row that end the rollout.
    pub crashes_max: u32,
    /// Name of the split of users.
    pub salt: String,
    /// How old a request is before the metrics fed back of it count.
    #[serde(default)]
    pub horizon_seconds: u64,
}

impl Plan {
    /// Checks a plan for `model`, whose version `serving` answers today.
    ///
    /// # Errors
    /// [`PlanFaults`], all of them.
    pub fn new(model: &ModelName, serving: &Version, file: &PlanFile) -> Result<Self, PlanFaults> {
        check::plan(model, serving, file)
    }

    /// The evidence, as a logarithm, at which one guard ends the rollout: m/alpha for m guards.
    #[must_use]
    pub fn log_e_limit(&self) -> f64 {
        (self.guards.len() as f64 / self.alpha).ln()
    }

    /// The latest end of the freeze windows that `now_ms` lies in.
    #[must_use]
    pub fn frozen_until(&self, now_ms: u64) -> Option<u64> {
        self.freeze.iter().filter_map(|window| window.frozen_until(now_ms)).max()
    }

    /// A digest of everything in the plan, for the audit log: the same for the same plan, in any release.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let Self { model, baseline, candidate, stages, guards, alpha, .. } = self;
        let mut text = format!("{model:?} {baseline:?} {candidate:?} {alpha} {:?}\n", self.salt);
        for Stage { traffic, min_requests, min_users, min_seconds } in stages {
            let traffic = match traffic {
                Traffic::Shadow(share) => format!("shadow {share}"),
                Traffic::Weight(weight_bp) => format!("weight {weight_bp}"),
            };
            let _ = writeln!(text, "{traffic} {min_requests} {min_users} {min_seconds}");
        }
        for Guard { name, measure, tolerance, margin, margin_absolute } in guards {
            let better = match measure {
                Measure::Metric(Better::Lower) => "lower",
                _ => "higher",
            };
            let _ = writeln!(text, "{name:?} {better} {tolerance} {margin} {margin_absolute}");
        }
        for window in &self.freeze {
            let _ = match window {
                FreezeWindow::Once { from_ms, until_ms } => writeln!(text, "once {from_ms} {until_ms}"),
                FreezeWindow::Weekly { from_minute, until_minute } => {
                    writeln!(text, "weekly {from_minute} {until_minute}")
                }
            };
        }
        let _ = writeln!(text, "{} {} {}", self.cool_down_seconds, self.crashes_max, self.horizon_seconds);
        gannet_models::Digest::of(text.as_bytes()).to_string()
    }
}

impl Traffic {
    /// Basis points of the users that see the candidate's answers.
    #[must_use]
    pub fn weight_bp(self) -> u32 {
        match self {
            Self::Shadow(_) => 0,
            Self::Weight(weight_bp) => weight_bp,
        }
    }

    /// The candidate's share of what is compared; `None` when nothing is left to compare with.
    pub(super) fn share(self) -> Option<f64> {
        match self {
            // both answer every shadowed request
            Self::Shadow(_) => Some(0.5),
            Self::Weight(10_000) => None,
            Self::Weight(weight_bp) => Some(f64::from(weight_bp) / 10_000.0),
        }
    }
}
