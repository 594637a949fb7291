//! Where tables lie: a folder here, or what somebody else offers through [`Storage`]. Must not know what is stored.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use bytes::Bytes;

use crate::CaptureError;

/// What begins the names of files that are being written; a crash leaves them behind.
pub(crate) const MAKING: &str = ".making-";
/// Folders below the root that are looked into, at most.
const DEPTH_MAX: usize = 8;

/// One thing that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Relative to the root, `/` between segments.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
}

/// Keys and their bytes. Calls block.
pub trait Storage: Send + Sync {
    /// How people call the root.
    fn place(&self) -> String;

    /// Everything below a prefix, by key.
    ///
    /// # Errors
    /// [`CaptureError::Store`].
    fn list(&self, prefix: &str) -> Result<Vec<Item>, CaptureError>;

    /// The bytes of a key; `None` when it is not there.
    ///
    /// # Errors
    /// [`CaptureError::Store`].
    fn read(&self, key: &str) -> Result<Option<Bytes>, CaptureError>;

    /// Writes a key as a whole, over whatever is there. It lasts when this returns.
    ///
    /// # Errors
    /// [`CaptureError::Store`].
    fn put(&self, key: &str, content: Bytes) -> Result<(), CaptureError>;

    /// Writes a key that must not be there yet; whether it was not. Of several that try, one succeeds.
    ///
    /// # Errors
    /// [`CaptureError::Store`].
    fn create(&self, key: &str, content: Bytes) -> Result<bool, CaptureError>;

    /// Removes a key. That it is not there is no error.
    ///
    /// # Errors
    /// [`CaptureError::Store`].
    fn delete(&self, key: &str) -> Result<(), CaptureError>;
}

/// A folder.
#[derive(Debug, Clone)]
pub struct Local {
    root: PathBuf,
}

impl Local {
    /// The folder, which need not be there yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Writes beside, and gives the whole file its name by `name_it`.
    fn write<T>(
        &self,
        key: &str,
        content: &[u8],
        name_it: impl FnOnce(&Path, &Path) -> io::Result<T>,
    ) -> Result<T, CaptureError> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.root);
        let making = folder.join(format!("{MAKING}{}", crate::table::unique()));
        let write = || {
            fs::create_dir_all(folder)?;
            let mut file = File::create_new(&making)?;
            file.write_all(content)?;
            file.sync_all()?;
            let named = name_it(&making, &path)?;
            File::open(folder)?.sync_all()?;
            Ok(named)
        };
        let written = write();
        if written.is_err() {
            let _ = fs::remove_file(&making);
        }
        written.map_err(|error| failed(&path, "written", &error))
    }
}

fn failed(path: &Path, what: &str, error: &io::Error) -> CaptureError {
    CaptureError::Store(format!("{} cannot be {what}: {error}", path.display()))
}

impl Storage for Local {
    fn place(&self) -> String {
        self.root.display().to_string()
    }

    fn list(&self, prefix: &str) -> Result<Vec<Item>, CaptureError> {
        let mut items = Vec::new();
        let mut folders = vec![(self.path(prefix), prefix.trim_end_matches('/').to_owned(), 0)];
        while let Some((folder, key, depth)) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&folder, "read", &error)),
            };
            for entry in entries {
                let entry = entry.map_err(|error| failed(&folder, "read", &error))?;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
                let key = if key.is_empty() { name.clone() } else { format!("{key}/{name}") };
                let meta = match entry.metadata() {
                    Ok(meta) => meta,
                    // removed since
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(failed(&entry.path(), "read", &error)),
                };
                if meta.is_dir() && depth < DEPTH_MAX {
                    folders.push((entry.path(), key, depth + 1));
                } else if meta.is_file() {
                    let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                    let modified_ms =
                        modified.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0);
                    items.push(Item { key, size: meta.len(), modified_ms });
                }
            }
        }
        items.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(items)
    }

    fn read(&self, key: &str) -> Result<Option<Bytes>, CaptureError> {
        let path = self.path(key);
        match fs::read(&path) {
            Ok(content) => Ok(Some(Bytes::from(content))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path, "read", &error)),
        }
    }

    fn put(&self, key: &str, content: Bytes) -> Result<(), CaptureError> {
        self.write(key, &content, |from, to| fs::rename(from, to))
    }

    fn create(&self, key: &str, content: Bytes) -> Result<bool, CaptureError> {
        // a link to a name that is taken fails, on network file systems too
        self.write(key, &content, |from, to| {
            let linked = fs::hard_link(from, to);
            fs::remove_file(from)?;
            match linked {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    fn delete(&self, key: &str) -> Result<(), CaptureError> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(&path, "removed", &error)),
        }
    }
}

/// Whether of two writers of one key only the first succeeds, which a shared table stands on. Leaves nothing behind.
///
/// # Errors
/// [`CaptureError::Invalid`] where both do, [`CaptureError::Store`] where the store does not answer.
pub fn check_conditional(storage: &dyn Storage) -> Result<(), CaptureError> {
    let key = format!("_gannet_probe-{}", crate::table::unique());
    let tried = storage.create(&key, Bytes::from_static(b"1")).and_then(|first| {
        let second = storage.create(&key, Bytes::from_static(b"2"))?;
        Ok(first && !second)
    });
    let _ = storage.delete(&key);
    if tried? {
        return Ok(());
    }
    Err(CaptureError::Invalid(format!(
        "{}: expected a store in which a write can be refused because the key is there already (a conditional put, \
         If-None-Match), got one that overwrites; two servers would lose each other's rows. Use a store that has it, \
         or a folder",
        storage.place()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_what_is_put_and_creates_once() {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::new(&folder.path().join("not/yet"));
        assert_eq!((local.list("").unwrap(), local.read("a/b").unwrap()), (vec![], None));
        local.put("a/b", Bytes::from_static(b"1")).unwrap();
        local.put("a/b", Bytes::from_static(b"22")).unwrap();
        assert!(local.create("a/c", Bytes::from_static(b"3")).unwrap());
        assert!(!local.create("a/c", Bytes::from_static(b"4")).unwrap());
        assert_eq!(local.read("a/c").unwrap().unwrap(), "3");
        let listed = local.list("a").unwrap();
        let names: Vec<(&str, u64)> = listed.iter().map(|item| (item.key.as_str(), item.size)).collect();
        assert_eq!(names, [("a/b", 2), ("a/c", 1)]);
        assert!(listed[0].modified_ms > 1_600_000_000_000);
        local.delete("a/b").unwrap();
        local.delete("a/b").unwrap();
        assert_eq!(local.list("").unwrap().len(), 1);
        check_conditional(&local).unwrap();
        assert_eq!(local.list("").unwrap().len(), 1, "the probe is gone");
    }

    /// Overwrites whatever is there, as some object stores do.
    struct Careless(Local);

    impl Storage for Careless {
        fn place(&self) -> String {
            "s3://careless".into()
        }
        fn list(&self, prefix: &str) -> Result<Vec<Item>, CaptureError> {
            self.0.list(prefix)
        }
        fn read(&self, key: &str) -> Result<Option<Bytes>, CaptureError> {
            self.0.read(key)
        }
        fn put(&self, key: &str, content: Bytes) -> Result<(), CaptureError> {
            self.0.put(key, content)
        }
        fn create(&self, key: &str, content: Bytes) -> Result<bool, CaptureError> {
            self.0.put(key, content).map(|()| true)
        }
        fn delete(&self, key: &str) -> Result<(), CaptureError> {
            self.0.delete(key)
        }
    }

    #[test]
    fn a_store_without_conditional_writes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = check_conditional(&Careless(Local::new(folder.path()))).unwrap_err();
        assert!(error.to_string().starts_with("s3://careless: expected a store in which"), "{error}");
    }
}
