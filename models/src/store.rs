//! The content-addressed store: Gannet's own read-only copy of every version that it serves.
//!
//! A version is copied into `staging/<run>/`, hashed on the way, and renamed to `sha256/<digest>/` when whole; a
//! folder with a digest for its name is therefore complete or damaged, never half copied. What came from elsewhere
//! waits in `unproven/<digest>/` until it was loaded, warmed and answered its golden requests: then `sha256/` has it
//! too, file by file the same, and the other name goes once nobody reads it. Two servers may share
//! one store: each has its own staging folder, locked while it lives, and only a sole user collects garbage.
//!
//! Must not know which models are wanted, nor how they are run.

mod files;

use std::{
    collections::{HashMap, HashSet, hash_map::RandomState},
    fs::{self, File, Permissions, TryLockError},
    hash::BuildHasher as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use self::files::{copy, link_tree, sync_folder, sync_folders, tree_bytes, unchanged};
use crate::{
    artifact::Artifact,
    digest::{Digest, FileEntry},
    error::ModelError,
    fault,
    scan::{IngestLimits, VersionLocation, scan},
};

/// Files are read by this process alone and written by nobody.
const FILE_MODE: u32 = 0o444;

/// A store, open. Shared between threads by reference.
#[derive(Debug)]
pub struct Store {
    trees: PathBuf,
    /// What has not proved itself yet.
    unproven: PathBuf,
    staging: PathBuf,
    /// Taken for moments: while a user comes, and while garbage is collected.
    gate: File,
    /// Held shared while this store is open.
    users: File,
    /// Keeps our staging folder from being swept by others.
    _staging_lock: File,
    staging_lock_path: PathBuf,
    staged: AtomicU64,
    pins: Mutex<HashMap<PathBuf, Weak<()>>>,
}

/// What a collection did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collected {
    /// These were removed.
    Removed(Vec<Digest>),
    /// Nothing was: another process has the store open, and may serve from any of its folders.
    Shared,
}

impl Store {
    /// Opens the store in `dir` (`<state>/store`), creating it if need be, and sweeps what a crash left in staging.
    ///
    /// # Errors
    /// [`ModelError::Io`] when the folder cannot be made, locked or written.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let (trees, unproven, runs) = (dir.join("sha256"), dir.join("unproven"), dir.join("staging"));
        for folder in [&trees, &unproven, &runs] {
            fs::create_dir_all(folder).map_err(ModelError::io(folder, "create the folder"))?;
        }
        let gate = lock_file(&dir.join("gate.lock"))?;
        let users = lock_file(&dir.join("users.lock"))?;
        let _gate = Held::new(&gate, dir)?;
        users.lock_shared().map_err(ModelError::io(dir, "lock"))?;
        sweep(&runs)?;
        let run = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        let staging_lock_path = runs.join(format!("{run}.lock"));
        let staging_lock = lock_file(&staging_lock_path)?;
        staging_lock.lock().map_err(ModelError::io(&staging_lock_path, "lock"))?;
        let staging = runs.join(run);
        fs::create_dir(&staging).map_err(ModelError::io(&staging, "create the folder"))?;
        drop(_gate);
        Ok(Self {
            trees,
            unproven,
            staging,
            gate,
            users,
            _staging_lock: staging_lock,
            staging_lock_path,
            staged: AtomicU64::new(0),
            pins: Mutex::default(),
        })
    }

    /// Copies a version into the store, and gives it back verified.
    ///
    /// # Errors
    /// [`ModelError::Changing`] when a file changed meanwhile (try again later); [`ModelError::Missing`] when there
    /// is no file at all; [`ModelError::TooLarge`], [`ModelError::Outside`], [`ModelError::Io`].
    pub fn ingest(&self, location: &VersionLocation, limits: &IngestLimits) -> Result<Artifact, ModelError> {
        let before = scan(location, limits)?;
        if before.is_empty() {
            let what = "expected at least one file, got an empty folder; copy the model there".to_owned();
            return Err(ModelError::Missing { path: location.path.clone(), what });
        }
        let staged = Staged::create(self)?;
        let mut entries = Vec::with_capacity(before.len());
        for file in &before {
            entries.push(copy(file, &staged.path)?);
        }
        unchanged(location, &before, &scan(location, limits)?)?;
        sync_folders(&staged.path)?;
        self.publish(&staged, entries, &self.trees)
    }

    /// Takes a whole version that was put together in `dir`, a folder on the store's own file system that nobody else
    /// writes to, and gives it back verified, to be loaded and then [proved](Self::prove). The folder is gone
    /// afterwards, whatever comes of it.
    ///
    /// # Errors
    /// As for [`Store::ingest`].
    pub fn admit(&self, dir: &Path, limits: &IngestLimits) -> Result<Artifact, ModelError> {
        let staged = Staged::create(self)?;
        fs::rename(dir, &staged.path).map_err(ModelError::io(dir, "move into the store"))?;
        fault::point("admit-moved");
        let location =
            VersionLocation { path: staged.path.clone(), root: staged.path.clone(), stored_as: None };
        let found = scan(&location, limits)?;
        if found.is_empty() {
            let what = "expected at least one file, got an empty package".to_owned();
            return Err(ModelError::Missing { path: dir.to_owned(), what });
        }
        let mut entries = Vec::with_capacity(found.len());
        for file in found {
            if file.path.is_symlink() {
                return Err(ModelError::Outside {
                    target: fs::read_link(&file.path).unwrap_or_default(),
                    path: file.path,
                    root: dir.to_owned(),
                });
            }
            let digest = Digest::of_file(&file.path)?;
            let protect = fs::set_permissions(&file.path, Permissions::from_mode(FILE_MODE));
            protect.map_err(ModelError::io(&file.path, "protect"))?;
            let sync = File::open(&file.path).and_then(|file| file.sync_all());
            sync.map_err(ModelError::io(&file.path, "write out"))?;
            entries.push(FileEntry { path: file.name, size: file.stamp.size, digest });
        }
        sync_folders(&staged.path)?;
        fault::point("admit-hashed");
        self.publish(&staged, entries, &self.unproven)
    }

    /// Notes that a version was loaded and answered as it should: from now on it is in the store for good. Whether
    /// that is news.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn prove(&self, digest: &Digest) -> Result<bool, ModelError> {
        let (waiting, dir) = (self.unproven.join(digest.to_string()), self.tree(digest));
        if dir.is_dir() || !waiting.is_dir() {
            return Ok(false);
        }
        let staged = Staged::create(self)?;
        // links, no rename: whoever loads it at this moment reads on under the old name
        link_tree(&waiting, &staged.path)?;
        sync_folders(&staged.path)?;
        fault::point("proved");
        match fs::rename(&staged.path, &dir) {
            Err(source) if !dir.is_dir() => return Err(ModelError::io(&dir, "move the copy to")(source)),
            _ => sync_folder(&self.trees)?,
        }
        Ok(true)
    }

    /// Bytes of all copies together, as far as they can be read.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let waiting = digests(&self.unproven).filter(|digest| !self.tree(digest).is_dir());
        let waiting = waiting.map(|digest| tree_bytes(&self.unproven.join(digest.to_string())));
        tree_bytes(&self.trees) + waiting.sum::<u64>()
    }

    /// The artifact of a digest, its files hashed again; `None` when the store has none.
    ///
    /// # Errors
    /// [`ModelError::Corrupt`] when the files are not what the digest says; [`ModelError::Io`].
    pub fn get(&self, digest: &Digest) -> Result<Option<Artifact>, ModelError> {
        let places = [self.tree(digest), self.unproven.join(digest.to_string())];
        let Some((dir, pin)) = places.into_iter().find_map(|dir| {
            let pin = self.pin(&dir);
            dir.is_dir().then_some((dir, pin))
        }) else {
            return Ok(None);
        };
        let location = VersionLocation { path: dir.clone(), root: dir.clone(), stored_as: None };
        let limits = IngestLimits { files_max: usize::MAX, bytes_max: u64::MAX };
        let mut files = Vec::new();
        for file in scan(&location, &limits)? {
            let digest = Digest::of_file(&file.path)?;
            files.push(FileEntry { path: file.name, size: file.stamp.size, digest });
        }
        let got = Digest::of_tree(&files);
        if got != *digest {
            return Err(ModelError::Corrupt { path: dir, expected: *digest, got: got.to_string() });
        }
        Ok(Some(Artifact::verified(*digest, dir, files, pin)))
    }

    /// Removes every folder that is neither in `keep` nor held as an [`Artifact`] in this process.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn collect(&self, keep: &HashSet<Digest>) -> Result<Collected, ModelError> {
        let _gate = Held::new(&self.gate, &self.trees)?;
        // Taking the lock alone gives up the shared one, whatever comes of it; nobody else can slip in between,
        // because users come, and collect, behind the gate only.
        let alone = match self.users.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(source)) => {
                return Err(ModelError::io(&self.trees, "lock")(source));
            }
        };
        let collected =
            if alone { self.remove_unwanted(keep).map(Collected::Removed) } else { Ok(Collected::Shared) };
        self.users.lock_shared().map_err(ModelError::io(&self.trees, "lock"))?;
        collected
    }

    /// Removes one copy, unless it is held as an [`Artifact`] in this process or another process has the store open.
    /// Whether it is gone.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn discard(&self, digest: &Digest) -> Result<bool, ModelError> {
        let _gate = Held::new(&self.gate, &self.trees)?;
        let alone = self.users.try_lock().is_ok();
        let discarded = || {
            let places = [self.tree(digest), self.unproven.join(digest.to_string())];
            let held = {
                let pins = self.lock_pins();
                places.iter().any(|dir| pins.get(dir).is_some_and(|pin| pin.strong_count() > 0))
            };
            if !alone || held {
                return Ok(false);
            }
            let mut gone = false;
            for dir in places.iter().filter(|dir| dir.is_dir()) {
                self.remove(dir)?;
                gone = true;
            }
            Ok(gone)
        };
        let result = discarded();
        self.users.lock_shared().map_err(ModelError::io(&self.trees, "lock"))?;
        result
    }

    /// Whether it holds more than `keep`, which the next collection may remove.
    #[must_use]
    pub fn holds_more_than(&self, keep: &HashSet<Digest>) -> bool {
        digests(&self.trees).chain(digests(&self.unproven)).any(|digest| !keep.contains(&digest))
    }

    fn remove_unwanted(&self, keep: &HashSet<Digest>) -> Result<Vec<Digest>, ModelError> {
        let mut pins = self.lock_pins();
        pins.retain(|_, pin| pin.strong_count() > 0);
        let mut removed = Vec::new();
        for digest in digests(&self.trees) {
            let dir = self.tree(&digest);
            if !keep.contains(&digest) && !pins.contains_key(&dir) {
                self.remove(&dir)?;
                removed.push(digest);
            }
        }
        for digest in digests(&self.unproven) {
            let dir = self.unproven.join(digest.to_string());
            let proven = self.tree(&digest).is_dir();
            if (proven || !keep.contains(&digest)) && !pins.contains_key(&dir) {
                self.remove(&dir)?;
                if !proven {
                    removed.push(digest);
                }
            }
        }
        removed.sort();
        Ok(removed)
    }

    /// Renames first: a crash in the middle leaves rubbish in staging, not half an artifact.
    fn remove(&self, dir: &Path) -> Result<(), ModelError> {
        let rubbish = Staged::create(self)?;
        let target = rubbish.path.join("removed");
        fs::rename(dir, &target).map_err(ModelError::io(&target, "move rubbish to"))
    }

    /// Renames a whole copy to its digest, or drops it where a sound one lies there, or in the store for good, already.
    fn publish(&self, staged: &Staged, files: Vec<FileEntry>, place: &Path) -> Result<Artifact, ModelError> {
        let digest = Digest::of_tree(&files);
        let dir = place.join(digest.to_string());
        let pin = self.pin(&dir);
        if dir.exists() || self.tree(&digest).exists() {
            match self.get(&digest) {
                Ok(Some(artifact)) => return Ok(artifact),
                Ok(None) | Err(ModelError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for damaged in [&self.tree(&digest), &dir] {
            if damaged.exists() {
                self.remove(damaged)?;
            }
        }
        match fs::rename(&staged.path, &dir) {
            Ok(()) => {}
            // Another server sharing the store was faster with the same content.
            Err(_) if dir.is_dir() => {
                return self.get(&digest)?.ok_or_else(|| ModelError::Missing {
                    path: dir,
                    what: "expected the copy that another server made, but it is gone; try again".to_owned(),
                });
            }
            Err(source) => return Err(ModelError::io(&dir, "move the copy to")(source)),
        }
        fault::point("admit-renamed");
        sync_folder(place)?;
        Ok(Artifact::verified(digest, dir, files, pin))
    }

    fn tree(&self, digest: &Digest) -> PathBuf {
        self.trees.join(digest.to_string())
    }

    fn lock_pins(&self) -> MutexGuard<'_, HashMap<PathBuf, Weak<()>>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pin(&self, dir: &Path) -> Arc<()> {
        let mut pins = self.lock_pins();
        let held = pins.get(dir).and_then(Weak::upgrade);
        held.unwrap_or_else(|| {
            let pin = Arc::new(());
            pins.insert(dir.to_owned(), Arc::downgrade(&pin));
            pin
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next to open the store.
        let _ = fs::remove_dir_all(&self.staging);
        let _ = fs::remove_file(&self.staging_lock_path);
    }
}

/// A folder under staging that is removed unless it was renamed away.
struct Staged {
    path: PathBuf,
}

impl Staged {
    fn create(store: &Store) -> Result<Self, ModelError> {
        let path = store.staging.join(store.staged.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir_all(&path).map_err(ModelError::io(&path, "create the folder"))?;
        Ok(Self { path })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// An exclusive file lock, given back when dropped.
struct Held<'a>(&'a File);

impl<'a> Held<'a> {
    fn new(file: &'a File, path: &Path) -> Result<Self, ModelError> {
        file.lock().map_err(ModelError::io(path, "lock"))?;
        Ok(Self(file))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

fn lock_file(path: &Path) -> Result<File, ModelError> {
    let options = File::options().create(true).truncate(false).write(true).open(path);
    options.map_err(ModelError::io(path, "open the lock file"))
}

/// The digests that a folder has folders of.
fn digests(place: &Path) -> impl Iterator<Item = Digest> {
    let items = fs::read_dir(place).into_iter().flatten().flatten();
    items.filter_map(|item| item.file_name().to_str()?.parse().ok())
}

/// Removes the staging folders whose owner is gone: those whose lock can be taken.
fn sweep(runs: &Path) -> Result<(), ModelError> {
    let mut owners = HashSet::new();
    for item in fs::read_dir(runs).map_err(ModelError::io(runs, "list"))? {
        owners.insert(item.map_err(ModelError::io(runs, "list"))?.path().with_extension(""));
    }
    for folder in owners {
        let lock_path = folder.with_extension("lock");
        if lock_file(&lock_path)?.try_lock().is_err() {
            continue;
        }
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(ModelError::io(&folder, "sweep"))?;
        }
        fs::remove_file(&lock_path).map_err(ModelError::io(&lock_path, "sweep"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
