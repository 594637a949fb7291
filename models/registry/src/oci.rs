//! Models in an OCI registry, in both shapes: an artifact of one layer a file (as ORAS writes it), and an image whose
//! archives hold `models/` (a ModelCar). A tag is followed at the price of one conditional request. Must not know when
//! to look.

use std::collections::BTreeMap;

use gannet_models::{Digest, ModelName, Version};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    StatusCode,
    header::{self, HeaderValue},
};
use serde::{Deserialize, Serialize};

use crate::{
    RemoteError,
    http::{Ask, Http, Secret, refused, small},
    listing::{ListedVersion, Listing},
    opened::Opened,
    package::{Check, Plan, PlannedFile, Unpack, check_path},
    uri::{OciReference, is_loopback},
};

/// Bytes of a manifest.
const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Digits of a digest that name a version.
const VERSION_DIGITS: usize = 12;
/// What a manifest may be.
const ACCEPTED: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// Where a layer says which file it is.
pub(crate) const TITLE: &str = "org.opencontainers.image.title";

/// One reference in a registry.
pub(crate) struct Oci {
    name: ModelName,
    http: Http,
    /// `http(s)://host/v2/repository`.
    base: String,
    host: String,
    reference: OciReference,
    /// The digest at the last look, and the manifest of it.
    last: Option<(String, Manifest)>,
    token: tokio::sync::Mutex<Option<HeaderValue>>,
}

/// As much of a manifest as is needed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    pub(crate) config: Layer,
    pub(crate) layers: Vec<Layer>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Layer {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Oci {
    pub(crate) fn new(
        name: &ModelName,
        (host, repository, reference): (&str, &str, &OciReference),
        http: Http,
        plain: bool,
    ) -> Self {
        let base = format!("{}/v2/{repository}", base(host, plain));
        let token = tokio::sync::Mutex::default();
        let (name, host, reference) = (name.clone(), host.to_owned(), reference.clone());
        Self { name, http, base, host, reference, last: None, token }
    }

    pub(crate) async fn list(&mut self) -> Result<Listing, RemoteError> {
        let url = format!("{}/manifests/{}", self.base, self.reference.as_str());
        let mut ask = Ask::get(&url).header(header::ACCEPT, ACCEPTED);
        if let Some((digest, _)) = &self.last {
            ask = ask.header(header::IF_NONE_MATCH, &format!("\"{digest}\""));
        }
        let response = self.ask(ask).await?;
        if response.status() != StatusCode::NOT_MODIFIED {
            let stated = stated_digest(&response);
            let bytes = small(&url, response, MANIFEST_BYTES_MAX).await?;
            let digest = format!("sha256:{}", Digest::of(&bytes));
            // a tag says nothing of the bytes, but the registry does
            let expected = match &self.reference {
                OciReference::Digest(expected) => Some(expected.clone()),
                OciReference::Tag(_) => stated,
            };
            if let Some(expected) = expected.filter(|expected| *expected != digest) {
                return Err(RemoteError::Unusable(format!(
                    "{url}: expected a manifest of {expected}, got {digest}; it was changed where it is kept or on its way"
                )));
            }
            let manifest = serde_json::from_slice(&bytes).map_err(|error| {
                RemoteError::Unusable(format!(
                    "{url}: expected the manifest of an image or an artifact: {error}"
                ))
            })?;
            self.last = Some((digest, manifest));
        }
        let Some((digest, _)) = &self.last else {
            return Err(RemoteError::Down(format!("{url}: not modified since never")));
        };
        let digits = digest.trim_start_matches("sha256:");
        let version = Version::new(&digits[..VERSION_DIGITS])
            .map_err(|error| RemoteError::Unusable(format!("the digest {digest}: {error}")))?;
        Ok(Listing::one(&self.name, version, digest.clone(), digest.clone()))
    }

    #[expect(clippy::unused_async, reason = "every kind of source is asked the same way")]
    pub(crate) async fn plan(&self, version: &ListedVersion) -> Result<Plan, RemoteError> {
        match &self.last {
            Some((digest, manifest)) if *digest == version.locator => plan(manifest),
            _ => Err(RemoteError::Down("the tag moved meanwhile; it is looked at again".to_owned())),
        }
    }

    pub(crate) async fn open(
        &self,
        file: &PlannedFile,
        offset: u64,
        etag: Option<&str>,
    ) -> Result<Opened, RemoteError> {
        let url = format!("{}/blobs/{}", self.base, file.locator);
        let mut ask = Ask::get(&url);
        ask.authorization = self.token.lock().await.clone();
        // content under a digest never changes: a validator adds nothing
        let _ = etag;
        self.http.open_with(ask, offset, None).await
    }

    /// Asks; where the registry wants a token, gets one and asks again.
    async fn ask(&self, ask: Ask<'_>) -> Result<reqwest::Response, RemoteError> {
        let url = ask.url.to_owned();
        let mut held = self.token.lock().await;
        let mut response = self.http.ask_any(Ask { authorization: held.clone(), ..ask.clone() }).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(challenge) = challenge(&response)
        {
            let token = self.fetch_token(&challenge).await?;
            *held = Some(token.clone());
            response = self.http.ask_any(Ask { authorization: Some(token), ..ask }).await?;
        }
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        Err(refused(&url, response).await)
    }

    async fn fetch_token(&self, challenge: &Challenge) -> Result<HeaderValue, RemoteError> {
        let realm: url::Url = challenge.realm.parse().map_err(|error| {
            RemoteError::Down(format!("{}: names no place for tokens: {error}", self.host))
        })?;
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let url =
            format!("{realm}?service={}&scope={}", encode(&challenge.service), encode(&challenge.scope));
        let own = realm.host_str().is_some_and(|host| {
            let registry = self.host.rsplit_once(':').map_or(self.host.as_str(), |(host, _)| host);
            host == registry || host.ends_with(&format!(".{registry}"))
        });
        // the place for tokens is the registry's word alone: credentials are told to the registry's own hosts only
        let token: Token = self.http.json(Ask { anonymous: !own, ..Ask::get(&url) }).await?;
        let token = token.token.or(token.access_token);
        let token = token.ok_or_else(|| RemoteError::Denied(format!("{realm}: gave no token")))?;
        Secret::Token(token)
            .header()
            .ok_or_else(|| RemoteError::Down(format!("{realm}: gave no sound token")))
    }
}

/// Where a registry of this host is: without TLS on this machine, as every tool does it.
pub(crate) fn base(host: &str, plain: bool) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let scheme = if plain || is_loopback(name) { "http" } else { "https" };
    format!("{scheme}://{host}")
}

/// What the registry says that the manifest's digest is, where that can be checked.
fn stated_digest(response: &reqwest::Response) -> Option<String> {
    let text = response.headers().get("docker-content-digest")?.to_str().ok()?;
    text.starts_with("sha256:").then(|| text.to_ascii_lowercase())
}

struct Challenge {
    realm: String,
    service: String,
    scope: String,
}

/// `Bearer realm="...",service="...",scope="..."`.
fn challenge(response: &reqwest::Response) -> Option<Challenge> {
    let text = response.headers().get(header::WWW_AUTHENTICATE)?.to_str().ok()?;
    let rest = text.strip_prefix("Bearer ").or_else(|| text.strip_prefix("bearer "))?;
    let value = |name: &str| {
        let (_, after) = rest.split_once(&format!("{name}=\""))?;
        Some(after.split('"').next().unwrap_or_default().to_owned())
    };
    Some(Challenge {
        realm: value("realm")?,
        service: value("service").unwrap_or_default(),
        scope: value("scope").unwrap_or_default(),
    })
}

/// What a manifest's layers are.
fn plan(manifest: &Manifest) -> Result<Plan, RemoteError> {
    let titled = manifest.layers.iter().filter(|layer| layer.annotations.contains_key(TITLE)).count();
    let archive = |layer: &Layer| layer.media_type.contains("tar");
    let mut files = Vec::new();
    for (index, layer) in manifest.layers.iter().enumerate() {
        let hex = layer.digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.parse::<Digest>().is_err() {
            return Err(RemoteError::Unusable(format!("expected layers by sha256, got {:?}", layer.digest)));
        }
        let path = match layer.annotations.get(TITLE) {
            Some(title) if titled == manifest.layers.len() => title.clone(),
            _ => format!("layer-{index:04}"),
        };
        check_path(&path)?;
        let check = Check::Sha256(hex.to_owned());
        files.push(PlannedFile { path, size: Some(layer.size), check, locator: layer.digest.clone() });
    }
    if titled > 0 && titled == files.len() {
        return Ok(Plan { files, ..Plan::default() });
    }
    if !files.is_empty() && manifest.layers.iter().all(archive) {
        return Ok(Plan { files, unpack: Unpack::ModelCar, ..Plan::default() });
    }
    Err(RemoteError::Unusable(format!(
        "expected an artifact whose layers are files (with {TITLE}), or an image of archives with /models, got layers of {}",
        manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect::<Vec<_>>().join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(kind: &str, title: Option<&str>) -> Layer {
        Layer {
            media_type: kind.into(),
            digest: format!("sha256:{}", Digest::of(b"x")),
            size: 1,
            annotations: title.iter().map(|title| (TITLE.to_owned(), (*title).to_owned())).collect(),
        }
    }

    fn planned(layers: Vec<Layer>) -> Result<Plan, String> {
        let config = layer("application/vnd.unknown.config.v1+json", None);
        let manifest = Manifest { schema_version: 2, media_type: None, artifact_type: None, config, layers };
        plan(&manifest).map_err(|error| error.to_string())
    }

    #[test]
    fn both_shapes_are_told_apart() {
        let artifact = planned(vec![layer("application/octet-stream", Some("model.onnx"))]).unwrap();
        assert_eq!((artifact.files[0].path.as_str(), artifact.unpack), ("model.onnx", Unpack::Nothing));
        let image = planned(vec![layer("application/vnd.oci.image.layer.v1.tar+gzip", None)]).unwrap();
        assert_eq!(image.unpack, Unpack::ModelCar);
        assert!(
            planned(vec![layer("application/octet-stream", Some("../x"))]).unwrap_err().contains("steps")
        );
        assert!(
            planned(vec![layer("application/octet-stream", None)])
                .unwrap_err()
                .contains("expected an artifact")
        );
        assert!(planned(vec![]).is_err());
        let mut wrong = layer("x", Some("a"));
        wrong.digest = "sha512:00".into();
        assert!(planned(vec![wrong]).unwrap_err().contains("sha256"));
    }

    #[test]
    fn this_machine_is_asked_without_tls() {
        assert_eq!(base("127.0.0.1:5000", false), "http://127.0.0.1:5000");
        assert_eq!(base("localhost", false), "http://localhost");
        assert_eq!(base("registry.example", false), "https://registry.example");
        assert_eq!(base("registry.example:5000", true), "http://registry.example:5000");
    }
}
