//! Where a rollout stands and what was decided. Must not know how it is decided.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{
    guard::{GuardMemory, GuardReport},
    plan::{Plan, Stage, Traffic},
};

/// What becomes of a rollout. Running and Paused change into each other; Promoted and RolledBack are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It goes on by itself.
    Running,
    /// It goes back by itself, but not on.
    Paused,
    /// The candidate took over.
    Promoted,
    /// The candidate is gone.
    RolledBack,
}

/// Where a rollout stands, in one word for people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The candidate answers unseen.
    Shadow,
    /// It answers some users.
    Canary,
    /// It answers all users, and the baseline is kept.
    Full,
    /// Held by hand.
    Paused,
    /// The candidate took over.
    Promoted,
    /// The candidate is gone.
    RolledBack,
}

impl Phase {
    /// Every phase, for metrics with one series each.
    pub const ALL: [Self; 6] =
        [Self::Shadow, Self::Canary, Self::Full, Self::Paused, Self::Promoted, Self::RolledBack];

    /// Its name, in the admin interface and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        ["shadow", "canary", "full", "paused", "promoted", "rolled_back"][self as usize]
    }
}

/// Why a candidate stays where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the texts below say what each field is")]
pub enum HoldReason {
    Ended,
    Paused,
    Frozen { until_ms: u64 },
    OtherEpoch { expected: u32, got: u32 },
    TooEarly { seconds: u64, needed: u64 },
    FewRequests { requests: u64, needed: u64 },
    FewUsers { users: u64, needed: u64 },
    UsersUnknown { needed: u64 },
    SampleRatio { log_e: f64, limit: f64 },
    SampleRatioUnknown,
    NoData { guard: String },
    Unsure { guard: String },
}

/// Why a candidate goes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollbackReason {
    /// A guard has the evidence.
    Guard {
        /// The guard.
        name: String,
        /// Its evidence.
        log_e: f64,
        /// What was enough.
        limit: f64,
    },
    /// So many crashes in a row.
    Crashes(u32),
    /// It does not serve at all, and why.
    Failed(String),
    /// Somebody wished it, and why.
    Manual(String),
}

/// What is decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Stay; every reason.
    Hold(Vec<HoldReason>),
    /// Go to that stage.
    Advance(usize),
    /// The candidate takes over.
    Promote,
    /// The baseline answers everything again.
    RollBack(RollbackReason),
}

/// Everything a rollout remembers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// What becomes of it.
    pub status: Status,
    /// Index of the stage.
    pub stage: usize,
    /// Counts up whenever counting begins anew; evidence says for which epoch it was counted.
    pub epoch: u32,
    /// When the stage began, or the rollout ended; milliseconds since 1970.
    pub since_ms: u64,
    /// Slower is an event for the latency guard; frozen once, early.
    pub latency_threshold_us: Option<f64>,
    /// By guard.
    pub memory: BTreeMap<String, GuardMemory>,
    /// The guards at the last look.
    pub guards: Vec<GuardReport>,
    /// What was decided last.
    pub decision: Decision,
}

/// A rollout as the admin interface shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// Its number.
    pub id: u64,
    /// The model.
    pub model: String,
    /// The version it is compared with.
    pub baseline: String,
    /// The version that is rolled out.
    pub candidate: String,
    /// Index of the stage.
    pub stage: usize,
    /// Basis points of the users that the candidate answers now.
    pub weight_bp: u32,
    /// See [`Phase::as_str`].
    pub state: &'static str,
    /// The last decision, in words.
    pub decision: String,
    /// The guards at the last look.
    pub guards: Vec<GuardReport>,
    /// When the stage began, or the rollout ended; milliseconds since 1970.
    pub since: u64,
}

impl State {
    /// Whether nothing will happen any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.status, Status::Promoted | Status::RolledBack)
    }

    /// Whether what is chosen once, and then holds, was chosen alike: the threshold of what is slow and the mixtures
    /// of the tests. A look that chooses must be kept; one that only finds may be forgotten, for the next finds more.
    #[must_use]
    pub fn chose_as(&self, other: &Self) -> bool {
        let mixtures =
            |state: &Self| -> Vec<Option<f64>> { state.memory.values().map(GuardMemory::tau2).collect() };
        self.latency_threshold_us == other.latency_threshold_us && mixtures(self) == mixtures(other)
    }

    /// The stage it is in.
    pub(super) fn stage<'a>(&self, plan: &'a Plan) -> Option<&'a Stage> {
        plan.stages.get(self.stage)
    }

    /// Basis points of the users that the candidate answers now.
    #[must_use]
    pub fn weight_bp(&self, plan: &Plan) -> u32 {
        match self.status {
            Status::Promoted => 10_000,
            Status::RolledBack => 0,
            Status::Running | Status::Paused => self.stage(plan).map_or(0, |stage| stage.traffic.weight_bp()),
        }
    }

    /// Share of the requests that the candidate answers unseen now.
    #[must_use]
    pub fn shadow_share(&self, plan: &Plan) -> f64 {
        match self.stage(plan).map(|stage| stage.traffic) {
            Some(Traffic::Shadow(share)) if !self.is_over() => share,
            _ => 0.0,
        }
    }

    /// Where it stands, in one word.
    #[must_use]
    pub fn phase(&self, plan: &Plan) -> Phase {
        match (self.status, self.stage(plan).map(|stage| stage.traffic)) {
            (Status::Promoted, _) => Phase::Promoted,
            (Status::RolledBack, _) => Phase::RolledBack,
            (Status::Paused, _) => Phase::Paused,
            (Status::Running, Some(Traffic::Shadow(_))) => Phase::Shadow,
            (Status::Running, Some(Traffic::Weight(10_000))) => Phase::Full,
            (Status::Running, _) => Phase::Canary,
        }
    }

    /// The rollout as the admin interface shows it.
    #[must_use]
    pub fn view(&self, id: u64, plan: &Plan) -> View {
        View {
            id,
            model: plan.model.clone(),
            baseline: plan.baseline.clone(),
            candidate: plan.candidate.clone(),
            stage: self.stage,
            weight_bp: self.weight_bp(plan),
            state: self.phase(plan).as_str(),
            decision: self.decision.to_string(),
            guards: self.guards.clone(),
            since: self.since_ms,
        }
    }

    /// Goes to `stage`, where counting begins anew and what was found is kept.
    pub(super) fn enter(&mut self, stage: usize, now_ms: u64) {
        self.stage = stage;
        self.since_ms = now_ms;
        self.recount();
    }

    /// Counting begins anew within the stage.
    pub(super) fn recount(&mut self) {
        self.epoch += 1;
        self.memory.values_mut().for_each(GuardMemory::close);
    }

    /// Ends it.
    pub(super) fn end(&mut self, status: Status, now_ms: u64) {
        self.status = status;
        self.since_ms = now_ms;
        self.epoch += 1;
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hold(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                write!(f, "hold: {}", reasons.join("; "))
            }
            Self::Advance(stage) => write!(f, "advance to stage {stage}"),
            Self::Promote => f.write_str("promote"),
            Self::RollBack(reason) => write!(f, "roll back: {reason}"),
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => write!(f, "the rollout is over"),
            Self::Paused => write!(f, "paused by hand; resume it"),
            Self::Frozen { until_ms } => write!(f, "frozen until {until_ms} ms since 1970"),
            Self::OtherEpoch { expected, got } => {
                write!(f, "the evidence was counted in epoch {got}, this is epoch {expected}")
            }
            Self::TooEarly { seconds, needed } => write!(f, "{seconds} s of {needed} s in this stage"),
            Self::FewRequests { requests, needed } => write!(f, "{requests} of {needed} requests"),
            Self::FewUsers { users, needed } => write!(f, "{users} of {needed} users"),
            Self::UsersUnknown { needed } => {
                write!(
                    f,
                    "{needed} users are needed and requests carry no key; send one, or set min_users to 0"
                )
            }
            Self::SampleRatio { log_e, limit } => write!(
                f,
                "the versions do not get the shares they should (log e {log_e:.1}, at most {limit:.1}); find out \
                 which requests are lost before comparing"
            ),
            Self::SampleRatioUnknown => write!(f, "the shares of the versions are not counted yet"),
            Self::NoData { guard } => write!(f, "{guard} has no data"),
            Self::Unsure { guard } => write!(f, "{guard} is not yet known to be within its margin"),
        }
    }
}

impl fmt::Display for RollbackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guard { name, log_e, limit } => {
                write!(f, "{name} is worse than tolerated (log e {log_e:.2}, limit {limit:.2})")
            }
            Self::Crashes(count) => write!(f, "the candidate crashed {count} times in a row"),
            Self::Failed(reason) => write!(f, "the candidate does not serve: {reason}"),
            Self::Manual(reason) => write!(f, "by hand: {reason}"),
        }
    }
}
