//! The list of files that lies beside a version in a folder, by which bytes that changed since it was put there are seen.
//! Beside and not within: a package's digest and signature are of its own files alone. Must not know who looks.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use gannet_models::{
    Artifact, Digest, ModelError,
    digest::FileEntry,
    scan::{ScannedFile, Stamp},
};

use crate::{
    RemoteError,
    catalogue::write_whole,
    package::{Check, MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest},
};

/// `.3.manifest.json` of a version `3`: what begins with a dot is no version to anyone who looks.
fn beside(version: &Path) -> PathBuf {
    let name = version.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    version.with_file_name(format!(".{name}.{MANIFEST_FILE}"))
}

/// The list as a file that may change, if it is there.
pub(crate) fn scanned(version: &Path) -> Option<ScannedFile> {
    let path = beside(version);
    let stamp = Stamp::from(&fs::metadata(&path).ok()?);
    Some(ScannedFile { name: MANIFEST_FILE.to_owned(), path, stamp })
}

/// Writes the list; once the version itself is in its place, for whoever comes second must not.
pub(crate) fn write(version: &Path, files: &[FileEntry]) -> Result<(), RemoteError> {
    write_whole(&beside(version), Manifest::of(files).to_json().as_bytes())
}

/// Takes the list away, if it is there.
pub(crate) fn forget(version: &Path) -> Result<(), RemoteError> {
    let list = beside(version);
    match fs::remove_file(&list) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(ModelError::io(&list, "remove")(error).into())
        }
        _ => Ok(()),
    }
}

/// Whether the files of a version are those of the list beside it, if there is one.
///
/// # Errors
/// A text that names the first file that differs, for people.
pub fn check(version: &Path, files: &Artifact) -> Result<(), String> {
    let list = beside(version);
    let refused = |why: &dyn std::fmt::Display| {
        Err(format!(
            "{}: {why}; bring the version anew, or delete that list if the files were changed on purpose",
            list.display()
        ))
    };
    let mut text = Vec::new();
    let read = fs::File::open(&list)
        .and_then(|file| file.take(MANIFEST_BYTES_MAX as u64 + 1).read_to_end(&mut text));
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return refused(&error),
        Ok(_) => {}
    }
    let listed = match Manifest::read(&text, str::to_owned) {
        Ok(plan) => plan.files,
        Err(error) => return refused(&error),
    };
    let mut there: BTreeMap<&str, Digest> =
        files.files().iter().map(|file| (file.path.as_str(), file.digest)).collect();
    for file in &listed {
        let Check::Sha256(expected) = &file.check else { continue };
        match there.remove(file.path.as_str()).map(|digest| digest.to_string()) {
            None => return refused(&format_args!("expected the file '{}', got none", file.path)),
            Some(got) if !got.eq_ignore_ascii_case(expected) => {
                let path = &file.path;
                return refused(&format_args!("expected '{path}' of sha256 {expected}, got {got}"));
            }
            Some(_) => {}
        }
    }
    match there.first_key_value() {
        Some((path, _)) => refused(&format_args!("expected no file '{path}'")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use gannet_models::{IngestLimits, Store};

    use super::*;

    #[test]
    fn what_differs_from_the_list_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let mut made = 0;
        let mut admit = |files: &[(&str, &str)]| {
            made += 1;
            let from = dir.path().join(format!("made-{made}"));
            fs::create_dir(&from).unwrap();
            files.iter().for_each(|(path, text)| fs::write(from.join(path), text).unwrap());
            store.admit(&from, &IngestLimits::default()).unwrap()
        };
        let version = dir.path().join("iris/3");
        let good = admit(&[("model.onnx", "m"), ("notes.txt", "n")]);
        assert_eq!(check(&version, &good), Ok(()), "without a list anything is taken");
        write(&version, good.files()).unwrap();
        assert_eq!(check(&version, &good), Ok(()));
        let mut refused = |files: &[(&str, &str)], part: &str| {
            let why = check(&version, &admit(files)).unwrap_err();
            assert!(why.contains(part) && why.contains(".3.manifest.json"), "{part}: {why}");
        };
        refused(&[("model.onnx", "M"), ("notes.txt", "n")], "expected 'model.onnx' of sha256");
        refused(&[("model.onnx", "m")], "expected the file 'notes.txt', got none");
        refused(&[("model.onnx", "m"), ("notes.txt", "n"), ("x", "x")], "expected no file 'x'");
        fs::write(beside(&version), "{").unwrap();
        refused(
            &[("model.onnx", "m"), ("notes.txt", "n")],
            "expected a list of files as gannet push writes it",
        );
    }
}
