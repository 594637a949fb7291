//! Sources that are followed: how they fare, and adding and removing them while the server runs. Must not know how a
//! registry is followed.

use std::sync::Arc;

use gannet_models::ModelName;
use gannet_registry::Registry;
use serde_json::{Value, json};

use super::router::{Answer, Call};
use crate::{
    respond::{Kind, Refusal},
    sources::{self, added, added::Wanted},
};

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

/// Follows one more source, over restarts too.
pub(super) async fn add(call: Call) -> Answer {
    let wanted: Wanted = serde_json::from_slice(&call.body)
        .map_err(|error| Refusal::invalid(format!("the source: {error}")))?;
    let config = &call.context.config;
    let source = added::check(&wanted, &config.registry)?;
    let spec = sources::spec(&source).map_err(Refusal::invalid)?;
    let name = source.name;
    let registry = registry(&call)?;
    registry.add(spec).map_err(|error| Refusal::new(Kind::Conflict, error.to_string()))?;
    if let Err(why) = added::keep(&config.state_dir, &name, Some(wanted)) {
        registry.remove(name.as_str());
        return Err(Refusal::new(Kind::Internal, why));
    }
    Ok(states(&call))
}

/// Follows a source no more.
pub(super) async fn remove(call: Call) -> Answer {
    let name = call.parameters.first().map(String::as_str).unwrap_or_default();
    if !registry(&call)?.remove(name) {
        return Err(Refusal::new(Kind::NotFound, format!("there is no source '{name}'")));
    }
    if let Ok(name) = ModelName::new(name) {
        let kept = added::keep(&call.context.config.state_dir, &name, None);
        kept.map_err(|why| Refusal::new(Kind::Internal, why))?;
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
