//! An alarm as a CloudEvent 1.0 in structured JSON. Pure. Must not know how it is sent.

use gannet_runtime::drift::{Report, Source};
use serde_json::{Value, json};

use super::disclose;
use crate::cloud_event::rfc3339;

/// An alarm that began.
pub(super) const ALARM: &str = "dev.gannet.drift.alarm";
/// An alarm that is over.
pub(super) const OVER: &str = "dev.gannet.drift.over";
/// Features that are told of with their numbers.
const FEATURES_MAX: usize = 16;

/// The event of an alarm, of a version's requests or of its devices.
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
    let mut of = format!("{server}/{}/{}", report.model, report.version);
    let mut data = json!({
        "model": report.model, "version": report.version, "source": report.source.as_str(), "state": report.state,
        "rows": report.rows, "alarm": report.alarm, "budget_days": report.budget_days, "features": told,
    });
    if let Source::Devices { sequence } = report.source {
        of.push_str(&format!("/devices/{sequence}"));
        data["sequence"] = json!(sequence);
    }
    json!({
        "specversion": "1.0",
        "id": format!("{of}/{number}/{kind}"),
        "source": format!("/gannet/{server}"),
        "type": kind,
        "subject": format!("{}/{}", report.model, report.version),
        "time": rfc3339(at_ms),
        "datacontenttype": "application/json",
        "data": data,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use gannet_models::{ModelName, Version};
    use gannet_runtime::drift::{Alarm, State};

    use super::*;

    /// A report with its second alarm on.
    pub(in super::super) fn report(source: Source) -> Report {
        Report {
            model: ModelName::new("m").unwrap(),
            version: Version::new("1").unwrap(),
            source,
            state: State::Alarm,
            budget_days: 30.0,
            sources: 2,
            rows: 640,
            window_rows: 640,
            sampling_probability: 1.0,
            baseline: "none",
            baseline_rows: 100,
            alarms: 2,
            alarm: Some(Alarm { number: 2, at_ms: 5, rows: 600, culprits: vec!["x".into()] }),
            score_changes: 0,
            estimate: None,
            feedback: None,
            features: Vec::new(),
        }
    }

    #[test]
    fn an_event_of_devices_is_another_one_than_that_of_requests() {
        let of = |source| event(ALARM, "s", &report(source), 0);
        let (requests, devices) = (of(Source::Requests), of(Source::Devices { sequence: 7 }));
        assert_eq!(requests["id"], format!("s/m/1/2/{ALARM}"));
        assert_eq!(devices["id"], format!("s/m/1/devices/7/2/{ALARM}"));
        assert_eq!((&requests["subject"], &devices["subject"]), (&json!("m/1"), &json!("m/1")));
        assert_eq!(
            (&requests["data"]["source"], &requests["data"]["sequence"]),
            (&json!("requests"), &Value::Null)
        );
        assert_eq!(
            (&devices["data"]["source"], &devices["data"]["sequence"]),
            (&json!("devices"), &json!(7))
        );
        assert_eq!(devices["data"]["alarm"]["culprits"], json!(["x"]));
        let shown = disclose::report(&report(Source::Devices { sequence: 7 }));
        assert_eq!(
            (&shown["source"], &shown["sequence"], &shown["rows"]),
            (&json!("devices"), &json!(7), &json!(640))
        );
    }
}
