//! Sources of a server under test, and how it says that they fare. Must not know what is tested.

use std::{path::Path, time::Duration};

use gannet_models::ModelName;
use gannet_server::config::{Config, SourceConfig};
use serde_json::Value;

use super::{
    call,
    server::{Server, command},
    wait,
};

/// A source that is looked at often.
pub(crate) fn source(name: &str, uri: &str) -> SourceConfig {
    let mut source = SourceConfig::new(ModelName::new(name).expect("a name"), uri);
    source.poll = Duration::from_millis(300);
    source
}

/// A server over nothing but these sources.
pub(crate) fn follow(sources: Vec<SourceConfig>, adjust: impl FnOnce(&mut Config)) -> Server {
    Server::start_unready(Path::new("/nonexistent"), |config| {
        config.repository.paths.clear();
        config.registry.sources = sources;
        config.registry.server_name = "test".into();
        adjust(config);
    })
}

/// `gannet pull` of a URI into a folder that nobody needs; what it said, as an error where it failed.
pub(crate) fn pull(uri: &str, options: &[&str]) -> Result<String, String> {
    let into = tempfile::tempdir().expect("a folder");
    let mut command = command();
    command.args(["pull", uri]).arg(into.path().join("models")).args(options);
    let output = command.output().expect("the command runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// What the admin API says of one source.
#[track_caller]
pub(crate) fn state(server: &Server, source: &str) -> Value {
    let states = call::get(server.admin(), "/admin/v1/registry").ok();
    let states = states.as_array().expect("a list");
    states.iter().find(|state| state["name"] == source).cloned().unwrap_or_default()
}

/// Waits until a source says something, and gives its state then.
#[track_caller]
pub(crate) fn until(server: &Server, source: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let ended = wait::holds_within(wait::BOUND, || {
        last = state(server, source);
        holds(&last)
    });
    assert!(ended, "{what}: {last:#}");
    last
}

/// Waits until a version of a model is ready.
#[track_caller]
pub(crate) fn ready(server: &Server, model: &str, version: &str) {
    let is_ready = |line: &(String, String, String)| line.0 == version && line.1 == "READY";
    let mut lines = Vec::new();
    let ended = wait::holds_within(wait::BOUND, || {
        lines = call::index(server.http(), model);
        lines.iter().any(is_ready)
    });
    let states = call::get(server.admin(), "/admin/v1/registry").text;
    assert!(ended, "{model} {version} is not ready: {lines:?}\n{states}");
}

/// A source's last error and problems in one text.
pub(crate) fn faults(state: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let aspired = list(&state["aspired"]).into_iter().flat_map(|one| list(&one["problems"]));
    let all = list(&state["problems"]).into_iter().chain(aspired).chain([state["last_error"].clone()]);
    all.filter_map(|text| text.as_str().map(str::to_owned)).collect::<Vec<_>>().join("\n")
}
