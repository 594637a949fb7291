//! `gannet drift`: what a running server found of a model's data, as bars or as a page. Must not know how it is found.

mod html;
mod page;

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{EXIT_OK, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, client, say};
use crate::admin::token::read_tokens;

const EXAMPLES: &str = "\
Every feature of the inputs, the scores and the predicted class are held against the baseline in the version's package
(`gannet baseline make`), or against its first rows. log_e is the evidence of a change and h what makes an alarm of it:
all features of all models together raise one false alarm in drift.budget_days.

Examples:
  gannet drift breast_cancer                      bars in the terminal: the baseline's shares over those of now
  gannet drift breast_cancer --all                every feature, also those where nothing changed
  gannet drift breast_cancer --html drift.html    a page of its own with plots
  gannet drift breast_cancer --json               the server's answer

Exit codes: 0 no alarm, 1 an alarm is on or the server refused, 64 wrong arguments, 69 no server.";

/// The arguments of `gannet drift`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct DriftArgs {
    /// The model
    #[arg(value_name = "MODEL")]
    model: String,
    /// A version other than the one that answers
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Show every feature
    #[arg(long)]
    all: bool,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the server's JSON
    #[arg(long)]
    json: bool,
    /// Where the server's admin API is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8003")]
    admin: String,
    /// A file whose first token is sent, for servers that want one
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

pub(super) fn run(args: &DriftArgs) -> u8 {
    match show(args) {
        Ok(code) => code,
        Err((code, why)) => {
            eprintln!("{why}");
            code
        }
    }
}

fn show(args: &DriftArgs) -> Result<u8, (u8, String)> {
    let whole = ask(args)?;
    let report = match &args.version {
        None => &whole,
        Some(version) => {
            let others = whole["others"].as_array().into_iter().flatten();
            let found = std::iter::once(&whole).chain(others).find(|report| report["version"] == **version);
            found.ok_or_else(|| (EXIT_REFUSED, format!("nothing is known of version '{version}'")))?
        }
    };
    if let Some(file) = &args.html {
        std::fs::write(file, html::page(report))
            .map_err(|error| (EXIT_REFUSED, format!("{}: not written: {error}", file.display())))?;
        eprintln!("written: {}", file.display());
    }
    if args.json {
        say(format_args!("{report:#}"));
    } else if args.html.is_none() {
        say(page::page(report, args.all).trim_end());
    }
    Ok(if report["state"] == "alarm" { EXIT_REFUSED } else { EXIT_OK })
}

fn ask(args: &DriftArgs) -> Result<Value, (u8, String)> {
    let tokens = args.admin_token_file.as_ref().map(|path| {
        read_tokens(path)
            .map_err(|error| (EXIT_USAGE, format!("--admin-token-file {}: {error}", path.display())))
    });
    let token = tokens.transpose()?.and_then(|tokens| tokens.into_iter().next());
    let model = percent_encoding::utf8_percent_encode(&args.model, percent_encoding::NON_ALPHANUMERIC);
    let path = format!("/admin/v1/models/{model}/drift");
    let answer = client::get(&args.admin, &path, token.as_deref()).map_err(|error| {
        let wrong = matches!(error, client::ClientError::Url(_));
        (if wrong { EXIT_USAGE } else { EXIT_UNAVAILABLE }, error.to_string())
    })?;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status == 200 {
        return Ok(body);
    }
    let why = body["error"].as_str().unwrap_or("no reason was given; is this Gannet's admin port?");
    Err((EXIT_REFUSED, format!("{} answered {}: {why}", args.admin, answer.status)))
}
