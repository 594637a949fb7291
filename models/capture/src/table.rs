//! One table: its files, its log, and what keeps both bounded. Must not know who captures, nor what a row is for.

mod erase;
mod join;
mod keep;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, Hasher as _},
    sync::Arc,
};

use bytes::Bytes;
use gannet_models::Digest;

pub use self::{
    erase::Erased,
    join::{Join, Joined},
    keep::{Keep, Kept},
};
use crate::{
    CaptureError, Captured, Layout, Storage, decode,
    delta::{Action, Add, Format, Metadata, Protocol, Snapshot, commit, load},
    layout::PARTITION,
};

/// Tables below one root that are looked at, at most.
const TABLES_MAX: usize = 100_000;

/// A table, as it was when it was last looked at.
pub struct Table {
    storage: Arc<dyn Storage>,
    root: String,
    layout: Arc<Layout>,
    snapshot: Snapshot,
}

/// A file of rows that is to be added.
#[derive(Debug, Clone)]
pub struct File {
    path: String,
    date: String,
    content: Bytes,
    rows: u64,
}

/// What a table holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// The last commit.
    pub version: u64,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows, as far as the log says.
    pub rows: u64,
    /// The first and the last day.
    pub days: Option<(String, String)>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("root", &self.root).field("version", &self.snapshot.version).finish()
    }
}

/// Characters of such a text.
const UNIQUE_CHARS: usize = 36;

/// A text that nobody else has: 128 bits of chance, written as UUIDs are.
pub(crate) fn unique() -> String {
    // each state is seeded by the system, and no two of a process are the same
    let [a, b, c] = [0u64, 1, 2].map(|part| {
        let mut hasher = std::hash::RandomState::new().build_hasher();
        hasher.write_u64(part);
        hasher.write_u32(std::process::id());
        hasher.finish()
    });
    let hex = Digest::of(&[a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes()].concat()).to_string();
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[12..15], &hex[15..18], &hex[18..30])
}

/// The folder of a model's table.
#[must_use]
pub fn folder(model: &str, layout: &Layout) -> String {
    format!("{model}/{}", layout.digest())
}

/// The folders of all tables, or of one model's.
///
/// # Errors
/// [`CaptureError::Store`].
pub fn tables(storage: &dyn Storage, model: Option<&str>) -> Result<Vec<String>, CaptureError> {
    let mut roots = BTreeSet::new();
    for item in storage.list(model.unwrap_or(""))? {
        if let Some((root, _)) = item.key.split_once("/_delta_log/") {
            roots.insert(root.to_owned());
        }
        if roots.len() > TABLES_MAX {
            return Err(CaptureError::Invalid(format!("expected at most {TABLES_MAX} tables")));
        }
    }
    Ok(roots.into_iter().collect())
}

impl File {
    /// A file of so many rows of one day.
    #[must_use]
    pub fn new(instance: &str, date: &str, content: Bytes, rows: u64) -> Self {
        let path = format!("{PARTITION}={date}/{}-{}.parquet", Self::plain(instance), unique());
        Self { path, date: date.to_owned(), content, rows }
    }

    /// Whether a file of this name is an instance's: nothing but a unique text is behind that, for `a` is not `a-b`.
    fn is_of(name: &str, instance: &str) -> bool {
        let behind = name.strip_prefix(&Self::plain(instance)).and_then(|rest| rest.strip_prefix('-'));
        let unique = behind.and_then(|rest| rest.strip_suffix(".parquet"));
        unique.is_some_and(|unique| unique.len() == UNIQUE_CHARS)
    }

    /// A name as it stands in a path. In the log that is a URI: only what needs no escape.
    fn plain(instance: &str) -> String {
        instance.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.content.len()
    }

    /// Whether it has none, which no file has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.content.is_empty()
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn action(&self, now_ms: i64) -> Action {
        Action::add(Add {
            path: self.path.clone(),
            partition_values: [(PARTITION.to_owned(), Some(self.date.clone()))].into(),
            size: i64::try_from(self.content.len()).unwrap_or(i64::MAX),
            modification_time: now_ms,
            data_change: true,
            stats: Some(format!("{{\"numRecords\":{}}}", self.rows)),
        })
    }
}

fn rows_of(add: &Add) -> u64 {
    let stats = add.stats.as_deref().and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    stats.and_then(|stats| stats["numRecords"].as_u64()).unwrap_or(0)
}

impl Table {
    /// The table of a model with these columns, begun if it is not there.
    ///
    /// # Errors
    /// Every [`CaptureError`] but [`CaptureError::Missing`].
    pub fn begin(
        storage: Arc<dyn Storage>,
        model: &str,
        layout: Arc<Layout>,
        now_ms: i64,
    ) -> Result<Self, CaptureError> {
        let root = folder(model, &layout);
        let mut snapshot = Snapshot::default();
        load(&*storage, &root, &mut snapshot)?;
        if snapshot.version.is_none() {
            let metadata = Metadata {
                id: unique(),
                name: Some(model.to_owned()),
                format: Format { provider: "parquet".into(), options: BTreeMap::new() },
                schema_string: layout.schema_string(),
                partition_columns: vec![PARTITION.into()],
                configuration: BTreeMap::new(),
                created_time: Some(now_ms),
            };
            let actions = [
                Action::info("CREATE TABLE", now_ms),
                Action { protocol: Some(Protocol::ours()), ..Action::default() },
                Action { meta_data: Some(metadata), ..Action::default() },
            ];
            commit(&*storage, &root, &mut snapshot, &actions)?;
        }
        Ok(Self { storage, root, layout, snapshot })
    }

    /// The table in a folder.
    ///
    /// # Errors
    /// [`CaptureError::Missing`] when there is none.
    pub fn open(storage: Arc<dyn Storage>, root: &str) -> Result<Self, CaptureError> {
        let mut snapshot = Snapshot::default();
        load(&*storage, root, &mut snapshot)?;
        let Some(metadata) = &snapshot.metadata else {
            let place = storage.place();
            return Err(CaptureError::Missing(format!(
                "{place}: expected a table in '{root}', got no _delta_log"
            )));
        };
        let layout = Arc::new(Layout::read(&metadata.schema_string)?);
        Ok(Self { storage, root: root.to_owned(), layout, snapshot })
    }

    /// Its folder, below the storage's root.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The model whose requests it holds.
    #[must_use]
    pub fn model(&self) -> &str {
        self.snapshot.metadata.as_ref().and_then(|metadata| metadata.name.as_deref()).unwrap_or_default()
    }

    /// Its columns.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Looks again.
    ///
    /// # Errors
    /// [`CaptureError::Store`] and [`CaptureError::Damaged`].
    pub fn refresh(&mut self) -> Result<(), CaptureError> {
        load(&*self.storage, &self.root, &mut self.snapshot)
    }

    /// What it holds.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let files = &self.snapshot.files;
        let days: BTreeSet<&String> =
            files.values().filter_map(|add| add.partition_values.get(PARTITION)?.as_ref()).collect();
        let days = days.first().zip(days.last()).map(|(first, last)| ((*first).clone(), (*last).clone()));
        Summary {
            version: self.snapshot.version.unwrap_or(0),
            files: files.len() as u64,
            bytes: self.snapshot.bytes(),
            rows: files.values().map(rows_of).sum(),
            days,
        }
    }

    /// Adds a file. After an error it may be added again: it is in the table once.
    ///
    /// # Errors
    /// [`CaptureError::Store`] and [`CaptureError::Conflict`]: try again.
    pub fn append(&mut self, file: &File, now_ms: i64) -> Result<(), CaptureError> {
        self.storage.put(&self.key(&file.path), file.content.clone())?;
        let actions = [Action::info("WRITE", now_ms), file.action(now_ms)];
        commit(&*self.storage, &self.root, &mut self.snapshot, &actions).map(drop)
    }

    fn key(&self, path: &str) -> String {
        format!("{}/{path}", self.root)
    }

    /// Its files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Add> {
        self.snapshot.files.values()
    }

    pub(crate) fn read_file(&self, path: &str) -> Result<Bytes, CaptureError> {
        let key = self.key(path);
        self.storage.read(&key)?.ok_or_else(|| {
            CaptureError::Conflict(format!("{key}: was removed while it was to be read; look again"))
        })
    }

    /// Every row, file by file, the oldest file first; `each` says whether to go on.
    ///
    /// # Errors
    /// Those of the table, and those of `each`.
    pub fn read<E: From<CaptureError>>(
        &self,
        mut each: impl FnMut(Captured) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut files: Vec<&Add> = self.snapshot.files.values().collect();
        files.sort_by_key(|add| (add.modification_time, &add.path));
        for add in files {
            for batch in decode::batches(&add.path, self.read_file(&add.path)?, None)? {
                for row in decode::rows(&batch?, &self.layout)? {
                    if !each(row)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
