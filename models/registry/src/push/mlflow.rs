//! Pushes a package to MLflow: a logged model with its artifacts, then a version of the registered model, then the
//! alias. Must not know how versions are served.

use bytes::Bytes;
use gannet_models::{Digest, digest::FileEntry};
use reqwest::Method;
use serde_json::{Value, json};

use super::Package;
use crate::{
    RemoteError,
    http::Ask,
    mlflow::api::Api,
    package::{MANIFEST_FILE, Manifest},
    uri::{MlflowTarget, SourceUri},
};

/// The experiment that logged models without a run belong to.
const EXPERIMENT: &str = "0";

pub(super) async fn push(package: &Package<'_>) -> Result<(String, bool), RemoteError> {
    let SourceUri::Mlflow { base, target } = &package.spec.uri else {
        return Err(RemoteError::Unusable("expected the URI of a tracking server".to_owned()));
    };
    let (model, alias) = match target {
        MlflowTarget::Latest { model } => (model, None),
        MlflowTarget::Alias { model, alias } => (model, Some(alias)),
        other => {
            return Err(RemoteError::Unusable(format!(
                "expected mlflow+http(s)://host/model or .../model@alias to push to, got {other}; the server gives \
                 versions their numbers"
            )));
        }
    };
    let base = base.clone().or_else(|| package.spec.endpoint.clone());
    let base =
        base.ok_or_else(|| RemoteError::Unusable("expected to know the tracking server".to_owned()))?;
    let api = Api::new(package.http()?, base.trim_end_matches('/').to_owned());
    let logged: Value = api
        .post("mlflow/logged-models", &json!({ "experiment_id": EXPERIMENT, "name": safe_name(model) }))
        .await?;
    let info = &logged["model"]["info"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (id, uri) = (text(&info["model_id"]), text(&info["artifact_uri"]));
    let Some(root) = uri.strip_prefix("mlflow-artifacts:").map(|path| path.trim_matches('/').to_owned())
    else {
        return Err(RemoteError::Unusable(format!(
            "expected artifacts behind the tracking server, got {uri:?}; start it with --serve-artifacts"
        )));
    };
    let mut files = package.files.clone();
    if !files.iter().any(|file| file.path == "MLmodel") {
        let described = mlmodel(package, &id)?;
        let (size, digest) = (described.len() as u64, Digest::of(described.as_bytes()));
        files.push(FileEntry { path: "MLmodel".to_owned(), size, digest });
        put(&api, &format!("{root}/MLmodel"), Bytes::from(described)).await?;
    }
    for file in &package.scanned {
        let url = api.artifact_url(&format!("{root}/{}", file.name));
        api.http.put_file(&url, &file.path, "application/octet-stream").await?;
    }
    // last, as in any other place: what is listed is there
    files.sort_by(|a, b| a.path.cmp(&b.path));
    put(&api, &format!("{root}/{MANIFEST_FILE}"), Bytes::from(Manifest::of(&files).to_json())).await?;
    let url = format!("{}/api/2.0/mlflow/logged-models/{}", api.base, crate::http::segment(&id));
    let body = json!({ "model_id": id, "status": "LOGGED_MODEL_READY" }).to_string();
    api.http.ask(Ask::send(Method::PATCH, &url, Bytes::from(body), "application/json")).await?;
    match api.post("mlflow/registered-models/create", &json!({ "name": model })).await {
        // it is there already
        Ok(_) | Err(RemoteError::Missing(_)) => {}
        Err(error) => return Err(error),
    }
    let source = format!("models:/{id}");
    let body = json!({ "name": model, "source": source, "model_id": id });
    let created = api.post("mlflow/model-versions/create", &body).await?;
    let version = text(&created["model_version"]["version"]);
    if let Some(alias) = alias {
        let body = json!({ "name": model, "alias": alias, "version": version });
        api.post("mlflow/registered-models/alias", &body).await?;
    }
    Ok((format!("mlflow+{}/{model}/{version}", api.base), false))
}

async fn put(api: &Api, path: &str, content: Bytes) -> Result<(), RemoteError> {
    let url = api.artifact_url(path);
    api.http.ask(Ask::send(Method::PUT, &url, content, "application/octet-stream")).await.map(drop)
}

/// The description that MLflow's own clients read.
fn mlmodel(package: &Package<'_>, id: &str) -> Result<String, RemoteError> {
    if !package.files.iter().any(|file| file.path == "model.onnx") {
        return Err(RemoteError::Unusable(
            "expected model.onnx or an MLmodel file in the package, got neither".to_owned(),
        ));
    }
    Ok(format!(
        "flavors:\n  onnx:\n    code: null\n    data: model.onnx\n  python_function:\n    data: model.onnx\n    \
         loader_module: mlflow.onnx\nmodel_id: {id}\n"
    ))
}

/// A logged model's name may not hold some characters that a registered model's may.
fn safe_name(model: &str) -> String {
    model.chars().map(|c| if "/:.%\"'".contains(c) { '-' } else { c }).collect()
}
