//! The report as one HTML page: inline SVG and style, nothing fetched, no scripts.
//!
//! Must not know anything that is not in the report.

use std::fmt::Write as _;

use super::plot::{Plot, Scale, Series, escape};
use super::{Comparison, Report, RunReport, text};
use crate::measure::server_stats::ServerShare;
use crate::measure::{WINDOW_NS, Window};
use crate::quantity::{show_rate, show_us};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:800px;margin:2em auto;padding:0 1em;\
color:#1c2733;background:#fff}h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}\
pre{background:#f3f5f7;padding:1em;overflow-x:auto;font-size:12.5px}\
svg{width:100%;height:auto;font:11px system-ui,sans-serif;margin:.8em 0}\
.grid{stroke:#d7dde3}.title{font-weight:600;font-size:13px}\
table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid \
#d7dde3}td:first-child,th:first-child{text-align:left}.held{color:#12703f}.missed{color:#b3261e}\
@media(prefers-color-scheme:dark){body{color:#dde4ea;background:#14191f}pre{background:#1d252d}\
svg{fill:#dde4ea}.grid{stroke:#36414c}td,th{border-color:#36414c}}";

const COLOURS: [&str; 4] = ["#2f7ed8", "#d9822b", "#8a4fbf", "#2a9d6f"];

pub(super) fn page(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>gannet-loadtest</title><style>{STYLE}</style></head><body>\n<h1>Load test</h1>\n"
    );
    // Writing to a String cannot fail.
    let _ = body(&mut page, report);
    page.push_str("</body></html>\n");
    page
}

fn body(page: &mut String, report: &Report) -> std::fmt::Result {
    let stated = report.found_rate.is_some()
        || report.run.iter().any(|run| !run.verdicts.is_empty())
        || report.comparison.iter().flat_map(|c| &c.rounds).any(|(a, _)| !a.verdicts.is_empty());
    if stated {
        let (class, word) = match report.held {
            true => ("held", "held"),
            false => ("missed", "missed"),
        };
        writeln!(page, "<p class=\"{class}\"><strong>Objective {word}.</strong></p>")?;
    }
    writeln!(page, "<p>Started <time>{}</time> (seconds since 1970).</p>", report.started_unix_seconds)?;
    if !report.steps.is_empty() {
        steps(page, report)?;
    }
    if let Some(comparison) = &report.comparison {
        compared(page, comparison)?;
    }
    if let Some(run) = &report.run {
        page.push_str("<h2>Latency</h2>\n");
        page.push_str(&percentiles(&[("latency", run)]));
        page.push_str(&latency_over_time(&run.timeline));
        page.push_str("<h2>Throughput</h2>\n");
        page.push_str(&throughput(&[("answers", run)]));
        if let Some(server) = &run.server {
            writeln!(page, "<h2>Inside the server</h2>\n{}", server_bar(server))?;
        }
    }
    writeln!(page, "<h2>All numbers</h2>\n<pre>{}</pre>", escape(&text::report(report)))
}

/// Latency over percentiles, the x axis stretched towards 100 % as HDR plots do.
fn percentiles(runs: &[(&str, &RunReport)]) -> String {
    let stretched = |quantile: f64| -(1.0 - quantile).max(1e-12).log10();
    let series = runs.iter().zip(COLOURS).map(|((name, run), colour)| Series {
        name: (*name).to_string(),
        colour,
        points: run.curve.iter().map(|(q, us)| (stretched(*q), *us)).collect(),
    });
    let marks = [
        (0.0, "0%"),
        (0.5, "50%"),
        (0.9, "90%"),
        (0.99, "99%"),
        (0.999, "99.9%"),
        (0.9999, "99.99%"),
        (0.99999, "99.999%"),
    ];
    Plot {
        title: "Latency by percentile",
        x_title: "percentile of requests",
        y_scale: Scale::Logarithmic,
        x_ticks: marks.iter().map(|(q, label)| (stretched(*q), (*label).to_string())).collect(),
        y_label: show_us,
        series: series.collect(),
    }
    .svg()
}

fn window_seconds(index: usize) -> f64 {
    (index as u64 * WINDOW_NS) as f64 / 1e9
}

fn latency_over_time(timeline: &[Window]) -> String {
    let line = |name: &str, colour, of: fn(&Window) -> f32| Series {
        name: name.to_string(),
        colour,
        points: timeline
            .iter()
            .enumerate()
            .filter(|(_, window)| window.answers > 0)
            .map(|(index, window)| (window_seconds(index), of(window).into()))
            .collect(),
    };
    Plot {
        title: "Latency in 50 ms windows",
        x_title: "seconds",
        y_scale: Scale::Logarithmic,
        x_ticks: Vec::new(),
        y_label: show_us,
        series: vec![
            line("p50", COLOURS[0], |w| w.p50_us),
            line("p99", COLOURS[1], |w| w.p99_us),
            line("max", "#9aa7b4", |w| w.max_us),
        ],
    }
    .svg()
}

fn throughput(runs: &[(&str, &RunReport)]) -> String {
    let per_second = 1e9 / WINDOW_NS as f64;
    let line = |name: String, colour, run: &RunReport, of: fn(&Window) -> u32| Series {
        name,
        colour,
        points: run
            .timeline
            .iter()
            .enumerate()
            .map(|(index, w)| (window_seconds(index), f64::from(of(w)) * per_second))
            .collect(),
    };
    let mut series = Vec::new();
    for ((name, run), colour) in runs.iter().zip(COLOURS) {
        series.push(line((*name).to_string(), colour, run, |w| w.answers));
        if run.failed > 0 {
            series.push(line(format!("{name}, failed"), "#b3261e", run, |w| w.failures));
        }
    }
    Plot {
        title: "Requests a second in 50 ms windows",
        x_title: "seconds",
        y_scale: Scale::Linear,
        x_ticks: Vec::new(),
        y_label: show_rate,
        series,
    }
    .svg()
}

/// Queue against compute: one bar cut into the server's phases.
fn server_bar(server: &ServerShare) -> String {
    let parts = [
        ("queue", server.queue_us),
        ("input", server.compute_input_us),
        ("infer", server.compute_infer_us),
        ("output", server.compute_output_us),
    ];
    let total = parts.iter().map(|part| part.1).sum::<f64>().max(1e-9);
    let mut bar = String::from("<svg viewBox=\"0 0 760 70\" role=\"img\" aria-label=\"server\">\n");
    let mut x = 0.0;
    for (index, ((name, us), colour)) in parts.iter().zip(COLOURS).enumerate() {
        let width = us / total * 760.0;
        let text_x = 190 * index;
        bar.push_str(&format!(
            "<rect x=\"{x:.1}\" y=\"2\" width=\"{width:.1}\" height=\"30\" fill=\"{colour}\"/>\
             <rect x=\"{text_x}\" y=\"46\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"55\">{name} {}</text>\n",
            text_x + 15,
            show_us(*us)
        ));
        x += width;
    }
    bar.push_str("</svg>\n");
    format!(
        "<p>Mean time of a request by the server's own statistics: {} in all, {:.1} rows a \
         batch.</p>{bar}",
        show_us(server.total_us),
        server.batch_rows
    )
}

fn steps(page: &mut String, report: &Report) -> std::fmt::Result {
    match report.found_rate {
        Some(rate) => writeln!(page, "<h2>Highest rate that holds: {} requests/s</h2>", show_rate(rate))?,
        None => page.push_str("<h2>No rate held the objective</h2>\n"),
    }
    page.push_str("<table><tr><th>offered/s</th><th>answered/s</th><th>objective</th></tr>\n");
    for step in &report.steps {
        let terms: Vec<String> = step.verdicts.iter().map(text::verdict).collect();
        writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=\"{}\">{}</td></tr>",
            show_rate(step.offered_rate),
            show_rate(step.rate),
            if step.held { "held" } else { "missed" },
            escape(&terms.join(", "))
        )?;
    }
    page.push_str("</table>\n");
    Ok(())
}

fn compared(page: &mut String, comparison: &Comparison) -> std::fmt::Result {
    page.push_str(
        "<h2>B over A, round by round</h2>\n<table><tr><th></th><th>A</th><th>B</th>\
         <th>B/A median</th><th>min</th><th>max</th></tr>\n",
    );
    for ratio in &comparison.ratios {
        writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.3}</td><td>{:.3}</td><td>{:.3}</td></tr>",
            ratio.name,
            text::number(ratio.a),
            text::number(ratio.b),
            ratio.median,
            ratio.min,
            ratio.max
        )?;
    }
    page.push_str("</table>\n");
    if let Some((a, b)) = comparison.rounds.last() {
        page.push_str("<p>Plots of the last round:</p>\n");
        page.push_str(&percentiles(&[("A", a), ("B", b)]));
        page.push_str(&throughput(&[("A", a), ("B", b)]));
        for (name, run) in [("A", a), ("B", b)] {
            if let Some(server) = &run.server {
                writeln!(page, "<h2>Inside server {name}</h2>\n{}", server_bar(server))?;
            }
        }
    }
    Ok(())
}
