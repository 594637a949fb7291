//! Captured tables as people and the admin API see them. Must not know how they are written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// All tables.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Where they lie.
    pub place: String,
    /// By folder below it.
    pub tables: BTreeMap<String, TableShown>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Whether rows are dropped because there is no room for them.
    pub full: bool,
    /// What went wrong last, until something goes well.
    pub last_error: Option<String>,
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableShown {
    /// The model.
    pub model: String,
    /// Rows that this process put in.
    pub rows: u64,
    /// Rows that wait.
    pub waiting: u64,
    /// When rows were written last, in milliseconds since 1970.
    pub written_ms: Option<u64>,
    /// Inputs that are not kept as they were.
    pub redacted: Vec<String>,
}

impl Shown {
    /// As the admin API answers.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let table = |(folder, table): (&String, &TableShown)| {
            json!({
                "folder": folder, "model": table.model, "rows": table.rows, "waiting": table.waiting,
                "written_ms": table.written_ms, "redacted": table.redacted,
            })
        };
        json!({
            "place": self.place, "bytes": self.bytes, "full": self.full, "last_error": self.last_error,
            "tables": self.tables.iter().map(table).collect::<Vec<_>>(),
        })
    }
}
