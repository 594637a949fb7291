//! The calls of MLflow's REST API that are made, with every field of their answers optional, as the server leaves out
//! what is empty. Must not know what the answers are used for.

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    RemoteError,
    http::{Ask, Http},
};

/// A version as the registry describes it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ModelVersion {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) creation_timestamp: i64,
    pub(crate) source: String,
    pub(crate) status: String,
    pub(crate) run_id: String,
    pub(crate) tags: Vec<Tag>,
}

/// What somebody noted down of a version or of a logged model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tag {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl ModelVersion {
    /// The version as a number, for choosing the newest.
    pub(crate) fn number(&self) -> u64 {
        self.version.parse().unwrap_or(0)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.status.is_empty() || self.status == "READY"
    }

    /// `m-...`, where the version is of a logged model.
    pub(crate) fn model_id(&self) -> Option<&str> {
        self.source.strip_prefix("models:/").filter(|id| id.starts_with("m-"))
    }
}

impl Tag {
    /// What `tags` say of a key.
    pub(crate) fn find<'a>(tags: &'a [Self], key: &str) -> Option<&'a str> {
        tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OneVersion {
    model_version: ModelVersion,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ManyVersions {
    model_versions: Vec<ModelVersion>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ArtifactUri {
    artifact_uri: String,
}

/// What is known of a logged model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Logged {
    /// `m-...`
    pub(crate) model_id: String,
    pub(crate) artifact_uri: String,
    pub(crate) name: String,
    pub(crate) experiment_id: String,
    pub(crate) source_run_id: String,
    pub(crate) tags: Vec<Tag>,
}

/// What a run logged under a path.
pub(crate) enum RunArtifact {
    /// A model of that name, which has an entry of its own.
    Model(Logged),
    /// Files among the run's own, as before MLflow 3.
    Files { uri: String },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LoggedAnswer {
    model: LoggedModel,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LoggedModel {
    info: Logged,
}

/// One entry of a folder of artifacts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ListedArtifact {
    pub(crate) path: String,
    pub(crate) is_dir: bool,
    pub(crate) file_size: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListedArtifacts {
    files: Vec<ListedArtifact>,
}

/// One value of a monitoring run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Metric {
    pub(crate) key: String,
    pub(crate) value: f64,
    pub(crate) timestamp: u64,
    pub(crate) step: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model_id: Option<String>,
}

/// A tracking server.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) http: Http,
    pub(crate) base: String,
}

impl Api {
    pub(crate) fn new(http: Http, base: String) -> Self {
        Self { http, base }
    }

    /// `{base}/api/2.0/...?name=value`, every value encoded.
    fn url(&self, path: &str, query: &[(&str, &str)]) -> String {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let query: Vec<String> =
            query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}/api/2.0/{path}{mark}{}", self.base, query.join("&"))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, RemoteError> {
        self.http.json(Ask::get(&self.url(path, query))).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, RemoteError> {
        self.send(Method::POST, path, body).await
    }

    async fn send(&self, verb: Method, path: &str, body: &Value) -> Result<Value, RemoteError> {
        let body = Bytes::from(body.to_string());
        let url = self.url(path, &[]);
        let answer = self.http.bytes(Ask::send(verb, &url, body, "application/json")).await?;
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }

    pub(crate) async fn by_alias(&self, model: &str, alias: &str) -> Result<ModelVersion, RemoteError> {
        let query = [("name", model), ("alias", alias)];
        let answer: OneVersion = self.get("mlflow/registered-models/alias", &query).await?;
        named(answer.model_version)
    }

    pub(crate) async fn version(&self, model: &str, version: &str) -> Result<ModelVersion, RemoteError> {
        let query = [("name", model), ("version", version)];
        let answer: OneVersion = self.get("mlflow/model-versions/get", &query).await?;
        named(answer.model_version)
    }

    pub(crate) async fn by_stage(&self, model: &str, stage: &str) -> Result<Vec<ModelVersion>, RemoteError> {
        let query = [("name", model), ("stages", stage)];
        let answer: ManyVersions = self.get("mlflow/registered-models/get-latest-versions", &query).await?;
        Ok(answer.model_versions)
    }

    /// The newest versions, newest first.
    pub(crate) async fn newest(&self, model: &str, count: usize) -> Result<Vec<ModelVersion>, RemoteError> {
        if model.contains(['\'', '"']) {
            return Err(RemoteError::Unusable(format!(
                "the name {model:?} has quotes, by which no model can be searched"
            )));
        }
        let (filter, count) = (format!("name='{model}'"), count.to_string());
        let query = [("filter", &*filter), ("max_results", &*count), ("order_by", "version_number DESC")];
        let answer: ManyVersions = self.get("mlflow/model-versions/search", &query).await?;
        // a search is no promise: what it gives is checked
        Ok(answer.model_versions.into_iter().filter(|version| version.name == model).collect())
    }

    pub(crate) async fn download_uri(&self, model: &str, version: &str) -> Result<String, RemoteError> {
        let query = [("name", model), ("version", version)];
        let answer: ArtifactUri = self.get("mlflow/model-versions/get-download-uri", &query).await?;
        Ok(answer.artifact_uri)
    }

    pub(crate) async fn logged(&self, id: &str) -> Result<Logged, RemoteError> {
        let answer: LoggedAnswer =
            self.get(&format!("mlflow/logged-models/{}", crate::http::segment(id)), &[]).await?;
        Ok(answer.model.info)
    }

    /// What a run logged under `path`.
    pub(crate) async fn run_artifact(&self, run: &str, path: &str) -> Result<RunArtifact, RemoteError> {
        let answer: Value = self.get("mlflow/runs/get", &[("run_id", run)]).await?;
        let run = &answer["run"];
        let outputs = run["outputs"]["model_outputs"].as_array().cloned().unwrap_or_default();
        for id in outputs.iter().filter_map(|output| output["model_id"].as_str()).take(100) {
            let logged = self.logged(id).await?;
            if logged.name == path {
                return Ok(RunArtifact::Model(logged));
            }
        }
        match run["info"]["artifact_uri"].as_str() {
            Some(root) => Ok(RunArtifact::Files { uri: format!("{}/{path}", root.trim_end_matches('/')) }),
            None => Err(RemoteError::Missing("the run has no artifacts".to_owned())),
        }
    }

    /// What lies directly below a folder of proxied artifacts.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<ListedArtifact>, RemoteError> {
        let answer: ListedArtifacts = self.get("mlflow-artifacts/artifacts", &[("path", path)]).await?;
        Ok(answer.files)
    }

    /// Where a proxied artifact is read and written.
    pub(crate) fn artifact_url(&self, path: &str) -> String {
        format!("{}/api/2.0/mlflow-artifacts/artifacts/{}", self.base, crate::http::path(path))
    }

    pub(crate) async fn set_tag(
        &self,
        model: &str,
        version: &str,
        key: &str,
        value: &str,
    ) -> Result<(), RemoteError> {
        let body = json!({ "name": model, "version": version, "key": key, "value": value });
        self.post("mlflow/model-versions/set-tag", &body).await.map(drop)
    }

    pub(crate) async fn set_logged_tag(&self, id: &str, key: &str, value: &str) -> Result<(), RemoteError> {
        let path = format!("mlflow/logged-models/{}/tags", crate::http::segment(id));
        let body = json!({ "tags": [{ "key": key, "value": value }] });
        self.send(Method::PATCH, &path, &body).await.map(drop)
    }

    pub(crate) async fn log_metrics(&self, run: &str, metrics: &[Metric]) -> Result<(), RemoteError> {
        let body = json!({ "run_id": run, "metrics": metrics });
        self.post("mlflow/runs/log-batch", &body).await.map(drop)
    }
}

fn named(version: ModelVersion) -> Result<ModelVersion, RemoteError> {
    if version.version.is_empty() {
        return Err(RemoteError::Down(
            "the answer names no version; is this a tracking server of MLflow?".to_owned(),
        ));
    }
    Ok(version)
}
