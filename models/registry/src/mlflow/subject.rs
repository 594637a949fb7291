//! What in a tracking server stands for the versions of a source: those of a registered model, a logged model, or what a
//! run logged. Must not know what is noted down there, or when.

use std::sync::Arc;

use super::api::{Api, Logged, RunArtifact};
use crate::{RemoteError, uri::MlflowTarget};

/// Where notes about versions go.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(super) api: Arc<Api>,
    pub(super) target: MlflowTarget,
}

/// A version, as the tracking server knows it; what it does not know is empty.
#[derive(Debug, Default)]
pub(super) struct Described {
    /// Its name there.
    pub(super) model: String,
    pub(super) model_id: Option<String>,
    /// What trained it.
    pub(super) run: String,
    pub(super) experiment: String,
}

impl Subject {
    /// Notes down `value` under `key`.
    ///
    /// # Errors
    /// [`RemoteError::Denied`] also where nothing but a training run could be written to.
    pub(super) async fn set_tag(&self, version: &str, key: &str, value: &str) -> Result<(), RemoteError> {
        match self.registered() {
            Some(model) => self.api.set_tag(model, version, key, value).await,
            None => self.api.set_logged_tag(&self.logged().await?.model_id, key, value).await,
        }
    }

    pub(super) async fn describe(&self, version: &str) -> Result<Described, RemoteError> {
        let Some(model) = self.registered() else {
            let Logged { model_id, name, experiment_id, source_run_id, .. } = self.logged().await?;
            let (model_id, run) = (Some(model_id), source_run_id);
            return Ok(Described { model: name, model_id, run, experiment: experiment_id });
        };
        let found = self.api.version(model, version).await?;
        let model_id = found.model_id().map(str::to_owned);
        let experiment = match &model_id {
            Some(id) => self.api.logged(id).await?.experiment_id,
            None => String::new(),
        };
        Ok(Described { model: model.to_owned(), model_id, run: found.run_id, experiment })
    }

    /// The name, of a registered model.
    fn registered(&self) -> Option<&str> {
        match &self.target {
            MlflowTarget::Alias { model, .. }
            | MlflowTarget::Version { model, .. }
            | MlflowTarget::Stage { model, .. }
            | MlflowTarget::Latest { model } => Some(model),
            MlflowTarget::Logged { .. } | MlflowTarget::Run { .. } => None,
        }
    }

    async fn logged(&self) -> Result<Logged, RemoteError> {
        match &self.target {
            MlflowTarget::Run { run, path } => match self.api.run_artifact(run, path).await? {
                RunArtifact::Model(logged) => Ok(logged),
                RunArtifact::Files { uri } => Err(RemoteError::Denied(format!(
                    "{uri}: expected a logged model, got files of a training run, which are never written to; \
                     register the model, or log it with MLflow 3"
                ))),
            },
            MlflowTarget::Logged { id } => self.api.logged(id).await,
            other => Err(RemoteError::Unusable(format!("{other}: expected a logged model"))),
        }
    }
}
