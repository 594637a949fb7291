//! The report as text.
//!
//! Must not know anything that is not in the report.

use std::fmt::Write as _;

use super::{Comparison, Report, RunReport};
use crate::measure::Percentiles;
use crate::objective::Verdict;
use crate::quantity::{show_count, show_rate, show_us};

pub(super) fn report(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_report(&mut out, report);
    out
}

fn write_report(out: &mut String, report: &Report) -> std::fmt::Result {
    if let Some(comparison) = &report.comparison {
        return write_comparison(out, comparison);
    }
    if !report.steps.is_empty() {
        writeln!(out, "search")?;
        for step in &report.steps {
            let terms: Vec<String> = step.verdicts.iter().map(verdict).collect();
            writeln!(
                out,
                "  {:>9} offered  {:>9} answered  {}  {}",
                show_rate(step.offered_rate),
                show_rate(step.rate),
                if step.held { "held  " } else { "missed" },
                terms.join(", ")
            )?;
        }
        match report.found_rate {
            Some(rate) => writeln!(out, "highest rate held: {} requests/s\n", show_rate(rate))?,
            None => writeln!(out, "no rate held the objective; the last one tried:\n")?,
        }
    }
    match &report.run {
        Some(run) => write_run(out, run),
        None => Ok(()),
    }
}

fn write_run(out: &mut String, run: &RunReport) -> std::fmt::Result {
    writeln!(out, "{} model {} ({}), {}", run.url, run.model, run.wire, run.load)?;
    writeln!(
        out,
        "  {} connections, up to {} requests on each, {:.2} s measured\n",
        run.connections, run.pipeline, run.seconds
    )?;
    writeln!(out, "  throughput     {} requests/s", show_rate(run.rate))?;
    writeln!(
        out,
        "  requests       {} sent, {} succeeded, {} failed",
        show_count(run.sent),
        show_count(run.succeeded),
        show_count(run.failed)
    )?;
    writeln!(out, "  latency        {}", percentiles(&run.latency))?;
    if run.offered_rate.is_none() && run.latency.count > 0 {
        writeln!(out, "                 (closed loop: a slow server is asked less; for tails use --rate)")?;
    }
    if run.windows.windows > 0 {
        writeln!(
            out,
            "  50 ms windows  p50 {}  p99 {}   (medians over {} windows)",
            show_us(run.windows.p50_us),
            show_us(run.windows.p99_us),
            run.windows.windows
        )?;
    }
    if run.offered_rate.is_some() && run.lateness.count > 0 {
        writeln!(
            out,
            "  lateness       p50 {}  p99 {}  max {}",
            show_us(run.lateness.p50_us),
            show_us(run.lateness.p99_us),
            show_us(run.lateness.max_us)
        )?;
    }
    if let Some(server) = &run.server {
        writeln!(
            out,
            "  server         {} in all: queue {}, input {}, infer {}, output {}; {:.1} rows a batch",
            show_us(server.total_us),
            show_us(server.queue_us),
            show_us(server.compute_input_us),
            show_us(server.compute_infer_us),
            show_us(server.compute_output_us),
            server.batch_rows
        )?;
    }
    let server_cpu = run.server_cpu_us.map(|us| format!(", server {us:.2} us"));
    writeln!(out, "  CPU a request  loader {:.2} us{}", run.loader_cpu_us, server_cpu.unwrap_or_default())?;
    write_counts(out, run)?;
    for term in &run.verdicts {
        writeln!(out, "  objective      {}", verdict(term))?;
    }
    Ok(())
}

fn write_counts(out: &mut String, run: &RunReport) -> std::fmt::Result {
    for (title, counts) in
        [("answers", &run.statuses), ("versions", &run.versions), ("failures", &run.failures)]
    {
        let shown: Vec<String> =
            counts.iter().map(|(name, count)| format!("{name}: {}", show_count(*count))).collect();
        if !shown.is_empty() {
            writeln!(out, "  {title:<14} {}", shown.join(", "))?;
        }
    }
    if run.failed_latency.count > 0 {
        writeln!(out, "  failed after   {}", percentiles(&run.failed_latency))?;
    }
    if run.reconnects > 0 {
        writeln!(out, "  reconnects     {}", show_count(run.reconnects))?;
    }
    for quote in &run.quotes {
        writeln!(out, "    {}", quote.lines().next().unwrap_or(""))?;
    }
    Ok(())
}

fn percentiles(p: &Percentiles) -> String {
    if p.count == 0 {
        return "no successful answer".into();
    }
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}  (mean {})",
        show_us(p.p50_us),
        show_us(p.p90_us),
        show_us(p.p99_us),
        show_us(p.p999_us),
        show_us(p.max_us),
        show_us(p.mean_us)
    )
}

/// A term as a sentence's part: `p99 4.20 ms <= 5.00 ms: held`.
pub(super) fn verdict(verdict: &Verdict) -> String {
    let (relation, bound, measured) = match verdict.metric.as_str() {
        "errors" => {
            ("<=", format!("{}%", verdict.bound * 100.0), format!("{:.3}%", verdict.measured * 100.0))
        }
        "rate" => (">=", show_rate(verdict.bound), show_rate(verdict.measured)),
        "expect" | "check-versions" => ("<=", "0 wrong answers".into(), show_count(verdict.measured as u64)),
        _ => ("<=", show_us(verdict.bound), show_us(verdict.measured)),
    };
    let outcome = if verdict.held { "held" } else { "MISSED" };
    format!("{} {measured} {relation} {bound}: {outcome}", verdict.metric)
}

fn write_comparison(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let Some((a, b)) = comparison.rounds.first() else {
        return Ok(());
    };
    let seconds = a.seconds;
    let rounds = comparison.rounds.len();
    for (name, run) in [("A", a), ("B", b)] {
        writeln!(out, "{name} = {} model {} ({}), {}", run.url, run.model, run.wire, run.load)?;
    }
    writeln!(out, "{rounds} rounds A B A B ... of {seconds:.1} s; ratios are B/A, round by round\n")?;
    writeln!(
        out,
        "  {:<16} {:>12} {:>12} {:>9} {:>9} {:>9}",
        "", "A (median)", "B (median)", "B/A", "min", "max"
    )?;
    for ratio in &comparison.ratios {
        writeln!(
            out,
            "  {:<16} {:>12} {:>12} {:>9.3} {:>9.3} {:>9.3}",
            ratio.name,
            number(ratio.a),
            number(ratio.b),
            ratio.median,
            ratio.min,
            ratio.max
        )?;
    }
    for (name, pick) in [("A", 0), ("B", 1)] {
        let runs = comparison.rounds.iter().map(|(a, b)| if pick == 0 { a } else { b });
        let failed: u64 = runs.clone().map(|run| run.failed).sum();
        let succeeded: u64 = runs.clone().map(|run| run.succeeded).sum();
        let missed = runs.clone().filter(|run| !run.held()).count();
        writeln!(
            out,
            "  {name}: {} succeeded, {} failed{}",
            show_count(succeeded),
            show_count(failed),
            if missed > 0 { format!(", objective missed in {missed} rounds") } else { String::new() }
        )?;
        let mut quotes: Vec<&String> = runs.flat_map(|run| &run.quotes).collect();
        quotes.dedup();
        for quote in quotes.into_iter().take(5) {
            writeln!(out, "    {}", quote.lines().next().unwrap_or(""))?;
        }
    }
    Ok(())
}

pub(super) fn number(value: f64) -> String {
    match value {
        ..100.0 => format!("{value:.2}"),
        _ => show_count(value.round() as u64),
    }
}
