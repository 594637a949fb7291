//! What keeps a source from being made, what a registry may answer, named for what the caller can do, and what libraries mean
//! by their errors. Must not know any protocol of a registry.

use std::time::Duration;

use gannet_models::ModelError;

/// What keeps a source from being made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Paths in which no models can be looked for; one line each.
    #[error("{}", .0.join("\n"))]
    Roots(Vec<String>),
    /// A source that cannot be had as it is configured.
    #[error("{0}")]
    Source(String),
}

/// Why a registry gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// There is no such thing now: an alias to nothing, a version that was deleted.
    #[error("{0}")]
    Missing(String),
    /// It wants other credentials, or none would do.
    #[error("{0}")]
    Denied(String),
    /// It asks for patience.
    #[error("{message}")]
    Busy {
        /// What it said.
        message: String,
        /// For how long.
        retry_after: Option<Duration>,
    },
    /// It cannot be reached, broke off, or failed.
    #[error("{0}")]
    Down(String),
    /// What it holds cannot be served; asking again gives the same.
    #[error("{0}")]
    Unusable(String),
    /// This machine could not take it: disk, permissions.
    #[error("{0}")]
    Local(String),
}

impl RemoteError {
    /// Whether another try may succeed although nothing changed at the registry.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Unusable(_))
    }

    /// What the registry asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The same with what was being done in front.
    #[must_use]
    pub fn during(self, what: &str) -> Self {
        let with = |message: String| format!("{what}: {message}");
        match self {
            Self::Missing(message) => Self::Missing(with(message)),
            Self::Denied(message) => Self::Denied(with(message)),
            Self::Busy { message, retry_after } => Self::Busy { message: with(message), retry_after },
            Self::Down(message) => Self::Down(with(message)),
            Self::Unusable(message) => Self::Unusable(with(message)),
            Self::Local(message) => Self::Local(with(message)),
        }
    }
}

impl From<ModelError> for RemoteError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Io { .. } => Self::Local(error.to_string()),
            _ => Self::Unusable(error.to_string()),
        }
    }
}

/// Every cause of an error; the client's own says no more than that something failed.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    explained(text)
}

/// What a library says, and what to do where that is not plain.
#[must_use]
pub fn explained(text: String) -> String {
    if text.contains("CaUsedAsEndEntity") {
        return format!(
            "{text}: it shows an authority's own certificate; sign one of its own with that, or make it with \
             basicConstraints=CA:FALSE"
        );
    }
    text
}
