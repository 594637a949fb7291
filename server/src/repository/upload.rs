//! Files that came with a load request, laid out as a model folder. Must not know who sent them.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;
use gannet_models::{ModelName, Version, VersionLocation};

use crate::respond::{Kind, Refusal};

/// Writes `<version>/<file>` contents below `dir` (which is emptied first) and lists the versions.
pub(super) fn write(
    dir: &Path,
    model: &ModelName,
    files: &[(String, Bytes)],
) -> Result<Vec<(Version, VersionLocation)>, Refusal> {
    let failed = |path: &Path, error: std::io::Error| {
        Refusal::new(Kind::Internal, format!("cannot write {}: {error}", path.display()))
    };
    if let Err(error) = fs::remove_dir_all(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(failed(dir, error));
    }
    let mut versions: Vec<(Version, VersionLocation)> = Vec::new();
    for (name, content) in files {
        let (version, file) = split(name).ok_or_else(|| {
            Refusal::invalid(format!(
                "file '{name}' of model '{model}': expected '<version>/<file>' without '..', such as '1/model.onnx'"
            ))
        })?;
        let folder = dir.join(version.as_str());
        let path = folder.join(&file);
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        fs::write(&path, content).map_err(|error| failed(&path, error))?;
        if !versions.iter().any(|(known, _)| *known == version) {
            let location = VersionLocation { path: folder, root: dir.to_owned(), stored_as: None };
            versions.push((version, location));
        }
    }
    Ok(versions)
}

/// `<version>/<file>` into its parts, if it stays inside.
fn split(name: &str) -> Option<(Version, PathBuf)> {
    let (version, file) = name.split_once('/')?;
    let file = Path::new(file);
    let inside = file.components().all(|part| matches!(part, Component::Normal(_)));
    (inside && file.components().next().is_some()).then_some(())?;
    Some((Version::new(version).ok()?, file.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for good in ["1/model.onnx", "v2/weights/a.bin"] {
            assert!(split(good).is_some(), "{good}");
        }
        for bad in
            ["model.onnx", "1/", "/model.onnx", "1/../x", "../1/x", "1//etc/passwd", ".1/x", "1/a/../../b"]
        {
            assert!(split(bad).is_none(), "{bad}");
        }
    }
}
