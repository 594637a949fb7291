//! `gannet replay`: captured requests answered once more, by another version on this machine or by a running server, and how
//! the answers differ from those that were given. Must not know how requests came to be captured.

mod live;
mod offline;

use clap::Args;
use gannet_capture::{Captured, Column, Layout, Table, Values};
use gannet_models::{Dim, Signature, TensorSpec, redaction::Side};
use gannet_runtime::{
    Tensor,
    request::Tensors,
    shadow::{Comparison, Report, Tolerances},
};
use serde_json::{Value, json};

use super::{EXIT_OK, EXIT_REFUSED, capture::PlaceArgs, say};

/// Requests that could not be run or whose answers differ, at most, as a share, unless said otherwise.
const SHARE_MAX: f64 = 0.0;
/// A relative difference that counts as none.
const TOLERANCE: f64 = 1e-3;
/// Wrong arguments, as comparing commands have it.
pub(super) const EXIT_WRONG: u8 = 2;

const EXAMPLES: &str = "\
With --candidate every captured request is run through a version on this machine; nothing is asked of a server. With
--against it is sent to a running server, as far from the one before as it came, or faster. Either way the answer is held
against the one that was given. A table whose inputs are redacted cannot be replayed.

What is sent is the id, with a prefix, and the inputs; headers, parameters and the keys of a route are not captured. A
request that is due while --concurrency others wait for their answers is sent late, and how late is told: no request is
left out. Latencies are told from when a request was due, which holds what a user would have waited, and from when it was
sent.

Examples:
  gannet replay /var/lib/capture --model churn --candidate models/churn/4
  gannet replay /var/lib/capture --model churn --candidate mlflow+http://localhost:5000/churn@challenger
  gannet replay /var/lib/capture --model churn --candidate new/ --tolerance 0.01 --differing-max 0.02 --json
  gannet replay /var/lib/capture --model churn --against http://127.0.0.1:8000
                                          yesterday's traffic as it came, against the server on this machine
  gannet replay /var/lib/capture --model churn --against http://staging:8000 --speed 4 --pause-max 1
                                          four times as fast, and no second without a request
  gannet replay /var/lib/capture --model churn --against http://staging:8000 --speed max --concurrency 16
                                          as fast as 16 requests at a time go
  gannet replay /var/lib/capture --model churn --against http://staging:8000 --against-version 4 --deadline-ms 50
                                          another version, each request with a deadline

Exit codes: 0 within what is allowed, 1 more than that, 2 wrong arguments or nothing to replay.";

/// The arguments of `gannet replay`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The version to try: a version's folder, or a model's, of whose versions the highest is meant; or where a registry
    /// has it, such as mlflow+http://host:5000/churn@challenger
    #[arg(long, value_name = "PATH|URI", required_unless_present = "against", conflicts_with = "against")]
    candidate: Option<String>,
    /// The running server to send the requests to, such as http://127.0.0.1:8000
    #[arg(long, value_name = "URL")]
    against: Option<String>,
    #[command(flatten)]
    live: live::LiveArgs,
    /// A relative difference of two values that counts as none
    #[arg(long, value_name = "SHARE", default_value_t = TOLERANCE)]
    tolerance: f64,
    /// Share of requests whose answers may differ
    #[arg(long, value_name = "SHARE", default_value_t = SHARE_MAX)]
    differing_max: f64,
    /// Share of requests that the candidate, or the server, may fail
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

/// Whether what was found is within what is allowed.
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
    match (&args.candidate, &args.against) {
        (Some(candidate), _) => offline::replay(args, &tables, candidate),
        (None, Some(against)) => live::replay(args, &tables, against),
        (None, None) => Err("expected --candidate or --against, got neither".into()),
    }
}

impl ReplayArgs {
    /// Whether a request is one of those to replay.
    fn wants(&self, captured: &Captured) -> bool {
        self.version.as_ref().is_none_or(|wanted| *wanted == captured.version)
    }

    /// By output of a table.
    fn tolerances(&self, table: &Table) -> Tolerances {
        let outputs = table.layout().side(Side::Output);
        outputs.map(|(_, column)| (column.tensor.clone(), self.tolerance)).collect()
    }

    /// Whether a report is within what is allowed; an error where nothing was replayed.
    fn judge(&self, report: &Report) -> Result<bool, String> {
        let all = report.compared + report.failed;
        if all == 0 {
            return Err("expected captured requests, got none that fit".into());
        }
        #[expect(clippy::cast_precision_loss, reason = "counts for a share")]
        let share = |count: u64| count as f64 / all as f64;
        Ok(share(report.disagreed) <= self.differing_max && share(report.failed) <= self.failing_max)
    }
}

/// What was kept of one side of a request.
fn kept(captured: &Captured, layout: &Layout, side: Side) -> Vec<(String, Tensor)> {
    let values = |(place, column): (usize, &Column)| {
        Some((column.tensor.clone(), tensor(column, captured.values.get(place)?.as_ref()?)))
    };
    layout.side(side).filter_map(values).collect()
}

fn tensor(column: &Column, values: &Values) -> Tensor {
    Tensor { dtype: column.dtype, shape: values.shape.iter().copied().collect(), data: values.data.clone() }
}

/// The signature of an answer, as the version that gave it would describe it.
fn described(outputs: &[(String, Tensor)], batched: bool) -> Signature {
    let spec = |(name, tensor): &(String, Tensor)| TensorSpec {
        name: name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.iter().map(|&axis| Dim::Fixed(axis)).collect(),
        labels: None,
    };
    Signature { inputs: Vec::new(), outputs: outputs.iter().map(spec).collect(), batched }
}

/// Holds an answer against the one that was given, as far as that was kept.
fn hold(
    comparison: &mut Comparison,
    (captured, layout): (&Captured, &Layout),
    answer: (&Signature, &Tensors),
    tolerances: &Tolerances,
) {
    let outputs = kept(captured, layout, Side::Output);
    let given = described(&outputs, answer.0.batched);
    let outputs: Tensors = outputs.into_iter().map(|(_, tensor)| tensor).collect();
    let rows = usize::try_from(captured.rows).unwrap_or(1);
    comparison.compared(&captured.id, (&given, &outputs), answer, (rows, tolerances));
}

/// What a program reads of a report; what is special about a way to replay is put in beside.
fn as_json(report: &Report, is_good: bool) -> Value {
    let worst = report.worst.iter().map(|worst| {
        json!({ "id": worst.id, "size": worst.size.is_finite().then_some(worst.size), "what": worst.what })
    });
    json!({
        "within": is_good, "compared": report.compared, "disagreed": report.disagreed, "failed": report.failed,
        "best_same": report.best_same, "best_shared": report.best_shared,
        "rank_correlation": report.rank_correlation, "score_distance": report.score_distance,
        "worst": worst.collect::<Vec<_>>(),
    })
}

/// What is told of a replay.
struct Shown<'a> {
    /// Who answered.
    who: &'a str,
    report: &'a Report,
    /// What is special about a way to replay.
    more: &'a [String],
    is_good: bool,
}

/// What a person reads.
fn print(args: &ReplayArgs, shown: &Shown<'_>) {
    let Shown { who, report, more, is_good } = shown;
    let all = report.compared + report.failed;
    say(format_args!(
        "{who}: {all} requests, {} answered otherwise, {} failed",
        report.disagreed, report.failed
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
    more.iter().for_each(say);
    let verdict = if *is_good { "within" } else { "MORE THAN" };
    let (differing, failing) = (args.differing_max, args.failing_max);
    say(format_args!("{verdict} what is allowed: {differing} of the answers differing, {failing} failing"));
}
