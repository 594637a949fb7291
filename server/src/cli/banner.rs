//! What the server prints when it starts: where it listens, what it serves, and a request that works. Must not know
//! how any of it came to be.

use std::{fs, net::SocketAddr, sync::Arc};

use gannet_models::{DType, TensorSpec};
use gannet_runtime::servable::Servable;
use serde_json::{Value, json};

use crate::{app::App, repository::Inventory};

/// Longest request that is shown, in bytes.
const REQUEST_BYTES_MAX: usize = 2000;
/// Models that are listed by name.
const NAMES_MAX: usize = 20;

pub(super) fn print_addresses(app: &App) {
    let addresses = app.addresses();
    println!("Gannet {}", crate::state::SERVER_VERSION);
    let lines = [
        ("HTTP", "http", addresses.http, "/v2"),
        ("gRPC", "grpc", addresses.grpc, ""),
        ("metrics", "http", addresses.metrics, "/metrics"),
        ("admin", "http", addresses.admin, "/admin/v1/models"),
    ];
    for (what, scheme, address, path) in lines {
        match address {
            Some(address) => println!("  {what:8} {scheme}://{address}{path}"),
            None => println!("  {what:8} off"),
        }
    }
    let config = app.config();
    let paths: Vec<String> = config.repository.paths.iter().map(|path| path.display().to_string()).collect();
    println!("  {:8} {} ({})", "models", paths.join(", "), config.source("repository.paths"));
}

pub(super) fn print_models(app: &App) {
    let (table, inventory) = (app.state().table().snapshot(), app.state().repository.inventory());
    let held = table.models();
    let serving: Vec<&Arc<Servable>> = held.values().filter_map(|entry| entry.latest()).collect();
    let names: Vec<String> =
        serving.iter().take(NAMES_MAX).map(|s| format!("{} {}", s.model, s.version)).collect();
    let more = if serving.len() > NAMES_MAX { ", ..." } else { "" };
    match serving.len() {
        0 => println!("  serving  no model"),
        count => println!("  serving  {count} ({}{more})", names.join(", ")),
    }
    let failed = held.iter().flat_map(|(name, entry)| {
        let bad = entry.versions.iter().filter(|v| v.servable.is_none() && !v.status.reason.is_empty());
        bad.map(move |v| format!("{name} {}: {}", v.status.version, v.status.reason))
    });
    let problems = inventory
        .models
        .iter()
        .flat_map(|(name, known)| known.problems.iter().map(move |problem| format!("{name}: {problem}")));
    for line in failed.chain(problems).chain(inventory.problems.iter().cloned()).take(NAMES_MAX) {
        println!("  ! {line}");
    }
    if let Some(address) = app.addresses().http
        && let Some(line) = example(&serving, &inventory, address)
    {
        println!("Try it:\n  {line}");
    }
}

/// A `curl` line for the model with the shortest request: a golden one where there is any, for that has sense.
fn example(serving: &[&Arc<Servable>], inventory: &Inventory, address: SocketAddr) -> Option<String> {
    let golden =
        serving.iter().filter_map(|servable| Some((*servable, golden_request(servable, inventory)?)));
    let (servable, body) = golden.min_by_key(|(_, body)| body.len()).or_else(|| {
        let made = serving.iter().map(|servable| (*servable, made_up_request(servable)));
        made.filter(|(_, body)| body.len() <= REQUEST_BYTES_MAX).min_by_key(|(_, body)| body.len())
    })?;
    let host = match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::new("127.0.0.1".parse().ok()?, address.port()),
        _ => address,
    };
    let body = body.replace('\'', "'\\''");
    Some(format!("curl http://{host}/v2/models/{}/infer -d '{body}'", encode(servable.model.as_str())))
}

/// The shortest golden request of the version's files.
fn golden_request(servable: &Servable, inventory: &Inventory) -> Option<String> {
    let artifact = inventory.models.get(&servable.model)?.artifacts.get(&servable.version)?;
    let requests = artifact.golden_files().into_iter().filter_map(|path| {
        let golden: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
        Some(golden.get("request")?.to_string())
    });
    requests.filter(|request| request.len() <= REQUEST_BYTES_MAX).min_by_key(String::len)
}

/// One row of zeros.
fn made_up_request(servable: &Servable) -> String {
    let input = |spec: &TensorSpec| {
        let shape: Vec<usize> =
            spec.wire_shape().iter().map(|&axis| usize::try_from(axis).unwrap_or(1)).collect();
        let count = shape.iter().product::<usize>().min(REQUEST_BYTES_MAX);
        let element = match spec.dtype {
            DType::Bool => json!(false),
            DType::Bytes => json!("text"),
            _ => json!(0),
        };
        json!({ "name": spec.name, "shape": shape, "datatype": spec.dtype.to_string(), "data": vec![element; count] })
    };
    let inputs: Vec<Value> = servable.signature.inputs.iter().map(input).collect();
    json!({ "inputs": inputs }).to_string()
}

/// A name as a segment of a path.
fn encode(name: &str) -> String {
    let mut path = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}
