//! What a device reports, checked once: every number in its range, every list bounded, or nothing of it is taken. Must not
//! know what is made of it.

use std::collections::BTreeMap;

use gannet_edge::compile::CODE_BINS;
use serde::{Deserialize, Serialize};

use crate::respond::Refusal;

/// Bytes of a report.
pub(crate) const BYTES_MAX: usize = 16 << 10;
/// More inferences than any device makes in its life.
const COUNT_MAX: u64 = 1 << 48;
/// A minute: no inference on a device takes longer.
const LATENCY_US_MAX: u64 = 60_000_000;
const INPUTS_MAX: usize = 8;
const ALERTS_MAX: usize = 8;
const LINES_MAX: usize = 16;
const LINE_BYTES_MAX: usize = 200;
const NAME_BYTES_MAX: usize = 128;

/// What the hardware says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alert {
    /// The supply fell.
    Brownout,
    /// The watchdog bit.
    Watchdog,
    /// The processor trapped.
    HardFault,
    /// Memory ran out.
    OutOfMemory,
    /// A sensor failed.
    Sensor,
    /// It is too hot.
    Overheating,
    /// The model's self-test failed.
    SelfTest,
}

/// Times of inferences, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
}

/// A report. Counts are since the device runs this sequence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The model that it runs.
    pub model: String,
    /// The sequence that it runs.
    pub sequence: u64,
    /// Grows with every report of this sequence: an older one is not taken.
    pub window: u64,
    /// Inferences.
    pub inferences: u64,
    /// Of them, those that failed.
    pub failures: u64,
    /// How long they took.
    #[serde(default)]
    pub latency_us: Option<Latency>,
    /// By input: codes since the last report, in 32 bins of 8 codes, from -128 up.
    #[serde(default)]
    pub inputs: BTreeMap<String, Vec<u64>>,
    /// What the hardware said.
    #[serde(default)]
    pub alerts: Vec<Alert>,
    /// The last lines of the log.
    #[serde(default)]
    pub log: Vec<String>,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::respond::Kind::Invalid): the field, expected and got.
    pub fn read(body: &[u8]) -> Result<Self, Refusal> {
        let mut report: Self =
            serde_json::from_slice(body).map_err(|error| Refusal::invalid(format!("the report: {error}")))?;
        let wrong = |field: &str, expected: &str, got: String| {
            Err(Refusal::invalid(format!("the report: {field}: expected {expected}, got {got}")))
        };
        let Self { inferences, failures, .. } = report;
        if report.model.len() > NAME_BYTES_MAX {
            return wrong("model", "at most 128 bytes", report.model.len().to_string());
        }
        if inferences > COUNT_MAX {
            return wrong("inferences", "at most 2^48", inferences.to_string());
        }
        if failures > inferences {
            return wrong("failures", "no more than inferences", format!("{failures} of {inferences}"));
        }
        if let Some(Latency { p50, p99 }) =
            report.latency_us.filter(|l| l.p50 > l.p99 || l.p99 > LATENCY_US_MAX)
        {
            return wrong("latency_us", "p50 <= p99 <= 60000000", format!("{p50} and {p99}"));
        }
        if report.inputs.len() > INPUTS_MAX {
            return wrong("inputs", "at most 8", report.inputs.len().to_string());
        }
        for (name, counts) in &report.inputs {
            let sum = counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count));
            let good = counts.len() == CODE_BINS && sum.is_some_and(|sum| sum <= COUNT_MAX);
            if !good || name.len() > NAME_BYTES_MAX {
                let got = format!("{} counts", counts.len());
                return wrong("inputs", "32 counts with a sum of at most 2^48", got);
            }
        }
        if report.alerts.len() > ALERTS_MAX {
            return wrong("alerts", "at most 8", report.alerts.len().to_string());
        }
        if report.log.len() > LINES_MAX || report.log.iter().any(|line| line.len() > LINE_BYTES_MAX) {
            return wrong("log", "at most 16 lines of 200 bytes", format!("{} lines", report.log.len()));
        }
        // they are shown on terminals
        for line in &mut report.log {
            *line = line.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        }
        report.alerts.sort_unstable();
        report.alerts.dedup();
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn reports_are_taken_whole_or_not_at_all() {
        let good = json!({
            "model": "digits", "sequence": 7, "window": 1, "inferences": 500, "failures": 2,
            "latency_us": { "p50": 900, "p99": 2000 }, "inputs": { "image": vec![3; 32] },
            "alerts": ["watchdog", "brownout", "watchdog"], "log": ["boot\u{1b}[2J", "ok"],
        });
        let report = Report::read(good.to_string().as_bytes()).unwrap();
        assert_eq!(report.alerts, [Alert::Brownout, Alert::Watchdog]);
        assert_eq!(report.log, ["boot?[2J", "ok"]);
        let check = |change: &dyn Fn(&mut Value), part: &str| {
            let mut bad = good.clone();
            change(&mut bad);
            let why = Report::read(bad.to_string().as_bytes()).unwrap_err().message.into_owned();
            assert!(why.contains(part), "{why}");
        };
        check(&|bad| bad["failures"] = json!(501), "failures: expected no more than inferences");
        check(&|bad| bad["failures"] = json!(-1), "invalid value");
        check(&|bad| bad["inferences"] = json!(u64::MAX), "inferences: expected at most 2^48");
        check(&|bad| bad["inferences"] = json!(1e300), "invalid");
        check(&|bad| bad["latency_us"] = json!({ "p50": 5, "p99": 4 }), "latency_us: expected p50 <= p99");
        check(&|bad| bad["latency_us"]["p99"] = json!(60_000_001), "latency_us");
        check(&|bad| bad["inputs"]["image"] = json!(vec![1; 31]), "got 31 counts");
        check(&|bad| bad["inputs"]["image"] = json!(vec![u64::MAX; 32]), "a sum of at most");
        check(&|bad| bad["alerts"] = json!(["meltdown"]), "unknown variant");
        check(&|bad| bad["log"] = json!(vec!["x"; 17]), "at most 16 lines");
        check(&|bad| bad["log"] = json!(["x".repeat(201)]), "at most 16 lines");
        check(&|bad| bad["more"] = json!(1), "unknown field");
        check(&|bad| drop(bad.as_object_mut().unwrap().remove("window")), "missing field");
        assert!(Report::read(&[b'['; 16_000]).is_err());
    }
}
