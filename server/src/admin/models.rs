//! Models and versions: what they are, and loading, unloading and reloading them. Must not know how that is done.

use gannet_models::{ModelName, Version};
use serde_json::{Value, json};

use super::{
    router::{Answer, Call},
    view,
};
use crate::{
    repository::ControlMode,
    respond::{Kind, Refusal},
};

/// Every model.
pub(super) async fn list(call: Call) -> Answer {
    let state = &call.context.state;
    let (table, inventory) = (state.table().snapshot(), state.repository.inventory());
    let held = table.models();
    let names =
        view::names(held.keys().map(|name| name.as_str()), inventory.models.keys().map(ModelName::as_str));
    let models: Vec<Value> = names
        .into_iter()
        .map(|name| view::model(name, table.model(name), inventory.models.get(name)))
        .collect();
    Ok(json!({
        "ready": state.is_ready(),
        "draining": state.admission.is_draining(),
        "problems": inventory.problems,
        "stale": inventory.stale,
        "models": models,
    }))
}

/// One model.
pub(super) async fn one(call: Call) -> Answer {
    let name = model(&call)?;
    let state = &call.context.state;
    let (table, inventory) = (state.table().snapshot(), state.repository.inventory());
    Ok(view::model(name.as_str(), table.model(name.as_str()), inventory.models.get(&name)))
}

/// One version, by its name or a label.
pub(super) async fn version(call: Call) -> Answer {
    let (name, version) = target(&call)?;
    Ok(show(&call, &name, &version))
}

/// Adds a version to those that are wanted; answers once it serves.
pub(super) async fn load(call: Call) -> Answer {
    select(call, true).await
}

/// Takes a version out of those that are wanted; answers once no new request reaches it.
pub(super) async fn unload(call: Call) -> Answer {
    select(call, false).await
}

async fn select(call: Call, load: bool) -> Answer {
    let (name, version) = target(&call)?;
    let repository = &call.context.state.repository;
    let what = if load { "load" } else { "unload" };
    let instead = match (repository.mode(), load) {
        (ControlMode::Explicit, _) => None,
        (ControlMode::Poll, true) => {
            Some("put its folder into the repository and let the model's version policy choose it")
        }
        (ControlMode::Poll, false) => {
            Some("take its folder out of the repository, or leave it out of the version policy")
        }
        (ControlMode::None, _) => Some("the set is fixed at the start"),
    };
    if let Some(instead) = instead {
        return Err(Refusal::new(
            Kind::Conflict,
            format!(
                "version '{version}' of '{name}' cannot be {what}ed by a call, because the folders decide what is \
                 served: {instead}; or start with --model-control explicit"
            ),
        ));
    }
    repository.select_version(name.clone(), version.clone(), load).await?;
    settled(&call, &name, &version, load).await
}

/// Loads a fresh copy of a version that is wanted, and swaps it in.
pub(super) async fn reload(call: Call) -> Answer {
    let (name, version) = target(&call)?;
    let control = &call.context.state.control;
    control
        .reload(name.clone(), version.clone())
        .await
        .map_err(|_| Refusal::new(Kind::Unavailable, "the server is shutting down"))?
        .map_err(|why| Refusal::new(Kind::Conflict, why))?;
    settled(&call, &name, &version, true).await
}

/// The version once nothing goes on with the model any more; a refusal when it should serve as wanted and does not.
async fn settled(call: &Call, name: &ModelName, version: &Version, serves: bool) -> Answer {
    let statuses = call.context.state.control.settle(name.clone()).await.unwrap_or_default();
    let status = statuses.iter().find(|status| status.version == *version);
    let done = match status {
        Some(status) => status.is_ready() && status.reason.is_empty(),
        None => false,
    };
    if serves && !done {
        let why = status.map_or_else(
            || "the repository delivers nothing for it; see the model's problems".to_owned(),
            gannet_runtime::control::lifecycle::VersionStatus::describe,
        );
        return Err(Refusal::new(
            Kind::Conflict,
            format!("version '{version}' of '{name}' was not loaded: {why}"),
        ));
    }
    Ok(show(call, name, version))
}

fn show(call: &Call, name: &ModelName, version: &Version) -> Value {
    let state = &call.context.state;
    let (table, inventory) = (state.table().snapshot(), state.repository.inventory());
    view::version(name.as_str(), version, table.model(name.as_str()), inventory.models.get(name))
}

/// The model of the path, if there is one.
pub(super) fn model(call: &Call) -> Result<ModelName, Refusal> {
    let text = call.parameters.first().map(String::as_str).unwrap_or_default();
    let name = ModelName::new(text).map_err(|error| Refusal::invalid(format!("model name: {error}")))?;
    let state = &call.context.state;
    if state.table().snapshot().model(text).is_none()
        && !state.repository.inventory().models.contains_key(&name)
    {
        return Err(Refusal::new(
            Kind::NotFound,
            format!("there is no model '{name}'; GET /admin/v1/models lists what there is"),
        ));
    }
    Ok(name)
}

/// The model and version of the path, if there are such; a label stands for its version.
pub(super) fn target(call: &Call) -> Result<(ModelName, Version), Refusal> {
    let name = model(call)?;
    let text = call.parameters.get(1).map(String::as_str).unwrap_or_default();
    let state = &call.context.state;
    let (table, inventory) = (state.table().snapshot(), state.repository.inventory());
    let entry = table.model(name.as_str());
    let known = view::versions(entry, inventory.models.get(&name));
    let labelled = entry.and_then(|entry| entry.labels.get(text));
    match known.iter().find(|version| version.as_str() == text).or(labelled) {
        Some(version) => Ok((name, version.clone())),
        None => {
            parse_version(text)?;
            let known: Vec<&str> = known.iter().map(Version::as_str).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            let message = format!(
                "there is no version '{text}' of '{name}' that its version policy chooses; known: {known}"
            );
            Err(Refusal::new(Kind::NotFound, message))
        }
    }
}

pub(super) fn parse_version(text: &str) -> Result<Version, Refusal> {
    Version::new(text).map_err(|error| Refusal::invalid(format!("version: {error}")))
}
