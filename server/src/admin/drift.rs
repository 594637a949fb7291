//! A model's drift: what was found of the version that answers, and of the others. Must not know how it is found.

use serde_json::{Value, json};

use super::{
    models,
    router::{Answer, Call},
};
use crate::{drift::disclose, ota::view, state::State};

/// The report of the version that answers; those of others beside it.
pub(super) async fn get(call: Call) -> Answer {
    let model = models::model(&call)?;
    let state = &call.context.state;
    let table = state.table().snapshot();
    let primary = table.model(model.as_str()).and_then(|entry| entry.primary()).map(|p| p.version.clone());
    let reports = state.drift.reports();
    let (mut first, mut others) = (Value::Null, Vec::new());
    for report in reports.iter().filter(|report| report.model == model) {
        if Some(&report.version) == primary.as_ref() {
            first = disclose::report(report);
        } else {
            others.push(disclose::report(report));
        }
    }
    if first.is_null() {
        // nothing of it was sampled yet
        first = json!({
            "model": model.as_str(), "version": primary.as_ref().map(|version| version.as_str()),
            "state": "learning", "budget_days": call.context.config.drift.watch.budget_days, "sources": 0, "rows": 0,
            "window_rows": 0, "sampling_probability": 0.0, "baseline": "none", "baseline_rows": 0, "alarms": 0,
            "alarm": null, "score_changes": 0, "estimate": null, "feedback": null, "features": [],
        });
    }
    first["others"] = json!(others);
    first["devices"] = json!(devices(state, model.as_str()));
    first["dropped"] = json!(state.drift.dropped());
    first["sampling_factor"] = json!(state.drift.factor());
    Ok(first)
}

/// What devices saw of the model's inputs, by the sequence of their bundle.
fn devices(state: &State, model: &str) -> Vec<Value> {
    let all = state.ota.as_ref().map(|ota| ota.inputs(model)).unwrap_or_default();
    let one = |(sequence, inputs): (u64, std::collections::BTreeMap<String, _>)| {
        let inputs: Vec<Value> = inputs.iter().map(|(name, seen)| view::seen(name, seen)).collect();
        json!({ "sequence": sequence, "alarm": inputs.iter().any(|input| input["alarm"] == true), "inputs": inputs })
    };
    all.into_iter().map(one).collect()
}
