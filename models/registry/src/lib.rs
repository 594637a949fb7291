//! Where models come from. A source states which versions it wants served, and brings those of registries here; it
//! never loads or serves any. What asks others over HTTP and TLS, and object stores, live in this crate alone.
//!
//! This crate must not know how a model is executed, nor how requests reach it.

pub mod source;
pub mod spec;

pub mod filesystem;

pub mod uri;

pub mod registry;

mod board;
mod catalogue;
mod follow;

mod backoff;
pub mod beside;
mod fetch;
mod kind;
mod listing;
mod opened;
mod package;
mod rate;

mod http;
pub mod mlflow;

pub mod bucket;
mod dvc;
mod hugging_face;
mod model_car;
mod oci;
mod s3;

pub mod sign;
pub mod trust;

pub mod pull;
pub mod push;

pub mod error;

pub use board::{AspiredState, FetchState, SourceState};
pub use error::{RegistryError, RemoteError, causes, explained};
pub use fetch::FetchLimits;
pub use filesystem::{FilesystemOptions, FilesystemSource};
pub use gannet_models::{IngestLimits, VersionLocation};
pub use http::{Secret, Secrets, provide_crypto};
pub use mlflow::write::VersionReport;
pub use registry::{Registry, RegistryOptions};
pub use source::{AliasMoved, AspiredModel, AspiredVersion, Poll, Source, SourceHealth};
pub use spec::{OnAliasMove, SourceSpec};
pub use trust::{Trust, TrustMode, TrustRule};
pub use uri::SourceUri;

/// A number from 0 to 1 that differs between servers and calls. Good for spreading load, and for nothing else.
pub(crate) fn chance() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let chance = bits as f64 / (1_u64 << 53) as f64;
    chance
}
