//! Why an inference was not answered: a closed set, named for what the caller can do. Must not know wire codes:
//! those come from the server's one table.

use gannet_models::{ModelName, Version};

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// No source knows the model. Use a name from the index.
    #[error("Request for unknown model: '{0}' is not found")]
    UnknownModel(String),
    /// The model is known, that version or label is not.
    #[error("Request for unknown model: '{model}' version '{version}' is not found; served are: {served}")]
    UnknownVersion {
        /// The model asked for.
        model: ModelName,
        /// The version or label asked for.
        version: String,
        /// What could be asked for instead.
        served: String,
    },
    /// The version is known and not served now. Try again, or read the reason.
    #[error("Request for unknown model: '{model}' version '{version}' is not at ready state: {reason}")]
    NotReady {
        /// The model asked for.
        model: ModelName,
        /// The version asked for.
        version: Version,
        /// Its state, and why.
        reason: String,
    },
    /// The model is known and no version of it is served.
    #[error("Request for unknown model: '{model}' has no available versions: {reason}")]
    NoVersion {
        /// The model asked for.
        model: ModelName,
        /// The states of its versions.
        reason: String,
    },
    /// The request does not fit the model. Change it.
    #[error("{0}")]
    Invalid(String),
    /// Too many wait already. Try again after the delay.
    #[error("Exceeds maximum queue size: {waiting} requests wait for '{model}', at most {limit} may")]
    QueueFull {
        /// The model asked for.
        model: ModelName,
        /// Requests in its queue.
        waiting: usize,
        /// The queue's bound.
        limit: usize,
        /// When a place is likely, in milliseconds.
        retry_after_ms: u64,
    },
    /// The deadline cannot be met at the present load. Try again after the delay, or allow more time.
    #[error(
        "the deadline of '{model}' cannot be met: {budget_us} us are left, about {needed_us} us are needed \
         with {waiting} requests ahead"
    )]
    Unaffordable {
        /// The model asked for.
        model: ModelName,
        /// Time the request allows, in microseconds.
        budget_us: u64,
        /// Time it would take, in microseconds.
        needed_us: u64,
        /// Requests in its queue.
        waiting: usize,
        /// When it is likely to fit, in milliseconds.
        retry_after_ms: u64,
    },
    /// The deadline passed before there was an answer.
    #[error("Request timeout expired: it waited {waited_us} us of the {budget_us} us allowed")]
    Expired {
        /// Time waited, in microseconds.
        waited_us: u64,
        /// Time allowed, in microseconds.
        budget_us: u64,
    },
    /// The caller left before the model ran.
    #[error("the request was cancelled before the model ran")]
    Cancelled,
    /// The model failed on this batch. The process and other requests are unharmed.
    #[error("'{model}' version '{version}' failed: {message}")]
    Backend {
        /// The model that failed.
        model: ModelName,
        /// Its version.
        version: Version,
        /// The backend's words.
        message: String,
    },
    /// The server takes no new requests. Ask another replica.
    #[error("the server is shutting down")]
    ShuttingDown,
}
