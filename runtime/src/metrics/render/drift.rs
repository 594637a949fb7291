//! The series of drift. Must not know how it is found.

use std::{fmt::Write as _, sync::Arc};

use super::{escape, family, version_labels};
use crate::drift::{Drift, FeatureReport, Report, Source, State};

/// Features of a version that have series: alarmed ones first, then in their order.
const FEATURES_MAX: usize = 32;

/// Drift's series, bounded: some for each version and each bundle that devices run, and four for each of few features.
#[must_use]
pub fn render_drift(drift: &Drift) -> String {
    let mut page = render_reports(&drift.reports());
    let help = "Sampled requests, and rows of devices, that were not looked at";
    family(&mut page, "gannet_drift_dropped_total", "counter", help);
    let _ = writeln!(page, "gannet_drift_dropped_total {}", drift.dropped());
    let of_devices = drift.device_rows_dropped();
    let _ = writeln!(page, "gannet_drift_dropped_total{{source=\"devices\"}} {of_devices}");
    page
}

/// Whose series they are: those of devices have two labels more.
fn labels(report: &Report) -> String {
    let labels = version_labels(report.model.as_str(), report.version.as_str());
    match report.source {
        Source::Requests => labels,
        Source::Devices { sequence } => format!("{labels},source=\"devices\",sequence=\"{sequence}\""),
    }
}

fn render_reports(reports: &[Arc<Report>]) -> String {
    let mut page = String::new();
    let labels: Vec<String> = reports.iter().map(|report| labels(report)).collect();
    let both = || reports.iter().zip(&labels);
    family(&mut page, "gannet_drift_state", "gauge", "1 for the state that the data is in");
    for (report, labels) in both() {
        for state in State::ALL {
            let is_in = u8::from(state == report.state);
            let _ = writeln!(page, "gannet_drift_state{{{labels},state=\"{}\"}} {is_in}", state.as_str());
        }
    }
    type Read = fn(&Report) -> Option<f64>;
    let series: [(&str, &str, &str, Read); 9] = [
        ("gannet_drift_rows_total", "counter", "Rows that were held against the baseline", |r| {
            Some(r.rows as f64)
        }),
        ("gannet_drift_alarms_total", "counter", "Alarms that were raised", |r| Some(r.alarms as f64)),
        ("gannet_drift_sampling_ratio", "gauge", "Share of the requests that is sampled", |r| {
            (r.source == Source::Requests).then_some(r.sampling_probability)
        }),
        ("gannet_drift_features_alarmed", "gauge", "Features whose alarm is on", |r| {
            Some(r.features.iter().filter(|feature| feature.alarm).count() as f64)
        }),
        (
            "gannet_drift_accuracy_estimate",
            "gauge",
            "Accuracy if scores were probabilities: an estimate",
            |r| r.estimate.as_ref().map(|estimate| estimate.accuracy),
        ),
        ("gannet_drift_accuracy", "gauge", "Share of right classes among those that were fed back", |r| {
            r.feedback.as_ref()?.accuracy
        }),
        ("gannet_drift_calibration_error", "gauge", "Expected calibration error of those", |r| {
            r.feedback.as_ref()?.calibration_error
        }),
        ("gannet_drift_absolute_error", "gauge", "Mean of how far values that were fed back were off", |r| {
            r.feedback.as_ref()?.absolute_error
        }),
        ("gannet_drift_labels_total", "counter", "Labels that were fed back of sampled requests", |r| {
            r.feedback.as_ref().map(|fed| fed.labels as f64)
        }),
    ];
    for (name, kind, help, read) in series {
        family(&mut page, name, kind, help);
        for (report, labels) in both() {
            if let Some(value) = read(report) {
                let _ = writeln!(page, "{name}{{{labels}}} {value}");
            }
        }
    }
    features(&mut page, reports, &labels);
    page
}

fn features(page: &mut String, reports: &[Arc<Report>], labels: &[String]) {
    type Read = fn(&FeatureReport) -> Option<f64>;
    let series: [(&str, &str, Read); 4] = [
        ("gannet_drift_feature_psi", "Population stability index, less what chance makes of it", |f| {
            f.psi_debiased
        }),
        ("gannet_drift_feature_log_e", "Evidence of a change, as a logarithm", |f| Some(f.log_e)),
        ("gannet_drift_feature_limit", "Evidence at which an alarm is raised", |f| Some(f.h)),
        ("gannet_drift_feature_alarm", "1 while the feature's alarm is on", |f| {
            Some(f64::from(u8::from(f.alarm)))
        }),
    ];
    for (name, help, read) in series {
        family(page, name, "gauge", help);
        for (report, labels) in reports.iter().zip(labels) {
            let (alarmed, quiet): (Vec<&FeatureReport>, Vec<&FeatureReport>) =
                report.features.iter().partition(|feature| feature.alarm);
            for feature in alarmed.into_iter().chain(quiet).take(FEATURES_MAX) {
                if let Some(value) = read(feature) {
                    let (feature, side) = (escape(&feature.name), feature.side);
                    let _ =
                        writeln!(page, "{name}{{{labels},feature=\"{feature}\",side=\"{side}\"}} {value}");
                }
            }
        }
    }
}
