//! What a model *is*: its name and version, its signature, its settings and its verified files.
//!
//! This crate must not know the network, async, or how a model is executed.

pub mod id;

pub mod dtype;
pub mod signature;

pub mod settings;

pub mod redaction;

mod faults;
mod labels;
pub mod manifest;
pub mod pbtxt;

mod settings_file;

pub mod digest;

pub mod artifact;
pub mod scan;
pub mod store;

pub mod error;
pub mod fault;

pub use artifact::Artifact;
pub use digest::Digest;
pub use dtype::DType;
pub use error::ModelError;
pub use id::{ModelName, Version};
pub use labels::read_version_labels;
pub use redaction::{Redaction, RedactionKey, Redactor};
pub use scan::{IngestLimits, VersionLocation};
pub use settings::ModelSettings;
pub use settings_file::{SETTINGS_FILES, read_settings};
pub use signature::{Dim, Signature, TensorSpec};
pub use store::Store;
