//! Copying, linking and writing out the files of a version. Must not know what the folders of a store mean.

use std::{
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use super::FILE_MODE;
use crate::{
    digest::{Digest, FileEntry},
    error::ModelError,
    scan::{ScannedFile, Stamp, VersionLocation},
};

/// Copies one file, hashing on the way; refuses it when it changed under the hands.
pub(super) fn copy(file: &ScannedFile, into: &Path) -> Result<FileEntry, ModelError> {
    let changing = |what: &str| ModelError::Changing { path: file.path.clone(), what: what.to_owned() };
    let mut source = File::open(&file.path).map_err(ModelError::io(&file.path, "open"))?;
    let stamp = |source: &File| {
        let metadata = source.metadata().map_err(ModelError::io(&file.path, "look at"))?;
        Ok::<_, ModelError>(Stamp::from(&metadata))
    };
    if stamp(&source)? != file.stamp {
        return Err(changing("it is not the file seen a moment ago"));
    }
    let target_path = into.join(&file.name);
    if let Some(parent) = target_path.parent() {
        fs::create_dir_all(parent).map_err(ModelError::io(parent, "create the folder"))?;
    }
    let mut target = File::create_new(&target_path).map_err(ModelError::io(&target_path, "create"))?;
    let (digest, size) = Digest::of_reader(&mut source, |piece| target.write_all(piece))
        .map_err(ModelError::io(&file.path, "copy"))?;
    if size != file.stamp.size || stamp(&source)? != file.stamp {
        return Err(changing("its size or time of modification moved"));
    }
    target
        .set_permissions(Permissions::from_mode(FILE_MODE))
        .map_err(ModelError::io(&target_path, "protect"))?;
    target.sync_all().map_err(ModelError::io(&target_path, "write out"))?;
    Ok(FileEntry { path: file.name.clone(), size, digest })
}

/// Checks that the second look at a version found what the first did.
pub(super) fn unchanged(
    location: &VersionLocation,
    before: &[ScannedFile],
    after: &[ScannedFile],
) -> Result<(), ModelError> {
    if before == after {
        return Ok(());
    }
    let differs = before
        .iter()
        .find(|file| !after.contains(file))
        .or_else(|| after.iter().find(|f| !before.contains(f)));
    let path = differs.map_or_else(|| location.path.clone(), |file| file.path.clone());
    Err(ModelError::Changing { path, what: "files came, went or were replaced".to_owned() })
}

pub(super) fn tree_bytes(folder: &Path) -> u64 {
    let items = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = items.map(|item| match item.metadata() {
        Ok(metadata) if metadata.is_dir() => tree_bytes(&item.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

pub(super) fn sync_folders(folder: &Path) -> Result<(), ModelError> {
    for item in fs::read_dir(folder).map_err(ModelError::io(folder, "list"))? {
        let path = item.map_err(ModelError::io(folder, "list"))?.path();
        if path.is_dir() {
            sync_folders(&path)?;
        }
    }
    sync_folder(folder)
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), ModelError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(ModelError::io(folder, "write out"))
}

/// Gives every file of a folder a second name in another one.
pub(super) fn link_tree(from: &Path, into: &Path) -> Result<(), ModelError> {
    for item in fs::read_dir(from).map_err(ModelError::io(from, "list"))? {
        let source = item.map_err(ModelError::io(from, "list"))?.path();
        let target = into.join(source.file_name().unwrap_or_default());
        if source.is_dir() {
            fs::create_dir(&target).map_err(ModelError::io(&target, "create the folder"))?;
            link_tree(&source, &target)?;
        } else {
            fs::hard_link(&source, &target).map_err(ModelError::io(&target, "link"))?;
        }
    }
    Ok(())
}
