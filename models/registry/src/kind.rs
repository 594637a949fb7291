//! The kinds of registry behind one face: what is there, what a version consists of, and the bytes of a file. Must not
//! know when to look, or what becomes of it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gannet_models::{Digest, IngestLimits, ModelName, Version, settings::VersionPolicy};

use crate::{
    RegistryError, RemoteError,
    dvc::Dvc,
    fetch::Opened,
    http::{Http, Secrets},
    hugging_face::HuggingFace,
    mlflow::Mlflow,
    oci::Oci,
    package::{Plan, PlannedFile},
    s3::{S3, S3Options},
    uri::SourceUri,
};

/// What happens when an alias moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnAliasMove {
    /// The new version replaces the old one as soon as it is ready.
    #[default]
    Swap,
    /// Both are kept, and whoever decides about traffic is told.
    Rollout,
}

/// One source as the operator wants it.
#[derive(Clone)]
pub struct SourceSpec {
    /// Its name; also the model's, where the URI names one model.
    pub name: ModelName,
    /// As it was written.
    pub uri_text: String,
    /// As it was understood.
    pub uri: SourceUri,
    /// Time between two looks.
    pub poll: Duration,
    /// Which versions, where the URI leaves it open.
    pub versions: VersionPolicy,
    /// What a moved alias does.
    pub on_alias_move: OnAliasMove,
    /// `http(s)://...` of an object store, a tracking server or a hub that the URI does not name.
    pub endpoint: Option<String>,
    /// Whether the network may be used without TLS beyond this machine.
    pub plain_http: bool,
    /// Golden requests that every version must pass, `*.json` in this folder.
    pub golden: Option<PathBuf>,
    /// The folder that artifacts of this source may be read from directly, where the registry names local paths.
    pub artifacts_dir: Option<PathBuf>,
    /// Credentials, read anew for each request.
    pub secrets: Secrets,
    /// Settings of object stores (`aws_region` and so on), weakest of all.
    pub store_settings: Vec<(String, String)>,
    /// The cache of the Hugging Face client, read when the hub cannot be.
    pub hub_cache: Option<PathBuf>,
}

impl std::fmt::Debug for SourceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceSpec")
            .field("name", &self.name)
            .field("uri", &self.uri_text)
            .finish_non_exhaustive()
    }
}

impl SourceSpec {
    /// A source with nothing but a name and a URI.
    ///
    /// # Errors
    /// As [`SourceUri::parse`].
    pub fn new(name: ModelName, uri: &str) -> Result<Self, String> {
        Ok(Self {
            name,
            uri_text: uri.to_owned(),
            uri: SourceUri::parse(uri)?,
            poll: Duration::from_secs(30),
            versions: VersionPolicy::Latest(1),
            on_alias_move: OnAliasMove::Swap,
            endpoint: None,
            plain_http: false,
            golden: None,
            artifacts_dir: None,
            secrets: Arc::new(|| Ok(None)),
            store_settings: Vec::new(),
            hub_cache: None,
        })
    }
}

/// Everything that a registry has for a source.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) models: Vec<ListedModel>,
    pub(crate) problems: Vec<String>,
    /// Something has not been at rest yet; look again soon.
    pub(crate) settling: bool,
}

/// One model there.
#[derive(Debug, Clone)]
pub(crate) struct ListedModel {
    pub(crate) name: ModelName,
    /// Name and text of a settings file.
    pub(crate) settings: Option<(String, String)>,
    /// The registry itself says which version: no policy chooses among them.
    pub(crate) pointed_to: bool,
    pub(crate) versions: Vec<ListedVersion>,
}

/// One version there.
#[derive(Debug, Clone)]
pub(crate) struct ListedVersion {
    pub(crate) version: Version,
    /// Changes with the content.
    pub(crate) tag: String,
    /// Where the source finds it.
    pub(crate) locator: String,
    /// What its files were when they were first fetched, by whomever, where that is noted down.
    pub(crate) seal: Option<Digest>,
}

impl Listing {
    /// Of a source that names one model and one version.
    pub(crate) fn one(name: &ModelName, version: Version, tag: String, locator: String) -> Self {
        Self::of(name, ListedVersion { version, tag, locator, seal: None })
    }

    pub(crate) fn of(name: &ModelName, version: ListedVersion) -> Self {
        let versions = vec![version];
        let model = ListedModel { name: name.clone(), settings: None, pointed_to: true, versions };
        Self { models: vec![model], ..Self::default() }
    }
}

/// A source of one kind.
pub(crate) enum Kind {
    Mlflow(Mlflow),
    S3(S3),
    Dvc(Dvc),
    Oci(Oci),
    HuggingFace(HuggingFace),
}

impl Kind {
    /// What `spec` names. Nothing is asked yet.
    pub(crate) fn new(
        spec: &SourceSpec,
        limits: IngestLimits,
        requests: &Arc<AtomicU64>,
    ) -> Result<Self, RegistryError> {
        let fault = |error: RemoteError| RegistryError::Source(format!("source '{}': {error}", spec.name));
        let http =
            || Http::new(Arc::clone(&spec.secrets), spec.plain_http, Arc::clone(requests)).map_err(fault);
        let store = || S3Options {
            endpoint: spec.endpoint.clone(),
            plain: spec.plain_http,
            settings: spec.store_settings.clone(),
            secrets: Arc::clone(&spec.secrets),
            requests: Arc::clone(requests),
        };
        match &spec.uri {
            SourceUri::File(_) => Err(RegistryError::Source(format!(
                "source '{}': folders are watched, not followed",
                spec.name
            ))),
            SourceUri::Mlflow { .. } => {
                Ok(Self::Mlflow(Mlflow::new(spec, http()?, store(), limits).map_err(fault)?))
            }
            SourceUri::S3 { bucket, prefix } => {
                Ok(Self::S3(S3::new(&spec.name, bucket, prefix, &store()).map_err(fault)?))
            }
            SourceUri::Dvc { pointer, out } => {
                Ok(Self::Dvc(Dvc::new(&spec.name, pointer.clone(), out.clone(), store())))
            }
            SourceUri::Oci { host, repository, reference } => {
                Ok(Self::Oci(Oci::new(&spec.name, (host, repository, reference), http()?, spec.plain_http)))
            }
            SourceUri::HuggingFace { repository, revision } => {
                let hub = HuggingFace::new(spec, (repository, revision), http()?);
                Ok(Self::HuggingFace(hub))
            }
        }
    }

    /// What is there now.
    pub(crate) async fn list(&mut self) -> Result<Listing, RemoteError> {
        match self {
            Self::Mlflow(source) => source.list().await,
            Self::S3(source) => source.list().await,
            Self::Dvc(source) => source.list().await,
            Self::Oci(source) => source.list().await,
            Self::HuggingFace(source) => source.list().await,
        }
    }

    /// What one version consists of.
    pub(crate) async fn plan(&self, version: &ListedVersion) -> Result<Plan, RemoteError> {
        match self {
            Self::Mlflow(source) => source.plan(version).await,
            Self::S3(source) => source.plan(version).await,
            Self::Dvc(source) => source.plan(version).await,
            Self::Oci(source) => source.plan(version).await,
            Self::HuggingFace(source) => source.plan(version).await,
        }
    }

    /// Notes down in the registry what the files of a version are, for whoever fetches them later.
    pub(crate) async fn seal(&self, version: &ListedVersion, digest: &Digest) -> Result<(), RemoteError> {
        match self {
            Self::Mlflow(source) => source.seal(version, digest).await,
            Self::S3(_) | Self::Dvc(_) | Self::Oci(_) | Self::HuggingFace(_) => {
                Err(RemoteError::Unusable(
                    "expected a tracking server of MLflow to note digests down in; bring packages without any to their \
                     registry with gannet push"
                        .to_owned(),
                ))
            }
        }
    }

    /// The bytes of one file from `offset` on, or all of them; `etag` is what it was when the first part came.
    pub(crate) async fn open(
        &self,
        file: &PlannedFile,
        offset: u64,
        etag: Option<&str>,
    ) -> Result<Opened, RemoteError> {
        match self {
            Self::Mlflow(source) => source.open(file, offset, etag).await,
            Self::S3(source) => source.open(&file.locator, offset).await,
            Self::Dvc(source) => source.open(file, offset).await,
            Self::Oci(source) => source.open(file, offset, etag).await,
            Self::HuggingFace(source) => source.open(file, offset, etag).await,
        }
    }
}

/// Counts one request.
pub(crate) fn count(requests: &AtomicU64) {
    requests.fetch_add(1, Ordering::Relaxed);
}
