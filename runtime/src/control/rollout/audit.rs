//! The log of a rollout: every input with what was decided on it, enough to decide it all again. Must not know where
//! it is kept; whoever keeps it only appends.

use serde::{Deserialize, Serialize};

use super::{
    command::{Command, Ended, command, start},
    decide::decide,
    evidence::Evidence,
    plan::Plan,
    state::{Decision, State},
};

/// Evidence is compared to so many parts: logarithms differ in their last bits between processors.
const TOLERANCE: f64 = 1e-6;

/// What was decided on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// The beginning, after the last rollback of the model if there was one.
    Start(Option<Ended>),
    /// A look at the counts.
    Look(Box<Evidence>),
    /// A wish.
    Command(Command),
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// 0, 1, 2 and so on.
    pub sequence: u64,
    /// When; milliseconds since 1970.
    pub at_ms: u64,
    /// Who: a person's name, or `controller`.
    pub actor: String,
    /// [`Plan::fingerprint`] of the plan that held.
    pub plan: String,
    /// What was decided on.
    pub input: Input,
    /// What was decided.
    pub decision: Decision,
    /// The state after it, with every guard's evidence.
    pub state: State,
}

/// Where a log cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "record {sequence}: {what}: expected {expected}, got {got}; the log was changed, or another release wrote it"
)]
pub struct Mismatch {
    /// The record.
    pub sequence: u64,
    /// What differs.
    pub what: String,
    /// As it follows from the records before.
    pub expected: String,
    /// As it was written.
    pub got: String,
}

/// Carries out an input and gives the record of it, which follows `previous`.
///
/// # Errors
/// The reason in words why the input is refused; nothing is recorded then.
pub fn step(
    plan: &Plan,
    previous: Option<&Record>,
    (at_ms, actor): (u64, &str),
    input: Input,
) -> Result<Record, String> {
    let state = previous.map(|record| &record.state);
    let (decision, state) = apply(plan, state, &input, at_ms)?;
    let sequence = previous.map_or(0, |record| record.sequence + 1);
    Ok(Record { sequence, at_ms, actor: actor.to_owned(), plan: plan.fingerprint(), input, decision, state })
}

fn apply(plan: &Plan, state: Option<&State>, input: &Input, at_ms: u64) -> Result<(Decision, State), String> {
    match (input, state) {
        (Input::Start(last), None) => {
            let state = start(plan, *last, at_ms).map_err(|error| error.to_string())?;
            Ok((state.decision.clone(), state))
        }
        (Input::Start(_), Some(_)) => Err("the rollout has begun already".into()),
        (_, None) => Err("the rollout has not begun; the first record is its start".into()),
        (Input::Look(evidence), Some(state)) => Ok(decide(plan, state, evidence, at_ms)),
        (Input::Command(wish), Some(state)) => {
            command(plan, state, wish, at_ms).map_err(|error| error.to_string())
        }
    }
}

/// Decides everything again, and tells it in one line a record.
///
/// # Errors
/// The first [`Mismatch`].
pub fn explain(plan: &Plan, records: &[Record]) -> Result<Vec<String>, Mismatch> {
    let mut lines = Vec::with_capacity(records.len());
    let mut state: Option<&State> = None;
    for (index, record) in records.iter().enumerate() {
        check(record, "sequence", &(index as u64), &record.sequence)?;
        check(record, "plan", &plan.fingerprint(), &record.plan)?;
        let (decision, next) = apply(plan, state, &record.input, record.at_ms)
            .map_err(|error| mismatch(record, "input", "one that can follow", &error))?;
        if !same_decision(&decision, &record.decision) {
            return Err(mismatch(record, "decision", &decision.to_string(), &record.decision.to_string()));
        }
        check_state(record, &next)?;
        lines.push(line(plan, record));
        // the written state carries on, so that rounding does not add up
        state = Some(&record.state);
    }
    Ok(lines)
}

fn line(plan: &Plan, record: &Record) -> String {
    let Record { sequence, at_ms, actor, input, decision, state, .. } = record;
    let input = match input {
        Input::Start(_) => "start".to_owned(),
        Input::Look(evidence) => {
            let guards = state.guards.iter();
            let guards: Vec<String> =
                guards.map(|guard| format!("{} log e {:.2}", guard.name, guard.log_e)).collect();
            format!("{} requests, {}", evidence.requests.candidate, guards.join(", "))
        }
        Input::Command(wish) => format!("{wish:?}"),
    };
    let (phase, weight_bp) = (state.phase(plan).as_str(), state.weight_bp(plan));
    format!("{sequence} {at_ms} {actor}: {input}: {decision} ({phase}, {weight_bp} bp)")
}

fn mismatch(record: &Record, what: &str, expected: &str, got: &str) -> Mismatch {
    Mismatch {
        sequence: record.sequence,
        what: what.to_owned(),
        expected: expected.to_owned(),
        got: got.to_owned(),
    }
}

fn check<T: PartialEq + std::fmt::Debug>(
    record: &Record,
    what: &str,
    expected: &T,
    got: &T,
) -> Result<(), Mismatch> {
    if expected == got {
        return Ok(());
    }
    Err(mismatch(record, what, &format!("{expected:?}"), &format!("{got:?}")))
}

/// Equal but for the last bits of the evidence, which the reports are compared by.
fn same_decision(a: &Decision, b: &Decision) -> bool {
    a.to_string() == b.to_string() || a == b
}

fn check_state(record: &Record, expected: &State) -> Result<(), Mismatch> {
    let got = &record.state;
    check(record, "state.status", &expected.status, &got.status)?;
    check(record, "state.stage", &expected.stage, &got.stage)?;
    check(record, "state.epoch", &expected.epoch, &got.epoch)?;
    check(record, "state.since_ms", &expected.since_ms, &got.since_ms)?;
    check(record, "state.latency_threshold_us", &expected.latency_threshold_us, &got.latency_threshold_us)?;
    let names = |state: &State| state.memory.keys().cloned().collect::<Vec<_>>();
    check(record, "state.memory", &names(expected), &names(got))?;
    for (name, memory) in &expected.memory {
        let log_e = got.memory.get(name).map_or(f64::NAN, |memory| memory.log_e());
        near(record, &format!("evidence of {name}"), memory.log_e(), log_e)?;
    }
    check(record, "state.guards", &expected.guards.len(), &got.guards.len())?;
    for (expected, got) in expected.guards.iter().zip(&got.guards) {
        let name = &expected.name;
        check(record, "guard", name, &got.name)?;
        check(record, &format!("verdict of {name}"), &expected.verdict, &got.verdict)?;
        check(record, &format!("observations of {name}"), &expected.n, &got.n)?;
        near(record, &format!("log_e of {name}"), expected.log_e, got.log_e)?;
    }
    Ok(())
}

fn near(record: &Record, what: &str, expected: f64, got: f64) -> Result<(), Mismatch> {
    if (expected - got).abs() <= TOLERANCE * expected.abs().max(1.0) {
        return Ok(());
    }
    Err(mismatch(record, what, &expected.to_string(), &got.to_string()))
}
