//! The files of one version, verified. Must not know how they got here.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::digest::{Digest, FileEntry};

/// A version's files in the store. It exists only if its digest was checked, and while it exists its files stay.
#[derive(Debug, Clone)]
pub struct Artifact {
    digest: Digest,
    dir: PathBuf,
    files: Arc<[FileEntry]>,
    /// Held so that the store does not collect the folder.
    _pin: Arc<()>,
}

/// Two are the same when their content is.
impl PartialEq for Artifact {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Artifact {}

impl Artifact {
    /// Made by the store alone, which has checked the files against the digest.
    pub(crate) fn verified(digest: Digest, dir: PathBuf, files: Vec<FileEntry>, pin: Arc<()>) -> Self {
        Self { digest, dir, files: files.into(), _pin: pin }
    }

    /// The digest of the whole tree.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The folder that holds the files, which are read-only.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Every file, sorted by path.
    #[must_use]
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// The path of a file, by its name relative to the version's folder.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        let index = self.files.binary_search_by(|entry| entry.path.as_str().cmp(name)).ok()?;
        Some(self.dir.join(&self.files[index].path))
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|entry| entry.size).sum()
    }

    /// The golden requests, `golden/*.json`, sorted by name.
    #[must_use]
    pub fn golden_files(&self) -> Vec<PathBuf> {
        let golden = |entry: &&FileEntry| {
            entry
                .path
                .strip_prefix("golden/")
                .is_some_and(|name| !name.contains('/') && name.ends_with(".json"))
        };
        self.files.iter().filter(golden).map(|entry| self.dir.join(&entry.path)).collect()
    }
}
