//! One bucket: listing, reading, and writing what was not there before. Must not know what the objects are.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::{
    ClientOptions, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};

use crate::{
    RemoteError,
    error::causes,
    http::{Secret, Secrets, count, provide_crypto},
    opened::{Opened, Pieces},
    uri::is_loopback,
};

/// Time for one request, its body included; large bodies are asked for in pieces.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(120);
/// Bytes of one request for a part of an object.
const PART_BYTES: u64 = 64 << 20;
/// Bytes of one part of an upload.
const UPLOAD_PART_BYTES: usize = 8 << 20;

/// How to reach an object store.
#[derive(Clone)]
pub(crate) struct S3Options {
    pub(crate) endpoint: Option<String>,
    pub(crate) plain: bool,
    /// `aws_region` and so on, as the environment has them.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) secrets: Secrets,
    pub(crate) requests: Arc<AtomicU64>,
}

/// One object of a listing.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) key: String,
    /// Relative to what it belongs to; empty until that is known.
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) modified_ms: i64,
    pub(crate) etag: Option<String>,
}

impl Object {
    /// Changes when the object does.
    pub(crate) fn stamp(&self) -> String {
        format!("{} {} {}", self.size, self.modified_ms, self.etag.as_deref().unwrap_or("-"))
    }
}

/// A bucket.
#[derive(Debug)]
pub(crate) struct Objects {
    store: AmazonS3,
    requests: Arc<AtomicU64>,
}

impl Objects {
    pub(crate) fn new(bucket: &str, options: &S3Options) -> Result<Self, RemoteError> {
        provide_crypto();
        let mut builder = AmazonS3Builder::new();
        for (name, value) in &options.settings {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        builder = builder.with_bucket_name(bucket);
        if let Some(secret) = (options.secrets)().map_err(RemoteError::Denied)? {
            let Secret::Basic(key, rest) = secret else {
                return Err(RemoteError::Denied(
                    "expected credentials of the form ACCESS_KEY:SECRET_KEY[:SESSION_TOKEN]".to_owned(),
                ));
            };
            let (secret, token) = rest.split_once(':').map_or((rest.as_str(), None), |(s, t)| (s, Some(t)));
            builder = builder.with_access_key_id(key).with_secret_access_key(secret);
            if let Some(token) = token {
                builder = builder.with_token(token);
            }
        }
        let endpoint = options.endpoint.clone().or_else(|| {
            let named = |name: &&str| options.settings.iter().find(|(known, _)| known == name);
            ["aws_endpoint_url_s3", "aws_endpoint_url", "aws_endpoint"]
                .iter()
                .find_map(named)
                .map(|(_, url)| url.clone())
        });
        let mut plain = false;
        if let Some(endpoint) = &endpoint {
            plain = allowed(endpoint, options.plain)?;
            builder = builder
                .with_endpoint(endpoint.trim_end_matches('/'))
                .with_virtual_hosted_style_request(false);
        }
        let client = ClientOptions::new()
            .with_allow_http(plain)
            .with_timeout(REQUEST_TIME_MAX)
            .with_connect_timeout(Duration::from_secs(10));
        let retry =
            RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(20), ..RetryConfig::default() };
        let store = builder.with_client_options(client).with_retry(retry).build();
        let store = store.map_err(|error| RemoteError::Unusable(format!("the object store: {error}")))?;
        Ok(Self { store, requests: Arc::clone(&options.requests) })
    }

    /// Every object below a prefix, by key.
    pub(crate) async fn list(&self, prefix: &str, objects_max: usize) -> Result<Vec<Object>, RemoteError> {
        let at = (!prefix.is_empty()).then(|| Path::parse(prefix)).transpose().map_err(|error| {
            RemoteError::Unusable(format!("{prefix:?} is no prefix that an object store could have: {error}"))
        })?;
        let mut found = Vec::new();
        let mut items = self.store.list(at.as_ref());
        while let Some(item) = items.next().await {
            let meta = item.map_err(|error| failed(prefix, &error))?;
            found.push(Object {
                key: meta.location.to_string(),
                path: String::new(),
                size: meta.size,
                modified_ms: meta.last_modified.timestamp_millis(),
                etag: meta.e_tag,
            });
            if found.len() > objects_max {
                return Err(RemoteError::Unusable(format!(
                    "expected at most {objects_max} objects below '{prefix}'"
                )));
            }
        }
        // a page holds a thousand
        for _ in 0..=found.len() / 1000 {
            count(&self.requests);
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// A small object as a whole.
    pub(crate) async fn get(&self, key: &str, bytes_max: usize) -> Result<Bytes, RemoteError> {
        count(&self.requests);
        let path = parse(key)?;
        let got = self.store.get(&path).await.map_err(|error| failed(key, &error))?;
        if got.meta.size > bytes_max as u64 {
            return Err(RemoteError::Unusable(format!(
                "{key}: expected at most {bytes_max} bytes, got {}",
                got.meta.size
            )));
        }
        got.bytes().await.map_err(|error| failed(key, &error))
    }

    /// A part of an object from `offset` on.
    pub(crate) async fn open(&self, key: &str, offset: u64) -> Result<Opened, RemoteError> {
        count(&self.requests);
        let path = parse(key)?;
        let range = GetRange::Bounded(offset..offset.saturating_add(PART_BYTES));
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let got = match self.store.get_opts(&path, options).await {
            // an empty object has no range
            Err(_) if offset == 0 => self.store.get(&path).await,
            other => other,
        }
        .map_err(|error| failed(key, &error))?;
        let etag = got.meta.e_tag.clone();
        let offset = got.range.start;
        Ok(Opened { pieces: Pieces::Object(got.into_stream()), offset, etag })
    }

    /// Writes an object that must not be there yet; whether it was not.
    pub(crate) async fn create(&self, key: &str, content: Bytes) -> Result<bool, RemoteError> {
        count(&self.requests);
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&parse(key)?, content.into(), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(failed(key, &error)),
        }
    }

    /// Writes an object over whatever is there.
    pub(crate) async fn put(&self, key: &str, content: Bytes) -> Result<(), RemoteError> {
        count(&self.requests);
        let put = self.store.put(&parse(key)?, content.into()).await;
        put.map(drop).map_err(|error| failed(key, &error))
    }

    /// Removes an object. That it is not there is no error.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), RemoteError> {
        count(&self.requests);
        match self.store.delete(&parse(key)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(key, &error)),
        }
    }

    /// Writes a file's content over whatever is there.
    pub(crate) async fn put_file(&self, key: &str, file: &std::path::Path) -> Result<(), RemoteError> {
        use std::io::Read as _;
        let local = |error: std::io::Error| RemoteError::Local(format!("{}: {error}", file.display()));
        let path = parse(key)?;
        let mut source = std::fs::File::open(file).map_err(local)?;
        let length = source.metadata().map_err(local)?.len();
        if length <= UPLOAD_PART_BYTES as u64 {
            let mut content = Vec::new();
            source.read_to_end(&mut content).map_err(local)?;
            count(&self.requests);
            return self
                .store
                .put(&path, content.into())
                .await
                .map(drop)
                .map_err(|error| failed(key, &error));
        }
        let mut upload = self.store.put_multipart(&path).await.map_err(|error| failed(key, &error))?;
        loop {
            let mut part = Vec::new();
            let count_read =
                (&mut source).take(UPLOAD_PART_BYTES as u64).read_to_end(&mut part).map_err(local)?;
            if count_read == 0 {
                break;
            }
            count(&self.requests);
            if let Err(error) = upload.put_part(part.into()).await {
                let _ = upload.abort().await;
                return Err(failed(key, &error));
            }
        }
        upload.complete().await.map(drop).map_err(|error| failed(key, &error))
    }
}

fn parse(key: &str) -> Result<Path, RemoteError> {
    Path::parse(key)
        .map_err(|error| RemoteError::Unusable(format!("{key:?} is no key of an object: {error}")))
}

/// Whether an endpoint is plain HTTP, which it may be only on this machine unless the operator allows it.
fn allowed(endpoint: &str, plain: bool) -> Result<bool, RemoteError> {
    let url: url::Url = endpoint
        .parse()
        .map_err(|error| RemoteError::Unusable(format!("the endpoint {endpoint:?}: {error}")))?;
    match url.scheme() {
        "https" => Ok(false),
        "http" if plain || is_loopback(url.host_str().unwrap_or_default()) => Ok(true),
        "http" => Err(RemoteError::Denied(format!(
            "{endpoint}: expected https, got http to another machine; allow it with plain_http = true"
        ))),
        other => Err(RemoteError::Unusable(format!("the endpoint: expected http or https, got {other:?}"))),
    }
}

fn failed(what: &str, error: &Error) -> RemoteError {
    let text = format!("'{what}': {}", causes(error));
    match error {
        Error::NotFound { .. } => RemoteError::Missing(text),
        Error::Unauthenticated { .. } | Error::PermissionDenied { .. } => RemoteError::Denied(text),
        Error::InvalidPath { .. } => RemoteError::Unusable(text),
        // how stores answer a wrong signature
        _ if text.contains("SignatureDoesNotMatch") || text.contains("InvalidAccessKeyId") => {
            RemoteError::Denied(text)
        }
        _ => RemoteError::Down(text),
    }
}
