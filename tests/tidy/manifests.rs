//! Which crate may depend on which, read from their manifests.

use super::{
    none,
    source::{Source, sources},
};

/// (crate, what it may depend on among ours); `*`: everything.
const ARROWS: [(&str, &[&str]); 15] = [
    ("gannet-models", &[]),
    ("gannet-registry", &["gannet-models"]),
    ("gannet-data", &[]),
    ("gannet-capture", &["gannet-models"]),
    ("gannet-edge", &["gannet-models", "gannet-stats", "gannet-data"]),
    ("gannet-stats", &[]),
    ("gannet-runtime", &["gannet-models", "gannet-stats"]),
    ("gannet-conformance", &["gannet-models", "gannet-runtime"]),
    ("gannet-ort", &["gannet-models", "gannet-runtime", "gannet-conformance"]),
    // the other engine is what its tests compare with
    ("gannet-tch", &["gannet-models", "gannet-runtime", "gannet-conformance", "gannet-ort"]),
    (
        "gannet-server",
        &[
            "gannet-models",
            "gannet-registry",
            "gannet-data",
            "gannet-capture",
            "gannet-edge",
            "gannet-stats",
            "gannet-runtime",
            "gannet-ort",
            "gannet-tch",
        ],
    ),
    ("gannet-loadtest", &[]),
    (
        "gannet-benches",
        &[
            "gannet-models",
            "gannet-runtime",
            "gannet-ort",
            "gannet-tch",
            "gannet-server",
            "gannet-loadtest",
            "gannet-stats",
        ],
    ),
    ("gannet-tests", &["*"]),
    ("gannet-fuzz", &["*"]),
];

/// Crates that may speak HTTP and gRPC.
const WIRE: [&str; 4] = ["gannet-server", "gannet-loadtest", "gannet-benches", "gannet-tests"];

struct Manifest {
    path: String,
    name: String,
    /// Every dependency in every table, those of tests and of targets included.
    dependencies: Vec<String>,
}

fn manifests() -> Vec<Manifest> {
    let is_manifest = |source: &Source| source.path.ends_with("/Cargo.toml");
    let read = |source: Source| {
        let table: toml::Table =
            source.text.parse().unwrap_or_else(|error| panic!("{}: {error}", source.path));
        let name = table.get("package")?.get("name")?.as_str()?.to_owned();
        let mut dependencies = Vec::new();
        collect(&table, &mut dependencies);
        Some(Manifest { path: source.path, name, dependencies })
    };
    sources().into_iter().filter(is_manifest).filter_map(read).collect()
}

fn collect(table: &toml::Table, dependencies: &mut Vec<String>) {
    for (key, value) in table {
        let Some(inner) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            dependencies.extend(inner.keys().cloned());
        } else if key != "package" && key != "features" {
            collect(inner, dependencies);
        }
    }
}

#[test]
fn crates_depend_along_the_arrows() {
    let mut faults = Vec::new();
    for Manifest { path, name, dependencies } in manifests() {
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            faults.push(format!("{path}: {name} has no arrows; state here what it may depend on"));
            continue;
        };
        let ours = dependencies.iter().filter(|dependency| dependency.starts_with("gannet-"));
        for dependency in ours {
            if !allowed.contains(&"*") && !allowed.contains(&dependency.as_str()) {
                faults.push(format!("{path}: {name} must not depend on {dependency}"));
            }
        }
    }
    none(faults);
}

#[test]
fn only_the_server_speaks_http_and_grpc() {
    let mut faults = Vec::new();
    for Manifest { path, name, dependencies } in manifests() {
        let wire = dependencies.iter().find(|d| d.starts_with("hyper") || d.starts_with("tonic"));
        if let Some(wire) = wire.filter(|_| !WIRE.contains(&name.as_str())) {
            faults.push(format!("{path}: {name} must not know {wire}"));
        }
    }
    none(faults);
}
