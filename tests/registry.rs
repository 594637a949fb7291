//! Models from registries: real ones, started here on loopback. Must not know how they are spoken to.

mod hostile;
mod killed;
mod many;
mod mlflow;
mod oci;
mod s3;
mod sealed;
mod signed;
mod tracked;
