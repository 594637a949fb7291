//! A package: the files of one version, as a registry lists them. Paths are checked here once; `manifest.json` is read
//! and written here. Must not know where the files are fetched from.

use std::collections::{BTreeMap, BTreeSet};

use gannet_models::{Digest, IngestLimits, digest::FileEntry, scan::DEPTH_MAX};
use serde::{Deserialize, Serialize};

use crate::RemoteError;

/// The list of files that is written last, where a registry keeps plain objects.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";
/// Bytes of such a list.
pub(crate) const MANIFEST_BYTES_MAX: usize = 16 << 20;
/// What the list calls itself.
const FORMAT: &str = "gannet-package/1";
/// Bytes of a path.
const PATH_BYTES_MAX: usize = 1024;

/// What is known of a file's content before it is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Check {
    /// Nothing but its size.
    #[default]
    Size,
    Sha256(String),
    Md5(String),
    /// SHA-1 of a git blob.
    GitBlob(String),
}

/// One file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedFile {
    /// Relative to the package, checked.
    pub(crate) path: String,
    pub(crate) size: Option<u64>,
    pub(crate) check: Check,
    /// Where the source finds it: a path, a key, a digest.
    pub(crate) locator: String,
}

/// Everything to fetch for one version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    pub(crate) files: Vec<PlannedFile>,
    /// The digest of the whole as it is fetched, where the source knows it, and how, for people.
    pub(crate) digest: Option<(Digest, &'static str)>,
    /// How files are called in the store, where it differs: (as fetched, as stored).
    pub(crate) renames: Vec<(String, String)>,
    /// Archives among the files whose content is the package.
    pub(crate) unpack: Unpack,
    /// A file (by its path as fetched) that must be a TorchScript archive.
    pub(crate) torch_script: Option<String>,
}

/// What is done with fetched archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Unpack {
    #[default]
    Nothing,
    /// Every file is a layer of a ModelCar, in order; `models/` in it is the package.
    ModelCar,
}

/// Checks a path that a registry names.
///
/// # Errors
/// [`RemoteError::Unusable`] where it could leave the package, or is no sound name.
pub(crate) fn check_path(path: &str) -> Result<(), RemoteError> {
    let refused = |what: &str| {
        let shown: String = path.escape_debug().take(120).collect();
        Err(RemoteError::Unusable(format!(
            "the registry names the file '{shown}': expected a path inside of the package, got {what}; nothing was \
             written"
        )))
    };
    if path.is_empty() || path.len() > PATH_BYTES_MAX {
        return refused("one of no or too many bytes");
    }
    if path.starts_with('/') || path.contains('\\') || path.contains('\0') {
        return refused("an absolute or foreign one");
    }
    if path.chars().any(char::is_control) {
        return refused("control characters");
    }
    let mut depth = 0;
    for segment in path.split('/') {
        depth += 1;
        match segment {
            "" | "." | ".." => return refused("one that steps through the tree"),
            _ if segment.len() > 255 => return refused("a name of more than 255 bytes"),
            _ if depth > DEPTH_MAX => return refused("one that is nested too deeply"),
            _ => {}
        }
    }
    Ok(())
}

impl Plan {
    /// The digest of a package as it was fetched, from its files as they are stored, which may be called otherwise and have
    /// others beside them; `None` where archives were unpacked.
    pub(crate) fn as_fetched(&self, stored: &[FileEntry]) -> Option<Digest> {
        let fetched = stored.iter().map(|file| {
            let renamed = self.renames.iter().find(|(_, to)| *to == file.path);
            let path = renamed.map_or(&file.path, |(from, _)| from).clone();
            FileEntry { path, ..file.clone() }
        });
        let own = fetched.filter(|file| self.files.iter().any(|planned| planned.path == file.path));
        (self.unpack == Unpack::Nothing).then(|| Digest::of_tree(&own.collect::<Vec<_>>()))
    }

    /// Whether there are files of which nothing is known but their sizes.
    pub(crate) fn is_unsealed(&self) -> bool {
        self.digest.is_none() && self.files.iter().any(|file| file.check == Check::Size)
    }

    /// Checks paths, counts and sizes, before a byte is fetched.
    ///
    /// # Errors
    /// [`RemoteError::Unusable`].
    pub(crate) fn check(&self, limits: &IngestLimits) -> Result<(), RemoteError> {
        let count = self.files.len();
        if count == 0 {
            return Err(RemoteError::Unusable("expected at least one file, got an empty package".to_owned()));
        }
        if count > limits.files_max {
            return Err(RemoteError::Unusable(format!(
                "expected at most {} files (registry.max_files), got {count}",
                limits.files_max
            )));
        }
        let mut seen = BTreeSet::new();
        for file in &self.files {
            check_path(&file.path)?;
            if !seen.insert(file.path.as_str()) {
                return Err(RemoteError::Unusable(format!("the registry names '{}' twice", file.path)));
            }
        }
        for path in &seen {
            let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
            if let Some(parent) = parents.into_iter().find(|parent| seen.contains(parent)) {
                return Err(RemoteError::Unusable(format!("'{parent}' is a file and a folder of '{path}'")));
            }
        }
        let bytes = self.size().unwrap_or(u64::MAX);
        if bytes > limits.bytes_max {
            return Err(too_large(limits.bytes_max, &bytes.to_string()));
        }
        Ok(())
    }

    /// Bytes of all files whose size is known; `None`: more than can be.
    pub(crate) fn size(&self) -> Option<u64> {
        self.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.size.unwrap_or(0)))
    }
}

pub(crate) fn too_large(limit: u64, got: &str) -> RemoteError {
    RemoteError::Unusable(format!(
        "expected at most {limit} bytes in one package (registry.max_package_bytes), got {got}; raise the limit or \
         make the package smaller"
    ))
}

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: String,
    /// Of the whole package, as the store names it.
    digest: String,
    files: Vec<ManifestFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ManifestFile {
    path: String,
    size: u64,
    sha256: String,
}

impl Manifest {
    /// The list of these files.
    #[must_use]
    pub(crate) fn of(files: &[FileEntry]) -> Self {
        let file =
            |f: &FileEntry| ManifestFile { path: f.path.clone(), size: f.size, sha256: f.digest.to_string() };
        Self {
            format: FORMAT.to_owned(),
            digest: Digest::of_tree(files).to_string(),
            files: files.iter().map(file).collect(),
        }
    }

    /// As it is written.
    #[must_use]
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// What to fetch. `locate` says where a file is found.
    pub(crate) fn read(bytes: &[u8], locate: impl Fn(&str) -> String) -> Result<Plan, RemoteError> {
        let bad = |why: &dyn std::fmt::Display| {
            RemoteError::Unusable(format!(
                "{MANIFEST_FILE}: expected a list of files as gannet push writes it: {why}"
            ))
        };
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| bad(&error))?;
        if manifest.format != FORMAT {
            return Err(bad(&format_args!("the format is {:?}, not {FORMAT:?}", manifest.format)));
        }
        let mut files = Vec::new();
        let mut entries = BTreeMap::new();
        for file in manifest.files {
            check_path(&file.path)?;
            let digest: Digest = file.sha256.parse().map_err(|error| bad(&error))?;
            entries.insert(file.path.clone(), FileEntry { path: file.path.clone(), size: file.size, digest });
            let locator = locate(&file.path);
            let check = Check::Sha256(file.sha256);
            files.push(PlannedFile { path: file.path, size: Some(file.size), check, locator });
        }
        let digest: Digest = manifest.digest.parse().map_err(|error| bad(&error))?;
        let entries: Vec<FileEntry> = entries.into_values().collect();
        if Digest::of_tree(&entries) != digest {
            return Err(bad(&"its own digest is not that of the files it lists"));
        }
        Ok(Plan { files, digest: Some((digest, MANIFEST_FILE)), ..Plan::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, text: &str) -> FileEntry {
        FileEntry { path: path.into(), size: text.len() as u64, digest: Digest::of(text.as_bytes()) }
    }

    #[test]
    fn paths_stay_inside() {
        for good in ["model.onnx", "data/model.onnx", "a/b/c/d", "..a/b", "sp ace/é"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        let deep = "a/".repeat(20) + "x";
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../x",
            "a//b",
            "a/./b",
            "a/",
            "a\\b",
            "a\0b",
            "a\nb",
            &deep,
            &"x".repeat(256),
        ] {
            assert!(matches!(check_path(bad), Err(RemoteError::Unusable(_))), "{bad:?}");
        }
    }

    fn plan(files: &[(&str, u64)]) -> Plan {
        let file = |(path, size): &(&str, u64)| PlannedFile {
            path: (*path).to_owned(),
            size: Some(*size),
            check: Check::Size,
            locator: String::new(),
        };
        Plan { files: files.iter().map(file).collect(), ..Plan::default() }
    }

    #[test]
    fn plans_are_bounded() {
        let limits = IngestLimits { files_max: 2, bytes_max: 10 };
        let check = |files: &[(&str, u64)], part: &str| match plan(files).check(&limits) {
            Ok(()) => assert_eq!(part, "", "{files:?}"),
            Err(error) => {
                assert!(!part.is_empty() && error.to_string().contains(part), "{files:?}: {error}");
            }
        };
        check(&[("a", 4), ("b", 6)], "");
        check(&[], "empty");
        check(&[("a", 1), ("b", 1), ("c", 1)], "max_files");
        check(&[("a", 11)], "max_package_bytes");
        check(&[("a", u64::MAX), ("b", u64::MAX)], "max_package_bytes");
        check(&[("a", 1), ("a", 1)], "twice");
        check(&[("a", 1), ("a/b", 1)], "a file and a folder");
        check(&[("../a", 1)], "steps");
    }

    #[test]
    fn a_flipped_byte_anywhere_in_a_manifest_is_refused() {
        let files = [entry("golden/a.json", "{}"), entry("model.onnx", "model")];
        let text = Manifest::of(&files).to_json().into_bytes();
        let sound = Manifest::read(&text, str::to_owned).unwrap();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                // space for space, or a letter of a digest in the other case, says the same
                if let Ok(plan) = Manifest::read(&flipped, str::to_owned) {
                    let lower = |plan: &Plan| format!("{plan:?}").to_lowercase();
                    assert_eq!(lower(&plan), lower(&sound), "byte {at}, bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_package_is_known_by_what_was_fetched() {
        let planned = |path: &str| PlannedFile {
            path: path.into(),
            size: None,
            check: Check::Size,
            locator: String::new(),
        };
        let mut plan = Plan {
            files: vec![planned("net.onnx"), planned("MLmodel")],
            renames: vec![("net.onnx".into(), "model.onnx".into())],
            ..Plan::default()
        };
        let fetched = Digest::of_tree(&[entry("net.onnx", "n"), entry("MLmodel", "m")]);
        let pinned = entry("golden/pinned-a.json", "{}");
        let stored = [entry("model.onnx", "n"), entry("MLmodel", "m"), pinned];
        assert_eq!(plan.as_fetched(&stored), Some(fetched));
        assert_ne!(plan.as_fetched(&[entry("model.onnx", "N"), entry("MLmodel", "m")]), Some(fetched));
        assert!(plan.is_unsealed());
        plan.digest = Some((fetched, "a tag"));
        assert!(!plan.is_unsealed());
        plan.unpack = Unpack::ModelCar;
        assert_eq!(plan.as_fetched(&stored), None);
    }

    #[test]
    fn manifests_are_read_as_they_were_written() {
        let files = [entry("a/b.json", "{}"), entry("model.onnx", "model")];
        let text = Manifest::of(&files).to_json();
        let plan = Manifest::read(text.as_bytes(), |path| format!("p/{path}")).unwrap();
        assert_eq!(plan.digest, Some((Digest::of_tree(&files), MANIFEST_FILE)));
        assert_eq!(plan.files[1].locator, "p/model.onnx");
        for (from, to) in
            [("gannet-package/1", "other"), ("a/b.json", "../b.json"), ("\"size\": 5", "\"size\": 6")]
        {
            let error = Manifest::read(text.replace(from, to).as_bytes(), str::to_owned).unwrap_err();
            assert!(matches!(error, RemoteError::Unusable(_)), "{from}: {error}");
        }
        assert!(Manifest::read(b"{", str::to_owned).is_err());
    }
}
