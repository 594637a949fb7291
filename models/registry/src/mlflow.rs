//! MLflow: a registered model's alias, stage or version, a logged model or a run's, through the tracking server's REST
//! API and its artifacts, proxied or direct. Must not know when to look, or how a model is run.

pub(crate) mod api;
pub(crate) mod artifacts;
mod flavor;
mod mlmodel;
mod subject;
pub(crate) mod torch_script;
pub mod write;

use std::sync::Arc;

use gannet_models::{Digest, IngestLimits, ModelName, Version, settings::VersionPolicy};

pub use self::mlmodel::{example_file, settings_of};
use self::{
    api::{Api, Logged, ModelVersion, RunArtifact, Tag},
    artifacts::Artifacts,
    subject::Subject,
};
use crate::{
    RemoteError, SourceSpec,
    http::Http,
    listing::{ListedModel, ListedVersion, Listing},
    opened::Opened,
    package::{Check, MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest, Plan, PlannedFile},
    s3::S3Options,
    uri::{MlflowTarget, SourceUri},
};

/// Bytes of an `MLmodel` file.
const MLMODEL_BYTES_MAX: usize = 1 << 20;
/// The tag of a version or of a logged model that says what its files were when they were first fetched, by whomever:
/// MLflow itself keeps no digests.
const SEAL_TAG: &str = "serving.sha256";
const SEAL_WHENCE: &str = "the tag serving.sha256 of the version or of its logged model, from when it was first fetched; \
                           delete it if the files were changed on purpose";
/// Versions that one look lists.
const VERSIONS_MAX: usize = 200;

/// One model of a tracking server.
pub(crate) struct Mlflow {
    name: ModelName,
    api: Arc<Api>,
    target: MlflowTarget,
    versions: VersionPolicy,
    artifacts: Artifacts,
}

impl Mlflow {
    pub(crate) fn new(
        spec: &SourceSpec,
        http: Http,
        store: S3Options,
        limits: IngestLimits,
    ) -> Result<Self, RemoteError> {
        let SourceUri::Mlflow { base, target } = &spec.uri else {
            return Err(RemoteError::Unusable("expected the URI of a tracking server".to_owned()));
        };
        let base = base.clone().or_else(|| spec.endpoint.clone()).ok_or_else(|| {
            RemoteError::Unusable(format!(
                "{}: expected to know the tracking server; name it with endpoint = \"http(s)://host:port\", or write \
                 mlflow+http(s)://host:port/{target}",
                spec.uri_text
            ))
        })?;
        let api = Arc::new(Api::new(http, base.trim_end_matches('/').to_owned()));
        // an endpoint that was needed for the tracking server names no object store
        let named_server = matches!(&spec.uri, SourceUri::Mlflow { base: Some(_), .. });
        let endpoint = store.endpoint.clone().filter(|_| named_server);
        // the tracking server's user means nothing to an object store
        let store = S3Options { endpoint, secrets: Arc::new(|| Ok(None)), ..store };
        let artifacts = Artifacts::new(Arc::clone(&api), store, spec.artifacts_dir.clone(), limits);
        let versions = spec.versions.clone();
        Ok(Self { name: spec.name.clone(), api, target: target.clone(), versions, artifacts })
    }

    pub(crate) async fn list(&mut self) -> Result<Listing, RemoteError> {
        match &self.target {
            MlflowTarget::Alias { model, alias } => self.pointed_to(&self.api.by_alias(model, alias).await?),
            MlflowTarget::Version { model, version } => {
                self.pointed_to(&self.api.version(model, version).await?)
            }
            MlflowTarget::Stage { model, stage } => {
                let found = self.api.by_stage(model, stage).await?;
                let found = found.into_iter().max_by_key(ModelVersion::number).ok_or_else(|| {
                    RemoteError::Missing(format!("'{model}' has no version in stage '{stage}'"))
                })?;
                self.pointed_to(&found)
            }
            MlflowTarget::Latest { model } => {
                let count = match &self.versions {
                    VersionPolicy::Latest(count) => (*count).clamp(1, VERSIONS_MAX),
                    VersionPolicy::All | VersionPolicy::Specific(_) => VERSIONS_MAX,
                };
                let found = self.api.newest(model, count).await?;
                if found.is_empty() {
                    return Err(RemoteError::Missing(format!("'{model}' has no versions")));
                }
                let versions = found.iter().filter(|version| version.is_ready());
                let versions = versions.map(listed).collect::<Result<Vec<_>, _>>()?;
                let model =
                    ListedModel { name: self.name.clone(), settings: None, pointed_to: false, versions };
                Ok(Listing { models: vec![model], ..Listing::default() })
            }
            MlflowTarget::Logged { id } => self.logged(id, &self.api.logged(id).await?),
            MlflowTarget::Run { run, path } => match self.api.run_artifact(run, path).await? {
                RunArtifact::Model(logged) => self.logged(run, &logged),
                RunArtifact::Files { uri } => self.one(run, &uri, None),
            },
        }
    }

    fn pointed_to(&self, found: &ModelVersion) -> Result<Listing, RemoteError> {
        if !found.is_ready() {
            let (name, version, status) = (&found.name, &found.version, &found.status);
            return Err(RemoteError::Missing(format!(
                "version {version} of '{name}' is not ready there: {status}"
            )));
        }
        Ok(Listing::of(&self.name, listed(found)?))
    }

    fn logged(&self, version: &str, logged: &Logged) -> Result<Listing, RemoteError> {
        self.one(version, &logged.artifact_uri, seal(&logged.tags))
    }

    fn one(&self, version: &str, uri: &str, seal: Option<Digest>) -> Result<Listing, RemoteError> {
        let version = parse_version(version)?;
        let (tag, locator) = (uri.to_owned(), format!("uri {uri}"));
        Ok(Listing::of(&self.name, ListedVersion { version, tag, locator, seal }))
    }

    pub(crate) async fn plan(&self, version: &ListedVersion) -> Result<Plan, RemoteError> {
        let uri = match version.locator.split_once(' ') {
            Some(("uri", uri)) => uri.to_owned(),
            Some((number, model)) => self.api.download_uri(model, number).await?,
            None => return Err(RemoteError::Unusable("no such version".to_owned())),
        };
        let found = self.artifacts.list(&uri).await?;
        let mlmodel = found.iter().find(|file| file.path == "MLmodel").ok_or_else(|| {
            RemoteError::Unusable(format!(
                "{uri}: expected an MLmodel file, got none; log the model with MLflow"
            ))
        })?;
        let text = self.artifacts.small(&mlmodel.locator, MLMODEL_BYTES_MAX).await?;
        let described = mlmodel::MlModel::parse(&text)?;
        let paths: Vec<&str> = found.iter().map(|file| file.path.as_str()).collect();
        let shape = flavor::choose(&described, &paths)?;
        let files = match found.iter().find(|file| file.path == MANIFEST_FILE) {
            // what `gannet push` brought says what its bytes are; MLflow itself keeps no digests
            Some(manifest) => {
                let text = self.artifacts.small(&manifest.locator, MANIFEST_BYTES_MAX).await?;
                let at = |path: &str| found.iter().find(|file| file.path == path);
                let plan = Manifest::read(&text, |path| {
                    at(path).map_or(String::new(), |file| file.locator.clone())
                })?;
                if let Some(missing) = plan.files.iter().find(|file| file.locator.is_empty()) {
                    return Err(RemoteError::Unusable(format!(
                        "{MANIFEST_FILE} lists '{}', which is not there; push the package anew",
                        missing.path
                    )));
                }
                plan.files
            }
            None => {
                let file = |file: &artifacts::Found| PlannedFile {
                    path: file.path.clone(),
                    size: file.size,
                    check: Check::Size,
                    locator: file.locator.clone(),
                };
                found.iter().map(file).collect()
            }
        };
        // a list of digests says more than the seal
        let seal = version.seal.filter(|_| files.iter().any(|file| file.check == Check::Size));
        Ok(Plan {
            files,
            digest: seal.map(|digest| (digest, SEAL_WHENCE)),
            renames: shape.renames,
            torch_script: shape.torch_script,
            ..Plan::default()
        })
    }

    pub(crate) async fn open(
        &self,
        file: &PlannedFile,
        offset: u64,
        etag: Option<&str>,
    ) -> Result<Opened, RemoteError> {
        self.artifacts.open(&file.locator, offset, etag).await
    }

    /// Where notes about the versions go.
    pub(crate) fn subject(&self) -> Subject {
        Subject { api: Arc::clone(&self.api), target: self.target.clone() }
    }

    /// Notes down what the files of a version are, for whoever fetches them later.
    pub(crate) async fn seal(&self, version: &ListedVersion, digest: &Digest) -> Result<(), RemoteError> {
        self.subject().set_tag(version.version.as_str(), SEAL_TAG, &digest.to_string()).await
    }
}

fn seal(tags: &[Tag]) -> Option<Digest> {
    Tag::find(tags, SEAL_TAG).and_then(|text| text.parse().ok())
}

fn listed(found: &ModelVersion) -> Result<ListedVersion, RemoteError> {
    Ok(ListedVersion {
        version: parse_version(&found.version)?,
        tag: format!("{} {} {}", found.version, found.creation_timestamp, found.source),
        locator: format!("{} {}", found.version, found.name),
        seal: seal(&found.tags),
    })
}

fn parse_version(text: &str) -> Result<Version, RemoteError> {
    Version::new(text)
        .map_err(|error| RemoteError::Unusable(format!("the registry names a version: {error}")))
}
