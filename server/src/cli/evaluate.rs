//! `gannet evaluate`: how right captured answers were, by labels that came later. Must not know how either came about.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gannet_capture::{
    CaptureError, Table,
    evaluate::{Evaluation, Quality, Task},
    labels::{Labels, Names},
};
use serde_json::{Value, json};

use super::{EXIT_OK, EXIT_REFUSED, capture::PlaceArgs, say};

const EXAMPLES: &str = "\
Labels are joined by the request's id; where a request has several rows, the labels name the row, from 0 on. A label is a
class's number or name, or the value that was to be predicted. Rows count as often as they stand for: one by the
probability with which they were captured.

Examples:
  gannet evaluate /var/lib/capture --model churn --labels outcomes.csv
  gannet evaluate /var/lib/capture --model price --labels sold.parquet --task value --label-column price

Exit codes: 0 evaluated, 1 it could not be, 64 wrong arguments.";

/// The arguments of `gannet evaluate`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct EvaluateArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// What became of the requests: CSV or Parquet with the columns request_id, label and, if need be, row
    #[arg(long, value_name = "FILE")]
    labels: PathBuf,
    /// The output that is judged [default: the first with scores, else the first with a class]
    #[arg(long, value_name = "OUTPUT")]
    output: Option<String>,
    /// What the output says [default: scores of a float's, else a class]
    #[arg(long, value_enum)]
    task: Option<TaskName>,
    /// The column of ids
    #[arg(long, value_name = "COLUMN", default_value = "request_id")]
    id_column: String,
    /// The column of labels
    #[arg(long, value_name = "COLUMN", default_value = "label")]
    label_column: String,
    /// The column of rows
    #[arg(long, value_name = "COLUMN", default_value = "row")]
    row_column: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TaskName {
    /// Scores of classes: the largest is the answer
    Scores,
    /// A class's number or name
    Class,
    /// A number
    Value,
}

pub(super) fn run(args: &EvaluateArgs) -> u8 {
    match evaluate(args) {
        Ok(()) => EXIT_OK,
        Err((code, why)) => {
            eprintln!("{why}");
            code
        }
    }
}

fn evaluate(args: &EvaluateArgs) -> Result<(), (u8, String)> {
    let refused = |error: CaptureError| (EXIT_REFUSED, error.to_string());
    let names =
        Names { id: args.id_column.clone(), label: args.label_column.clone(), row: args.row_column.clone() };
    let labels = Labels::read(&args.labels, &names).map_err(refused)?;
    let task = args.task.map(|task| match task {
        TaskName::Scores => Task::Scores,
        TaskName::Class => Task::Class,
        TaskName::Value => Task::Value,
    });
    let mut shown = Vec::new();
    for table in args.place.open()? {
        let evaluation = judge(&table, &labels, args.output.as_deref(), task).map_err(refused)?;
        if args.json {
            shown.push(as_json(&table, &evaluation));
        } else {
            print(&table, &evaluation);
        }
    }
    if args.json {
        say(format_args!("{:#}", json!(shown)));
    }
    Ok(())
}

fn judge(
    table: &Table,
    labels: &Labels,
    output: Option<&str>,
    task: Option<Task>,
) -> Result<Evaluation, CaptureError> {
    let mut evaluation = Evaluation::new(table.layout(), output, task)?;
    table.read(|captured| {
        evaluation.add(&captured, labels);
        Ok::<bool, CaptureError>(true)
    })?;
    Ok(evaluation)
}

type Figure = fn(&Quality) -> Option<f64>;

/// A figure's name and where it is.
const FIGURES: [(&str, Figure); 6] = [
    ("accuracy", |quality| quality.accuracy),
    ("log_loss", |quality| quality.log_loss),
    ("brier", |quality| quality.brier),
    ("calibration_error", |quality| quality.calibration_error),
    ("mean_absolute_error", |quality| quality.mean_absolute_error),
    ("root_mean_squared_error", |quality| quality.root_mean_squared_error),
];

fn as_json(table: &Table, evaluation: &Evaluation) -> Value {
    let version = |(version, quality): (&str, Quality)| {
        let mut shown = json!({ "version": version, "rows": quality.rows });
        for (name, read) in FIGURES {
            shown[name] = json!(read(&quality));
        }
        shown
    };
    json!({
        "folder": table.root(), "model": table.model(), "output": evaluation.output(),
        "unlabelled": evaluation.unlabelled(), "unfit": evaluation.unfit(),
        "versions": evaluation.qualities().into_iter().map(version).collect::<Vec<_>>(),
    })
}

fn print(table: &Table, evaluation: &Evaluation) {
    say(format_args!(
        "{}, output '{}': {} rows without a label, {} labels that fit no row",
        table.root(),
        evaluation.output(),
        evaluation.unlabelled(),
        evaluation.unfit()
    ));
    for (version, quality) in evaluation.qualities() {
        let figures: Vec<String> = FIGURES
            .iter()
            .filter_map(|(name, read)| Some(format!("{name} {:.4}", read(&quality)?)))
            .collect();
        say(format_args!("  version {version}: {} rows, {}", quality.rows, figures.join(", ")));
    }
}
