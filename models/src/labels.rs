//! Files of class names, one a line. Must not know which output they are for.

use std::{
    fs,
    path::{Component, Path},
    sync::Arc,
};

use crate::error::ModelError;

/// The file of class names in a version's folder.
const VERSION_LABELS_FILE: &str = "labels.txt";
/// Bytes of a file of class names, at most.
const LABELS_BYTES_MAX: u64 = 16 << 20;

/// The class names that a version's folder holds in `labels.txt`; `None` when there is no such file.
///
/// # Errors
/// [`ModelError::Io`] or [`ModelError::TooLarge`].
pub fn read_version_labels(version_dir: &Path) -> Result<Option<Arc<[String]>>, ModelError> {
    let path = version_dir.join(VERSION_LABELS_FILE);
    if path.is_file() { read(&path).map(Some) } else { Ok(None) }
}

/// Reads a label file that a settings file names, or says what is wrong with the name.
pub(crate) fn read_named(model_dir: &Path, name: &str) -> Result<Arc<[String]>, String> {
    let relative = Path::new(name);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(format!("'{name}', which leaves the model's folder"));
    }
    let path = model_dir.join(relative);
    let target = path.canonicalize().map_err(|error| format!("'{name}', which cannot be read: {error}"))?;
    // A link may lead to a neighbour in the repository (that is how mounted volumes look), not out of it.
    let root = model_dir.canonicalize().map(|dir| dir.parent().map(Path::to_owned).unwrap_or(dir));
    if !root.is_ok_and(|root| target.starts_with(root)) {
        return Err(format!("'{name}', a link that leaves the repository"));
    }
    read(&target).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<Arc<[String]>, ModelError> {
    let size = fs::metadata(path).map_err(ModelError::io(path, "look at"))?.len();
    if size > LABELS_BYTES_MAX {
        let path = path.to_owned();
        return Err(ModelError::TooLarge {
            path,
            unit: "bytes of class names",
            limit: LABELS_BYTES_MAX,
            got: size,
        });
    }
    let text = fs::read_to_string(path).map_err(ModelError::io(path, "read"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_lines() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_version_labels(dir.path()).unwrap(), None);
        fs::write(dir.path().join("labels.txt"), "a b\r\n\nc\n").unwrap();
        let labels = read_version_labels(dir.path()).unwrap().unwrap();
        assert_eq!(labels.as_ref(), ["a b", "", "c"]);
    }

    #[test]
    fn label_files_stay_in_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("iris");
        fs::create_dir_all(&model).unwrap();
        fs::write(model.join("labels.txt"), "a").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", model.join("leak.txt")).unwrap();
        assert!(read_named(&model, "labels.txt").is_ok());
        for bad in ["../iris/labels.txt", "/etc/hostname", "leak.txt", "missing.txt", "./labels.txt/.."] {
            assert!(read_named(&model, bad).is_err(), "{bad}");
        }
    }
}
