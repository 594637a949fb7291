//! What can go wrong with a model's files, named for what the caller can do about it. Must not know protocols.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::digest::Digest;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The author of a settings file has to edit it; every fault is listed.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// The files changed while they were being read: try again once they rest.
    #[error("{path}: changed while it was being copied ({what}); it is tried again once its files rest", path = path.display())]
    Changing {
        /// The file or folder that changed.
        path: PathBuf,
        /// What was seen to change.
        what: String,
    },
    /// A limit of this installation is exceeded.
    #[error("{path}: expected at most {limit} {unit}, got {got}; raise the limit or remove files", path = path.display())]
    TooLarge {
        /// The folder.
        path: PathBuf,
        /// What is counted.
        unit: &'static str,
        /// The most that is allowed.
        limit: u64,
        /// What was found (at least).
        got: u64,
    },
    /// A symbolic link leads out of the repository.
    #[error("{path}: expected a link to a file under {root}, got {target}; copy the file into the repository",
        path = path.display(), root = root.display(), target = target.display())]
    Outside {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
        /// The folder that it must not leave.
        root: PathBuf,
    },
    /// Nothing to serve was found where a model was expected.
    #[error("{path}: {what}", path = path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
        /// What was expected, and what to do.
        what: String,
    },
    /// Stored files no longer are what their digest says.
    #[error("{path}: expected sha256 {expected}, got {got}; the stored copy is damaged: remove that folder, and the model is copied again",
        path = path.display())]
    Corrupt {
        /// The stored folder.
        path: PathBuf,
        /// The digest it is stored under.
        expected: Digest,
        /// What its files hash to, or what is wrong with them.
        got: String,
    },
    /// The operating system refused.
    #[error("{path}: cannot {doing}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl ModelError {
    /// Wraps an I/O error with what was being done to which path.
    pub fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), doing, source }
    }
}

/// All the faults of one settings file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// The file, or what stands for it in messages (such as `load request`).
    pub path: PathBuf,
    /// In the order of the file, as far as lines are known.
    pub faults: Vec<Fault>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for (index, fault) in self.faults.iter().enumerate() {
            let end = if index + 1 < self.faults.len() { "\n" } else { "" };
            match fault.line {
                Some(line) => write!(f, "{path}:{line}: {fault}{end}")?,
                None => write!(f, "{path}: {fault}{end}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for SettingsError {}

/// One thing wrong with a settings file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, counted from 1, where the format tells.
    pub line: Option<usize>,
    /// The field, such as `limits.queue_requests_max`; empty: the file as a whole.
    pub field: String,
    /// What may stand there.
    pub expected: String,
    /// What stands there.
    pub got: String,
    /// What to do, where the two above do not say it.
    pub advice: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "expected {}, got {}", self.expected, self.got)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}
