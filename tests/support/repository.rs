//! Model repositories made for one test, out of the fixtures and the zoo. Must not know how models are served.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::server::{fixture, zoo};

/// A folder of models that goes with the value.
pub(crate) struct Repository(tempfile::TempDir);

impl Repository {
    /// With these fixtures, each as version 1 under its own name.
    pub(crate) fn of(fixtures: &[&str]) -> Self {
        let repository = Self(tempfile::tempdir().expect("a folder for the models"));
        for name in fixtures {
            repository.add(name, "1", &fixture(name));
        }
        repository
    }

    /// A copy of the zoo.
    pub(crate) fn zoo() -> Self {
        let repository = Self::of(&[]);
        for model in folders(&zoo()) {
            for version in folders(&model) {
                repository.add(&name_of(&model), &name_of(&version), &version);
            }
        }
        repository
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The folder of one version.
    pub(crate) fn version(&self, model: &str, version: &str) -> PathBuf {
        self.path().join(model).join(version)
    }

    /// Every model by name.
    pub(crate) fn models(&self) -> Vec<String> {
        folders(self.path()).iter().map(|path| name_of(path)).collect()
    }

    /// Copies the files of `source` to a version.
    pub(crate) fn add(&self, model: &str, version: &str, source: &Path) {
        copy(source, &self.version(model, version));
    }

    /// Writes the model's `model.toml`.
    pub(crate) fn set(&self, model: &str, settings: &str) {
        fs::write(self.path().join(model).join("model.toml"), settings).expect("a file of settings");
    }
}

/// The folders in a folder, hidden ones left out.
fn folders(path: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(path).expect("a folder to look into").map(|entry| entry.expect("its entry").path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.is_dir() && !name_of(path).starts_with(['.', '_'])).collect();
    found.sort();
    found
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("an entry has a name").to_string_lossy().into_owned()
}

fn copy(source: &Path, target: &Path) {
    fs::create_dir_all(target).expect("a folder for the copy");
    for entry in fs::read_dir(source).expect("a folder to copy") {
        let entry = entry.expect("its entry");
        let to = target.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a file to copy");
        }
    }
}
