//! What is found of a live replay: how answers differ, who gave them, what failed, and where the time went beside what was
//! captured. Must not know how requests are sent.

use std::collections::BTreeMap;

use gannet_capture::Table;
use gannet_runtime::{
    Time,
    request::Tensors,
    shadow::{Comparison, Report, Tolerances},
};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{
    super::{described, hold},
    drive::Outcome,
    target::Failure,
};
use crate::cli::table::render;

/// The longest latency that is told apart, in nanoseconds: an hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// How much later than due counts as late, in nanoseconds: more than any timer is late by itself.
const LATE_NS: u64 = 10_000_000;
/// Versions that are told apart.
const VERSIONS_MAX: usize = 64;

/// Latencies in nanoseconds, with three digits.
struct Latencies(Histogram<u64>);

/// What was found so far.
pub(super) struct Found<'a> {
    tables: &'a [Table],
    /// By table.
    tolerances: Vec<Tolerances>,
    comparison: Comparison,
    versions: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
    /// When the first request was sent, and the last one ended.
    span: Option<(Time, Time)>,
    pub(super) sent: u64,
    pub(super) late: u64,
    lateness: Latencies,
    captured: Latencies,
    captured_queue: Latencies,
    captured_compute: Latencies,
    from_due: Latencies,
    from_sent: Latencies,
}

impl Latencies {
    fn new() -> Result<Self, String> {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3);
        histogram.map(Self).map_err(|error| format!("no histogram of latencies: {error}"))
    }

    fn add(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// The quantiles and the largest, in milliseconds; `None` where there are no values.
    fn ms(&self) -> Option<[f64; 3]> {
        #[expect(clippy::cast_precision_loss, reason = "an hour of nanoseconds is exact")]
        let ms = |ns: u64| ns as f64 / 1e6;
        let quantile = |quantile| ms(self.0.value_at_quantile(quantile));
        (!self.0.is_empty()).then(|| [quantile(0.5), quantile(0.99), ms(self.0.max())])
    }
}

impl<'a> Found<'a> {
    pub(super) fn new(tables: &'a [Table], tolerances: Vec<Tolerances>) -> Result<Self, String> {
        let latencies = Latencies::new;
        Ok(Self {
            tables,
            tolerances,
            comparison: Comparison::default(),
            versions: BTreeMap::new(),
            failures: BTreeMap::new(),
            span: None,
            sent: 0,
            late: 0,
            lateness: latencies()?,
            captured: latencies()?,
            captured_queue: latencies()?,
            captured_compute: latencies()?,
            from_due: latencies()?,
            from_sent: latencies()?,
        })
    }

    /// Takes one request in. Latencies are of requests that were answered, on both sides.
    pub(super) fn take(&mut self, outcome: &Outcome) {
        let Outcome { arrival, due, sent, ended, reply } = outcome;
        self.sent += 1;
        let (first, last) = self.span.unwrap_or((*sent, *ended));
        self.span = Some((first.min(*sent), last.max(*ended)));
        if let Some(due) = due {
            let late_ns = sent.ns_since(*due);
            self.lateness.add(late_ns);
            self.late += u64::from(late_ns > LATE_NS);
        }
        let captured = &arrival.captured;
        let answer = match reply.as_ref().map(|reply| reply.read()) {
            Ok(Ok(answer)) => answer,
            Ok(Err(failure)) => return self.failed(&captured.id, &failure),
            Err(failure) => return self.failed(&captured.id, failure),
        };
        self.captured.add(captured.latency.total_ns);
        self.captured_queue.add(captured.latency.queue_ns);
        self.captured_compute.add(captured.latency.compute_ns);
        self.from_sent.add(ended.ns_since(*sent));
        if let Some(due) = due {
            self.from_due.add(ended.ns_since(*due));
        }
        count(&mut self.versions, answer.version);
        let signature = described(&answer.outputs, true);
        let outputs: Tensors = answer.outputs.into_iter().map(|(_, tensor)| tensor).collect();
        let layout = self.tables[arrival.table].layout();
        let tolerances = &self.tolerances[arrival.table];
        hold(&mut self.comparison, (captured, layout), (&signature, &outputs), tolerances);
    }

    fn failed(&mut self, id: &str, failure: &Failure) {
        *self.failures.entry(failure.kind.clone()).or_default() += 1;
        self.comparison.failed(id, &failure.why);
    }

    pub(super) fn report(&self) -> Report {
        self.comparison.report()
    }

    /// How many failed.
    pub(super) fn failures(&self) -> u64 {
        self.failures.values().sum()
    }

    fn seconds(&self) -> f64 {
        self.span.map_or(0.0, |(first, last)| (last - first).as_secs_f64())
    }

    fn rows(&self) -> [(&'static str, &'static str, &Latencies); 6] {
        [
            ("captured", "captured, in the server", &self.captured),
            ("captured_queue", "  of it waiting", &self.captured_queue),
            ("captured_compute", "  of it computing", &self.captured_compute),
            ("from_due", "replayed, from when it was due", &self.from_due),
            ("from_sent", "replayed, from when it was sent", &self.from_sent),
            ("late", "sent after it was due", &self.lateness),
        ]
    }

    /// What a program reads.
    pub(super) fn to_json(&self) -> Value {
        let figures = |latencies: &Latencies| {
            latencies.ms().map(|[p50, p99, max]| json!({ "p50": p50, "p99": p99, "max": max }))
        };
        let latencies: serde_json::Map<String, Value> =
            self.rows().iter().map(|(key, _, rows)| ((*key).to_owned(), json!(figures(rows)))).collect();
        json!({
            "sent": self.sent, "seconds": self.seconds(), "versions": self.versions, "failures": self.failures,
            "late": self.late, "latency_ms": latencies,
        })
    }

    /// What a person reads.
    pub(super) fn lines(&self) -> Vec<String> {
        let counts = |counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(name, count)| format!("{name}: {count}")).collect::<Vec<_>>().join(", ")
        };
        let mut lines = vec![format!("  {} requests in {:.2} s", self.sent, self.seconds())];
        if !self.versions.is_empty() {
            lines.push(format!("  answered by version {}", counts(&self.versions)));
        }
        if !self.failures.is_empty() {
            lines.push(format!("  failed by {}", counts(&self.failures)));
        }
        let shown = |(_, name, latencies): &(&str, &str, &Latencies)| {
            let ms = latencies.ms()?.map(|ms| format!("{ms:.3}"));
            Some(std::iter::once((*name).to_owned()).chain(ms).collect::<Vec<String>>())
        };
        let rows: Vec<Vec<String>> = self.rows().iter().filter_map(shown).collect();
        let page = render(&["latency, ms", "p50", "p99", "largest"], &rows);
        lines.extend(page.lines().map(|line| format!("  {line}")));
        if self.late > 0 {
            lines.push(format!(
                "  {} of {} requests were sent more than {} ms late: raise --concurrency, or lower --speed",
                self.late,
                self.sent,
                LATE_NS / 1_000_000
            ));
        }
        lines
    }
}

/// Counts a version, among as many as are told apart.
fn count(versions: &mut BTreeMap<String, u64>, version: String) {
    let is_known = versions.contains_key(&version) || versions.len() < VERSIONS_MAX;
    let name = if is_known { version } else { "others".into() };
    *versions.entry(name).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use gannet_capture::{Arrival, Captured, Latency};

    use super::*;

    const MS: u64 = 1_000_000;

    /// A request that came to nothing, due at one time, sent at another and ended at a third, in milliseconds.
    fn failed(due: Option<u64>, sent: u64, ended: u64) -> Outcome {
        let captured = Captured {
            id: "a".into(),
            time_us: 0,
            version: "1".into(),
            arm: None,
            instance: String::new(),
            sequence: 0,
            probability: 1.0,
            rows: 1,
            latency: Latency::default(),
            values: Vec::new(),
        };
        let at = |ms: u64| Time::from_ns(ms * MS);
        let reply = Err(Failure { kind: "status 503".into(), why: "status 503: full".into() });
        let arrival = Arrival { table: 0, captured };
        Outcome { arrival, due: due.map(at), sent: at(sent), ended: at(ended), reply }
    }

    #[test]
    fn what_is_late_is_told_and_what_failed_counts() {
        let mut found = Found::new(&[], Vec::new()).unwrap();
        found.take(&failed(Some(100), 100, 120));
        found.take(&failed(Some(100), 110, 120));
        found.take(&failed(Some(100), 160, 170));
        found.take(&failed(None, 200, 1_100));
        assert_eq!((found.sent, found.late, found.failures(), found.report().failed), (4, 1, 4, 4));
        let shown = found.to_json();
        assert_eq!(
            (&shown["seconds"], &shown["failures"]),
            (&json!(1.0), &json!({ "status 503": 4 })),
            "{shown}"
        );
        let late = &shown["latency_ms"]["late"];
        assert!((late["p50"].as_f64().unwrap() - 10.0).abs() < 0.1, "{late}");
        assert!((late["max"].as_f64().unwrap() - 60.0).abs() < 0.1, "{late}");
        assert_eq!(shown["latency_ms"]["from_due"], Value::Null);
        let text = found.lines().join("\n");
        assert!(text.contains("1 of 4 requests were sent more than 10 ms late"), "{text}");
        assert!(text.contains("failed by status 503: 4") && text.contains("sent after it was due"), "{text}");
    }

    #[test]
    fn versions_are_few() {
        let mut versions = BTreeMap::new();
        (0..100).for_each(|number| count(&mut versions, number.to_string()));
        count(&mut versions, "0".into());
        assert_eq!((versions.len(), versions["others"], versions["0"]), (VERSIONS_MAX + 1, 36, 2));
    }
}
