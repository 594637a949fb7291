//! Brings a package from a folder to a registry: a folder, an object store, an OCI registry or MLflow. What lists the
//! files is written last, so that nobody sees half a package. Must not know servers.

mod mlflow;
mod oci;

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use bytes::Bytes;
use gannet_models::{
    Digest, IngestLimits, ModelError, VersionLocation,
    digest::FileEntry,
    scan::{ScannedFile, scan},
};

use crate::{
    RemoteError, SourceSpec, beside,
    http::Http,
    package::{MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest},
    s3::{Objects, S3Options},
    uri::SourceUri,
};

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Where it is now, as a source would name it.
    pub uri: String,
    /// Of the whole package.
    pub digest: Digest,
    /// Files of it.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Whether it was there already.
    pub was_there: bool,
}

/// A package to push.
pub(crate) struct Package<'a> {
    pub(crate) spec: &'a SourceSpec,
    pub(crate) scanned: Vec<ScannedFile>,
    pub(crate) files: Vec<FileEntry>,
}

/// Pushes the package in `dir`; blocks until it is there.
///
/// # Errors
/// What failed, and what to do.
pub fn push(dir: &Path, spec: &SourceSpec, limits: &IngestLimits) -> Result<Pushed, RemoteError> {
    let location = VersionLocation { path: dir.to_owned(), root: dir.to_owned(), stored_as: None };
    let mut scanned = scan(&location, limits)?;
    // an own list would be taken for part of the package
    scanned.retain(|file| file.name != MANIFEST_FILE);
    if scanned.is_empty() {
        return Err(RemoteError::Unusable(format!(
            "{}: expected the files of one version, got none",
            dir.display()
        )));
    }
    let entry = |file: &ScannedFile| {
        let digest = Digest::of_file(&file.path)?;
        Ok(FileEntry { path: file.name.clone(), size: file.stamp.size, digest })
    };
    let files = scanned.iter().map(entry).collect::<Result<Vec<_>, ModelError>>()?;
    let digest = Digest::of_tree(&files);
    let (count, bytes) = (files.len(), files.iter().map(|file| file.size).sum());
    let package = Package { spec, scanned, files };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| RemoteError::Local(format!("no event loop: {error}")))?;
    let (uri, was_there) = runtime.block_on(async {
        match &spec.uri {
            SourceUri::File(target) => to_folder(&package, target),
            SourceUri::S3 { bucket, prefix } => package.to_store(bucket, prefix).await,
            SourceUri::Oci { .. } => oci::push(&package).await,
            SourceUri::Mlflow { .. } => mlflow::push(&package).await,
            SourceUri::Dvc { .. } => Err(RemoteError::Unusable(
                "packages are put into a DVC remote with dvc add and dvc push, which keep the pointer in git"
                    .to_owned(),
            )),
            SourceUri::HuggingFace { .. } => Err(RemoteError::Unusable(
                "packages are put into a hub with its own client: hf upload org/repo DIR".to_owned(),
            )),
        }
    })?;
    Ok(Pushed { uri, digest, files: count, bytes, was_there })
}

impl Package<'_> {
    pub(crate) fn http(&self) -> Result<Http, RemoteError> {
        Http::new(Arc::clone(&self.spec.secrets), self.spec.plain_http, Arc::new(AtomicU64::new(0)))
    }

    async fn to_store(&self, bucket: &str, prefix: &str) -> Result<(String, bool), RemoteError> {
        let spec = self.spec;
        let objects = Objects::new(
            bucket,
            &S3Options {
                endpoint: spec.endpoint.clone(),
                plain: spec.plain_http,
                settings: spec.store_settings.clone(),
                secrets: Arc::clone(&spec.secrets),
                requests: Arc::new(AtomicU64::new(0)),
            },
        )?;
        let at = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let manifest_key = format!("{at}{MANIFEST_FILE}");
        let manifest = Manifest::of(&self.files);
        let uri = format!("s3://{bucket}/{prefix}");
        match objects.get(&manifest_key, MANIFEST_BYTES_MAX).await {
            Ok(there) => return same(&there, &manifest, &uri),
            Err(RemoteError::Missing(_)) => {}
            Err(error) => return Err(error),
        }
        for file in &self.scanned {
            objects.put_file(&format!("{at}{}", file.name), &file.path).await?;
        }
        // whoever writes this first has the version
        if objects.create(&manifest_key, Bytes::from(manifest.to_json())).await? {
            return Ok((uri, false));
        }
        same(&objects.get(&manifest_key, MANIFEST_BYTES_MAX).await?, &manifest, &uri)
    }
}

/// A version that is there already must be this one.
fn same(there: &[u8], ours: &Manifest, uri: &str) -> Result<(String, bool), RemoteError> {
    if serde_json::from_slice::<Manifest>(there).is_ok_and(|there| there == *ours) {
        return Ok((uri.to_owned(), true));
    }
    Err(RemoteError::Unusable(format!(
        "{uri}: expected a version that is not there yet, got one with other files; a version never changes: choose \
         another"
    )))
}

fn to_folder(package: &Package<'_>, target: &Path) -> Result<(String, bool), RemoteError> {
    let uri = format!("file://{}", target.display());
    if target.exists() {
        let location = VersionLocation { path: target.to_owned(), root: target.to_owned(), stored_as: None };
        let there = scan(&location, &IngestLimits::default())?;
        let entry = |file: &ScannedFile| {
            let digest = Digest::of_file(&file.path)?;
            Ok(FileEntry { path: file.name.clone(), size: file.stamp.size, digest })
        };
        let there = there.iter().map(entry).collect::<Result<Vec<_>, ModelError>>()?;
        if there == package.files {
            return Ok((uri, true));
        }
        return Err(RemoteError::Unusable(format!(
            "{uri}: expected a version that is not there yet, got one with other files; a version never changes: \
             choose another"
        )));
    }
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // what begins with a dot is no version to anyone who looks
    let part = target.with_file_name(format!(".{name}.{:x}.part", crate::chance().to_bits()));
    let copied = copy_all(package, &part).and_then(|()| {
        fs::rename(&part, target).map_err(ModelError::io(target, "move the copy to"))?;
        // only who has the version says what it is
        beside::write(target, &package.files)?;
        Ok(())
    });
    if copied.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    copied.map(|()| (uri, false))
}

fn copy_all(package: &Package<'_>, into: &Path) -> Result<(), RemoteError> {
    for file in &package.scanned {
        let to = into.join(&file.name);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(ModelError::io(parent, "create the folder"))?;
        }
        fs::copy(&file.path, &to).map_err(ModelError::io(&file.path, "copy"))?;
        fs::File::open(&to).and_then(|file| file.sync_all()).map_err(ModelError::io(&to, "write out"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use gannet_models::ModelName;

    use super::*;

    #[test]
    fn a_folder_takes_a_version_once() {
        let dir = tempfile::tempdir().unwrap();
        let package = dir.path().join("package");
        fs::create_dir_all(package.join("golden")).unwrap();
        fs::write(package.join("model.onnx"), "m").unwrap();
        fs::write(package.join("golden/a.json"), "{}").unwrap();
        let repository = dir.path().join("models/iris");
        fs::create_dir_all(&repository).unwrap();
        let spec =
            SourceSpec::new(ModelName::new("iris").unwrap(), &format!("file://{}/1", repository.display()))
                .unwrap();
        let push = || push(&package, &spec, &IngestLimits::default());
        let first = push().unwrap();
        assert_eq!((first.files, first.bytes, first.was_there), (2, 3, false));
        assert!(push().unwrap().was_there);
        // the version, and the list beside it
        assert_eq!(fs::read_dir(&repository).unwrap().count(), 2);
        fs::write(package.join("model.onnx"), "n").unwrap();
        let message = push().unwrap_err().to_string();
        assert!(message.contains("a version never changes"), "{message}");
        assert_eq!(fs::read(repository.join("1/model.onnx")).unwrap(), b"m");
    }

    #[test]
    fn of_two_who_push_the_same_version_the_list_is_the_firsts() {
        let dir = tempfile::tempdir().unwrap();
        let store = gannet_models::Store::open(&dir.path().join("store")).unwrap();
        for round in 0..20 {
            let target = dir.path().join(format!("models/iris/{round}"));
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            let spec = |text: &str| SourceSpec::new(ModelName::new("iris").unwrap(), text).unwrap();
            let pushed = std::thread::scope(|scope| {
                let push_one = |text: &'static str| {
                    let package = dir.path().join(format!("{round}-{text}"));
                    fs::create_dir(&package).unwrap();
                    fs::write(package.join("model.onnx"), text).unwrap();
                    let uri = format!("file://{}", target.display());
                    scope.spawn(move || push(&package, &spec(&uri), &IngestLimits::default()).is_ok())
                };
                ["a", "b"].map(push_one).map(|thread| thread.join().unwrap())
            });
            assert!(pushed.contains(&true), "{pushed:?}");
            let location = VersionLocation { path: target.clone(), root: target.clone(), stored_as: None };
            let artifact = store.ingest(&location, &IngestLimits::default()).unwrap();
            assert_eq!(crate::beside::check(&target, &artifact), Ok(()));
        }
    }
}
