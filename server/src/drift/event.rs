//! An alarm as a CloudEvent 1.0 in structured JSON, signed as Standard Webhooks has it. Pure. Must not know how it is sent.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gannet_runtime::drift::{Report, Source};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::disclose;

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

/// `v1,BASE64` of what is signed: id, time and body.
pub(super) fn signature(secret: &[u8], id: &str, timestamp: &str, body: &[u8]) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// A time of the calendar in UTC, from the days since 1970 (after Howard Hinnant's `civil_from_days`).
fn rfc3339(ms: u64) -> String {
    let (days, ms_of_day) = (ms / 86_400_000, ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (second, fraction) = (ms_of_day / 1000, ms_of_day % 1000);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
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

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_301_132_372, "2026-11-21T22:45:32.372Z"),
        ] {
            assert_eq!(rfc3339(ms), expected);
        }
    }

    #[test]
    fn signatures_are_those_that_our_own_receiver_takes() {
        // MLflow signs in the same way; recorded from MLflow 3.17
        let body = r#"{"entity": "model_version_alias", "action": "created", "timestamp": "2026-11-21T22:45:32.372817+00:00", "data": {"name": "iris-onnx", "alias": "challenger", "version": "1"}}"#;
        let id = "95a7cd82-53ed-4f8c-b7ba-32448083d9ec";
        let signed = signature(b"s3cr3t", id, "1795301132", body.as_bytes()).unwrap();
        assert_eq!(signed, "v1,HrnCl37BiGeaAzyzCXKBFoM+Qbld+cuolgQc8+OGIRs=");
    }
}
