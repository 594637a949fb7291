//! A rollout as people read it in a terminal. Must not know where it comes from.

use gannet_runtime::control::rollout::audit::Record;
use serde_json::Value;

use crate::cli::table;

/// Cells of a bar.
const BAR: usize = 20;

pub(super) fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// One line: where it stands and what was decided.
pub(super) fn line(rollout: &Value) -> String {
    format!(
        "rollout {} of {}: {} -> {}: {}, stage {}, {} % of the users: {}",
        rollout["id"],
        word(&rollout["model"]),
        word(&rollout["baseline"]),
        word(&rollout["candidate"]),
        word(&rollout["state"]),
        rollout["stage"],
        rollout["weight_bp"].as_f64().unwrap_or(0.0) / 100.0,
        word(&rollout["decision"])
    )
}

/// Everything: the line, why it holds, the guards with what they know, and latencies.
pub(super) fn page(rollout: &Value) -> String {
    let mut page = format!(
        "rollout {} of {}: {} -> {}\n  {}, stage {}, {} % of the users, since {}\n",
        rollout["id"],
        word(&rollout["model"]),
        word(&rollout["baseline"]),
        word(&rollout["candidate"]),
        word(&rollout["state"]),
        rollout["stage"],
        rollout["weight_bp"].as_f64().unwrap_or(0.0) / 100.0,
        time(rollout["since"].as_u64().unwrap_or(0))
    );
    for part in word(&rollout["decision"]).split("; ") {
        page.push_str(&format!("  {part}\n"));
    }
    let guards = rollout["guards"].as_array().cloned().unwrap_or_default();
    let rows: Vec<Vec<String>> = guards.iter().map(guard).collect();
    if !rows.is_empty() {
        let heading =
            ["  guard", "verdict", "n of needed", "", "estimate", "bounds", "margin", "harm, log e of limit"];
        page.push_str(&table::render(&heading, &rows));
    }
    for version in ["stable", "candidate"] {
        let of = &rollout["latency"][version];
        if of["requests"].as_u64().is_some_and(|requests| requests > 0) {
            page.push_str(&format!(
                "  latency of the {version}: p50 {}, p99 {}, {} requests\n",
                quantile(&of["p50_us"]),
                quantile(&of["p99_us"]),
                of["requests"]
            ));
        }
    }
    page.truncate(page.trim_end().len());
    page
}

fn guard(guard: &Value) -> Vec<String> {
    let figure = |value: &Value| value.as_f64().map_or("-".to_owned(), |value| format!("{value:.4}"));
    let (n, needed) = (guard["n"].as_u64().unwrap_or(0), guard["needed"].as_u64());
    let filled =
        needed.map_or(0, |needed| ((n as f64 / needed.max(1) as f64).min(1.0) * BAR as f64) as usize);
    let log_e = guard["log_e"].as_f64().unwrap_or(0.0);
    vec![
        format!("  {}", word(&guard["name"])),
        word(&guard["verdict"]),
        format!("{n} of {}", needed.map_or("?".to_owned(), |needed| needed.to_string())),
        format!("{}{}", "#".repeat(filled), ".".repeat(BAR - filled)),
        format!("{} {}", figure(&guard["estimate"]), word(&guard["unit"])),
        format!("{} .. {}", figure(&guard["lower"]), figure(&guard["upper"])),
        figure(&guard["margin"]),
        format!("{log_e:.2} of {}", figure(&guard["limit"])),
    ]
}

fn quantile(value: &Value) -> String {
    let us = |name: &str| value[name].as_f64().map_or("?".to_owned(), |us| format!("{us:.0}"));
    format!("{} us ({} .. {})", us("estimate"), us("lower"), us("upper"))
}

/// A record that was decided again.
pub(super) fn explained(line: &str, record: &Record) -> String {
    // the line begins with the sequence and the time in milliseconds
    let rest = line.splitn(3, ' ').nth(2).unwrap_or(line);
    format!("{:>4}  {}  {rest}", record.sequence, time(record.at_ms))
}

/// A time in UTC.
fn time(ms: u64) -> String {
    let date = gannet_capture::date(i64::try_from(ms).unwrap_or(i64::MAX));
    let seconds = ms / 1000;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollout_is_drawn() {
        let rollout = json!({
            "id": 3, "model": "m", "baseline": "1", "candidate": "2", "state": "canary", "stage": 1, "weight_bp": 500,
            "since": 1_704_067_200_000u64, "decision": "hold: 1 s of 60 s in this stage; latency has no data",
            "guards": [{ "name": "error_rate", "verdict": "unsure", "n": 50, "needed": 100, "unit": "ratio",
                "estimate": 1.0, "lower": 0.5, "upper": null, "margin": 2.0, "log_e": -0.5, "limit": 5.3 }],
        });
        let page = page(&rollout);
        for part in [
            "rollout 3 of m: 1 -> 2\n  canary, stage 1, 5 % of the users, since 2024-01-01 00:00:00 UTC\n",
            "  hold: 1 s of 60 s in this stage\n  latency has no data\n",
            "50 of 100",
            "##########..........",
            "0.5000 .. -",
            "-0.50 of 5.3000",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
        assert_eq!(time(951_782_400_000 + 86_399_000), "2000-02-29 23:59:59 UTC");
    }
}
