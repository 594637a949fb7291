//! What kind of thing a path given on the command line is. Must not know what happens to it later.

use std::{
    fs,
    path::{Path, PathBuf},
};

use gannet_models::{ModelName, SETTINGS_FILES, scan::is_ignored};

/// What a root is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// `<root>/<model>/<version>/<model file>`.
    Repository,
    /// `<root>/<version>/<model file>`: the root is the model.
    Model(ModelName),
    /// The root is the model file.
    File {
        name: ModelName,
        /// The model file's name as the backend wants it.
        stored_as: String,
    },
}

/// Looks at a path. The error says what is wrong with it, and what to do.
pub(super) fn detect(path: &Path, known_files: &[String]) -> Result<Layout, String> {
    let shown = path.display();
    let metadata = fs::metadata(path).map_err(|error| {
        format!("{shown}: expected a model repository, a model folder or a model file, got: {error}; check the path")
    })?;
    if metadata.is_file() {
        return file(path, known_files);
    }
    if known_files.iter().any(|file| path.join(file).is_file()) {
        return Err(format!(
            "{shown}: expected a model repository, a model folder or a model file, got the folder of one version; \
             name the folder above it, or the file in it"
        ));
    }
    let folders = folders(path).map_err(|error| format!("{shown}: cannot list the folder: {error}"))?;
    let has_settings = |folder: &Path| SETTINGS_FILES.iter().any(|file| folder.join(file).is_file());
    let has_model_file = |folder: &Path| known_files.iter().any(|file| folder.join(file).is_file());
    if has_settings(path) || folders.iter().any(|folder| is_version_like(folder) && has_model_file(folder)) {
        return model_name(path).map(Layout::Model);
    }
    // A folder that is still empty is a repository to come; one full of other things is a mistake.
    let is_empty = || fs::read_dir(path).is_ok_and(|mut items| items.all(|item| is_hidden(&item)));
    let is_model_like = |folder: &PathBuf| {
        has_settings(folder)
            || has_model_file(folder)
            || self::folders(folder).is_ok_and(|inner| !inner.is_empty())
    };
    if folders.iter().any(is_model_like) || is_empty() {
        return Ok(Layout::Repository);
    }
    Err(format!(
        "{shown}: expected <model>/<version>/{file}, <version>/{file} or an empty folder, got neither; check the path",
        file = known_files.first().map_or("model.onnx", String::as_str)
    ))
}

fn file(path: &Path, known_files: &[String]) -> Result<Layout, String> {
    let extension = path.extension();
    let known =
        known_files.iter().find(|file| extension.is_some() && Path::new(file).extension() == extension);
    let Some(stored_as) = known else {
        return Err(format!(
            "{}: expected a file with the extension of {}, got another; give a model file or a folder",
            path.display(),
            known_files.join(" or ")
        ));
    };
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let name = ModelName::new(stem).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Layout::File { name, stored_as: stored_as.clone() })
}

fn model_name(path: &Path) -> Result<ModelName, String> {
    let last = path.file_name().map(Into::into);
    // Such as `.`, which has no name of its own.
    let last: Option<PathBuf> = last.or_else(|| path.canonicalize().ok()?.file_name().map(Into::into));
    let text = last.as_deref().and_then(Path::to_str).unwrap_or_default();
    ModelName::new(text).map_err(|error| format!("{}: {error}", path.display()))
}

fn folders(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let items = fs::read_dir(path)?.filter(|item| !is_hidden(item));
    Ok(items.flatten().map(|item| item.path()).filter(|path| path.is_dir()).collect())
}

fn is_hidden(item: &std::io::Result<fs::DirEntry>) -> bool {
    item.as_ref().is_ok_and(|item| item.file_name().to_str().is_none_or(is_ignored))
}

/// `1`, `v2` and the like: tells a model's version folder from a model's folder that lacks its version folder.
fn is_version_like(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_apart() {
        let known = ["model.onnx".to_owned()];
        let check = |files: &[&str], root: &str, expected: Result<&str, &str>| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("root")).unwrap();
            for file in files {
                let path = dir.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            match (detect(&dir.path().join(root), &known), expected) {
                (Ok(layout), Ok(expected)) => {
                    assert!(format!("{layout:?}").starts_with(expected), "{layout:?}")
                }
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                (got, _) => panic!("{files:?}: expected {expected:?}, got {got:?}"),
            }
        };
        check(&["root/iris/1/model.onnx"], "root", Ok("Repository"));
        check(&["root/1/1/model.onnx"], "root", Ok("Repository"));
        check(&["root/iris/model.onnx"], "root", Ok("Repository"));
        check(&["root/iris/config.pbtxt"], "root", Ok("Repository"));
        check(&[], "root", Ok("Repository"));
        check(&["root/.keep"], "root", Ok("Repository"));
        check(&["root/1/model.onnx"], "root", Ok("Model(\"root\")"));
        check(&["root/model.toml"], "root", Ok("Model(\"root\")"));
        check(&["a.onnx"], "a.onnx", Ok("File { name: \"a\""));
        check(&["root/model.onnx"], "root", Err("got the folder of one version"));
        check(&["root/notes.txt"], "root", Err("got neither"));
        check(&["a.txt"], "a.txt", Err("extension of model.onnx"));
        check(&[], "missing", Err("check the path"));
    }
}
