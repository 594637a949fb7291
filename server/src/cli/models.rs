//! `gannet models`: what a running server serves, and why not. Must not know how the server keeps it.

use serde_json::Value;

use super::{EXIT_OK, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, ModelsArgs, client, say, table};
use crate::token::read_tokens;

pub(super) fn run(args: &ModelsArgs) -> u8 {
    let token = match args.admin_token_file.as_ref().map(|path| read_tokens(path)).transpose() {
        Ok(tokens) => tokens.and_then(|tokens| tokens.into_iter().next()),
        Err(error) => {
            let path = args.admin_token_file.as_ref().map(|path| path.display().to_string());
            eprintln!("--admin-token-file {}: {error}", path.unwrap_or_default());
            return EXIT_USAGE;
        }
    };
    let answer = match client::get(&args.admin, "/admin/v1/models", token.as_deref()) {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("{error}");
            return if matches!(error, client::ClientError::Url(_)) { EXIT_USAGE } else { EXIT_UNAVAILABLE };
        }
    };
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status != 200 {
        let why = body["error"].as_str().unwrap_or("no reason was given; is this Gannet's admin port?");
        eprintln!("{} answered {}: {why}", args.admin, answer.status);
        return EXIT_REFUSED;
    }
    if args.json {
        say(format_args!("{body:#}"));
    } else {
        say(text(&body).trim_end());
    }
    EXIT_OK
}

/// The table, and what is wrong outside of any version.
fn text(body: &Value) -> String {
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for model in array(&body["models"]) {
        let name = word(&model["name"]);
        let versions = array(&model["versions"]);
        notes.extend(array(&model["problems"]).iter().map(|problem| format!("{name}: {}", word(problem))));
        if versions.is_empty() {
            rows.push(vec![name.clone(), "-".into(), "UNAVAILABLE".into()]);
        }
        for version in versions {
            let labels: Vec<String> = array(&version["labels"]).iter().map(word).collect();
            let serving = &version["serving"];
            let number = |value: &Value| if value.is_null() { "-".into() } else { value.to_string() };
            rows.push(vec![
                name.clone(),
                word(&version["version"]),
                word(&version["state"]),
                if labels.is_empty() { "-".into() } else { labels.join(",") },
                number(&serving["instances"]),
                number(&serving["counts"]["ok"]),
                number(&serving["inflight"]),
                word(&version["reason"]),
            ]);
        }
    }
    notes.extend(array(&body["problems"]).iter().map(word));
    notes.extend(body["stale"].as_str().map(|why| format!("the repository cannot be read: {why}")));
    if body["draining"] == Value::Bool(true) {
        notes.push("the server is shutting down".into());
    }
    let heading = ["model", "version", "state", "labels", "instances", "answered", "inflight", "reason"];
    let mut page = if rows.is_empty() { "no models\n".into() } else { table::render(&heading, &rows) };
    for note in notes {
        page.push_str(&format!("! {}\n", note.replace('\n', "\n  ")));
    }
    page
}
