//! Models of a Hugging Face hub: four calls, and the cache that the hub's own client keeps, which is read when the hub
//! cannot be. Must not know when to look.

use std::{
    fs,
    path::{Path, PathBuf},
};

use gannet_models::{IngestLimits, ModelName, Version, VersionLocation, scan};
use serde::Deserialize;

use crate::{
    RemoteError, SourceSpec,
    http::{Ask, Http, path, segment},
    listing::{ListedVersion, Listing},
    opened::Opened,
    opened::open_file,
    package::{Check, Plan, PlannedFile, check_path},
};

/// Where the hub is unless told otherwise.
const HUB: &str = "https://huggingface.co";
/// Digits of a commit that name a version.
const VERSION_DIGITS: usize = 12;
/// Weights of other frameworks, which nothing here could run.
const LEFT_OUT: [&str; 7] = [".safetensors", ".h5", ".msgpack", ".pkl", ".pickle", ".joblib", ".ot"];

/// One repository at one revision.
pub(crate) struct HuggingFace {
    name: ModelName,
    http: Http,
    endpoint: String,
    repository: String,
    revision: String,
    cache: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl HuggingFace {
    pub(crate) fn new(spec: &SourceSpec, (repository, revision): (&str, &str), http: Http) -> Self {
        let endpoint = spec.endpoint.as_deref().unwrap_or(HUB).trim_end_matches('/').to_owned();
        let (repository, revision) = (repository.to_owned(), revision.to_owned());
        Self { name: spec.name.clone(), http, endpoint, repository, revision, cache: spec.hub_cache.clone() }
    }

    pub(crate) async fn list(&mut self) -> Result<Listing, RemoteError> {
        let url =
            format!("{}/api/models/{}/revision/{}", self.endpoint, self.repository, segment(&self.revision));
        let asked = self.http.json::<Revision>(Ask::get(&url)).await;
        let (sha, locator) = match asked {
            Ok(found) => (found.sha.clone(), found.sha),
            Err(error @ (RemoteError::Down(_) | RemoteError::Busy { .. })) => match self.cached_commit() {
                Some(sha) => (sha.clone(), format!("cached {sha}")),
                None => return Err(error),
            },
            Err(error) => return Err(error),
        };
        if sha.len() < VERSION_DIGITS || !sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(RemoteError::Unusable(format!("{url}: expected a commit, got {sha:?}")));
        }
        let version = Version::new(&sha[..VERSION_DIGITS])
            .map_err(|error| RemoteError::Unusable(format!("the commit {sha}: {error}")))?;
        Ok(Listing::one(&self.name, version, sha, locator))
    }

    pub(crate) async fn plan(&self, version: &ListedVersion) -> Result<Plan, RemoteError> {
        if let Some(sha) = version.locator.strip_prefix("cached ") {
            return self.plan_cached(sha);
        }
        let sha = &version.locator;
        let url = format!(
            "{}/api/models/{}/tree/{sha}?recursive=true&expand=false",
            self.endpoint, self.repository
        );
        let entries: Vec<Entry> = self.http.json(Ask::get(&url)).await?;
        let mut files = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            check_path(&entry.path)?;
            let (size, check) = match entry.lfs {
                Some(lfs) => (lfs.size, Check::Sha256(lfs.oid)),
                None => (entry.size, Check::GitBlob(entry.oid)),
            };
            let locator =
                format!("{}/{}/resolve/{sha}/{}", self.endpoint, self.repository, path(&entry.path));
            files.push(PlannedFile { path: entry.path, size: Some(size), check, locator });
        }
        chosen(files, &self.repository)
    }

    pub(crate) async fn open(
        &self,
        file: &PlannedFile,
        offset: u64,
        etag: Option<&str>,
    ) -> Result<Opened, RemoteError> {
        match file.locator.strip_prefix("file ") {
            Some(path) => open_file(Path::new(path), offset),
            None => self.http.open(&file.locator, offset, etag).await,
        }
    }

    fn cached(&self) -> Option<PathBuf> {
        Some(self.cache.as_ref()?.join(format!("models--{}", self.repository.replace('/', "--"))))
    }

    /// The commit that the client's cache has for the revision.
    fn cached_commit(&self) -> Option<String> {
        let cached = self.cached()?;
        if cached.join("snapshots").join(&self.revision).is_dir() {
            return Some(self.revision.clone());
        }
        Some(fs::read_to_string(cached.join("refs").join(&self.revision)).ok()?.trim().to_owned())
    }

    fn plan_cached(&self, sha: &str) -> Result<Plan, RemoteError> {
        let root =
            self.cached().ok_or_else(|| RemoteError::Missing("there is no cache of the hub".to_owned()))?;
        // links lead from the snapshot to the blobs beside it, and no further
        let location = VersionLocation { path: root.join("snapshots").join(sha), root, stored_as: None };
        let found = scan::scan(&location, &IngestLimits::default())?;
        let file = |file: scan::ScannedFile| {
            let target = file.path.canonicalize().ok();
            let blob = target.as_ref().and_then(|target| target.file_name()?.to_str()).unwrap_or_default();
            // the client names a blob after its digest
            let check = match blob.len() {
                64 => Check::Sha256(blob.to_owned()),
                40 => Check::GitBlob(blob.to_owned()),
                _ => Check::Size,
            };
            let locator = format!("file {}", file.path.display());
            PlannedFile { path: file.name, size: Some(file.stamp.size), check, locator }
        };
        chosen(found.into_iter().map(file).collect(), &self.repository)
    }
}

/// The files that are needed, and the model file's place: at the top, or the one ONNX file of the repository (many keep
/// it in `onnx/`).
fn chosen(mut files: Vec<PlannedFile>, repository: &str) -> Result<Plan, RemoteError> {
    files.retain(|file| {
        !LEFT_OUT.iter().any(|suffix| file.path.ends_with(suffix)) && !file.path.starts_with(".git")
    });
    let is_there = |name: &str| files.iter().any(|file| file.path == name);
    if is_there("model.onnx") || is_there("model.pt") {
        return Ok(Plan { files, ..Plan::default() });
    }
    let models: Vec<String> =
        files.iter().map(|file| file.path.clone()).filter(|path| path.ends_with(".onnx")).collect();
    let main = models.iter().find(|path| path.ends_with("/model.onnx"));
    let main = main.or(if let [only] = &models[..] { Some(only) } else { None }).ok_or_else(|| {
        let got = if models.is_empty() { "none".to_owned() } else { models.join(", ") };
        RemoteError::Unusable(format!(
            "{repository}: expected model.onnx, or one .onnx file, got {got}; export it with optimum-cli export onnx"
        ))
    })?;
    let folder = main.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let mut renames = Vec::new();
    let mut kept = Vec::new();
    for file in files {
        let beside = file.path.strip_prefix(folder.as_str()).filter(|_| !folder.is_empty());
        if file.path == *main {
            renames.push((file.path.clone(), "model.onnx".to_owned()));
        } else if file.path.ends_with(".onnx") {
            // other precisions of the same model
            continue;
        } else if let Some(inside) = beside {
            renames.push((file.path.clone(), inside.to_owned()));
        }
        kept.push(file);
    }
    Ok(Plan { files: kept, renames, ..Plan::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(paths: &[&str]) -> Result<Plan, String> {
        let file = |path: &&str| PlannedFile {
            path: (*path).to_owned(),
            size: Some(1),
            check: Check::Size,
            locator: String::new(),
        };
        chosen(paths.iter().map(file).collect(), "org/repo").map_err(|error| error.to_string())
    }

    #[test]
    fn the_model_is_found_where_people_keep_it() {
        let at_the_top = plan(&["model.onnx", "config.json", "model.safetensors", ".gitattributes"]).unwrap();
        assert_eq!(at_the_top.files.len(), 2);
        assert!(at_the_top.renames.is_empty());
        let exported =
            plan(&["config.json", "onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_int8.onnx"])
                .unwrap();
        let renames: Vec<&str> = exported.renames.iter().map(|(_, to)| to.as_str()).collect();
        assert_eq!(renames, ["model.onnx", "model.onnx_data"]);
        assert_eq!(exported.files.len(), 3);
        assert_eq!(plan(&["net.onnx"]).unwrap().renames[0].1, "model.onnx");
        assert!(plan(&["a.onnx", "b.onnx"]).unwrap_err().contains("a.onnx, b.onnx"));
        assert!(plan(&["model.safetensors"]).unwrap_err().contains("got none"));
    }
}
