//! A model's drift: what was found of the version that answers, of the others, and of devices. Must not know how it is
//! found.

use std::{collections::BTreeMap, sync::Arc};

use gannet_models::ModelName;
use gannet_runtime::drift::{Report, Source};
use serde_json::{Value, json};

use super::{
    models,
    router::{Answer, Call},
};
use crate::{
    drift::disclose,
    ota::{Seen, view},
    state::State,
};

/// The report of the version that answers; those of others, and of devices, beside it.
pub(super) async fn get(call: Call) -> Answer {
    let state = &call.context.state;
    let model = models::model(&call).or_else(|refusal| on_devices(state, &call).ok_or(refusal))?;
    let table = state.table().snapshot();
    let primary = table.model(model.as_str()).and_then(|entry| entry.primary()).map(|p| p.version.clone());
    let reports = state.drift.reports();
    let (mut first, mut others) = (Value::Null, Vec::new());
    let of_requests = |report: &&Arc<Report>| report.model == model && report.source == Source::Requests;
    for report in reports.iter().filter(of_requests) {
        if Some(&report.version) == primary.as_ref() {
            first = disclose::report(report);
        } else {
            others.push(disclose::report(report));
        }
    }
    if first.is_null() {
        // nothing of it was sampled yet
        first = json!({
            "model": model.as_str(), "version": primary.as_ref().map(|version| version.as_str()), "source": "requests",
            "state": "learning", "budget_days": call.context.config.drift.watch.budget_days, "sources": 0, "rows": 0,
            "window_rows": 0, "sampling_probability": 0.0, "baseline": "none", "baseline_rows": 0, "alarms": 0,
            "alarm": null, "score_changes": 0, "estimate": null, "feedback": null, "features": [],
        });
    }
    first["others"] = json!(others);
    first["devices"] = json!(devices(state, &model, &reports));
    first["dropped"] = json!(state.drift.dropped());
    first["devices_dropped"] = json!(state.drift.device_rows_dropped());
    first["sampling_factor"] = json!(state.drift.factor());
    Ok(first)
}

/// The model of the path, if something of it is delivered to devices: it need not be served.
fn on_devices(state: &State, call: &Call) -> Option<ModelName> {
    let name = ModelName::new(call.parameters.first()?).ok()?;
    state.ota.as_ref()?.sequence_of(name.as_str()).map(|_| name)
}

/// By sequence of their bundle, what the monitor found of devices, and the counts of all that they saw, which outlive it.
fn devices(state: &State, model: &ModelName, reports: &[Arc<Report>]) -> Vec<Value> {
    let seen = state.ota.as_ref().map(|ota| ota.inputs(model.as_str())).unwrap_or_default();
    let inputs = |inputs: &BTreeMap<String, Seen>| -> Vec<Value> {
        inputs.iter().map(|(name, seen)| view::seen(name, seen)).collect()
    };
    let mut devices: BTreeMap<u64, Value> = BTreeMap::new();
    for report in reports.iter().filter(|report| report.model == *model) {
        if let Source::Devices { sequence } = report.source {
            devices.insert(sequence, disclose::report(report));
        }
    }
    for (sequence, seen) in &seen {
        let unheard = || json!({ "source": "devices", "sequence": sequence, "state": null, "alarm": null });
        devices.entry(*sequence).or_insert_with(unheard)["inputs"] = json!(inputs(seen));
    }
    devices.into_values().collect()
}
