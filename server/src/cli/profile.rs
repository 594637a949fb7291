//! `gannet profile`: measures the ways to run a model on this machine, shows them, and recommends one. Must not know
//! how runs are measured.

mod keep;
mod plot;

use std::{fs, io::IsTerminal as _, path::Path, time::Duration};

use gannet_models::settings::{BATCH_ROWS_TRIED, Batching};
use gannet_runtime::control::loader::{
    LoadSpec,
    profile::{self, Plan, Point},
};
use serde_json::{Value, json};

use super::{EXIT_OK, EXIT_REFUSED, EXIT_UNAVAILABLE, ProfileArgs, check, say, serve::engine_config, table};
use crate::backends::{self, Backends};

pub(super) fn run(args: &ProfileArgs) -> u8 {
    let backends = match backends::start(&engine_config()) {
        Ok(backends) => backends,
        Err(error) => {
            eprintln!("{error}");
            return EXIT_UNAVAILABLE;
        }
    };
    let folder = std::env::temp_dir().join(format!("gannet-profile-{}", std::process::id()));
    let result = measure(args, &folder, &backends);
    let _ = fs::remove_dir_all(&folder);
    let result = result.and_then(|report| show(args, &report));
    match result {
        Ok(()) => EXIT_OK,
        Err(error) => {
            eprintln!("{error}");
            EXIT_REFUSED
        }
    }
}

/// What was measured.
struct Report {
    model: String,
    version: String,
    points: Vec<Point>,
}

fn measure(args: &ProfileArgs, folder: &Path, backends: &Backends) -> Result<Report, String> {
    let path = args.path.display();
    let (found, store) = check::find(&args.path, folder, backends)?;
    let [model] = &found.models[..] else {
        let names: Vec<&str> = found.models.iter().map(|model| model.name.as_str()).collect();
        let got = if names.is_empty() { found.problems.join("; ") } else { names.join(", ") };
        return Err(format!("{path}: expected one model, got {}: {got}; name its folder", names.len()));
    };
    let Some(version) = model.versions.last() else {
        return Err(format!(
            "{path}: the model has no version that can be read: {}",
            model.problems.join("; ")
        ));
    };
    let artifact = store.ingest(&version.location, &Default::default()).map_err(|error| error.to_string())?;
    let spec = check::spec(model, version, artifact, backends)?;
    let plan = plan(args, &spec);
    let points = profile::measure(&spec, &plan, &mut progress)?;
    Ok(Report { model: model.name.to_string(), version: version.version.to_string(), points })
}

fn plan(args: &ProfileArgs, spec: &LoadSpec) -> Plan {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rows_max = match spec.settings.batching {
        Batching::Off => 1,
        Batching::Stated(rows) => rows.max(1),
        Batching::Inferred => BATCH_ROWS_TRIED,
    };
    let or = |given: &[usize], most: usize| match given {
        [] => doubling(most),
        given => given.iter().map(|&value| value.max(1)).collect(),
    };
    Plan {
        rows: or(&args.rows, rows_max),
        threads: or(&args.threads, cores),
        instances: or(&args.instances, cores),
        each: Duration::from_millis(args.each_ms.max(1)),
    }
}

/// 1, 2, 4 and so on, and `most`.
fn doubling(most: usize) -> Vec<usize> {
    let mut values: Vec<usize> =
        std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n < most).collect();
    values.push(most);
    values
}

/// A point as it comes, for people who wait.
fn progress(point: &Point) {
    if std::io::stderr().is_terminal() {
        eprintln!("  {}: {:.1} us, {:.0} rows/s", way(point), point.median_us, point.rows_per_second);
    }
}

/// `32 rows, 1 thread, 2 instances`.
fn way(point: &Point) -> String {
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    [count(point.rows, "row"), count(point.threads, "thread"), count(point.instances, "instance")].join(", ")
}

fn show(args: &ProfileArgs, report: &Report) -> Result<(), String> {
    let best =
        profile::recommend(&report.points).ok_or("nothing was measured: --rows and --threads are empty")?;
    if let Some(file) = &args.svg {
        let svg = plot::svg(&format!("{} version {}", report.model, report.version), &report.points);
        fs::write(file, svg).map_err(|error| format!("{}: not written: {error}", file.display()))?;
    }
    if args.json {
        say(format_args!("{:#}", to_json(report, &best)));
    } else {
        say(text(report, &best).trim_end());
    }
    if args.write {
        let file = keep::write(&args.path, &best)?;
        eprintln!("written: {}", file.display());
    }
    Ok(())
}

fn to_json(report: &Report, best: &Point) -> Value {
    let point = |point: &Point| {
        json!({
            "rows": point.rows, "threads": point.threads, "instances": point.instances,
            "median_us": point.median_us, "p95_us": point.p95_us, "rows_per_second": point.rows_per_second,
        })
    };
    json!({
        "model": report.model,
        "version": report.version,
        "points": report.points.iter().map(point).collect::<Vec<_>>(),
        "recommended": point(best),
        "model_toml": keep::settings(best),
    })
}

fn text(report: &Report, best: &Point) -> String {
    let row = |point: &Point| {
        let mark = if point == best { "<- recommended" } else { "" };
        vec![
            point.rows.to_string(),
            point.threads.to_string(),
            point.instances.to_string(),
            format!("{:.1} us", point.median_us),
            format!("{:.1} us", point.p95_us),
            format!("{:.0}", point.rows_per_second),
            mark.into(),
        ]
    };
    let heading = ["rows", "threads", "instances", "median", "p95", "rows/s", ""];
    let rows: Vec<Vec<String>> = report.points.iter().map(row).collect();
    let mut page = format!("{} version {}\n\n", report.model, report.version);
    page.push_str(&table::render(&heading, &rows));
    page.push_str("\nrows/s by rows in a run, one instance:\n");
    page.push_str(&plot::bars(&report.points));
    page.push_str(&format!(
        "\nMost rows a second: {} ({:.0} rows/s, {:.1} us a run). In model.toml:\n\n{}",
        way(best),
        best.rows_per_second,
        best.median_us,
        indented(&keep::settings(best))
    ));
    if let Some(soonest) = profile::soonest(&report.points) {
        page.push_str(&format!(
            "\nA single row is answered soonest by {} thread{}: {:.1} us.\n",
            soonest.threads,
            if soonest.threads == 1 { "" } else { "s" },
            soonest.median_us
        ));
    }
    page
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
