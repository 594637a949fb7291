//! Lists the files of one version as they lie in a repository, with what tells that they changed.
//! Must not know settings, nor keep anything between two looks.

use std::{
    fmt::Write as _,
    fs::{self, DirEntry, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{digest::Digest, error::ModelError};

/// Folders inside folders that are looked into.
pub const DEPTH_MAX: usize = 8;
/// Longest part of a bare model file's companion name that follows the file's own name.
const COMPANION_SUFFIXES: [&str; 3] = [".data", "_data", ".bin"];

/// Where the files of one version lie.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionLocation {
    /// The version's folder, or the model file itself where a file alone was given.
    pub path: PathBuf,
    /// The folder that symbolic links must not leave.
    pub root: PathBuf,
    /// The name that a file alone gets in its artifact, such as `model.onnx`; `None` for a folder.
    pub stored_as: Option<String>,
}

/// The most that is read from one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestLimits {
    /// Files, at most.
    pub files_max: usize,
    /// Bytes of all files together, at most.
    pub bytes_max: u64,
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self { files_max: 10_000, bytes_max: 1 << 40 }
    }
}

/// What tells that a file is not the one seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Last modification, in nanoseconds since the epoch.
    pub modified_ns: i128,
    /// The file's number on its device.
    pub inode: u64,
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
            inode: metadata.ino(),
        }
    }
}

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedFile {
    /// Path in the artifact, relative, `/` between segments.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// As it is now.
    pub stamp: Stamp,
}

/// What an entry of a folder is, symbolic links followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File(Stamp),
    /// A folder.
    Folder,
    /// A socket, a device, a dangling link or the like: not looked at.
    Other,
}

/// Whether a name belongs to an editor, a copy under way, or is hidden: such files do not exist for Gannet.
#[must_use]
pub fn is_ignored(name: &str) -> bool {
    const SUFFIXES: [&str; 5] = ["~", ".swp", ".swx", ".tmp", ".part"];
    name.starts_with('.') || name == "4913" || SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Looks at one entry of a folder. `root` must be canonical.
///
/// # Errors
/// [`ModelError::Outside`] for a link that leaves `root`; [`ModelError::Io`].
pub fn entry(entry: &DirEntry, root: &Path) -> Result<Entry, ModelError> {
    let path = entry.path();
    let kind = entry.file_type().map_err(ModelError::io(&path, "look at"))?;
    if kind.is_dir() {
        return Ok(Entry::Folder);
    }
    if kind.is_file() {
        let metadata = entry.metadata().map_err(ModelError::io(&path, "look at"))?;
        return Ok(Entry::File(Stamp::from(&metadata)));
    }
    if !kind.is_symlink() {
        return Ok(Entry::Other);
    }
    let Ok(target) = path.canonicalize() else { return Ok(Entry::Other) };
    if !target.starts_with(root) {
        return Err(ModelError::Outside { path, target, root: root.to_owned() });
    }
    let metadata = fs::metadata(&target).map_err(ModelError::io(&path, "look at"))?;
    Ok(match metadata {
        metadata if metadata.is_dir() => Entry::Folder,
        metadata if metadata.is_file() => Entry::File(Stamp::from(&metadata)),
        _ => Entry::Other,
    })
}

/// Every file of a version, sorted by name.
///
/// # Errors
/// [`ModelError::TooLarge`], [`ModelError::Outside`] or [`ModelError::Io`].
pub fn scan(location: &VersionLocation, limits: &IngestLimits) -> Result<Vec<ScannedFile>, ModelError> {
    let root = location.root.canonicalize().map_err(ModelError::io(&location.root, "find"))?;
    scan_under(location, &root, limits)
}

/// As [`scan`], for a caller that knows the canonical form of the location's root.
///
/// # Errors
/// As [`scan`].
pub fn scan_under(
    location: &VersionLocation,
    root: &Path,
    limits: &IngestLimits,
) -> Result<Vec<ScannedFile>, ModelError> {
    let mut scanner = Scanner { root, limits, files: Vec::new(), bytes: 0 };
    match &location.stored_as {
        None => scanner.folder(&location.path, "", 0)?,
        Some(name) => scanner.lone_file(&location.path, name)?,
    }
    let mut files = scanner.files;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

struct Scanner<'a> {
    root: &'a Path,
    limits: &'a IngestLimits,
    files: Vec<ScannedFile>,
    bytes: u64,
}

impl Scanner<'_> {
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), ModelError> {
        if depth > DEPTH_MAX {
            let (limit, got) = (DEPTH_MAX as u64, depth as u64);
            return Err(ModelError::TooLarge { path: folder.to_owned(), unit: "nested folders", limit, got });
        }
        for item in fs::read_dir(folder).map_err(ModelError::io(folder, "list"))? {
            let item = item.map_err(ModelError::io(folder, "list"))?;
            let name = item.file_name();
            // A name that is no UTF-8 cannot be asked for by any backend.
            let Some(name) = name.to_str().filter(|name| !is_ignored(name)) else { continue };
            let name = format!("{prefix}{name}");
            match entry(&item, self.root)? {
                Entry::File(stamp) => self.push(name, item.path(), stamp)?,
                Entry::Folder => self.folder(&item.path(), &format!("{name}/"), depth + 1)?,
                Entry::Other => {}
            }
        }
        Ok(())
    }

    /// A model file given by its own path, with the external data that exporters put beside it.
    fn lone_file(&mut self, path: &Path, stored_as: &str) -> Result<(), ModelError> {
        let own = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let metadata = fs::metadata(path).map_err(ModelError::io(path, "look at"))?;
        self.push(stored_as.to_owned(), path.to_owned(), Stamp::from(&metadata))?;
        for suffix in COMPANION_SUFFIXES {
            let name = format!("{own}{suffix}");
            let companion = path.with_file_name(&name);
            if let Ok(metadata) = fs::metadata(&companion)
                && metadata.is_file()
            {
                self.push(name, companion, Stamp::from(&metadata))?;
            }
        }
        Ok(())
    }

    fn push(&mut self, name: String, path: PathBuf, stamp: Stamp) -> Result<(), ModelError> {
        self.bytes = self.bytes.saturating_add(stamp.size);
        self.files.push(ScannedFile { name, path, stamp });
        let over = |unit, limit, got| ModelError::TooLarge { path: self.root.to_owned(), unit, limit, got };
        if self.files.len() > self.limits.files_max {
            return Err(over("files", self.limits.files_max as u64, self.files.len() as u64));
        }
        if self.bytes > self.limits.bytes_max {
            return Err(over("bytes", self.limits.bytes_max, self.bytes));
        }
        Ok(())
    }
}

/// A number that changes when any of the files does. Stable across processes and releases.
#[must_use]
pub fn fingerprint(files: &[ScannedFile]) -> u64 {
    let mut text = String::with_capacity(files.len() * 64);
    for file in files {
        let Stamp { size, modified_ns, inode } = file.stamp;
        let _ = writeln!(text, "{:?} {size} {modified_ns} {inode}", file.name);
    }
    Digest::of(text.as_bytes()).short()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn editors_files_and_copies_under_way_are_ignored() {
        for name in [".model.onnx.Xa91", "model.onnx~", "a.swp", "a.swx", "m.tmp", "m.part", "4913", "..data"]
        {
            assert!(is_ignored(name), "{name}");
        }
        for name in ["model.onnx", "model.onnx_data", "1", "tmp", "part.onnx"] {
            assert!(!is_ignored(name), "{name}");
        }
    }

    #[test]
    fn links_inside_the_root_are_followed_and_others_refused() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let data = root.path().join("..data");
        let version = root.path().join("iris/1");
        fs::create_dir_all(&data).unwrap();
        fs::create_dir_all(&version).unwrap();
        fs::write(data.join("model.onnx"), "abc").unwrap();
        symlink("../../..data/model.onnx", version.join("model.onnx")).unwrap();
        symlink("nowhere", version.join("dangling")).unwrap();
        let location = VersionLocation { path: version.clone(), root: root.path().into(), stored_as: None };
        let files = scan(&location, &IngestLimits::default()).unwrap();
        assert_eq!(files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["model.onnx"]);
        assert_eq!(files[0].stamp.size, 3);

        fs::write(outside.path().join("secret"), "x").unwrap();
        symlink(outside.path().join("secret"), version.join("leak")).unwrap();
        let error = scan(&location, &IngestLimits::default()).unwrap_err();
        assert!(matches!(error, ModelError::Outside { .. }), "{error}");
    }

    #[test]
    fn limits_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let location =
            VersionLocation { path: root.path().into(), root: root.path().into(), stored_as: None };
        for name in ["a", "b", "c"] {
            fs::write(root.path().join(name), "12345").unwrap();
        }
        let scan_with = |files_max, bytes_max| scan(&location, &IngestLimits { files_max, bytes_max });
        assert!(scan_with(3, 15).is_ok());
        assert!(matches!(scan_with(2, 15), Err(ModelError::TooLarge { unit: "files", .. })));
        assert!(matches!(scan_with(3, 14), Err(ModelError::TooLarge { unit: "bytes", .. })));
        symlink(".", root.path().join("loop")).unwrap();
        assert!(matches!(
            scan_with(10_000, 1 << 30),
            Err(ModelError::TooLarge { unit: "nested folders", .. })
        ));
    }
}
