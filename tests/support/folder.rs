//! A model repository in a folder of its own, gone with its test. Must not know the server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::server::fixture;

/// The folder `models` in a temporary folder, so that it can be renamed.
pub(crate) struct Folder {
    temporary: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(temporary.path().join("models")).expect("a folder");
        Self { temporary }
    }

    /// With one model `m` whose version 1 is `add_one`.
    pub(crate) fn with_add_one() -> Self {
        let folder = Self::new();
        folder.put("m/1", "add_one");
        folder
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.temporary.path().join("models")
    }

    /// A path beside the repository.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// Copies a fixture's model file to `<at>/model.onnx`.
    pub(crate) fn put(&self, at: &str, name: &str) {
        self.write(&format!("{at}/model.onnx"), model_bytes(name));
    }

    pub(crate) fn write(&self, at: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(at);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    pub(crate) fn remove(&self, at: &str) {
        let path = self.path().join(at);
        let result = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        result.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// A fixture's model file.
pub(crate) fn model_bytes(name: &str) -> Vec<u8> {
    fs::read(Path::new(&fixture(name)).join("model.onnx")).expect("a fixture")
}
