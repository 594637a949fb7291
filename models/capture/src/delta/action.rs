//! The actions of a log, as JSON has them. Must not know what they add up to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::CaptureError;

/// One line of a log. Kinds that nobody here knows are passed over, as the protocol wants of version 1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Action {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) commit_info: Option<CommitInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) meta_data: Option<Metadata>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) add: Option<Add>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remove: Option<Remove>,
}

/// Who did what, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CommitInfo {
    #[serde(default)]
    pub(crate) timestamp: i64,
    #[serde(default)]
    pub(crate) operation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) engine_info: Option<String>,
}

/// What a reader and a writer must be able to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Protocol {
    pub(crate) min_reader_version: i32,
    pub(crate) min_writer_version: i32,
}

/// How files are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) provider: String,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
}

/// The table's columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    pub(crate) format: Format,
    pub(crate) schema_string: String,
    pub(crate) partition_columns: Vec<String>,
    #[serde(default)]
    pub(crate) configuration: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created_time: Option<i64>,
}

/// A file belongs to the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) partition_values: BTreeMap<String, Option<String>>,
    pub(crate) size: i64,
    pub(crate) modification_time: i64,
    pub(crate) data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stats: Option<String>,
}

/// A file does not belong to the table any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) deletion_timestamp: i64,
    pub(crate) data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partition_values: Option<BTreeMap<String, Option<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<i64>,
}

impl Action {
    pub(crate) fn add(add: Add) -> Self {
        Self { add: Some(add), ..Self::default() }
    }

    /// Takes a file out of the table.
    pub(crate) fn remove(add: &Add, deletion_timestamp: i64) -> Self {
        let remove = Remove {
            path: add.path.clone(),
            deletion_timestamp,
            data_change: true,
            partition_values: Some(add.partition_values.clone()),
            size: Some(add.size),
        };
        Self { remove: Some(remove), ..Self::default() }
    }

    pub(crate) fn info(operation: &str, timestamp: i64) -> Self {
        let engine_info = Some(format!("gannet/{}", env!("CARGO_PKG_VERSION")));
        let info = CommitInfo { timestamp, operation: operation.to_owned(), engine_info };
        Self { commit_info: Some(info), ..Self::default() }
    }
}

/// Actions as a file of the log has them: one a line.
pub(crate) fn write(actions: &[Action]) -> Result<Vec<u8>, CaptureError> {
    let mut lines = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut lines, action)
            .map_err(|error| CaptureError::Unfit(format!("an action that is no JSON: {error}")))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// The actions of a file of the log.
pub(crate) fn read(key: &str, text: &[u8]) -> Result<Vec<Action>, CaptureError> {
    let lines = text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(number, line)| {
            let wrong = |error| CaptureError::damaged(key, format!("line {}: {error}", number + 1));
            serde_json::from_slice(line).map_err(wrong)
        })
        .collect()
}
