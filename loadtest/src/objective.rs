//! Objectives: what `--slo` states, and whether a measurement holds it.
//!
//! Pure. Must not know how load was made or how the verdict is shown.

use serde::Serialize;

use crate::measure::Measurement;
use crate::quantity::{parse_duration_ns, parse_rate, parse_share};

/// Share of failed requests allowed when an objective says nothing about errors.
const FAILED_SHARE_DEFAULT: f64 = 0.001;

/// One number of a measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Metric {
    /// Latency at a quantile over the whole run.
    Quantile(f64),
    Mean,
    Max,
    WindowP50,
    WindowP99,
    FailedShare,
    /// The only one with a lower bound.
    Rate,
}

/// A term such as `p99=5ms`. Latencies are bounded in microseconds.
#[derive(Debug, Clone, PartialEq)]
struct Term {
    name: String,
    metric: Metric,
    bound: f64,
}

/// All terms; all must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    terms: Vec<Term>,
}

/// How one term went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The metric's name as in `--slo`.
    pub metric: String,
    /// Its bound: microseconds, a share, or a rate.
    pub bound: f64,
    /// What was measured.
    pub measured: f64,
    /// Whether it holds.
    pub held: bool,
}

impl Objective {
    /// Parses terms such as `p99=5ms`; several may stand in one text, separated by commas.
    pub fn parse(texts: &[String]) -> Result<Option<Self>, String> {
        let terms = texts.iter().flat_map(|text| text.split(',')).map(parse_term);
        let mut terms = terms.collect::<Result<Vec<Term>, _>>()?;
        if terms.is_empty() {
            return Ok(None);
        }
        if !terms.iter().any(|term| term.metric == Metric::FailedShare) {
            terms.push(Term {
                name: "errors".into(),
                metric: Metric::FailedShare,
                bound: FAILED_SHARE_DEFAULT,
            });
        }
        Ok(Some(Self { terms }))
    }

    /// Every term against a measurement. Without one successful answer no latency holds.
    pub fn judge(&self, measurement: &Measurement) -> Vec<Verdict> {
        self.terms.iter().map(|term| term.judge(measurement)).collect()
    }
}

impl Term {
    fn judge(&self, measurement: &Measurement) -> Verdict {
        let measured = match self.metric {
            Metric::Quantile(quantile) => measurement.latency.at_us(quantile),
            Metric::Mean => measurement.latency.percentiles().mean_us,
            Metric::Max => measurement.latency.max_us(),
            Metric::WindowP50 => measurement.window_summary.p50_us,
            Metric::WindowP99 => measurement.window_summary.p99_us,
            Metric::FailedShare => measurement.failed_share(),
            Metric::Rate => measurement.rate,
        };
        let held = match self.metric {
            Metric::Rate => measured >= self.bound,
            Metric::FailedShare => measured <= self.bound,
            _ => measured <= self.bound && measurement.succeeded > 0,
        };
        Verdict { metric: self.name.clone(), bound: self.bound, measured, held }
    }
}

fn parse_term(text: &str) -> Result<Term, String> {
    let text = text.trim();
    let fault = |why: String| format!("--slo {text}: {why}; write for example --slo p99=5ms");
    let (name, bound) = text.split_once('=').ok_or_else(|| fault("expected METRIC=BOUND".into()))?;
    let metric = match name {
        "mean" => Metric::Mean,
        "max" => Metric::Max,
        "window-p50" => Metric::WindowP50,
        "window-p99" => Metric::WindowP99,
        "errors" => Metric::FailedShare,
        "rate" => Metric::Rate,
        _ => quantile(name).map(Metric::Quantile).ok_or_else(|| {
            fault(format!(
                "expected p50, p99, p99.9, mean, max, window-p50, window-p99, errors or rate, got \
                 {name:?}"
            ))
        })?,
    };
    let bound = match metric {
        Metric::FailedShare => parse_share(bound),
        Metric::Rate => parse_rate(bound),
        _ => parse_duration_ns(bound).map(|ns| ns as f64 / 1000.0),
    };
    Ok(Term { name: name.to_string(), metric, bound: bound.map_err(fault)? })
}

/// `p99.9` and `p999` both mean the 99.9th percentile.
fn quantile(name: &str) -> Option<f64> {
    let digits = name.strip_prefix('p')?;
    let (whole, fraction) = digits.split_once('.').unwrap_or(match digits.len() {
        3.. => digits.split_at(2),
        _ => (digits, ""),
    });
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let valid = matches!(whole.len(), 1 | 2) && all_digits(whole) && all_digits(fraction);
    // Read as one decimal, so that p99 is exactly the number 0.99.
    valid.then(|| format!("0.{whole:0>2}{fraction}").parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Checks, Recorder};

    fn check(text: &str, expected: Result<(Metric, f64), &str>) {
        match (parse_term(text), expected) {
            (Ok(term), Ok((metric, bound))) => {
                assert_eq!((term.metric, term.bound), (metric, bound), "{text}");
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (got, _) => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn terms() {
        check("p99=5ms", Ok((Metric::Quantile(0.99), 5000.0)));
        check("p999=1s", Ok((Metric::Quantile(0.999), 1e6)));
        check("window-p99=300us", Ok((Metric::WindowP99, 300.0)));
        check("errors=1%", Ok((Metric::FailedShare, 0.01)));
        check("rate=20k", Ok((Metric::Rate, 20_000.0)));
        check("p99", Err("METRIC=BOUND"));
        check("p5=1s", Ok((Metric::Quantile(0.05), 1e6)));
        check("p99.9=1s", Ok((Metric::Quantile(0.999), 1e6)));
        check("p123.4=1s", Err("got \"p123.4\""));
        check("p99=5", Err("expected a duration"));
    }

    #[test]
    fn an_empty_measurement_holds_no_latency() {
        let objective = Objective::parse(&["p50=1s".into()]).unwrap().unwrap();
        let verdicts = objective.judge(&Recorder::new(Checks::default(), None, None).finish());
        assert_eq!(verdicts.iter().map(|v| v.held).collect::<Vec<_>>(), [false, true]);
        assert_eq!(Objective::parse(&[]).unwrap(), None);
    }
}
