//! The report's contents: what a test found, ready to be shown as text, JSON or HTML.
//!
//! Field names are the JSON report's. Must not know how load was made.

mod html;
mod plot;
mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::measure::server_stats::ServerShare;
use crate::measure::{Measurement, Percentiles, Window, WindowSummary};
use crate::objective::Verdict;
use crate::payload::Wire;
use crate::plan::{LoadPlan, Side};
use crate::prepare::Shape;

/// Name and version of the JSON report's form; the version rises with breaking changes.
const SCHEMA: &str = "gannet-loadtest/1";

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// The server.
    pub url: String,
    /// The model.
    pub model: String,
    /// `json`, `binary` or `grpc`.
    pub wire: &'static str,
    /// The load in words.
    pub load: String,
    /// Requests a second that were due, in open loop.
    pub offered_rate: Option<f64>,
    /// Connections used.
    pub connections: usize,
    /// Requests on one connection at most.
    pub pipeline: usize,
    /// Length of the measured interval.
    pub seconds: f64,
    /// Requests sent.
    pub sent: u64,
    /// Requests answered successfully.
    pub succeeded: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Successful answers a second.
    pub rate: f64,
    /// Latency of successful answers, from when they were due.
    pub latency: Percentiles,
    /// Medians over 50 ms windows.
    pub windows: WindowSummary,
    /// Latency of answers with an error.
    pub failed_latency: Percentiles,
    /// From when requests were due to when they were written.
    pub lateness: Percentiles,
    /// Loader CPU an answer.
    pub loader_cpu_us: f64,
    /// Server CPU an answer.
    pub server_cpu_us: Option<f64>,
    /// The server's own statistics.
    pub server: Option<ServerShare>,
    /// Answers by status.
    pub statuses: BTreeMap<String, u64>,
    /// Failures by kind.
    pub failures: BTreeMap<String, u64>,
    /// The first failures in words.
    pub quotes: Vec<String>,
    /// Sampled answers by model version.
    pub versions: BTreeMap<String, u64>,
    /// Connections opened again.
    pub reconnects: u64,
    /// Objectives and checks.
    pub verdicts: Vec<Verdict>,
    /// Points (quantile, latency in us).
    pub curve: Vec<(f64, f64)>,
    /// The 50 ms windows in order.
    pub timeline: Vec<Window>,
}

/// One rate a search tried.
#[derive(Debug, Clone, Serialize)]
pub struct SearchStep {
    /// Requests a second.
    pub offered_rate: f64,
    /// The objective held.
    pub held: bool,
    /// Successful answers a second.
    pub rate: f64,
    /// Failed requests.
    pub failed: u64,
    /// The objective's terms.
    pub verdicts: Vec<Verdict>,
}

/// Median, least and greatest of a ratio over rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// What is divided.
    pub name: &'static str,
    /// Median of A.
    pub a: f64,
    /// Median of B.
    pub b: f64,
    /// Median of B/A, round by round.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
}

/// Two servers, round by round.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// B over A.
    pub ratios: Vec<Ratio>,
    /// Rounds (A, B).
    pub rounds: Vec<(RunReport, RunReport)>,
}

/// A whole test.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Form of this document.
    pub schema: &'static str,
    /// When the test began.
    pub started_unix_seconds: u64,
    /// All objectives and checks held; true when there are none.
    pub held: bool,
    /// The run: of a search, the best rate's.
    pub run: Option<RunReport>,
    /// The highest rate that held, of a search.
    pub found_rate: Option<f64>,
    /// The rates tried, of a search.
    pub steps: Vec<SearchStep>,
    /// The comparison.
    pub comparison: Option<Comparison>,
}

impl RunReport {
    pub(crate) fn new(
        side: &Side,
        load: &LoadPlan,
        shape: Shape,
        measurement: Measurement,
        server: Option<ServerShare>,
        verdicts: Vec<Verdict>,
    ) -> Self {
        Self {
            url: side.url.to_string(),
            model: side.model.clone(),
            wire: match side.wire {
                Wire::Json => "json",
                Wire::Binary => "binary",
                Wire::Grpc => "grpc",
            },
            load: load.to_string(),
            offered_rate: match load {
                LoadPlan::Closed { .. } => None,
                LoadPlan::Open { profile, .. } => Some(profile.mean_rate()),
            },
            connections: shape.connections,
            pipeline: shape.depth,
            seconds: measurement.seconds,
            sent: measurement.sent,
            succeeded: measurement.succeeded,
            failed: measurement.failed,
            rate: measurement.rate,
            latency: measurement.latency.percentiles(),
            windows: measurement.window_summary,
            failed_latency: measurement.failed_latency.percentiles(),
            lateness: measurement.lateness.percentiles(),
            loader_cpu_us: measurement.loader_cpu_us,
            server_cpu_us: measurement.server_cpu_us,
            server,
            statuses: named(measurement.statuses),
            failures: named(measurement.failures),
            quotes: measurement.quotes,
            versions: measurement.versions.into_iter().collect(),
            reconnects: measurement.reconnects,
            verdicts,
            curve: measurement.latency.curve(),
            timeline: measurement.windows,
        }
    }

    /// All objectives and checks held.
    pub fn held(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.held)
    }
}

fn named<K: std::fmt::Display>(counts: BTreeMap<K, u64>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(key, count)| (key.to_string(), count)).collect()
}

impl SearchStep {
    pub(crate) fn new(offered_rate: f64, held: bool, run: &RunReport) -> Self {
        Self { offered_rate, held, rate: run.rate, failed: run.failed, verdicts: run.verdicts.clone() }
    }
}

impl Comparison {
    pub(crate) fn new(rounds: Vec<(RunReport, RunReport)>) -> Self {
        type Metric = (&'static str, fn(&RunReport) -> Option<f64>);
        let metrics: [Metric; 8] = [
            ("requests/s", |run| Some(run.rate)),
            ("p50 us", |run| Some(run.latency.p50_us)),
            ("p99 us", |run| Some(run.latency.p99_us)),
            ("window p50 us", |run| Some(run.windows.p50_us)),
            ("window p99 us", |run| Some(run.windows.p99_us)),
            ("server CPU us", |run| run.server_cpu_us),
            ("server queue us", |run| run.server.map(|s| s.queue_us)),
            ("server infer us", |run| run.server.map(|s| s.compute_infer_us)),
        ];
        let ratios = metrics.into_iter().filter_map(|(name, metric)| {
            let pairs: Option<Vec<(f64, f64)>> =
                rounds.iter().map(|(a, b)| Some((metric(a)?, metric(b)?))).collect();
            Ratio::new(name, &pairs?)
        });
        Self { ratios: ratios.collect(), rounds }
    }
}

impl Ratio {
    /// `None` without pairs or when A is 0 in one.
    fn new(name: &'static str, pairs: &[(f64, f64)]) -> Option<Self> {
        if pairs.is_empty() || pairs.iter().any(|(a, _)| *a <= 0.0) {
            return None;
        }
        let ratios = sorted(pairs.iter().map(|(a, b)| b / a));
        Some(Self {
            name,
            a: median(&sorted(pairs.iter().map(|pair| pair.0))),
            b: median(&sorted(pairs.iter().map(|pair| pair.1))),
            median: median(&ratios),
            min: ratios[0],
            max: ratios[ratios.len() - 1],
        })
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

impl Report {
    pub(crate) fn of_run(run: RunReport) -> Self {
        Self {
            schema: SCHEMA,
            started_unix_seconds: 0,
            held: run.held(),
            run: Some(run),
            found_rate: None,
            steps: Vec::new(),
            comparison: None,
        }
    }

    /// A search holds when some rate held.
    pub(crate) fn of_search(run: RunReport, found: Option<f64>, steps: Vec<SearchStep>) -> Self {
        Self { held: found.is_some(), found_rate: found, steps, ..Self::of_run(run) }
    }

    pub(crate) fn of_comparison(comparison: Comparison) -> Self {
        Self {
            schema: SCHEMA,
            started_unix_seconds: 0,
            held: comparison.rounds.iter().all(|(a, b)| a.held() && b.held()),
            run: None,
            found_rate: None,
            steps: Vec::new(),
            comparison: Some(comparison),
        }
    }

    /// For people at a terminal.
    pub fn text(&self) -> String {
        text::report(self)
    }

    /// For programs.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("a report holds only strings, numbers and lists")
    }

    /// A page that needs nothing else.
    pub fn html(&self) -> String {
        html::page(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_over_rounds() {
        let ratio = Ratio::new("x", &[(10.0, 20.0), (10.0, 30.0), (20.0, 20.0)]).unwrap();
        assert_eq!((ratio.a, ratio.b), (10.0, 20.0));
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 1.0, 3.0));
        assert_eq!(Ratio::new("x", &[]), None);
        assert_eq!(Ratio::new("x", &[(0.0, 1.0)]), None);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
    }
}
