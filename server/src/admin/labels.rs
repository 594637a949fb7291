//! Labels: names for versions that callers may use in place of them. Must not know how they are resolved.

use gannet_models::{ModelName, Version};
use serde::Deserialize;
use serde_json::json;

use super::router::{Answer, Call};
use crate::respond::{Kind, Refusal};

/// Longest label, in bytes.
const LABEL_BYTES_MAX: usize = 255;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    version: String,
}

/// Gives a label to a version that serves.
pub(super) async fn put(call: Call) -> Answer {
    let body: Body = serde_json::from_slice(&call.body).map_err(|error| {
        Refusal::invalid(format!("the body: expected {{\"version\": \"2\"}}, got something else: {error}"))
    })?;
    let version = super::models::parse_version(&body.version)?;
    set(&call, Some(version)).await
}

/// Takes a label away.
pub(super) async fn delete(call: Call) -> Answer {
    set(&call, None).await
}

async fn set(call: &Call, version: Option<Version>) -> Answer {
    let [model, label] = &call.parameters[..] else {
        return Err(Refusal::new(Kind::Internal, "the route has no model and label"));
    };
    let name = ModelName::new(model).map_err(|error| Refusal::invalid(format!("model name: {error}")))?;
    let table = call.context.state.table().snapshot();
    let entry = table
        .model(model)
        .ok_or_else(|| Refusal::new(Kind::NotFound, format!("there is no model '{model}'")))?;
    let is_version = entry.versions.iter().any(|known| known.status.version.as_str() == label);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if version.is_some() && (is_version || label.len() > LABEL_BYTES_MAX || !label.chars().all(allowed)) {
        return Err(Refusal::invalid(format!(
            "label {label:?}: expected letters, digits, '-', '_' and '.', and no name of a version of the model"
        )));
    }
    let known = match &version {
        Some(version) => entry.versions.iter().any(|known| known.status.version == *version),
        None => entry.labels.contains_key(label),
    };
    drop(table);
    let set = call.context.state.traffic.set_label(name, label.clone(), version).await;
    set.map_err(|refusal| match refusal.kind {
        Kind::Conflict if !known => Refusal { kind: Kind::NotFound, ..refusal },
        _ => refusal,
    })?;
    let table = call.context.state.table().snapshot();
    let labels = table.model(model).map(|entry| entry.labels.clone()).unwrap_or_default();
    let labels: serde_json::Map<String, serde_json::Value> =
        labels.into_iter().map(|(label, version)| (label, json!(version.as_str()))).collect();
    Ok(json!({ "model": model, "labels": labels }))
}
