//! The series of models and versions in Prometheus' text exposition format. Must not know how they are counted.

mod capture;
mod drift;
mod ota;
mod rollouts;

use std::fmt::Write as _;

pub use self::{
    capture::render_capture,
    drift::render_drift,
    ota::{OtaSample, render_ota},
    rollouts::render_rollouts,
};

use super::{
    BUCKETS, HistogramSnapshot, LATENCY_BOUNDS_NS, LoadCounts, Outcome, PHASE_NAMES, Phase, ROWS_BOUNDS,
    StatsSnapshot, VersionSample,
};
use crate::{route::ArmCounts, shadow::Line, table::RouteEntry};

/// The loads' series in the text exposition format: (model, version, counts).
#[must_use]
pub fn render_loads(loads: &[(&str, &str, &LoadCounts)]) -> String {
    let mut page = String::new();
    family(&mut page, "gannet_loads_total", "counter", "Loads by how they ended");
    for (model, version, counts) in loads {
        for (outcome, count) in [("ok", counts.ok), ("failed", counts.failed)] {
            let labels = format!("{},outcome=\"{outcome}\"", version_labels(model, version));
            let _ = writeln!(page, "gannet_loads_total{{{labels}}} {count}");
        }
    }
    family(
        &mut page,
        "gannet_swaps_total",
        "counter",
        "Times a version took over from another copy or version",
    );
    for (model, version, counts) in loads {
        let _ = writeln!(page, "gannet_swaps_total{{{}}} {}", version_labels(model, version), counts.swaps);
    }
    page
}

/// The routes' series: by model, its route.
#[must_use]
pub fn render_routes(routes: &[(&str, &RouteEntry)]) -> String {
    let arms: Vec<(String, u32, &ArmCounts)> = routes
        .iter()
        .flat_map(|(model, RouteEntry { live, .. })| {
            let arms = live.route.split().iter().zip(&live.counts);
            arms.map(|(arm, counts)| (version_labels(model, arm.version.as_str()), arm.weight_bp, &**counts))
        })
        .collect();
    let mut page = String::new();
    family(&mut page, "gannet_route_weight_ratio", "gauge", "Share of the keys that a route gives a version");
    for (labels, weight_bp, _) in &arms {
        let _ = writeln!(page, "gannet_route_weight_ratio{{{labels}}} {}", f64::from(*weight_bp) / 10_000.0);
    }
    family(
        &mut page,
        "gannet_route_requests_total",
        "counter",
        "Requests that a route assigned to a version",
    );
    for (labels, _, counts) in &arms {
        let _ = writeln!(page, "gannet_route_requests_total{{{labels}}} {}", counts.requests());
    }
    let help = "Requests assigned to a version that another one answered, because it was not ready";
    family(&mut page, "gannet_route_fallbacks_total", "counter", help);
    for (labels, _, counts) in &arms {
        let _ = writeln!(page, "gannet_route_fallbacks_total{{{labels}}} {}", counts.fallbacks());
    }
    let lines =
        routes.iter().flat_map(|(model, route)| route.lines.iter().map(move |line| (*model, &**line)));
    render_shadows(&mut page, &lines.collect::<Vec<_>>());
    render_feedback(&mut page, routes);
    page
}

fn render_feedback(page: &mut String, routes: &[(&str, &RouteEntry)]) {
    family(page, "gannet_feedback_total", "counter", "Outcomes that were fed back, by what became of them");
    let ledgers = routes.iter().filter_map(|(model, route)| Some((model, route.live.judge.ledger.as_ref()?)));
    for (model, ledger) in ledgers {
        let (model, fed) = (escape(model), ledger.fed());
        for (outcome, count) in [
            ("accepted", fed.accepted),
            ("unknown_id", fed.unknown),
            ("repeated", fed.repeated),
            ("unused", fed.unused),
        ] {
            let _ =
                writeln!(page, "gannet_feedback_total{{model=\"{model}\",outcome=\"{outcome}\"}} {count}");
        }
    }
}

fn render_shadows(page: &mut String, lines: &[(&str, &Line)]) {
    let label = |(model, line): &(&str, &Line)| version_labels(model, line.version.as_str());
    let help =
        "Copies of requests that a shadow saw, by how its answer compares; dropped ones were not looked at";
    family(page, "gannet_shadow_requests_total", "counter", help);
    for shadow in lines {
        let (labels, report) = (label(shadow), shadow.1.report());
        for (outcome, count) in [
            ("agreed", report.compared - report.disagreed),
            ("disagreed", report.disagreed),
            ("failed", report.failed),
            ("primary_failed", report.primary_failed),
            ("dropped", shadow.1.dropped()),
        ] {
            let _ = writeln!(page, "gannet_shadow_requests_total{{{labels},outcome=\"{outcome}\"}} {count}");
        }
    }
    let help = "Computing time of a shadow by the primary's usual one for as many rows";
    family(page, "gannet_shadow_latency_ratio", "gauge", help);
    for shadow in lines {
        if let Some(ratio) = shadow.1.report().latency_ratio {
            let _ = writeln!(page, "gannet_shadow_latency_ratio{{{}}} {ratio}", label(shadow));
        }
    }
}

fn version_labels(model: &str, version: &str) -> String {
    format!("model=\"{}\",version=\"{}\"", escape(model), escape(version))
}

/// The versions' series in the text exposition format. `native` leaves Triton's names out.
#[must_use]
pub fn render(samples: &[VersionSample], native: bool) -> String {
    let mut page = String::new();
    let labels: Vec<String> = samples.iter().map(|s| version_labels(&s.model, &s.version)).collect();
    family(&mut page, "gannet_requests_total", "counter", "Requests by how they ended");
    for (sample, labels) in samples.iter().zip(&labels) {
        for outcome in Outcome::ALL {
            let count = sample.stats.outcome(outcome);
            let _ =
                writeln!(page, "gannet_requests_total{{{labels},outcome=\"{}\"}} {count}", outcome.label());
        }
    }
    for (index, (name, help)) in PHASE_NAMES.iter().enumerate() {
        let name = format!("gannet_{name}_seconds");
        family(&mut page, &name, "histogram", help);
        for (sample, labels) in samples.iter().zip(&labels) {
            histogram(&mut page, &name, labels, &sample.stats.phases[index], &LATENCY_BOUNDS_NS, 1e9);
        }
    }
    family(&mut page, "gannet_batch_rows", "histogram", "Rows that ran together");
    for (sample, labels) in samples.iter().zip(&labels) {
        histogram(&mut page, "gannet_batch_rows", labels, &sample.stats.batch_rows, &ROWS_BOUNDS, 1.0);
    }
    gauge(&mut page, "gannet_queue_depth", "Requests that wait", samples, &labels, |s| s.queue_depth);
    gauge(&mut page, "gannet_inflight", "Requests taken in and not answered", samples, &labels, |s| {
        s.inflight
    });
    if !native {
        render_triton(&mut page, samples, &labels);
    }
    page
}

fn gauge(
    page: &mut String,
    name: &str,
    help: &str,
    samples: &[VersionSample],
    labels: &[String],
    read: fn(&VersionSample) -> usize,
) {
    family(page, name, "gauge", help);
    for (sample, labels) in samples.iter().zip(labels) {
        let _ = writeln!(page, "{name}{{{labels}}} {}", read(sample));
    }
}

/// Triton's names, with Triton's definitions.
fn render_triton(page: &mut String, samples: &[VersionSample], labels: &[String]) {
    type Read = fn(&StatsSnapshot) -> u64;
    let counters: [(&str, &str, Read); 8] = [
        ("nv_inference_request_success", "Number of successful inference requests", |s| {
            s.outcome(Outcome::Ok)
        }),
        ("nv_inference_count", "Number of inferences performed (a batch of n is n)", |s| s.batch_rows.sum),
        ("nv_inference_exec_count", "Number of model executions", |s| s.batch_rows.count()),
        ("nv_inference_request_duration_us", "Cumulative request duration in microseconds", |s| {
            s.request_ns(Phase::Request) / 1000
        }),
        ("nv_inference_queue_duration_us", "Cumulative queuing duration in microseconds", |s| {
            s.request_ns(Phase::Queue) / 1000
        }),
        ("nv_inference_compute_input_duration_us", "Cumulative input duration in microseconds", |s| {
            s.request_ns(Phase::Assemble) / 1000
        }),
        ("nv_inference_compute_infer_duration_us", "Cumulative compute duration in microseconds", |s| {
            s.request_ns(Phase::Compute) / 1000
        }),
        ("nv_inference_compute_output_duration_us", "Cumulative output duration in microseconds", |s| {
            s.request_ns(Phase::Scatter) / 1000
        }),
    ];
    for (name, help, read) in counters {
        family(page, name, "counter", help);
        for (sample, labels) in samples.iter().zip(labels) {
            let _ = writeln!(page, "{name}{{{labels}}} {}", read(&sample.stats));
        }
    }
    let failure = "nv_inference_request_failure";
    family(page, failure, "counter", "Number of failed inference requests");
    for (sample, labels) in samples.iter().zip(labels) {
        let count = |outcome| sample.stats.outcome(outcome);
        let reasons = [
            ("REJECTED", count(Outcome::Rejected) + count(Outcome::Expired)),
            ("CANCELED", count(Outcome::Cancelled)),
            ("BACKEND", count(Outcome::Failed)),
            ("OTHER", count(Outcome::Invalid)),
        ];
        for (reason, count) in reasons {
            let _ = writeln!(page, "{failure}{{{labels},reason=\"{reason}\"}} {count}");
        }
    }
    let pending = "nv_inference_pending_request_count";
    gauge(page, pending, "Requests awaiting execution", samples, labels, |s| s.queue_depth);
}

fn family(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(page, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

#[expect(clippy::cast_precision_loss, reason = "sums of nanoseconds, shown as seconds")]
fn histogram(
    page: &mut String,
    name: &str,
    labels: &str,
    values: &HistogramSnapshot,
    bounds: &[u64; BUCKETS - 1],
    unit: f64,
) {
    let mut total = 0;
    for (bound, count) in bounds.iter().zip(&values.buckets) {
        total += count;
        let _ = writeln!(page, "{name}_bucket{{{labels},le=\"{}\"}} {total}", *bound as f64 / unit);
    }
    let count = values.count();
    let _ = writeln!(page, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = writeln!(page, "{name}_sum{{{labels}}} {}", values.sum as f64 / unit);
    let _ = writeln!(page, "{name}_count{{{labels}}} {count}");
}

/// A label's value in the text exposition format.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
