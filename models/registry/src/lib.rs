//! Where models come from. A source states which versions it wants served; it never loads, copies or deletes any.
//!
//! This crate must not know how a model is executed, nor how requests reach it.

pub mod source;

pub mod filesystem;

pub mod error;

pub use error::RegistryError;
pub use filesystem::{FilesystemOptions, FilesystemSource};
pub use gannet_models::{IngestLimits, VersionLocation};
pub use source::{AspiredModel, AspiredVersion, Poll, Source, SourceHealth};
