//! The decision itself: back on evidence of harm, on with evidence of safety, else hold. Missing data holds; it
//! neither passes nor fails. Must not know commands.

use gannet_stats::event_share::{SRM_ALPHA, ShareTest};

use super::{
    evidence::{Arms, Evidence},
    guard::{self, GuardReport, Look, Verdict},
    plan::{Plan, Stage, Traffic},
    state::{Decision, HoldReason, RollbackReason, State, Status},
};

/// Requests of the stable version behind the threshold of the latency guard: a p99 of fewer rests on under ten.
const BURN_IN_REQUESTS: u64 = 1000;

/// Looks once. The same values give the same answer, whenever and wherever it is asked.
#[must_use]
pub fn decide(plan: &Plan, state: &State, evidence: &Evidence, now_ms: u64) -> (Decision, State) {
    let mut next = state.clone();
    let decision = judge(plan, &mut next, evidence, now_ms);
    match &decision {
        Decision::Hold(_) => {}
        Decision::Advance(stage) => next.enter(*stage, now_ms),
        Decision::Promote => next.end(Status::Promoted, now_ms),
        Decision::RollBack(_) => next.end(Status::RolledBack, now_ms),
    }
    next.decision = decision.clone();
    (decision, next)
}

fn judge(plan: &Plan, state: &mut State, evidence: &Evidence, now_ms: u64) -> Decision {
    let Some(stage) = state.stage(plan).copied().filter(|_| !state.is_over()) else {
        return Decision::Hold(vec![HoldReason::Ended]);
    };
    // hard limits need no statistics, and no epoch
    if let Some(reason) = &evidence.candidate_failed {
        return Decision::RollBack(RollbackReason::Failed(reason.clone()));
    }
    if evidence.crashes_in_a_row >= plan.crashes_max {
        return Decision::RollBack(RollbackReason::Crashes(evidence.crashes_in_a_row));
    }
    if evidence.epoch != state.epoch {
        let (expected, got) = (state.epoch, evidence.epoch);
        return Decision::Hold(vec![HoldReason::OtherEpoch { expected, got }]);
    }
    if let Some(latency) = evidence.stable_latency
        && state.latency_threshold_us.is_none()
        && latency.requests >= BURN_IN_REQUESTS
        && latency.p99_us.is_finite()
    {
        state.latency_threshold_us = Some(latency.p99_us);
    }
    look(plan, &stage, state, evidence);
    if let Some(harmed) = harmed(&state.guards) {
        let GuardReport { name, log_e, limit, .. } = harmed.clone();
        return Decision::RollBack(RollbackReason::Guard { name, log_e, limit });
    }
    let mut reasons = Vec::new();
    if state.status == Status::Paused {
        reasons.push(HoldReason::Paused);
    }
    reasons.extend(plan.frozen_until(now_ms).map(|until_ms| HoldReason::Frozen { until_ms }));
    exposure(&stage, state, evidence, now_ms, &mut reasons);
    reasons.extend(sample_ratio(stage.traffic, evidence));
    reasons.extend(state.guards.iter().filter_map(|report| match report.verdict {
        Verdict::NoData => Some(HoldReason::NoData { guard: report.name.clone() }),
        Verdict::Unsure => Some(HoldReason::Unsure { guard: report.name.clone() }),
        Verdict::Safe | Verdict::NotMeasured | Verdict::Harm => None,
    }));
    if !reasons.is_empty() {
        return Decision::Hold(reasons);
    }
    if state.stage + 1 < plan.stages.len() { Decision::Advance(state.stage + 1) } else { Decision::Promote }
}

/// Every guard looks, and the reports are kept.
fn look(plan: &Plan, stage: &Stage, state: &mut State, evidence: &Evidence) {
    let look = Look {
        traffic: stage.traffic,
        evidence,
        latency_threshold_us: state.latency_threshold_us,
        alpha: plan.alpha,
        log_e_limit: plan.log_e_limit(),
        min_requests: stage.min_requests,
    };
    let memory = &mut state.memory;
    let reports = plan.guards.iter().map(|guard| {
        let memory = memory.entry(guard.name.clone()).or_default();
        guard::look(guard, memory, look)
    });
    state.guards = reports.collect();
}

/// The guard with the strongest evidence among those that have enough.
fn harmed(reports: &[GuardReport]) -> Option<&GuardReport> {
    let harmed = reports.iter().filter(|report| report.verdict == Verdict::Harm);
    harmed.max_by(|a, b| a.log_e.total_cmp(&b.log_e))
}

fn exposure(stage: &Stage, state: &State, evidence: &Evidence, now_ms: u64, reasons: &mut Vec<HoldReason>) {
    let seconds = now_ms.saturating_sub(state.since_ms) / 1000;
    if seconds < stage.min_seconds {
        reasons.push(HoldReason::TooEarly { seconds, needed: stage.min_seconds });
    }
    let requests = evidence.requests.candidate;
    if requests < stage.min_requests {
        reasons.push(HoldReason::FewRequests { requests, needed: stage.min_requests });
    }
    match evidence.users {
        _ if stage.min_users == 0 => {}
        None => reasons.push(HoldReason::UsersUnknown { needed: stage.min_users }),
        Some(Arms { candidate: users, .. }) if users < stage.min_users => {
            reasons.push(HoldReason::FewUsers { users, needed: stage.min_users });
        }
        Some(_) => {}
    }
}

/// Whether both versions get the share of the users (of the requests, where these carry no key) that the weights
/// say. A mismatch is no harm, but nothing can be compared while it lasts.
fn sample_ratio(traffic: Traffic, evidence: &Evidence) -> Option<HoldReason> {
    let share = match traffic {
        Traffic::Shadow(_) => return None,
        Traffic::Weight(_) => traffic.share()?,
    };
    let Arms { candidate, stable } = evidence.users.unwrap_or(evidence.requests);
    let mut test = ShareTest::sample_ratio(share).ok()?;
    let (log_e, limit) = (test.add(&[stable, candidate]).ok()?, -SRM_ALPHA.ln());
    if candidate + stable == 0 {
        return Some(HoldReason::SampleRatioUnknown);
    }
    (log_e >= limit).then_some(HoldReason::SampleRatio { log_e, limit })
}
