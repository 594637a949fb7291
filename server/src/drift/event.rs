//! An alarm as a CloudEvent 1.0 in structured JSON. Pure. Must not know how it is sent.

use gannet_runtime::drift::Report;
use serde_json::{Value, json};

use super::disclose;
use crate::cloud_event::rfc3339;

/// An alarm that began.
pub(super) const ALARM: &str = "dev.gannet.drift.alarm";
/// An alarm that is over.
pub(super) const OVER: &str = "dev.gannet.drift.over";
/// Features that are told of with their numbers.
const FEATURES_MAX: usize = 16;

/// The event of a version's alarm.
pub(super) fn event(kind: &str, server: &str, report: &Report, at_ms: u64) -> Value {
    let number = report.alarm.as_ref().map_or(report.alarms, |alarm| alarm.number);
    let culprits = report.alarm.as_ref().map(|alarm| alarm.culprits.clone()).unwrap_or_default();
    let whole = disclose::report(report);
    let is_told = |feature: &&Value| culprits.iter().any(|name| feature["name"] == **name);
    let told: Vec<Value> = whole["features"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(is_told)
        .take(FEATURES_MAX)
        .map(|feature| {
            let part = |name: &str| feature[name].clone();
            json!({
                "name": part("name"), "side": part("side"), "kind": part("kind"), "log_e": part("log_e"),
                "psi": part("psi"), "rare": part("rare"), "newcomers": part("newcomers"),
            })
        })
        .collect();
    json!({
        "specversion": "1.0",
        "id": format!("{server}/{}/{}/{number}/{kind}", report.model, report.version),
        "source": format!("/gannet/{server}"),
        "type": kind,
        "subject": format!("{}/{}", report.model, report.version),
        "time": rfc3339(at_ms),
        "datacontenttype": "application/json",
        "data": {
            "model": report.model, "version": report.version, "state": report.state, "rows": report.rows,
            "alarm": report.alarm, "budget_days": report.budget_days, "features": told,
        },
    })
}
