//! `gannet drift`: what a running server found of a model's data, as bars or as a page. Must not know how it is found.

mod html;
mod page;

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{EXIT_OK, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, client, say};
use crate::token::read_tokens;

const EXAMPLES: &str = "\
Every feature of the inputs, the scores and the predicted class are held against the baseline in the version's package
(`gannet baseline make`), or against its first rows. log_e is the evidence of a change and h what makes an alarm of it:
all features of all models together raise one false alarm in drift.budget_days. What devices that run a bundle of the
model see is held against the bundle's calibration, and shown behind it.

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
    let reports = shown(&whole, args.version.as_deref());
    let Some(first) = reports.first() else {
        let version = args.version.as_deref().unwrap_or_default();
        return Err((EXIT_REFUSED, format!("nothing is known of version '{version}'")));
    };
    if let Some(file) = &args.html {
        std::fs::write(file, html::page(&reports))
            .map_err(|error| (EXIT_REFUSED, format!("{}: not written: {error}", file.display())))?;
        eprintln!("written: {}", file.display());
    }
    if args.json {
        let asked = if args.version.is_some() { first } else { &&whole };
        say(format_args!("{asked:#}"));
    } else if args.html.is_none() {
        say(page::pages(&reports, args.all).trim_end());
    }
    let is_alarmed = reports.iter().any(|report| report["state"] == "alarm");
    Ok(if is_alarmed { EXIT_REFUSED } else { EXIT_OK })
}

/// The report of a version, by default the one that answers, and those of its devices: by default, of all that are heard.
fn shown<'a>(whole: &'a Value, version: Option<&str>) -> Vec<&'a Value> {
    let list = |name: &str| whole[name].as_array().into_iter().flatten();
    let is_wanted = |report: &&Value| version.is_none_or(|version| report["version"] == version);
    let devices: Vec<&Value> =
        list("devices").filter(|report| report["state"].is_string()).filter(is_wanted).collect();
    let of_requests = match version {
        Some(_) => std::iter::once(whole).chain(list("others")).find(is_wanted),
        // what is not served has nothing to show but devices
        None => Some(whole).filter(|whole| whole["version"].is_string() || devices.is_empty()),
    };
    of_requests.into_iter().chain(devices).collect()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_version_is_shown_with_its_devices() {
        let devices = |version: &str, sequence: u64, state: Value| json!({ "version": version, "sequence": sequence, "state": state });
        let list = json!([
            devices("1", 4, json!("ok")),
            devices("2", 5, json!("alarm")),
            devices("2", 3, Value::Null)
        ]);
        let served = json!({ "version": "2", "state": "ok", "others": [{ "version": "1", "state": "ok" }], "devices": list });
        let check = |whole: &Value, version: Option<&str>, expected: &[(&str, Option<u64>)]| {
            let of = |report: &&Value| {
                (report["version"].as_str().unwrap_or("-").to_owned(), report["sequence"].as_u64())
            };
            let expected: Vec<_> =
                expected.iter().map(|(version, sequence)| ((*version).to_owned(), *sequence)).collect();
            assert_eq!(shown(whole, version).iter().map(of).collect::<Vec<_>>(), expected, "{version:?}");
        };
        check(&served, None, &[("2", None), ("1", Some(4)), ("2", Some(5))]);
        check(&served, Some("1"), &[("1", None), ("1", Some(4))]);
        check(&served, Some("3"), &[]);
        let mut delivered = served;
        (delivered["version"], delivered["others"]) = (Value::Null, json!([]));
        check(&delivered, None, &[("1", Some(4)), ("2", Some(5))]);
        delivered["devices"] = json!([]);
        check(&delivered, None, &[("-", None)]);
    }
}
