//! Models that DVC tracks: a pointer (`x.dvc`) or lock file (`dvc.lock`) names digests, and a remote, a folder or an
//! object store, keeps the content under them. Must not know git, nor how such files are written.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use gannet_models::{ModelName, Version};
use serde::Deserialize;

use crate::{
    RemoteError,
    listing::{ListedVersion, Listing},
    opened::{Opened, open_file},
    package::{Check, Plan, PlannedFile, check_path},
    s3::{Objects, S3Options},
};

/// Bytes of a pointer, a lock file or a configuration.
const TEXT_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a list of files.
const LIST_BYTES_MAX: usize = 64 << 20;
/// Folders above a pointer in which `.dvc` is looked for.
const PARENTS_MAX: usize = 64;
/// Digits of an MD5 that name a version.
const VERSION_DIGITS: usize = 12;

/// A file that DVC tracks.
pub(crate) struct Dvc {
    name: ModelName,
    pointer: PathBuf,
    out: Option<String>,
    store: S3Options,
}

/// An output, as a pointer or a lock file names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Out {
    md5: String,
    size: Option<u64>,
    hash: Option<String>,
    path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pointer {
    outs: Vec<Out>,
    stages: BTreeMap<String, Stage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stage {
    outs: Vec<Out>,
}

/// One file of a folder's list.
#[derive(Debug, Deserialize)]
struct Listed {
    md5: String,
    relpath: String,
}

/// Where content is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Folder(PathBuf),
    Store { bucket: String, prefix: String, endpoint: Option<String>, region: Option<String> },
}

impl Dvc {
    pub(crate) fn new(name: &ModelName, pointer: PathBuf, out: Option<String>, store: S3Options) -> Self {
        Self { name: name.clone(), pointer, out, store }
    }

    #[expect(clippy::unused_async, reason = "every kind of source is asked the same way")]
    pub(crate) async fn list(&mut self) -> Result<Listing, RemoteError> {
        let out = self.chosen()?;
        let digits = out.md5.trim_end_matches(".dir");
        let version = Version::new(&digits[..VERSION_DIGITS])
            .map_err(|error| RemoteError::Unusable(format!("{}: {error}", self.pointer.display())))?;
        Ok(Listing::one(&self.name, version, out.md5.clone(), out.md5))
    }

    /// The one output that is meant.
    fn chosen(&self) -> Result<Out, RemoteError> {
        let text = read_text(&self.pointer)?;
        let bad = |what: String| RemoteError::Unusable(format!("{}: {what}", self.pointer.display()));
        let outs = outs(&text).map_err(bad)?;
        let names = || outs.iter().map(|out| out.path.as_str()).collect::<Vec<_>>().join(", ");
        let chosen = match (&self.out, &outs[..]) {
            (Some(wanted), _) => outs.iter().find(|out| out.path == *wanted),
            (None, [one]) => Some(one),
            (None, _) => None,
        };
        let out = chosen.ok_or_else(|| {
            bad(format!(
                "expected the URI to name one output behind '#', got {:?}; there are: {}",
                self.out,
                names()
            ))
        })?;
        check_out(out).map_err(bad)?;
        Ok(out.clone())
    }

    pub(crate) async fn plan(&self, version: &ListedVersion) -> Result<Plan, RemoteError> {
        let out = self.chosen()?;
        if out.md5 != version.locator {
            return Err(RemoteError::Down("the pointer moved meanwhile; it is looked at again".to_owned()));
        }
        let file_name = out.path.rsplit('/').next().unwrap_or_default();
        let Some(folder) = out.md5.strip_suffix(".dir") else {
            let extension = Path::new(file_name).extension().and_then(|extension| extension.to_str());
            let path = match extension {
                Some("onnx") => "model.onnx",
                Some("pt" | "pth") => "model.pt",
                _ => file_name,
            };
            let check = Check::Md5(out.md5.clone());
            let file = PlannedFile { path: path.to_owned(), size: out.size, check, locator: out.md5 };
            return Ok(Plan { files: vec![file], ..Plan::default() });
        };
        let list = self.small(&out.md5).await?;
        let got: String =
            <md5::Md5 as sha2::Digest>::digest(&list).iter().map(|byte| format!("{byte:02x}")).collect();
        if got != folder {
            return Err(RemoteError::Unusable(format!(
                "the list of '{}': expected md5 {folder}, got {got}",
                out.path
            )));
        }
        let listed: Vec<Listed> = serde_json::from_slice(&list)
            .map_err(|error| RemoteError::Unusable(format!("the list of '{}': {error}", out.path)))?;
        let mut files = Vec::new();
        for Listed { md5, relpath } in listed {
            check_path(&relpath)?;
            check_md5(&md5).map_err(RemoteError::Unusable)?;
            files.push(PlannedFile {
                path: relpath,
                size: None,
                check: Check::Md5(md5.clone()),
                locator: md5,
            });
        }
        Ok(Plan { files, ..Plan::default() })
    }

    async fn small(&self, md5: &str) -> Result<Bytes, RemoteError> {
        match self.place()? {
            Place::Folder(folder) => {
                let path = folder.join(object_path(md5));
                match fs::metadata(&path) {
                    Ok(found) if found.len() > LIST_BYTES_MAX as u64 => {
                        Err(RemoteError::Unusable(format!("{}: too long a list", path.display())))
                    }
                    _ => fs::read(&path).map(Bytes::from).map_err(|error| {
                        RemoteError::Missing(format!("{}: {error}; run dvc push", path.display()))
                    }),
                }
            }
            place => {
                let (objects, prefix) = self.objects(&place)?;
                objects.get(&format!("{prefix}{}", object_path(md5)), LIST_BYTES_MAX).await
            }
        }
    }

    pub(crate) async fn open(&self, file: &PlannedFile, offset: u64) -> Result<Opened, RemoteError> {
        let path = object_path(&file.locator);
        match self.place()? {
            Place::Folder(folder) => open_file(&folder.join(path), offset),
            place => {
                let (objects, prefix) = self.objects(&place)?;
                objects.open(&format!("{prefix}{path}"), offset).await
            }
        }
    }

    fn objects(&self, place: &Place) -> Result<(Objects, String), RemoteError> {
        let Place::Store { bucket, prefix, endpoint, region } = place else {
            return Err(RemoteError::Unusable("expected an object store".to_owned()));
        };
        let mut options = self.store.clone();
        options.endpoint = options.endpoint.or_else(|| endpoint.clone());
        options.settings.extend(region.iter().map(|region| ("aws_region".to_owned(), region.clone())));
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok((Objects::new(bucket, &options)?, prefix))
    }

    /// The remote that the pointer's repository uses.
    fn place(&self) -> Result<Place, RemoteError> {
        let above = self.pointer.ancestors().skip(1).take(PARENTS_MAX);
        let Some(folder) =
            above.map(|folder| folder.join(".dvc")).find(|folder| folder.join("config").is_file())
        else {
            return Err(RemoteError::Unusable(format!(
                "{}: expected a folder above with .dvc/config; name a pointer inside of a DVC repository",
                self.pointer.display()
            )));
        };
        let mut text = read_text(&folder.join("config"))?;
        // what is not committed wins
        if let Ok(local) = read_text(&folder.join("config.local")) {
            text.extend(["\n", &local]);
        }
        remote(&text, &folder)
            .map_err(|what| RemoteError::Unusable(format!("{}: {what}", folder.join("config").display())))
    }
}

fn read_text(path: &Path) -> Result<String, RemoteError> {
    let missing = |error: std::io::Error| RemoteError::Missing(format!("{}: {error}", path.display()));
    let size = fs::metadata(path).map_err(missing)?.len();
    if size > TEXT_BYTES_MAX {
        return Err(RemoteError::Unusable(format!(
            "{}: expected at most {TEXT_BYTES_MAX} bytes",
            path.display()
        )));
    }
    fs::read_to_string(path).map_err(missing)
}

/// Every output of a pointer or a lock file.
fn outs(text: &str) -> Result<Vec<Out>, String> {
    let pointer: Pointer =
        serde_saphyr::from_str(text).map_err(|error| format!("expected a file of DVC: {error}"))?;
    let staged = pointer.stages.into_values().flat_map(|stage| stage.outs);
    Ok(pointer.outs.into_iter().chain(staged).collect())
}

fn check_md5(md5: &str) -> Result<(), String> {
    let hex = md5.len() == 32 && md5.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hex { Ok(()) } else { Err(format!("expected an MD5, got {md5:?}")) }
}

fn check_out(out: &Out) -> Result<(), String> {
    if out.md5.is_empty() {
        return Err(format!(
            "'{}': expected an md5; outputs of cloud versioning and of imports are not understood: add the file with dvc add",
            out.path
        ));
    }
    check_md5(out.md5.trim_end_matches(".dir"))?;
    if out.hash.as_deref() != Some("md5") {
        return Err(format!(
            "'{}': expected hash: md5, as DVC 3 writes it, got the layout of DVC 2; run dvc cache migrate and dvc commit",
            out.path
        ));
    }
    Ok(())
}

/// `files/md5/52/66fb...`.
fn object_path(md5: &str) -> String {
    let (start, rest) = md5.split_at_checked(2).unwrap_or(("", md5));
    format!("files/md5/{start}/{rest}")
}

/// The remote of `[core]`, out of a configuration; `folder` is what relative paths are relative to.
fn remote(config: &str, folder: &Path) -> Result<Place, String> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = String::new();
    for line in config.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim().trim_matches(['\'', '"']).replace(['"', '\''], "");
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with(['#', ';'])) {
            let entry = sections.entry(section.clone()).or_default();
            entry.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    let core = sections.get("core").and_then(|core| core.get("remote"));
    let name = core.ok_or("expected a default remote ([core] remote = ...); run dvc remote default NAME")?;
    let remote =
        sections.get(&format!("remote {name}")).ok_or_else(|| format!("there is no remote '{name}'"))?;
    let url = remote.get("url").ok_or_else(|| format!("the remote '{name}' has no url"))?;
    if let Some(rest) = url.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (endpoint, region) = (remote.get("endpointurl").cloned(), remote.get("region").cloned());
        let (bucket, prefix) = (bucket.to_owned(), prefix.trim_matches('/').to_owned());
        return Ok(Place::Store { bucket, prefix, endpoint, region });
    }
    if url.contains("://") && !url.starts_with("file://") {
        return Err(format!("the remote '{name}': expected a folder or s3://, got {url:?}"));
    }
    Ok(Place::Folder(folder.join(url.trim_start_matches("file://"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_and_lock_files_are_understood() {
        let pointer =
            "outs:\n- md5: 5266fbf6be25f70ab325f3b51af33924\n  size: 518\n  hash: md5\n  path: iris.onnx\n";
        let out = &outs(pointer).unwrap()[0];
        assert_eq!((out.path.as_str(), out.size), ("iris.onnx", Some(518)));
        check_out(out).unwrap();
        let lock = "schema: '2.0'\nstages:\n  train:\n    cmd: x\n    deps:\n    - {path: a, hash: md5, md5: 5266fbf6be25f70ab325f3b51af33924}\n    outs:\n    - {path: models/out.onnx, hash: md5, md5: 5266fbf6be25f70ab325f3b51af33924, size: 518}\n";
        assert_eq!(outs(lock).unwrap()[0].path, "models/out.onnx");
        assert_eq!(object_path(&out.md5), "files/md5/52/66fbf6be25f70ab325f3b51af33924");
        for (bad, part) in [
            ("outs:\n- {path: a, md5: 5266fbf6be25f70ab325f3b51af33924}\n", "DVC 2"),
            ("outs:\n- {path: a, hash: md5, etag: x}\n", "expected an md5"),
            ("outs:\n- {path: a, hash: md5, md5: ../../etc/passwd}\n", "expected an MD5"),
        ] {
            let message = check_out(&outs(bad).unwrap()[0]).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
        assert!(outs("[1, 2").is_err());
    }

    #[test]
    fn remotes_are_found() {
        let at = Path::new("/r/.dvc");
        let text = "[core]\n    remote = local\n['remote \"local\"']\n    url = /srv/dvc\n";
        assert_eq!(remote(text, at), Ok(Place::Folder("/srv/dvc".into())));
        let text = "[core]\nremote = l\n['remote \"l\"']\nurl = ../../store\n";
        assert_eq!(remote(text, at), Ok(Place::Folder("/r/.dvc/../../store".into())));
        let text = "[core]\nremote = s3\n['remote \"s3\"']\nurl = s3://models/dvc\nendpointurl = http://127.0.0.1:1\n";
        let Ok(Place::Store { bucket, prefix, endpoint, .. }) = remote(text, at) else { panic!("a store") };
        assert_eq!((&*bucket, &*prefix, endpoint.as_deref()), ("models", "dvc", Some("http://127.0.0.1:1")));
        assert!(remote("[core]\nremote = x\n", at).is_err());
        assert!(remote("[core]\nremote = x\n['remote \"x\"']\nurl = ssh://h/x\n", at).is_err());
    }
}
