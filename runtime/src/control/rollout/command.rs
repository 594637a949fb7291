//! What people may do to a rollout: begin it, hold it, push it on, take it back. Must not know who they are.

use serde::{Deserialize, Serialize};

use super::{
    plan::{Plan, Traffic},
    state::{Decision, HoldReason, RollbackReason, State, Status},
};

/// A wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Do not go on. Harm still takes the candidate back.
    Pause,
    /// Go on by yourself again.
    Resume,
    /// Go to the next stage now, or promote from the last, whatever the guards say and even while frozen.
    Promote,
    /// Take the candidate back.
    RollBack {
        /// Why.
        reason: String,
    },
    /// The counters were lost (the process began anew): keep what was found and count from zero.
    Recount,
}

/// Why a wish is not obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It is over.
    #[error("the rollout is over ({0}); begin a new one")]
    Over(&'static str),
    /// It is what it should become.
    #[error("the rollout is {0} already")]
    Already(&'static str),
}

/// The last rollout of a model that went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When; milliseconds since 1970.
    pub rolled_back_ms: u64,
}

/// Why a rollout does not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The last one went back a short while ago.
    #[error(
        "the last rollout of this model went back {seconds_ago} s ago, and cool_down_seconds is {cool_down_seconds}; \
         wait {wait_seconds} s, or set cool_down_seconds lower"
    )]
    CoolingDown {
        /// How long ago.
        seconds_ago: u64,
        /// The wish of the plan.
        cool_down_seconds: u64,
        /// What is left.
        wait_seconds: u64,
    },
    /// It would show the candidate to users in a freeze window.
    #[error("changes are frozen until {until_ms} ms since 1970; begin with a shadow stage, or wait")]
    Frozen {
        /// When it ends.
        until_ms: u64,
    },
}

/// Begins a rollout.
///
/// # Errors
/// [`StartError`] during the cool-down after a rollback, and during a freeze unless the first stage is a shadow.
pub fn start(plan: &Plan, last: Option<Ended>, now_ms: u64) -> Result<State, StartError> {
    if let Some(Ended { rolled_back_ms }) = last {
        let seconds_ago = now_ms.saturating_sub(rolled_back_ms) / 1000;
        let cool_down_seconds = plan.cool_down_seconds;
        if seconds_ago < cool_down_seconds {
            let wait_seconds = cool_down_seconds - seconds_ago;
            return Err(StartError::CoolingDown { seconds_ago, cool_down_seconds, wait_seconds });
        }
    }
    let visible = plan.stages.first().is_some_and(|stage| matches!(stage.traffic, Traffic::Weight(_)));
    if let Some(until_ms) = plan.frozen_until(now_ms).filter(|_| visible) {
        return Err(StartError::Frozen { until_ms });
    }
    Ok(State {
        status: Status::Running,
        stage: 0,
        epoch: 0,
        since_ms: now_ms,
        latency_threshold_us: None,
        memory: plan.guards.iter().map(|guard| (guard.name.clone(), Default::default())).collect(),
        guards: Vec::new(),
        decision: Decision::Advance(0),
    })
}

/// Obeys a wish.
///
/// # Errors
/// [`CommandError`] when there is nothing to do.
pub fn command(
    plan: &Plan,
    state: &State,
    command: &Command,
    now_ms: u64,
) -> Result<(Decision, State), CommandError> {
    if state.is_over() {
        return Err(CommandError::Over(state.phase(plan).as_str()));
    }
    let mut next = state.clone();
    let decision = match command {
        Command::Pause if state.status == Status::Paused => return Err(CommandError::Already("paused")),
        Command::Resume if state.status == Status::Running => return Err(CommandError::Already("running")),
        Command::Pause => {
            next.status = Status::Paused;
            Decision::Hold(vec![HoldReason::Paused])
        }
        Command::Resume => {
            next.status = Status::Running;
            Decision::Hold(Vec::new())
        }
        Command::Recount => {
            next.recount();
            Decision::Hold(Vec::new())
        }
        Command::RollBack { reason } => {
            next.end(Status::RolledBack, now_ms);
            Decision::RollBack(RollbackReason::Manual(reason.clone()))
        }
        Command::Promote if state.stage + 1 < plan.stages.len() => {
            next.status = Status::Running;
            next.enter(state.stage + 1, now_ms);
            Decision::Advance(next.stage)
        }
        Command::Promote => {
            next.end(Status::Promoted, now_ms);
            Decision::Promote
        }
    };
    next.decision = decision.clone();
    Ok((decision, next))
}
