//! stub
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod pb { tonic::include_proto!("inference"); }
