//! Where a tracking server says that artifacts are: behind its own proxy, in an object store, or in a folder. Must not
//! know what they are.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use gannet_models::{IngestLimits, VersionLocation, scan};
use url::Url;

use super::api::Api;
use crate::{
    RemoteError,
    http::small,
    opened::{Opened, Pieces, open_file},
    package::check_path,
    s3::{Objects, S3Options},
};

/// Folders of one model's artifacts.
const FOLDERS_MAX: usize = 1000;

/// One file.
pub(super) struct Found {
    pub(super) path: String,
    pub(super) size: Option<u64>,
    /// `proxy PATH`, `s3 BUCKET KEY` or `file PATH`.
    pub(super) locator: String,
}

pub(super) struct Artifacts {
    api: Arc<Api>,
    store: S3Options,
    allowed: Option<PathBuf>,
    limits: IngestLimits,
}

impl Artifacts {
    pub(super) fn new(
        api: Arc<Api>,
        store: S3Options,
        allowed: Option<PathBuf>,
        limits: IngestLimits,
    ) -> Self {
        Self { api, store, allowed, limits }
    }

    /// Every file below a URI.
    pub(super) async fn list(&self, uri: &str) -> Result<Vec<Found>, RemoteError> {
        if let Some(rest) = uri.strip_prefix("mlflow-artifacts:") {
            return self.list_proxied(&self.proxied_path(uri, rest)?).await;
        }
        if let Some(rest) = uri.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let objects = Objects::new(bucket, &self.store)?;
            let prefix = prefix.trim_matches('/');
            let found = objects.list(prefix, self.limits.files_max).await?;
            let file = |object: crate::s3::Object| {
                let path = object.key.strip_prefix(prefix)?.trim_start_matches('/').to_owned();
                Some(Found { path, size: Some(object.size), locator: format!("s3 {bucket} {}", object.key) })
            };
            return Ok(found.into_iter().filter_map(file).collect());
        }
        let local = uri.strip_prefix("file://").or_else(|| uri.starts_with('/').then_some(uri));
        match local {
            Some(path) => self.list_folder(Path::new(path)),
            None => Err(RemoteError::Unusable(format!(
                "expected artifacts behind the tracking server (mlflow-artifacts:), in s3:// or in a folder, got {uri:?}; \
                 start the tracking server with --serve-artifacts"
            ))),
        }
    }

    /// `/1/models/...` of `mlflow-artifacts:/1/...` or of `mlflow-artifacts://host:port/1/...`.
    fn proxied_path(&self, uri: &str, rest: &str) -> Result<String, RemoteError> {
        let path = match rest.strip_prefix("//") {
            None => rest,
            Some(with_host) => {
                let (authority, path) = with_host.split_once('/').unwrap_or((with_host, ""));
                let own = Url::parse(&self.api.base).ok();
                let own =
                    own.and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?)));
                if !authority.is_empty() && own.as_deref() != Some(authority) {
                    return Err(RemoteError::Unusable(format!(
                        "{uri}: expected artifacts behind the tracking server {}, got another server; its \
                         credentials are told to nobody else",
                        self.api.base
                    )));
                }
                path
            }
        };
        let path = path.trim_matches('/');
        check_steps(path)?;
        Ok(path.to_owned())
    }

    async fn list_proxied(&self, root: &str) -> Result<Vec<Found>, RemoteError> {
        let mut found = Vec::new();
        let mut folders = vec![String::new()];
        let mut seen = 0;
        while let Some(folder) = folders.pop() {
            seen += 1;
            if seen > FOLDERS_MAX || found.len() > self.limits.files_max {
                return Err(RemoteError::Unusable(format!(
                    "expected at most {FOLDERS_MAX} folders and {} files, got more",
                    self.limits.files_max
                )));
            }
            let at = if folder.is_empty() { root.to_owned() } else { format!("{root}/{folder}") };
            for item in self.api.list(&at).await? {
                // the last part only: some servers give whole paths
                let name = item.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                check_path(&path)?;
                if item.is_dir {
                    folders.push(path);
                } else {
                    let locator = format!("proxy {root}/{path}");
                    found.push(Found { path, size: item.file_size, locator });
                }
            }
        }
        Ok(found)
    }

    fn list_folder(&self, folder: &Path) -> Result<Vec<Found>, RemoteError> {
        let inside = |root: &PathBuf| {
            let (root, folder) = (root.canonicalize().ok()?, folder.canonicalize().ok()?);
            folder.starts_with(&root).then_some(root)
        };
        let Some(root) = self.allowed.as_ref().and_then(inside) else {
            return Err(RemoteError::Denied(format!(
                "the tracking server names the folder {} of this machine; expected it below the source's \
                 artifacts_dir. Name that, or start the tracking server with --serve-artifacts",
                folder.display()
            )));
        };
        let location = VersionLocation { path: folder.to_owned(), root, stored_as: None };
        let files = scan::scan(&location, &self.limits)?;
        let file = |file: scan::ScannedFile| Found {
            path: file.name,
            size: Some(file.stamp.size),
            locator: format!("file {}", file.path.display()),
        };
        Ok(files.into_iter().map(file).collect())
    }

    /// A small file as a whole.
    pub(super) async fn small(&self, locator: &str, bytes_max: usize) -> Result<Bytes, RemoteError> {
        match self.open(locator, 0, None).await?.pieces {
            Pieces::Http(response) => small(locator, response, bytes_max).await,
            Pieces::File(file) => {
                let mut bytes = Vec::new();
                let read = file.take(bytes_max as u64 + 1).read_to_end(&mut bytes);
                read.map_err(|error| RemoteError::Down(format!("{locator}: {error}")))?;
                bounded(locator, bytes.into(), bytes_max)
            }
            Pieces::Object(_) => match locator.strip_prefix("s3 ").and_then(|rest| rest.split_once(' ')) {
                Some((bucket, key)) => {
                    let bytes = Objects::new(bucket, &self.store)?.get(key, bytes_max).await?;
                    bounded(locator, bytes, bytes_max)
                }
                None => Err(RemoteError::Unusable(format!("{locator}: no such artifact"))),
            },
        }
    }

    pub(super) async fn open(
        &self,
        locator: &str,
        offset: u64,
        etag: Option<&str>,
    ) -> Result<Opened, RemoteError> {
        match locator.split_once(' ') {
            Some(("proxy", path)) => self.api.http.open(&self.api.artifact_url(path), offset, etag).await,
            Some(("s3", rest)) => {
                let (bucket, key) = rest.split_once(' ').unwrap_or((rest, ""));
                Objects::new(bucket, &self.store)?.open(key, offset).await
            }
            Some(("file", path)) => open_file(Path::new(path), offset),
            _ => Err(RemoteError::Unusable(format!("{locator}: no such artifact"))),
        }
    }
}

fn bounded(what: &str, bytes: Bytes, bytes_max: usize) -> Result<Bytes, RemoteError> {
    if bytes.len() <= bytes_max {
        return Ok(bytes);
    }
    Err(RemoteError::Unusable(format!("{what}: expected at most {bytes_max} bytes")))
}

/// The root that a server names becomes part of paths on that server only; it must not step through its tree.
fn check_steps(path: &str) -> Result<(), RemoteError> {
    match path.split('/').any(|segment| matches!(segment, "." | "..")) {
        true => Err(RemoteError::Unusable(format!("expected a path without '.' and '..', got {path:?}"))),
        false => Ok(()),
    }
}
