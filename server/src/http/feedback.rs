//! `POST /v2/models/{model}/feedback`: outcomes of requests that were answered, one or many, early or late. Must not
//! know what is decided on them.

use std::collections::BTreeMap;

use gannet_models::ModelName;
use gannet_runtime::{
    clock,
    route::ledger::{Fed, Ledger, Outcome},
    table::ModelEntry,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    respond::{Kind, Refusal},
    state::State,
};

/// Outcomes of one call.
const OUTCOMES_MAX: usize = 10_000;
/// Metrics of one outcome.
const METRICS_MAX: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    id: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    label: Option<Value>,
    #[serde(default)]
    metrics: BTreeMap<String, f64>,
}

/// Takes the outcomes of a call in: all of them, or none.
///
/// # Errors
/// [`Kind::NotFound`] for an unknown model, [`Kind::Invalid`] for outcomes that cannot be, [`Kind::Conflict`] for one
/// that names another version than the one that answered.
pub(super) fn take(state: &State, model: &str, body: &[u8]) -> Result<Value, Refusal> {
    let table = state.table().snapshot();
    let Some(entry) = table.model(model) else {
        return Err(gannet_runtime::InferError::UnknownModel(model.to_owned()).into());
    };
    let given: Vec<Given> = serde_json::from_slice(body).map_err(|error| {
        Refusal::invalid(format!(
            "the body: expected a list such as [{{\"id\": \"42\", \"label\": 1, \"metrics\": {{\"sales\": 3.5}}}}]: {error}"
        ))
    })?;
    if given.len() > OUTCOMES_MAX {
        return Err(Refusal::invalid(format!(
            "the body: expected at most {OUTCOMES_MAX} outcomes, got {}; send them in parts",
            given.len()
        )));
    }
    let outcomes: Vec<Outcome> = given
        .into_iter()
        .enumerate()
        .map(|(index, given)| outcome(index, given, entry))
        .collect::<Result<_, _>>()?;
    // what was sampled is judged whether somebody else waits for outcomes or not
    if let Ok(name) = ModelName::new(model) {
        state.drift.feed(&name, outcomes.clone());
    }
    let ledger = entry.route.as_ref().and_then(|route| route.live.judge.ledger.as_ref());
    let (fed, note) = match ledger {
        Some(ledger) => (feed(ledger, &outcomes)?, Value::Null),
        None => (
            Fed { unknown: outcomes.len() as u64, ..Fed::default() },
            json!("no rollout with a metric guard and no route that learns waits for feedback now"),
        ),
    };
    Ok(json!({
        "model": model,
        "accepted": fed.accepted,
        "unknown_ids": fed.unknown,
        "repeated": fed.repeated,
        "unused": fed.unused,
        "note": note,
    }))
}

fn feed(ledger: &Ledger, outcomes: &[Outcome]) -> Result<Fed, Refusal> {
    use gannet_runtime::route::ledger::FeedError;
    ledger.feed(outcomes, clock::wall_ms(clock::now())).map_err(|error| {
        let kind = match error {
            FeedError::OtherVersion { .. } => Kind::Conflict,
            FeedError::Reward { .. } => Kind::Invalid,
        };
        Refusal::new(kind, format!("{error}; nothing of this call counts"))
    })
}

fn outcome(index: usize, given: Given, entry: &ModelEntry) -> Result<Outcome, Refusal> {
    let Given { id, version, label, metrics } = given;
    if id.is_empty() {
        return Err(Refusal::invalid(format!("[{index}].id: expected a request's id, got an empty text")));
    }
    if metrics.len() > METRICS_MAX {
        return Err(Refusal::invalid(format!(
            "[{index}].metrics: expected at most {METRICS_MAX}, got {}",
            metrics.len()
        )));
    }
    let label =
        label.filter(|label| !label.is_null()).map(|label| number(index, &label, entry)).transpose()?;
    Ok(Outcome { id, version, label, metrics })
}

/// A label as a number: itself, or the place of a class's name.
fn number(index: usize, label: &Value, entry: &ModelEntry) -> Result<f64, Refusal> {
    let names = || entry.primary()?.signature.outputs.iter().rev().find_map(|output| output.labels.as_ref());
    match label {
        Value::Number(number) => Ok(number.as_f64().unwrap_or(f64::NAN)),
        Value::Bool(flag) => Ok(f64::from(u8::from(*flag))),
        Value::String(name) => {
            let place = names().and_then(|names| names.iter().position(|known| **known == **name));
            place.map(|place| place as f64).ok_or_else(|| {
                let known = match names() {
                    Some(names) => names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                    None => "none, for the model has no labels.txt; send the class's number".to_owned(),
                };
                Refusal::invalid(format!("[{index}].label: there is no class '{name}'; known: {known}"))
            })
        }
        other => Err(Refusal::invalid(format!(
            "[{index}].label: expected a number or a class's name, got {other}"
        ))),
    }
}
