//! What of capturing can be set. Must not know how requests are kept.

use std::{path::PathBuf, time::Duration};

use gannet_runtime::capture::{ChosenBy, TapConfig};

use super::{Credentials, Given};

/// Captured requests: which, and where they are kept.
#[derive(Debug, Clone)]
pub struct CaptureSettings {
    /// Where tables lie; `None`: nothing is captured.
    pub root: Option<Root>,
    /// Which requests, and what may wait.
    pub tap: TapConfig,
    /// Time after which waiting rows are written.
    pub flush: Duration,
    /// Bytes of one table's waiting rows after which they are written before that.
    pub file_bytes: u64,
    /// Days that rows are kept; `None`: for ever.
    pub retention_days: Option<f64>,
    /// Bytes of all tables together; beyond them rows are dropped and counted.
    pub bytes_max: u64,
    /// What an object store is told.
    pub credentials: Option<Credentials>,
    /// An object store other than Amazon's.
    pub endpoint: Option<String>,
    /// Where captured requests and answers are sent as events too; `None`: nowhere.
    pub events_url: Option<String>,
    /// What they are signed with.
    pub events_secret: Option<Credentials>,
    /// What values are hashed with where a model's redaction says so.
    pub redaction_key: Option<Credentials>,
}

/// Where tables lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// A folder.
    Folder(PathBuf),
    /// An object store.
    Bucket {
        /// The bucket.
        bucket: String,
        /// What keys begin with; may be empty.
        prefix: String,
    },
}

impl Default for CaptureSettings {
    fn default() -> Self {
        Self {
            root: None,
            tap: TapConfig { rate: 0.01, by: ChosenBy::Id, bytes_max: 64 << 20 },
            flush: Duration::from_secs(10),
            file_bytes: 32 << 20,
            retention_days: Some(30.0),
            bytes_max: 10 << 30,
            credentials: None,
            endpoint: None,
            events_url: None,
            events_secret: None,
            redaction_key: None,
        }
    }
}

impl Root {
    /// Reads a path, or `s3://bucket/prefix`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let Some(rest) = text.strip_prefix("s3://") else {
            return (!text.is_empty() && !text.contains("://")).then(|| Self::Folder(text.into()));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let sound = !bucket.is_empty() && !bucket.contains(['@', ':', '?']);
        let prefix = prefix.trim_matches('/').to_owned();
        sound.then(|| Self::Bucket { bucket: bucket.to_owned(), prefix })
    }
}

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// How requests are chosen.
pub(super) fn chosen_by(given: &Given) -> Option<ChosenBy> {
    match given.text()? {
        "id" => Some(ChosenBy::Id),
        "chance" => Some(ChosenBy::Chance),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_read_and_written() {
        for (text, shown) in [
            ("capture", Some("capture")),
            ("/var/lib/capture", Some("/var/lib/capture")),
            ("s3://bucket", Some("s3://bucket")),
            ("s3://bucket/a/b/", Some("s3://bucket/a/b")),
            ("s3://", None),
            ("s3://key:secret@bucket/a", None),
            ("gs://bucket", None),
            ("", None),
        ] {
            assert_eq!(Root::parse(text).map(|root| root.to_string()).as_deref(), shown, "{text}");
        }
    }
}
