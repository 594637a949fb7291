//! From a plan as it is written to a checked one, with every fault by its path. Must not know JSON.

use std::fmt;

use gannet_models::{ModelName, Version};

use super::{
    ALPHA, Better, COOL_DOWN_SECONDS, CRASHES_MAX, FreezeWindow, Guard, GuardFile, MIN_REQUESTS, MIN_SECONDS,
    MIN_USERS, Measure, Plan, PlanFile, Stage, StageFile, Traffic,
};

/// Guards that share the error probability; more would make each blind.
const GUARDS_MAX: usize = 16;
const STAGES_MAX: usize = 32;
/// How long a request may be remembered.
const HORIZON_SECONDS_MAX: u64 = 90 * 24 * 60 * 60;

/// Names that guards have; the last one is a beginning.
const GUARD_NAMES: [&str; 5] = ["error_rate", "latency", "output_drift", "disagreement", "metric:"];

/// What is wrong with a plan, everything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PlanFaults(pub Vec<String>);

impl fmt::Display for PlanFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

pub(super) fn plan(model: &ModelName, serving: &Version, file: &PlanFile) -> Result<Plan, PlanFaults> {
    let mut faults = Vec::new();
    let candidate = version("candidate", &file.candidate, &mut faults);
    let baseline = match &file.baseline {
        Some(text) => version("baseline", text, &mut faults),
        None => serving.to_string(),
    };
    if candidate == baseline {
        faults.push(format!(
            "candidate: version '{candidate}' is the baseline itself; name the version to roll out"
        ));
    }
    let alpha = file.alpha.unwrap_or(ALPHA);
    if !(1e-6..=0.2).contains(&alpha) {
        faults.push(format!(
            "alpha: expected 0.000001 to 0.2 (the probability of a wrong rollback), got {alpha}"
        ));
    }
    let freeze = file.freeze.iter().enumerate().filter_map(|(index, window)| {
        let window = FreezeWindow::parse(window);
        window.map_err(|fault| faults.push(format!("freeze[{index}]: {fault}"))).ok()
    });
    let freeze = freeze.collect();
    let crashes_max = file.crashes_max.unwrap_or(CRASHES_MAX);
    if crashes_max == 0 {
        faults.push("crashes_max: expected at least 1, got 0; leave it out for 5".into());
    }
    let horizon_seconds = file.horizon_seconds.unwrap_or(0);
    if horizon_seconds > HORIZON_SECONDS_MAX {
        faults.push(format!(
            "horizon_seconds: expected at most {HORIZON_SECONDS_MAX} (90 days), got {horizon_seconds}"
        ));
    }
    let plan = Plan {
        model: model.to_string(),
        salt: file.salt.clone().unwrap_or_else(|| format!("{model}/{candidate}")),
        baseline,
        candidate,
        stages: stages(file.stages.as_deref(), &mut faults),
        guards: guards(file.guards.as_deref(), &mut faults),
        alpha,
        freeze,
        cool_down_seconds: file.cool_down_seconds.unwrap_or(COOL_DOWN_SECONDS),
        crashes_max,
        horizon_seconds,
    };
    let shadows = plan.stages.iter().any(|stage| matches!(stage.traffic, Traffic::Shadow(_)));
    let pairs = plan.guards.iter().position(|guard| guard.measure == Measure::Disagreement);
    if let Some(index) = pairs.filter(|_| !shadows) {
        faults.push(format!(
            "guards[{index}]: 'disagreement' compares answers to the same request, which only a shadow stage has; \
             begin with {{\"shadow\": 1.0}} or leave the guard out"
        ));
    }
    if faults.is_empty() { Ok(plan) } else { Err(PlanFaults(faults)) }
}

fn version(field: &str, text: &str, faults: &mut Vec<String>) -> String {
    if let Err(error) = Version::new(text) {
        faults.push(format!("{field}: {error}"));
    }
    text.to_owned()
}

fn stages(files: Option<&[StageFile]>, faults: &mut Vec<String>) -> Vec<Stage> {
    let default = |traffic| Stage {
        traffic,
        min_requests: MIN_REQUESTS,
        min_users: MIN_USERS,
        min_seconds: MIN_SECONDS,
    };
    let Some(files) = files else {
        let weights = [100, 500, 2500, 5000, 10_000].map(Traffic::Weight);
        return std::iter::once(Traffic::Shadow(1.0)).chain(weights).map(default).collect();
    };
    if files.is_empty() || files.len() > STAGES_MAX {
        faults.push(format!("stages: expected 1 to {STAGES_MAX}, got {}", files.len()));
    }
    let mut stages: Vec<Stage> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let Some(traffic) = traffic(file, &format!("stages[{index}]"), faults) else { continue };
        if let Some(before) = stages.last() {
            let path = format!("stages[{index}]");
            faults.extend(order(before.traffic, traffic).map(|fault| format!("{path}{fault}")));
        }
        let Stage { min_requests, min_users, min_seconds, .. } = default(traffic);
        stages.push(Stage {
            traffic,
            min_requests: file.min_requests.unwrap_or(min_requests),
            min_users: file.min_users.unwrap_or(min_users),
            min_seconds: file.min_seconds.unwrap_or(min_seconds),
        });
    }
    stages
}

fn traffic(file: &StageFile, path: &str, faults: &mut Vec<String>) -> Option<Traffic> {
    match (file.shadow, file.weight_bp) {
        (Some(share), None) if (0.0001..=1.0).contains(&share) => Some(Traffic::Shadow(share)),
        (Some(share), None) => {
            faults.push(format!("{path}.shadow: expected a share of 0.0001 to 1, got {share}"));
            None
        }
        (None, Some(weight_bp)) if (1..=10_000).contains(&weight_bp) => Some(Traffic::Weight(weight_bp)),
        (None, Some(weight_bp)) => {
            faults.push(format!("{path}.weight_bp: expected 1 to 10000 (100 is 1 %), got {weight_bp}"));
            None
        }
        (shadow, _) => {
            let got = if shadow.is_some() { "both" } else { "neither" };
            faults.push(format!("{path}: expected either 'shadow' or 'weight_bp', got {got}"));
            None
        }
    }
}

/// What is wrong with `next` behind `before`.
fn order(before: Traffic, next: Traffic) -> Option<String> {
    match (before, next) {
        (Traffic::Weight(before), Traffic::Weight(next)) if next <= before => Some(format!(
            ".weight_bp: expected more than {before}, the stage before it, got {next}; put the stages in rising order"
        )),
        (Traffic::Weight(_), Traffic::Shadow(_)) => {
            Some(": expected no shadow stage behind one with a weight; put it first".into())
        }
        _ => None,
    }
}

fn guards(files: Option<&[GuardFile]>, faults: &mut Vec<String>) -> Vec<Guard> {
    let default = |name: &str| GuardFile { name: name.into(), ..GuardFile::default() };
    let defaults = [default("error_rate"), default("latency")];
    let files = files.unwrap_or(&defaults);
    if files.is_empty() || files.len() > GUARDS_MAX {
        faults.push(format!("guards: expected 1 to {GUARDS_MAX}, got {}", files.len()));
    }
    for (index, file) in files.iter().enumerate() {
        if files[..index].iter().any(|before| before.name == file.name) {
            faults.push(format!("guards[{index}].name: '{}' is there twice; keep one", file.name));
        }
    }
    files.iter().enumerate().filter_map(|(index, file)| guard(file, index, faults)).collect()
}

fn guard(file: &GuardFile, index: usize, faults: &mut Vec<String>) -> Option<Guard> {
    let path = format!("guards[{index}]");
    let Some(measure) = measure(file) else {
        let guess = nearest(&file.name).map(|name| format!("; did you mean '{name}'?")).unwrap_or_default();
        let known = GUARD_NAMES.join(", ");
        faults.push(format!("{path}.name: expected one of {known}<name>, got '{}'{guess}", file.name));
        return None;
    };
    if file.better.is_some() && !matches!(measure, Measure::Metric(_)) {
        faults.push(format!("{path}.better: only a metric has it; leave it out"));
    }
    let is_rate = matches!(measure, Measure::ErrorRate | Measure::Latency);
    if file.margin_absolute.is_some() && !is_rate {
        faults.push(format!("{path}.margin_absolute: only error_rate and latency have it; use 'margin'"));
    }
    let (tolerance, margin): (f64, f64) = match measure {
        // less than twice the rate, or less than one request in a hundred more: what a few thousand requests can show
        Measure::ErrorRate | Measure::Latency => (0.1, 1.0),
        Measure::OutputDrift => (0.1, 0.2),
        Measure::Disagreement => (0.05, 0.1),
        Measure::Metric(_) => (0.02, 0.1),
    };
    let guard = Guard {
        name: file.name.clone(),
        measure,
        tolerance: file.tolerance.unwrap_or(tolerance),
        margin: file.margin.unwrap_or(margin.max(file.tolerance.unwrap_or(0.0))),
        margin_absolute: file.margin_absolute.unwrap_or(if is_rate { 0.01 } else { 0.0 }),
    };
    let share = matches!(measure, Measure::Disagreement);
    let good = |x: f64| x.is_finite() && x >= 0.0 && (!share || (x > 0.0 && x < 1.0));
    let expected = if share { "a share between 0 and 1" } else { "a number of at least 0 (0.1 is 10 %)" };
    let absolute = ("margin_absolute", guard.margin_absolute);
    let fields = [("tolerance", guard.tolerance), ("margin", guard.margin), absolute];
    for (field, x) in fields {
        // only rates have the last one
        if !good(x) && (is_rate || field != absolute.0) {
            faults.push(format!("{path}.{field}: expected {expected}, got {x}"));
        }
    }
    if guard.margin < guard.tolerance {
        let Guard { tolerance, margin, .. } = guard;
        faults.push(format!("{path}.margin: expected at least the tolerance, {tolerance}, got {margin}"));
    }
    Some(guard)
}

fn measure(file: &GuardFile) -> Option<Measure> {
    Some(match file.name.as_str() {
        "error_rate" => Measure::ErrorRate,
        "latency" => Measure::Latency,
        "output_drift" => Measure::OutputDrift,
        "disagreement" => Measure::Disagreement,
        name if name.len() > "metric:".len() && name.starts_with("metric:") => {
            Measure::Metric(file.better.unwrap_or(Better::Higher))
        }
        _ => return None,
    })
}

/// The name that was probably meant: at most a third of its letters differ.
fn nearest(text: &str) -> Option<&'static str> {
    let text: String = text.chars().take(64).collect::<String>().to_lowercase().replace('-', "_");
    let best = GUARD_NAMES.into_iter().min_by_key(|name| distance(&text, name))?;
    (distance(&text, best) <= best.len() / 3 + 1 || best.starts_with(&text) && text.len() > 2).then_some(best)
}

/// Letters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
