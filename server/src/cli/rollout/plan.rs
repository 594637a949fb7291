//! A rollout's plan from the command line. Must not know what a server makes of it.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::ServerArgs;

#[derive(Debug, Args)]
pub(super) struct StartArgs {
    /// The model
    #[arg(value_name = "MODEL")]
    pub(super) model: String,
    /// The version to roll out
    #[arg(long, value_name = "VERSION")]
    candidate: String,
    /// The version to compare with [default: the one that serves]
    #[arg(long, value_name = "VERSION")]
    baseline: Option<String>,
    /// Stages in order: shadow, shadow=SHARE, or percent of the users [default: shadow,1,5,25,50,100]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    stages: Vec<String>,
    /// What must not get worse, as NAME or NAME=TOLERANCE: error_rate, latency, output_drift, disagreement,
    /// metric:NAME; may be repeated [default: error_rate and latency]
    #[arg(long, value_name = "GUARD")]
    guard: Vec<String>,
    /// Probability of a wrong rollback, over all guards and looks [default: 0.01]
    #[arg(long, value_name = "P")]
    alpha: Option<f64>,
    /// Requests that the candidate answers in each stage, at least [default: 1000]
    #[arg(long, value_name = "N")]
    min_requests: Option<u64>,
    /// Users in each stage, at least; 0 where requests carry no key [default: 200]
    #[arg(long, value_name = "N")]
    min_users: Option<u64>,
    /// How long each stage lasts, at least [default: 1800]
    #[arg(long, value_name = "SECONDS")]
    min_seconds: Option<u64>,
    /// A plan as JSON, as the admin API takes it; what flags say goes before it
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Follow it live
    #[arg(long)]
    pub(super) watch: bool,
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

impl StartArgs {
    /// The body of the call.
    pub(super) fn plan(&self) -> Result<Value, String> {
        let mut plan = match &self.plan {
            None => Map::new(),
            Some(path) => {
                let wrong = |error: &dyn std::fmt::Display| format!("--plan {}: {error}", path.display());
                let text = std::fs::read(path).map_err(|error| wrong(&error))?;
                serde_json::from_slice(&text).map_err(|error| wrong(&error))?
            }
        };
        plan.insert("candidate".into(), json!(self.candidate));
        if let Some(baseline) = &self.baseline {
            plan.insert("baseline".into(), json!(baseline));
        }
        if let Some(alpha) = self.alpha {
            plan.insert("alpha".into(), json!(alpha));
        }
        if !self.guard.is_empty() {
            let guards: Result<Vec<Value>, String> = self.guard.iter().map(|text| guard(text)).collect();
            plan.insert("guards".into(), guards?.into());
        }
        let default = ["shadow", "1", "5", "25", "50", "100"].map(String::from);
        let minima = [
            ("min_requests", self.min_requests),
            ("min_users", self.min_users),
            ("min_seconds", self.min_seconds),
        ];
        if !self.stages.is_empty() || !plan.contains_key("stages") {
            let stages = if self.stages.is_empty() { &default[..] } else { &self.stages };
            plan.insert("stages".into(), stages.iter().map(|text| stage(text)).collect::<Result<_, _>>()?);
        }
        for stage in plan.get_mut("stages").and_then(Value::as_array_mut).into_iter().flatten() {
            for (name, value) in minima.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
                stage[*name] = json!(value);
            }
        }
        Ok(plan.into())
    }
}

/// `shadow`, `shadow=0.5`, `5`, `0.5` or `5%`.
fn stage(text: &str) -> Result<Value, String> {
    let wrong =
        || format!("--stages: expected shadow, shadow=SHARE, or percent from 0.01 to 100, got '{text}'");
    if text == "shadow" {
        return Ok(json!({ "shadow": 1.0 }));
    }
    if let Some(share) = text.strip_prefix("shadow=") {
        return share.parse::<f64>().map(|share| json!({ "shadow": share })).map_err(|_| wrong());
    }
    let percent: f64 = text.strip_suffix('%').unwrap_or(text).parse().map_err(|_| wrong())?;
    if !(0.01..=100.0).contains(&percent) {
        return Err(wrong());
    }
    Ok(json!({ "weight_bp": (percent * 100.0).round() as u64 }))
}

/// `NAME` or `NAME=TOLERANCE`.
fn guard(text: &str) -> Result<Value, String> {
    match text.split_once('=') {
        None => Ok(json!({ "name": text })),
        Some((name, tolerance)) => {
            let tolerance: f64 = tolerance.parse().map_err(|_| {
                format!("--guard {name}: expected a number behind '=' (0.1 is 10 %), got '{tolerance}'")
            })?;
            Ok(json!({ "name": name, "tolerance": tolerance }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_and_guards_are_read() {
        let check = |text: &str, expected: Value| assert_eq!(stage(text).unwrap(), expected, "{text}");
        check("shadow", json!({ "shadow": 1.0 }));
        check("shadow=0.5", json!({ "shadow": 0.5 }));
        check("5", json!({ "weight_bp": 500 }));
        check("0.5%", json!({ "weight_bp": 50 }));
        for wrong in ["", "0", "101", "half", "shadow=x"] {
            assert!(stage(wrong).unwrap_err().contains("--stages: expected shadow"), "{wrong}");
        }
        assert_eq!(guard("latency=0.2").unwrap(), json!({ "name": "latency", "tolerance": 0.2 }));
        assert!(guard("latency=x").unwrap_err().contains("expected a number"));
    }
}
