//! The kinds of registry behind one face: what is there, what a version consists of, and the bytes of a file. Must not
//! know when to look, or what becomes of it.

use std::sync::{Arc, atomic::AtomicU64};

use gannet_models::{Digest, IngestLimits};

use crate::{
    RegistryError, RemoteError, SourceSpec,
    dvc::Dvc,
    http::Http,
    hugging_face::HuggingFace,
    listing::{ListedVersion, Listing},
    mlflow::Mlflow,
    oci::Oci,
    opened::Opened,
    package::{Plan, PlannedFile},
    s3::{S3, S3Options},
    uri::SourceUri,
};

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
