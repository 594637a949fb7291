//! `gannet replay`: captured requests run through another version, offline, and how its answers differ from those that were
//! given. Must not know how requests came to be captured.

use std::path::Path;

use clap::Args;
use gannet_capture::{CaptureError, Captured, Column, Layout, Table, Values};
use gannet_models::{Dim, Signature, TensorSpec, redaction::Side};
use gannet_runtime::{
    Tensor,
    request::Tensors,
    servable::Servable,
    shadow::{Comparison, Report, Tolerances},
};
use serde_json::{Value, json};

use super::{EXIT_OK, EXIT_REFUSED, baseline, capture::PlaceArgs, registry, say};

/// Requests that could not be run or whose answers differ, at most, as a share, unless said otherwise.
const SHARE_MAX: f64 = 0.0;
/// A relative difference that counts as none.
const TOLERANCE: f64 = 1e-3;
/// Wrong arguments, as comparing commands have it.
const EXIT_WRONG: u8 = 2;

const EXAMPLES: &str = "\
Every captured request is run through the candidate on this machine, and its answer is held against the one that was
given. Nothing is asked of a server. A table whose inputs are redacted cannot be replayed.

Examples:
  gannet replay /var/lib/capture --model churn --candidate models/churn/4
  gannet replay /var/lib/capture --model churn --candidate mlflow+http://localhost:5000/churn@challenger
  gannet replay /var/lib/capture --model churn --candidate new/ --tolerance 0.01 --differing-max 0.02 --json

Exit codes: 0 within what is allowed, 1 more than that, 2 wrong arguments or nothing to replay.";

/// The arguments of `gannet replay`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The version to try: a version's folder, or a model's, of whose versions the highest is meant; or where a registry
    /// has it, such as mlflow+http://host:5000/churn@challenger
    #[arg(long, value_name = "PATH|URI")]
    candidate: String,
    /// A relative difference of two values that counts as none
    #[arg(long, value_name = "SHARE", default_value_t = TOLERANCE)]
    tolerance: f64,
    /// Share of requests whose answers may differ
    #[arg(long, value_name = "SHARE", default_value_t = SHARE_MAX)]
    differing_max: f64,
    /// Share of requests that the candidate may fail
    #[arg(long, value_name = "SHARE", default_value_t = SHARE_MAX)]
    failing_max: f64,
    /// Requests to replay, at most
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Only those that this version answered
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReplayArgs) -> u8 {
    match replay(args) {
        Ok(true) => EXIT_OK,
        Ok(false) => EXIT_REFUSED,
        Err(why) => {
            eprintln!("{why}");
            EXIT_WRONG
        }
    }
}

fn replay(args: &ReplayArgs) -> Result<bool, String> {
    let tables = args.place.open().map_err(|(_, why)| why)?;
    for table in &tables {
        let hidden = table.layout().hidden_inputs();
        if !hidden.is_empty() {
            return Err(format!(
                "{}: expected inputs as they were, got redacted ones ({}); what was dropped, masked or hashed cannot be \
                 run again",
                table.root(),
                hidden.join(", ")
            ));
        }
    }
    let servable = candidate(&args.candidate)?;
    let mut comparison = Comparison::default();
    let mut left = args.requests.unwrap_or(u64::MAX);
    for table in &tables {
        each(table, args, &servable, &mut comparison, &mut left).map_err(|error| error.to_string())?;
    }
    let report = comparison.report();
    let all = report.compared + report.failed;
    if all == 0 {
        return Err("expected captured requests, got none that fit".into());
    }
    #[expect(clippy::cast_precision_loss, reason = "counts for a share")]
    let share = |count: u64| count as f64 / all as f64;
    let (differing, failing) = (share(report.disagreed), share(report.failed));
    let is_good = differing <= args.differing_max && failing <= args.failing_max;
    if args.json {
        say(format_args!("{:#}", as_json(&report, &servable, is_good)));
    } else {
        print(&report, &servable, args, is_good);
    }
    Ok(is_good)
}

/// The version to try, brought here first where a registry has it.
fn candidate(named: &str) -> Result<Servable, String> {
    let load = |path: &Path| baseline::load(path).map(|(servable, _)| servable).map_err(|(_, why)| why);
    if !named.contains("://") {
        return load(Path::new(named));
    }
    let folder = std::env::temp_dir().join(format!("gannet-candidate-{}", std::process::id()));
    let loaded = registry::pull_one(named, &folder).and_then(|path| load(&path));
    let _ = std::fs::remove_dir_all(&folder);
    loaded
}

fn each(
    table: &Table,
    args: &ReplayArgs,
    servable: &Servable,
    comparison: &mut Comparison,
    left: &mut u64,
) -> Result<(), CaptureError> {
    let layout = table.layout();
    let tolerances: Tolerances =
        layout.side(Side::Output).map(|(_, column)| (column.tensor.clone(), args.tolerance)).collect();
    table.read(|captured| {
        if args.version.as_ref().is_some_and(|wanted| *wanted != captured.version) {
            return Ok(true);
        }
        if *left == 0 {
            return Ok::<bool, CaptureError>(false);
        }
        *left -= 1;
        one(&captured, layout, servable, &tolerances, comparison);
        Ok(true)
    })
}

fn one(
    captured: &Captured,
    layout: &Layout,
    servable: &Servable,
    tolerances: &Tolerances,
    comparison: &mut Comparison,
) {
    let kept = |side: Side| {
        let values = |(place, column): (usize, &Column)| {
            Some((column.tensor.clone(), tensor(column, captured.values.get(place)?.as_ref()?)))
        };
        layout.side(side).filter_map(values).collect::<Vec<(String, Tensor)>>()
    };
    let outputs = kept(Side::Output);
    // what was kept of the answer, as the version that gave it would describe it
    let spec = |(name, tensor): &(String, Tensor)| TensorSpec {
        name: name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.iter().map(|&axis| Dim::Fixed(axis)).collect(),
        labels: None,
    };
    let batched = servable.signature.batched;
    let primary = Signature { inputs: Vec::new(), outputs: outputs.iter().map(spec).collect(), batched };
    match servable.answer_apart(kept(Side::Input)) {
        Ok(answered) => {
            let given: Tensors = outputs.into_iter().map(|(_, tensor)| tensor).collect();
            let rows = usize::try_from(captured.rows).unwrap_or(1);
            let shadow = (&servable.signature, &answered);
            comparison.compared(&captured.id, (&primary, &given), shadow, (rows, tolerances));
        }
        Err(error) => comparison.failed(&captured.id, &error.to_string()),
    }
}

fn tensor(column: &Column, values: &Values) -> Tensor {
    Tensor { dtype: column.dtype, shape: values.shape.iter().copied().collect(), data: values.data.clone() }
}

fn as_json(report: &Report, servable: &Servable, is_good: bool) -> Value {
    let worst = report.worst.iter().map(|worst| {
        json!({ "id": worst.id, "size": worst.size.is_finite().then_some(worst.size), "what": worst.what })
    });
    json!({
        "candidate": { "model": servable.model.as_str(), "version": servable.version.as_str() },
        "within": is_good, "compared": report.compared, "disagreed": report.disagreed, "failed": report.failed,
        "best_same": report.best_same, "best_shared": report.best_shared,
        "rank_correlation": report.rank_correlation, "score_distance": report.score_distance,
        "worst": worst.collect::<Vec<_>>(),
    })
}

fn print(report: &Report, servable: &Servable, args: &ReplayArgs, is_good: bool) {
    let all = report.compared + report.failed;
    say(format_args!(
        "{} version {}: {all} requests, {} answered otherwise, {} failed",
        servable.model, servable.version, report.disagreed, report.failed
    ));
    let figures = [
        ("rows whose best class is the same", report.best_same),
        ("rank correlation within a row", report.rank_correlation),
        ("distance of the scores' distributions", report.score_distance),
    ];
    for (what, figure) in figures {
        if let Some(figure) = figure {
            say(format_args!("  {what}: {figure:.4}"));
        }
    }
    for worst in &report.worst {
        say(format_args!("  {}: {}", worst.id, worst.what));
    }
    let verdict = if is_good { "within" } else { "MORE THAN" };
    let (differing, failing) = (args.differing_max, args.failing_max);
    say(format_args!("{verdict} what is allowed: {differing} of the answers differing, {failing} failing"));
}
