//! What a model *is*: its name and version, its signature, its settings and its verified files.
//!
//! This crate must not know the network, async, or how a model is executed.

pub mod id;

pub mod dtype;
pub mod signature;

pub mod settings;

pub use dtype::DType;
pub use id::{ModelName, Version};
pub use settings::ModelSettings;
pub use signature::{Dim, Signature, TensorSpec};
