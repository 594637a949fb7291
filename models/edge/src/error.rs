//! What can go wrong while a model is compiled, named for what the caller can do about it. Must not know the
//! command line.

use std::{
    io,
    path::{Path, PathBuf},
};

/// What this crate's functions return.
pub type Result<T, E = EdgeError> = std::result::Result<T, E>;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A file is not what its name says, or is cut off: export or copy it again.
    #[error("{what}: {fault}; the file is damaged or not of this format: export it or copy it again")]
    Malformed {
        /// The file, or the part of it.
        what: String,
        /// Expected and got.
        fault: String,
    },
    /// The model uses something that cannot be compiled: change the model as the way round says.
    #[error("node '{node}' ({operator}): {reason}; {way_round}")]
    Unsupported {
        /// The node's name, or its first output's.
        node: String,
        /// The operator.
        operator: String,
        /// Expected and got.
        reason: String,
        /// What the author of the model can do.
        way_round: String,
    },
    /// The calibration data do not fit the model, or cannot be read.
    #[error("{what}: {fault}; {way_round}")]
    Data {
        /// The file or the array.
        what: String,
        /// Expected and got.
        fault: String,
        /// What to do.
        way_round: String,
    },
    /// A named limit is exceeded.
    #[error("{what}: expected at most {limit}, got {got}; such a model does not fit a microcontroller")]
    TooLarge {
        /// What is counted.
        what: String,
        /// The most that is allowed.
        limit: u64,
        /// What was found.
        got: u64,
    },
    /// A bundle is not what its manifest says: do not ship it.
    #[error(
        "{what}: {fault}; do not ship it: compile it again, or sign it again if it was changed on purpose"
    )]
    Untrusted {
        /// The file of the bundle.
        what: String,
        /// Expected and got.
        fault: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: cannot {action}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("cancelled while it was {0}")]
    Cancelled(String),
}

impl EdgeError {
    /// A file that does not have its format.
    pub(crate) fn malformed(what: impl Into<String>, fault: impl Into<String>) -> Self {
        Self::Malformed { what: what.into(), fault: fault.into() }
    }

    /// For `map_err` of file operations.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}
