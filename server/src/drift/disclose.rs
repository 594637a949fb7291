//! The one place through which values of requests leave the drift monitor: newcomers, and the names of categories. Every
//! exit (admin API, command line, webhook) takes [`report`]; whatever may not leave in plain text is changed here. Must not
//! know who reads it.

use gannet_models::redaction::MASK;
use gannet_runtime::drift::{FeatureReport, Report};
use serde_json::{Value, json};

/// Characters of a value that leave.
const CHARS_MAX: usize = 64;

/// How a value of a feature's requests is shown.
#[must_use]
pub fn value(feature: &FeatureReport, text: &str) -> String {
    if feature.hidden {
        return MASK.to_owned();
    }
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// A report as JSON.
#[must_use]
pub fn report(report: &Report) -> Value {
    let mut features = Vec::with_capacity(report.features.len());
    for feature in &report.features {
        let mut shown = feature.clone();
        let show = |text: &str| value(feature, text);
        shown.newcomers.iter_mut().for_each(|(text, _)| *text = show(text));
        if feature.kind == "category" {
            // the last two are ours: others, and missing
            let own = shown.bins.len().saturating_sub(2);
            shown.bins[..own].iter_mut().for_each(|bin| *bin = show(bin));
        }
        let mut json = json!(shown);
        let newcomer = |(text, count): &(String, u64)| json!({ "value": text, "count": count });
        json["newcomers"] = shown.newcomers.iter().map(newcomer).collect();
        features.push(json);
    }
    let mut whole = json!(Report { features: Vec::new(), ..report.clone() });
    whole["features"] = Value::Array(features);
    whole
}
