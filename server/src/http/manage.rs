//! Everything but inference: health, metadata, configuration, statistics, the repository. Must not know how any of
//! it comes about.

use base64::Engine as _;
use bytes::Bytes;
use gannet_models::pbtxt;
use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Answered, body, feedback, json_answer, route::Route};
use crate::{
    describe,
    repository::LoadOverride,
    respond::{Kind, Refusal},
    state::State,
};

/// Answers everything but inference.
///
/// # Errors
/// Every refusal that these paths can meet.
pub async fn answer(
    state: &State,
    route: Route<'_>,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Answered, Refusal> {
    match route {
        Route::ServerMetadata => ok(&describe::server_metadata()),
        Route::Live => ok(&json!({"live": true})),
        Route::Ready => Ok(readiness(state.is_ready(), &json!({"ready": state.is_ready()}))),
        Route::AllStatistics => ok(&describe::statistics(&state.table().snapshot(), None, None)?),
        Route::ModelStatistics { model, version } => {
            ok(&describe::statistics(&state.table().snapshot(), Some(&model), version.as_deref())?)
        }
        Route::ModelMetadata { model, version } => {
            ok(&describe::model_metadata(&state.table().snapshot(), &model, version.as_deref())?)
        }
        Route::ModelConfig { model, version } => {
            let config = describe::model_config(&state.table().snapshot(), &model, version.as_deref())?;
            ok(&pbtxt::to_json(&config))
        }
        Route::ModelReady { model, version } => model_ready(state, &model, version.as_deref()),
        Route::Feedback { model } => {
            let (body, _permit) = body::read(state, headers, body, 0).await?;
            ok(&feedback::take(state, &model, &body)?)
        }
        Route::RepositoryIndex => index(state, &request(state, headers, body).await?),
        Route::RepositoryLoad { model } => {
            state.allow_repository_change()?;
            let change = load_override(&request(state, headers, body).await?)?;
            state.repository.load(&model, change).await?;
            Ok(json_answer(StatusCode::OK, b"{}".to_vec()))
        }
        Route::RepositoryUnload { model } => {
            state.allow_repository_change()?;
            // `unload_dependents` is accepted: there are no dependents
            request(state, headers, body).await?;
            state.repository.unload(&model).await?;
            Ok(json_answer(StatusCode::OK, b"{}".to_vec()))
        }
        // the caller answers inference itself
        Route::Infer { .. } => Err(Refusal::new(Kind::NotFound, "Not Found")),
    }
}

fn ok(value: &impl Serialize) -> Result<Answered, Refusal> {
    answer_json(StatusCode::OK, value)
}

fn answer_json(status: StatusCode, value: &impl Serialize) -> Result<Answered, Refusal> {
    let body = serde_json::to_vec(value).map_err(|error| Refusal::new(Kind::Internal, error.to_string()))?;
    Ok(json_answer(status, body))
}

fn readiness(ready: bool, body: &Value) -> Answered {
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_answer(status, body.to_string().into_bytes())
}

fn model_ready(state: &State, model: &str, version: Option<&str>) -> Result<Answered, Refusal> {
    match state.table().resolve(model, version) {
        Ok(_) => Ok(readiness(true, &json!({"name": model, "ready": true}))),
        Err(error) => {
            let refusal = Refusal::from(error);
            let body = json!({"name": model, "ready": false, "error": refusal.message});
            Ok(json_answer(refusal.kind.status(), body.to_string().into_bytes()))
        }
    }
}

/// The body of a repository call: an object, or nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RepositoryRequest {
    ready: bool,
    parameters: Map<String, Value>,
}

async fn request(state: &State, headers: &HeaderMap, body: Incoming) -> Result<RepositoryRequest, Refusal> {
    let (body, _permit) = body::read(state, headers, body, 0).await?;
    if body.is_empty() {
        return Ok(RepositoryRequest::default());
    }
    serde_json::from_slice(&body)
        .map_err(|error| Refusal::invalid(format!("failed to parse the request JSON: {error}")))
}

#[derive(Serialize)]
struct IndexLine {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

fn index(state: &State, request: &RepositoryRequest) -> Result<Answered, Refusal> {
    let entries = state.repository.index(request.ready).into_iter();
    let lines: Vec<IndexLine> = entries
        .map(|entry| IndexLine {
            name: entry.name,
            version: entry.version,
            state: entry.state,
            reason: entry.reason,
        })
        .collect();
    ok(&lines)
}

fn load_override(request: &RepositoryRequest) -> Result<LoadOverride, Refusal> {
    let mut change = LoadOverride::default();
    for (name, value) in &request.parameters {
        let text = |what: &str| {
            let expected = || Refusal::invalid(format!("parameter '{name}' must be {what}"));
            value.as_str().ok_or_else(expected)
        };
        if name == "config" {
            change.config = Some(text("a model configuration in JSON, as a string")?.to_owned());
        } else if let Some(path) = name.strip_prefix("file:") {
            let content = base64::engine::general_purpose::STANDARD
                .decode(text("the file's content in base64")?)
                .map_err(|error| Refusal::invalid(format!("parameter '{name}' is not base64: {error}")))?;
            change.files.push((path.to_owned(), Bytes::from(content)));
        } else {
            return Err(Refusal::invalid(format!(
                "parameter '{name}' is not known; a load takes 'config' and 'file:<version>/<name>'"
            )));
        }
    }
    Ok(change)
}
