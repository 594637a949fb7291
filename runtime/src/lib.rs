//! How a model *runs*: batching, instances, hot swap, lifecycle.
//!
//! This crate must not know sockets, HTTP, JSON, environment variables, or where models come from. The one
//! file access it causes is a backend's reading of a verified artifact.

pub mod clock;

pub mod tensor;

pub mod error;

pub mod request;

pub mod table;

pub mod route;

pub mod servable;

pub mod shadow;

pub mod drift;

pub mod batch;

pub mod control;

pub mod backend;

pub mod metrics;

#[cfg(feature = "testing")]
pub mod testing;

pub use clock::Time;
pub use error::InferError;
pub use request::{InferRequest, InferResponse};
pub use tensor::{Tensor, TensorView};
