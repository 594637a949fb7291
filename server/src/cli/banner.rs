//! What the server prints when it starts: where it listens, what it serves, and a request that works. Must not know
//! how any of it came to be.

use std::{fs, net::SocketAddr, sync::Arc};

use gannet_models::{DType, TensorSpec};
use gannet_runtime::{servable::Servable, table::ModelEntry};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::say;
use crate::{
    app::App,
    config::{Port, TlsConfig},
    repository::Inventory,
};

/// Longest request that is shown, in bytes.
const REQUEST_BYTES_MAX: usize = 2000;
/// Models that are listed by name.
const NAMES_MAX: usize = 20;

pub(super) fn print_addresses(app: &App) {
    let addresses = app.addresses();
    say(format_args!("Gannet {}", crate::state::SERVER_VERSION));
    let lines = [
        ("HTTP", Port::Http, "http", addresses.http, "/v2"),
        ("gRPC", Port::Grpc, "grpc", addresses.grpc, ""),
        ("metrics", Port::Metrics, "http", addresses.metrics, "/metrics"),
        ("admin", Port::Admin, "http", addresses.admin, "/admin/v1/models"),
    ];
    for (what, port, scheme, address, path) in lines {
        let secured = if app.config().tls.secures(port) { "s" } else { "" };
        match address {
            Some(address) => say(format_args!("  {what:8} {scheme}{secured}://{address}{path}")),
            None => say(format_args!("  {what:8} off")),
        }
    }
    let config = app.config();
    let paths: Vec<String> = config.repository.paths.iter().map(|path| path.display().to_string()).collect();
    say(format_args!("  {:8} {} ({})", "models", paths.join(", "), config.source("repository.paths")));
}

pub(super) fn print_models(app: &App) {
    let (table, inventory) = (app.state().table().snapshot(), app.state().repository.inventory());
    let held = table.models();
    let serving: Vec<&Arc<Servable>> = held.values().filter_map(|entry| entry.latest()).collect();
    let names: Vec<String> =
        serving.iter().take(NAMES_MAX).map(|s| format!("{} {}", s.model, s.version)).collect();
    let more = if serving.len() > NAMES_MAX { ", ..." } else { "" };
    match serving.len() {
        0 => say(format_args!("  serving  no model")),
        count => say(format_args!("  serving  {count} ({}{more})", names.join(", "))),
    }
    let failed = held.iter().flat_map(|(name, entry)| {
        let bad = entry.versions.iter().filter(|v| v.servable.is_none() && !v.status.reason.is_empty());
        bad.map(move |v| format!("{name} {}: {}", v.status.version, v.status.reason))
    });
    let problems = inventory
        .models
        .iter()
        .flat_map(|(name, known)| known.problems.iter().map(move |problem| format!("{name}: {problem}")));
    let waiting = inventory.models.iter().filter(|(name, known)| {
        let entry = table.model(name.as_str());
        let decided = |entry: &ModelEntry| {
            entry.versions.iter().any(|v| v.servable.is_some() || !v.status.reason.is_empty())
        };
        known.wanted && known.problems.is_empty() && !entry.is_some_and(decided)
    });
    let waiting = waiting.map(|(name, _)| format!("{name}: not served yet; `gannet models` tells more"));
    let other = inventory.problems.iter().cloned();
    for line in failed.chain(problems).chain(waiting).chain(other).take(NAMES_MAX) {
        say(format_args!("  ! {}", line.replace('\n', "\n    ")));
    }
    if let Some(address) = app.addresses().http
        && let Some(line) = example(&serving, &inventory, &curl(&app.config().tls, address))
    {
        say(format_args!("Try it:\n  {line}"));
    }
}

/// A `curl` line for the model with the shortest request: a golden one where there is any, for that has sense.
fn example(serving: &[&Arc<Servable>], inventory: &Inventory, curl: &str) -> Option<String> {
    let golden =
        serving.iter().filter_map(|servable| Some((*servable, golden_request(servable, inventory)?)));
    let (servable, body) = golden.min_by_key(|(_, body)| body.len()).or_else(|| {
        let made = serving.iter().map(|servable| (*servable, made_up_request(servable)));
        made.filter(|(_, body)| body.len() <= REQUEST_BYTES_MAX).min_by_key(|(_, body)| body.len())
    })?;
    let body = body.replace('\'', "'\\''");
    Some(format!("{curl}/v2/models/{}/infer -d '{body}'", encode(servable.model.as_str())))
}

/// How curl comes to the server.
fn curl(tls: &TlsConfig, address: SocketAddr) -> String {
    let host = match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        _ => address,
    };
    match tls.certificate.as_ref().filter(|_| tls.secures(Port::Http)) {
        None => format!("curl http://{host}"),
        Some(certificate) => {
            let shown = tls.client_ca.as_ref().map_or("", |_| " --cert CLIENT.pem --key CLIENT.key");
            format!("curl --cacert {}{shown} https://{host}", certificate.display())
        }
    }
}

/// As far as it is needed here.
#[derive(Deserialize)]
struct Golden {
    request: Box<RawValue>,
}

/// The shortest golden request of the version's files.
fn golden_request(servable: &Servable, inventory: &Inventory) -> Option<String> {
    let artifact = inventory.models.get(&servable.model)?.artifacts.get(&servable.version)?;
    let requests = artifact.golden_files().into_iter().filter_map(|path| {
        let golden: Golden = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
        Some(compact(golden.request.get()))
    });
    requests.filter(|request| request.len() <= REQUEST_BYTES_MAX).min_by_key(String::len)
}

/// JSON without the spaces between its words, in its own order.
fn compact(json: &str) -> String {
    let (mut in_text, mut escaped) = (false, false);
    let keep = |c: &char| {
        if in_text {
            in_text = escaped || *c != '"';
            escaped = !escaped && *c == '\\';
            return true;
        }
        in_text = *c == '"';
        !c.is_ascii_whitespace()
    };
    json.chars().filter(keep).collect()
}

/// One row of zeros.
fn made_up_request(servable: &Servable) -> String {
    let input = |spec: &TensorSpec| {
        let axis = |&axis: &i64| usize::try_from(axis).unwrap_or(1);
        let shape: Vec<usize> = spec.wire_shape().iter().map(axis).collect();
        let count =
            shape.iter().fold(1usize, |product, &axis| product.saturating_mul(axis)).min(REQUEST_BYTES_MAX);
        let element = match spec.dtype {
            DType::Bool => "false",
            DType::Bytes => "\"text\"",
            _ => "0",
        };
        let (name, datatype) = (serde_json::Value::from(spec.name.as_str()), spec.dtype);
        let (shape, data) = (join(shape.iter()), join(std::iter::repeat_n(element, count)));
        format!(r#"{{"name":{name},"shape":[{shape}],"datatype":"{datatype}","data":[{data}]}}"#)
    };
    format!(r#"{{"inputs":[{}]}}"#, join(servable.signature.inputs.iter().map(input)))
}

fn join(items: impl Iterator<Item = impl ToString>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(",")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_made_compact_outside_of_texts() {
        let check = |json: &str, expected: &str| assert_eq!(compact(json), expected);
        check("{ \"a b\": [1, 2],\n \"c\": \"d \\\" e\" }", r#"{"a b":[1,2],"c":"d \" e"}"#);
        check(r#"{"a": "\\", "b": 1}"#, r#"{"a":"\\","b":1}"#);
    }

    #[test]
    fn names_become_segments() {
        assert_eq!(encode("a b@1.0"), "a%20b%401.0");
    }
}
