//! Pushes an artifact of one layer a file to an OCI registry, as ORAS does. Must not know tags' meaning.

use std::{collections::BTreeMap, fs};

use bytes::Bytes;
use gannet_models::{Digest, ModelError};
use reqwest::{Method, StatusCode, header};

use super::Package;
use crate::{
    RemoteError,
    http::{Ask, Http, refused},
    oci::{Layer, Manifest, TITLE, base},
    uri::SourceUri,
};

/// What the artifact calls itself.
const ARTIFACT_TYPE: &str = "application/vnd.gannet.package.v1";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

pub(super) async fn push(package: &Package<'_>) -> Result<(String, bool), RemoteError> {
    let SourceUri::Oci { host, repository, reference } = &package.spec.uri else {
        return Err(RemoteError::Unusable("expected oci://host/repository:tag".to_owned()));
    };
    let http = package.http()?;
    let root = base(host, package.spec.plain_http);
    let url = format!("{root}/v2/{repository}");
    let empty = Bytes::from_static(b"{}");
    let empty_digest = format!("sha256:{}", Digest::of(&empty));
    let target = |digest: &str| format!("{url}/blobs/{digest}");
    if !is_there(&http, &target(&empty_digest)).await? {
        let place = begin(&http, &url, &root).await?;
        http.ask(Ask::send(
            Method::PUT,
            &with_digest(&place, &empty_digest),
            empty,
            "application/octet-stream",
        ))
        .await?;
    }
    let mut layers = Vec::new();
    for (entry, scanned) in package.files.iter().zip(&package.scanned) {
        let digest = format!("sha256:{}", entry.digest);
        if !is_there(&http, &target(&digest)).await? {
            let place = begin(&http, &url, &root).await?;
            http.put_file(&with_digest(&place, &digest), &scanned.path, "application/octet-stream").await?;
        }
        let annotations: BTreeMap<String, String> = [(TITLE.to_owned(), entry.path.clone())].into();
        layers.push(Layer {
            media_type: "application/octet-stream".into(),
            digest,
            size: entry.size,
            annotations,
        });
    }
    let config =
        Layer { media_type: EMPTY_TYPE.into(), digest: empty_digest, size: 2, annotations: BTreeMap::new() };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST_TYPE.into()),
        artifact_type: Some(ARTIFACT_TYPE.into()),
        config,
        layers,
    };
    let text = serde_json::to_vec(&manifest).map_err(|error| RemoteError::Local(error.to_string()))?;
    let digest = format!("sha256:{}", Digest::of(&text));
    let at = format!("{url}/manifests/{}", reference.as_str());
    let was_there = is_there(&http, &format!("{url}/manifests/{digest}")).await?;
    http.ask(Ask::send(Method::PUT, &at, Bytes::from(text), MANIFEST_TYPE)).await?;
    Ok((format!("oci://{host}/{repository}@{digest}"), was_there))
}

async fn is_there(http: &Http, url: &str) -> Result<bool, RemoteError> {
    let ask = Ask { method: Method::HEAD, ..Ask::get(url) };
    let response = http.ask_any(ask.header(header::ACCEPT, MANIFEST_TYPE)).await?;
    match response.status() {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(refused(url, response).await),
    }
}

/// Where an upload goes. It must be at the registry itself, which alone is told the credentials.
async fn begin(http: &Http, url: &str, root: &str) -> Result<String, RemoteError> {
    let at = format!("{url}/blobs/uploads/");
    let response = http.ask(Ask::send(Method::POST, &at, Bytes::new(), "application/octet-stream")).await?;
    let place =
        response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let place = if place.starts_with('/') { format!("{root}{place}") } else { place.to_owned() };
    if place.starts_with(&format!("{root}/")) {
        return Ok(place);
    }
    Err(RemoteError::Down(format!("{at}: expected a place for the upload at the registry, got {place:?}")))
}

fn with_digest(place: &str, digest: &str) -> String {
    let mark = if place.contains('?') { '&' } else { '?' };
    format!("{place}{mark}digest={digest}")
}

impl Http {
    /// Sends a file as a body.
    pub(crate) async fn put_file(
        &self,
        url: &str,
        path: &std::path::Path,
        content_type: &'static str,
    ) -> Result<(), RemoteError> {
        // as large as a file is, but never two of them
        let content = fs::read(path).map_err(ModelError::io(path, "read"))?;
        self.ask(Ask::send(Method::PUT, url, Bytes::from(content), content_type)).await.map(drop)
    }
}
