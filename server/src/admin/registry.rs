//! Sources that are followed: how they fare, and adding and removing them while the server runs. Must not know how a
//! registry is followed.

use std::{sync::Arc, time::Duration};

use gannet_models::{ModelName, settings::VersionPolicy};
use gannet_registry::{OnAliasMove, Registry, SourceUri, uri::fits};
use serde::Deserialize;
use serde_json::{Value, json};

use super::router::{Answer, Call};
use crate::{
    config::{Credentials, SourceConfig},
    respond::{Kind, Refusal},
    sources,
};

/// What a caller may say of a source.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    uri: String,
    poll_s: Option<u64>,
    versions: Option<String>,
    on_alias_move: Option<String>,
    endpoint: Option<String>,
    credentials: Option<String>,
}

/// Every source.
pub(super) async fn list(call: Call) -> Answer {
    Ok(states(&call))
}

fn states(call: &Call) -> Value {
    let context = &call.context;
    let mut states: Vec<Value> = match context.state.repository.registry() {
        Some(registry) => registry.states().iter().map(|state| json!(state)).collect(),
        None => Vec::new(),
    };
    // folders are watched with the repository
    let stale = context.state.repository.inventory().stale.clone();
    for source in context.config.registry.sources.iter().filter(|source| source.uri.starts_with("file:")) {
        let state = if stale.is_some() { "stale" } else { "healthy" };
        states.push(json!({
            "name": source.name, "uri": source.uri, "kind": "file", "state": state, "last_error": stale,
        }));
    }
    Value::Array(states)
}

/// Looks at all sources soon.
pub(super) async fn look(call: Call) -> Answer {
    Ok(json!({ "sources": registry(&call)?.nudge(None) }))
}

/// Follows one more source.
pub(super) async fn add(call: Call) -> Answer {
    let wanted: Wanted = serde_json::from_slice(&call.body)
        .map_err(|error| Refusal::invalid(format!("the source: {error}")))?;
    let config = &call.context.config.registry;
    allowed(&config.allow, "uri", &wanted.uri)?;
    let name = ModelName::new(&wanted.name)
        .map_err(|error| Refusal::invalid(format!("the source's name: {error}")))?;
    let uri = SourceUri::parse(&wanted.uri).map_err(|why| Refusal::invalid(format!("uri: {why}")))?;
    if matches!(uri, SourceUri::File(_) | SourceUri::Dvc { .. }) {
        return Err(Refusal::new(
            Kind::Forbidden,
            "folders of this machine are named in the configuration only",
        ));
    }
    let mut source = SourceConfig::new(name, &wanted.uri);
    if let Some(seconds) = wanted.poll_s {
        let seconds = Some(seconds).filter(|s| (1..=86_400).contains(s));
        source.poll =
            Duration::from_secs(seconds.ok_or_else(|| Refusal::invalid("poll_s: expected 1 to 86400"))?);
    }
    if let Some(text) = &wanted.versions {
        source.versions =
            versions(text).ok_or_else(|| Refusal::invalid("versions: expected all or latest:N"))?;
    }
    source.on_alias_move = match wanted.on_alias_move.as_deref() {
        None | Some("swap") => OnAliasMove::Swap,
        Some("rollout") => OnAliasMove::Rollout,
        Some(other) => {
            return Err(Refusal::invalid(format!("on_alias_move: expected swap or rollout, got {other:?}")));
        }
    };
    if let Some(endpoint) = wanted.endpoint {
        allowed(&config.allow, "endpoint", &endpoint)?;
        source.endpoint = Some(endpoint);
    }
    if let Some(text) = &wanted.credentials {
        // a caller may use what the operator has named, and read nothing else of this machine
        let named = Credentials::parse(text)
            .filter(|named| config.sources.iter().any(|source| source.credentials.as_ref() == Some(named)));
        source.credentials = Some(named.ok_or_else(|| {
            Refusal::new(Kind::Forbidden, "credentials: expected those of a source in the configuration")
        })?);
    }
    let spec = sources::spec(&source).map_err(Refusal::invalid)?;
    registry(&call)?.add(spec).map_err(|error| Refusal::new(Kind::Conflict, error.to_string()))?;
    Ok(states(&call))
}

/// Follows a source no more.
pub(super) async fn remove(call: Call) -> Answer {
    let name = call.parameters.first().map(String::as_str).unwrap_or_default();
    if !registry(&call)?.remove(name) {
        return Err(Refusal::new(Kind::NotFound, format!("there is no source '{name}'")));
    }
    Ok(states(&call))
}

fn registry(call: &Call) -> Result<&Arc<Registry>, Refusal> {
    call.context.state.repository.registry().ok_or_else(|| {
        Refusal::new(
            Kind::Conflict,
            "no registry is followed, and registry.allow allows none to be added; set it in gannet.toml",
        )
    })
}

fn allowed(patterns: &[String], what: &str, text: &str) -> Result<(), Refusal> {
    if patterns.iter().any(|pattern| fits(pattern, text)) {
        return Ok(());
    }
    let known = if patterns.is_empty() { "nothing".to_owned() } else { patterns.join(", ") };
    Err(Refusal::new(
        Kind::Forbidden,
        format!("{what}: expected one that registry.allow allows ({known}), got {text:?}"),
    ))
}

fn versions(text: &str) -> Option<VersionPolicy> {
    if text == "all" {
        return Some(VersionPolicy::All);
    }
    let count: usize = text.strip_prefix("latest:")?.parse().ok()?;
    (count > 0).then_some(VersionPolicy::Latest(count))
}
