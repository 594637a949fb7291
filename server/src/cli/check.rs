//! `gannet check`: loads what a path holds, as the server would, and says how it would be served. Must not know
//! listeners.

use std::{fs, path::Path, sync::Arc};

use gannet_models::{Artifact, IngestLimits, Store, read_version_labels};
use gannet_registry::{AspiredModel, AspiredVersion, FilesystemOptions, FilesystemSource, Poll, Source as _};
use gannet_runtime::{
    clock,
    control::loader::{self, LoadSpec},
    servable::Loaded,
};
use serde_json::{Value, json};

use super::{CheckArgs, EXIT_OK, EXIT_REFUSED, EXIT_UNAVAILABLE, say, serve::engine_config, table};
use crate::{
    admin::view,
    backends::{self, Backends},
    config::Config,
    rehearsal::Rehearsal,
};

pub(super) fn run(args: &CheckArgs) -> u8 {
    let backends = match backends::start(&engine_config()) {
        Ok(backends) => backends,
        Err(error) => {
            eprintln!("{error}");
            return EXIT_UNAVAILABLE;
        }
    };
    // a folder of its own: the copies of a check are of no use to a server
    let folder = std::env::temp_dir().join(format!("gannet-check-{}", std::process::id()));
    let result = check(&args.path, &folder, &backends);
    let _ = fs::remove_dir_all(&folder);
    let report = match result {
        Ok(report) => report,
        Err(error) => {
            eprintln!("{error}");
            return EXIT_REFUSED;
        }
    };
    if args.json {
        say(format_args!("{:#}", report.json()));
    } else {
        say(report.text().trim_end());
    }
    if report.is_good() { EXIT_OK } else { EXIT_REFUSED }
}

/// What was found.
struct Report {
    versions: Vec<Checked>,
    /// What is wrong outside of any version.
    problems: Vec<String>,
}

/// One version.
struct Checked {
    model: String,
    version: String,
    golden: usize,
    result: Result<Value, String>,
}

fn check(path: &Path, folder: &Path, backends: &Backends) -> Result<Report, String> {
    let (found, store) = find(path, folder, backends)?;
    let mut report = Report { versions: Vec::new(), problems: found.problems };
    let rehearsal = Rehearsal::new(&Config::new(folder.to_owned()).repository);
    for model in &found.models {
        report.problems.extend(model.problems.iter().map(|problem| format!("{}: {problem}", model.name)));
        for version in &model.versions {
            report.versions.push(check_version(model, version, (&store, backends), &rehearsal));
        }
    }
    if found.models.is_empty() {
        report.problems.push(format!("{}: expected at least one model, got none", path.display()));
    }
    Ok(report)
}

/// What lies at a path, and a store in `folder` for copies of it.
pub(super) fn find(path: &Path, folder: &Path, backends: &Backends) -> Result<(Poll, Store), String> {
    let known_files = backends::known_files(&backends.all);
    // nothing is being copied there now: what lies there counts at once
    let options = FilesystemOptions { settle_ms: 0, known_files, ..FilesystemOptions::default() };
    let mut source =
        FilesystemSource::new(vec![path.to_owned()], options).map_err(|error| error.to_string())?;
    let found = source.poll(clock::wall_ms(clock::now()));
    let store = Store::open(folder).map_err(|error| error.to_string())?;
    Ok((found, store))
}

fn check_version(
    model: &AspiredModel,
    version: &AspiredVersion,
    (store, backends): (&Store, &Backends),
    rehearsal: &Rehearsal,
) -> Checked {
    let mut golden = 0;
    let mut load = || {
        let artifact =
            store.ingest(&version.location, &IngestLimits::default()).map_err(|error| error.to_string())?;
        golden = artifact.golden_files().len();
        let digest = artifact.digest().to_string();
        let spec = spec(model, version, artifact, backends)?;
        let loaded = loader::load(&model.name, 0, &spec, rehearsal)
            .map_err(|why| format!("{}: {why}", spec.origin))?;
        Ok(describe(&loaded, &digest, golden))
    };
    let result = load();
    Checked { model: model.name.to_string(), version: version.version.to_string(), golden, result }
}

/// One version as the server would load it.
pub(super) fn spec(
    model: &AspiredModel,
    version: &AspiredVersion,
    artifact: Artifact,
    backends: &Backends,
) -> Result<LoadSpec, String> {
    let backend = backends::choose(&backends.all, &artifact, &model.settings)
        .map_err(|why| format!("{}: {why}", version.location.path.display()))?;
    let class_labels = read_version_labels(artifact.dir()).map_err(|error| error.to_string())?;
    let origin = Arc::from(version.location.path.display().to_string());
    let (version, settings) = (version.version.clone(), Arc::clone(&model.settings));
    let event_loops = std::thread::available_parallelism().map_or(1, usize::from);
    let may_run_code = settings.allow_torchscript;
    Ok(LoadSpec { version, artifact, settings, class_labels, backend, may_run_code, origin, event_loops })
}

fn describe(loaded: &Loaded, digest: &str, golden: usize) -> Value {
    let settings = &loaded.settings;
    json!({
        "platform": loaded.engine.platform,
        "digest": digest,
        "signature": view::signature(&loaded.signature),
        "batching": view::batching(settings, loaded.rows_max),
        "instances": loaded.workers.len(),
        "threads": settings.threads,
        "device": view::device(settings.device),
        "golden": { "passed": golden, "of": golden },
        "costs": view::costs(&loaded.costs),
    })
}

impl Report {
    fn is_good(&self) -> bool {
        self.problems.is_empty() && self.versions.iter().all(|version| version.result.is_ok())
    }

    fn json(&self) -> Value {
        let version = |checked: &Checked| {
            let mut fields =
                json!({ "model": checked.model, "version": checked.version, "ok": checked.result.is_ok() });
            match &checked.result {
                Ok(found) => fields["serving"] = found.clone(),
                Err(reason) => fields["reason"] = json!(reason),
            }
            fields
        };
        let versions: Vec<Value> = self.versions.iter().map(version).collect();
        json!({ "ok": self.is_good(), "versions": versions, "problems": self.problems })
    }

    fn text(&self) -> String {
        let mut rows = Vec::new();
        let mut notes = self.problems.clone();
        for Checked { model, version, golden, result } in &self.versions {
            let found = match result {
                Ok(found) => found,
                Err(reason) => {
                    rows.push(vec![model.clone(), version.clone(), "REFUSED".into()]);
                    notes.push(format!("{model} {version}: {reason}"));
                    continue;
                }
            };
            let signature = &found["signature"];
            let batched = signature["batched"] == Value::Bool(true);
            let golden = if *golden == 0 { "none".into() } else { format!("{golden} of {golden}") };
            rows.push(vec![
                model.clone(),
                version.clone(),
                "ok".into(),
                tensors(&signature["inputs"]),
                tensors(&signature["outputs"]),
                if batched {
                    format!("0 ({})", found["batching"]["decided"].as_str().unwrap_or_default())
                } else {
                    "none".into()
                },
                found["batching"]["rows_max"].to_string(),
                found["instances"].to_string(),
                golden,
                costs(&found["costs"]),
            ]);
        }
        let heading = [
            "model",
            "version",
            "result",
            "inputs",
            "outputs",
            "batch axis",
            "max",
            "instances",
            "golden",
            "cost by batch",
        ];
        let mut page = if rows.is_empty() { String::new() } else { table::render(&heading, &rows) };
        for note in notes {
            page.push_str(&format!("! {}\n", note.replace('\n', "\n  ")));
        }
        let refused = self.versions.iter().filter(|version| version.result.is_err()).count();
        let verdict =
            if self.is_good() { "everything would be served" } else { "not everything would be served" };
        page.push_str(&format!(
            "{} of {} versions load: {verdict}\n",
            self.versions.len() - refused,
            self.versions.len()
        ));
        page
    }
}

/// `name FP32[-1,4]`, separated by commas.
fn tensors(specs: &Value) -> String {
    let text = |spec: &Value| {
        let (name, datatype) =
            (spec["name"].as_str().unwrap_or_default(), spec["datatype"].as_str().unwrap_or_default());
        format!("{name} {datatype}{}", spec["shape"])
    };
    spec_list(specs).iter().map(text).collect::<Vec<_>>().join(", ")
}

fn spec_list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `1: 12 us, 64: 80 us`.
fn costs(costs: &Value) -> String {
    let text = |cost: &Value| {
        let us = cost["median_ns"].as_u64().unwrap_or(0).div_ceil(1000);
        format!("{}: {us} us", cost["rows_max"])
    };
    let all: Vec<String> = spec_list(costs).iter().map(text).collect();
    if all.is_empty() { "unknown".into() } else { all.join(", ") }
}
