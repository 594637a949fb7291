//! What can go wrong with a table, named for what the caller can do about it. Must not know where it lies.

/// Every error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The store did not do it: try again later.
    #[error("{0}")]
    Store(String),
    /// What lies there is no table of ours, or is damaged.
    #[error("{0}")]
    Damaged(String),
    /// Somebody else changed the same files first: look again.
    #[error("{0}")]
    Conflict(String),
    /// There is nothing of that name.
    #[error("{0}")]
    Missing(String),
    /// A row cannot be put into the table.
    #[error("{0}")]
    Unfit(String),
    /// What was asked for cannot be.
    #[error("{0}")]
    Invalid(String),
}

impl CaptureError {
    /// Something that lies at `key` and cannot be read.
    pub(crate) fn damaged(key: &str, why: impl std::fmt::Display) -> Self {
        Self::Damaged(format!("{key}: {why}"))
    }
}
