//! Captured requests run through a version on this machine. Must not know a server.

use std::path::Path;

use gannet_capture::{CaptureError, Table};
use gannet_models::redaction::Side;
use gannet_runtime::{servable::Servable, shadow::Comparison};
use serde_json::json;

use super::{ReplayArgs, Shown, as_json, hold, kept, print};
use crate::cli::{baseline, registry, say};

pub(super) fn replay(args: &ReplayArgs, tables: &[Table], named: &str) -> Result<bool, String> {
    let servable = candidate(named)?;
    let mut comparison = Comparison::default();
    let mut left = args.requests.unwrap_or(u64::MAX);
    for table in tables {
        each(table, args, &servable, &mut comparison, &mut left).map_err(|error| error.to_string())?;
    }
    let report = comparison.report();
    let is_good = args.judge(&report)?;
    if args.json {
        let mut shown = as_json(&report, is_good);
        shown["candidate"] =
            json!({ "model": servable.model.as_str(), "version": servable.version.as_str() });
        say(format_args!("{shown:#}"));
    } else {
        let who = format!("{} version {}", servable.model, servable.version);
        print(args, &Shown { who: &who, report: &report, more: &[], is_good });
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
    let tolerances = args.tolerances(table);
    table.read(|captured| {
        if !args.wants(&captured) {
            return Ok(true);
        }
        if *left == 0 {
            return Ok::<bool, CaptureError>(false);
        }
        *left -= 1;
        match servable.answer_apart(kept(&captured, layout, Side::Input)) {
            Ok(answer) => {
                hold(comparison, (&captured, layout), (&servable.signature, &answer), &tolerances);
            }
            Err(error) => comparison.failed(&captured.id, &error.to_string()),
        }
        Ok(true)
    })
}
