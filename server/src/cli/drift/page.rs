//! A drift report for the terminal. Must not know where it is from.

use serde_json::Value;

/// Columns of the bars; more bins are drawn together.
const BARS_MAX: usize = 48;
/// Features that are drawn when only what changed is asked for and nothing did.
const QUIET_MAX: usize = 3;
const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Reports, one behind the other.
pub(super) fn pages(reports: &[&Value], all: bool) -> String {
    reports.iter().map(|report| page(report, all)).collect::<Vec<_>>().join("\n")
}

/// Whose report it is.
pub(super) fn title(report: &Value) -> String {
    let title = format!("{} version {}", text(&report["model"]), text(&report["version"]));
    match &report["sequence"] {
        Value::Null => title,
        sequence => format!("{title} on devices (sequence {sequence})"),
    }
}

/// How many of the rows there are were looked at.
pub(super) fn sampled(report: &Value) -> String {
    match &report["sequence"] {
        Value::Null => format!("{} of the requests are sampled", percent(&report["sampling_probability"])),
        _ => "a device's report is one row".into(),
    }
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn page(report: &Value, all: bool) -> String {
    let since = if report["sequence"].is_null() { "it was loaded" } else { "its devices were first heard" };
    let mut page = format!(
        "{}: {}\n{} rows ({} in this window), baseline: {} ({} rows), {}\n\
         one false alarm in {} days over {} sources; {} alarms since {since}\n",
        title(report),
        text(&report["state"]),
        report["rows"],
        report["window_rows"],
        text(&report["baseline"]),
        report["baseline_rows"],
        sampled(report),
        report["budget_days"],
        report["sources"],
        report["alarms"],
    );
    if let Some(culprits) = report["alarm"]["culprits"].as_array() {
        let names: Vec<String> = culprits.iter().map(text).collect();
        page.push_str(&format!("ALARM: {}\n", names.join(", ")));
    }
    if report["state"] == "uncalibrated" {
        let way_out = match &report["sequence"] {
            Value::Null => "lower the model's [drift] rate",
            _ => "devices that are alike report one after the other, spread the times at which they do",
        };
        page.push_str(&format!("rows follow each other too closely for the budget to hold: {way_out}\n"));
    }
    if let Some(estimate) = report["estimate"].as_object() {
        page.push_str(&format!(
            "accuracy, as the scores have it: {} (baseline {}); {}\n",
            percent(&estimate["accuracy"]),
            percent(&estimate["baseline"]),
            text(&estimate["note"])
        ));
    }
    if let Some(fed) = report["feedback"].as_object() {
        page.push_str(&format!(
            "fed back: {} labels, accuracy {}, calibration error {}, Brier {}, absolute error {}\n",
            fed["labels"],
            percent(&fed["accuracy"]),
            percent(&fed["calibration_error"]),
            number(&fed["brier"]),
            number(&fed["absolute_error"])
        ));
    }
    let mut features: Vec<&Value> = report["features"].as_array().into_iter().flatten().collect();
    features.sort_by(|a, b| evidence(b).total_cmp(&evidence(a)));
    let is_odd = |feature: &&Value| {
        let over = feature["psi"].as_f64().zip(feature["threshold"].as_f64()).is_some_and(|(psi, t)| psi > t);
        feature["alarm"] == true || feature["correlated"] == true || over || evidence(feature) > 3.0
    };
    let odd = features.iter().filter(|feature| is_odd(feature)).count();
    let count = if all { features.len() } else { odd.max(QUIET_MAX.min(features.len())) };
    for feature in &features[..count] {
        page.push_str(&one(feature));
    }
    if features.len() > count {
        page.push_str(&format!(
            "\n{} more features, without a sign of change (--all)\n",
            features.len() - count
        ));
    }
    page
}

fn evidence(feature: &Value) -> f64 {
    feature["log_e"].as_f64().unwrap_or(f64::NEG_INFINITY)
}

fn one(feature: &Value) -> String {
    let mark = match (&feature["alarm"], &feature["correlated"]) {
        (Value::Bool(true), _) => "  <- ALARM",
        (_, Value::Bool(true)) => "  <- correlated",
        _ => "",
    };
    let mut text = format!(
        "\n{} ({}, {}){mark}\n  psi {} (of chance {} at most)  js {}  ks {}  evidence {:.1} of {:.1}\n",
        feature["name"].as_str().unwrap_or("?"),
        feature["side"].as_str().unwrap_or("?"),
        feature["kind"].as_str().unwrap_or("?"),
        number(&feature["psi"]),
        number(&feature["threshold"]),
        number(&feature["js"]),
        number(&feature["ks"]),
        evidence(feature),
        feature["h"].as_f64().unwrap_or(f64::NAN),
    );
    let list = |value: &Value| -> Vec<f64> {
        value.as_array().into_iter().flatten().map(|share| share.as_f64().unwrap_or(0.0)).collect()
    };
    let (reference, current) = (together(&list(&feature["reference"])), together(&list(&feature["current"])));
    let most = reference.iter().chain(&current).copied().fold(0.0, f64::max);
    text.push_str(&format!("  then {}\n", bars(&reference, most)));
    if !current.is_empty() {
        text.push_str(&format!("  now  {}\n", bars(&current, most)));
    }
    let rare: Vec<&str> =
        feature["rare"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !rare.is_empty() {
        text.push_str(&format!("  more often than before: {}\n", rare.join(", ")));
    }
    let newcomer = |item: &Value| Some(format!("{:?} ({})", item["value"].as_str()?, item["count"]));
    let newcomers: Vec<String> =
        feature["newcomers"].as_array().into_iter().flatten().filter_map(newcomer).collect();
    if !newcomers.is_empty() {
        text.push_str(&format!("  new: {}\n", newcomers.join(", ")));
    }
    text
}

/// Neighbouring bins together, so that they fit a line.
fn together(shares: &[f64]) -> Vec<f64> {
    let each = shares.len().div_ceil(BARS_MAX).max(1);
    shares.chunks(each).map(|chunk| chunk.iter().sum()).collect()
}

fn bars(shares: &[f64], most: f64) -> String {
    let level = |share: &f64| {
        let place = if most > 0.0 { share / most * 8.0 } else { 0.0 };
        // what is there is seen
        LEVELS[(place.ceil() as usize).min(8)]
    };
    format!("|{}|", shares.iter().map(level).collect::<String>())
}

pub(super) fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |share| format!("{:.2} %", share * 100.0))
}

pub(super) fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |number| format!("{number:.4}"))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in super::super) fn report() -> Value {
        json!({
            "model": "m", "version": "1", "state": "alarm", "budget_days": 30.0, "sources": 3, "rows": 1000,
            "window_rows": 1000, "sampling_probability": 0.01, "baseline": "package", "baseline_rows": 500,
            "alarms": 1, "alarm": { "number": 1, "at_ms": 0, "rows": 640, "culprits": ["a <b>"] },
            "score_changes": 0, "estimate": { "accuracy": 0.9, "baseline": 0.95, "note": "an estimate" },
            "feedback": null,
            "features": [
                { "name": "quiet", "side": "input", "kind": "numeric", "psi": 0.01, "threshold": 0.1, "js": 0.01,
                  "ks": 0.02, "log_e": 0.1, "h": 17.0, "alarm": false, "correlated": false, "rare": [],
                  "newcomers": [], "bins": ["<= 1", "<= 2"], "reference": [0.5, 0.5], "current": [0.5, 0.5] },
                { "name": "a <b>", "side": "input", "kind": "category", "psi": 2.0, "threshold": 0.1, "js": 0.4,
                  "ks": null, "log_e": 25.0, "h": 17.0, "alarm": true, "correlated": false,
                  "rare": ["unknown_category"], "newcomers": [{ "value": "Rome", "count": 40 }],
                  "bins": ["Oslo", "<other>"], "reference": [1.0, 0.0], "current": [0.2, 0.8] },
            ],
        })
    }

    /// The same of devices.
    pub(in super::super) fn of_devices() -> Value {
        let mut report = report();
        report["source"] = json!("devices");
        report["sequence"] = json!(7);
        report
    }

    #[test]
    fn devices_have_a_page_of_their_own() {
        let pages = pages(&[&report(), &of_devices()], false);
        let (version, devices) = pages.split_once("m version 1 on devices (sequence 7): alarm\n").unwrap();
        assert!(version.starts_with("m version 1: alarm\n") && version.contains("1.00 % of the requests"));
        for part in ["a device's report is one row", "since its devices were first heard", "ALARM: a <b>"] {
            assert!(devices.contains(part), "{part} is missing in\n{devices}");
        }
        let mut close = of_devices();
        close["state"] = json!("uncalibrated");
        assert!(page(&close, false).contains("spread the times"));
    }

    #[test]
    fn what_changed_comes_first_with_bars_and_newcomers() {
        let page = page(&report(), false);
        for part in ["ALARM: a <b>", "|█ |", "|▂▇|", "unknown_category", "\"Rome\" (40)", "90.00 %"] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
        assert!(page.find("a <b> (input").unwrap() < page.find("quiet").unwrap());
    }
}
