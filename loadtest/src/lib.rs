//! Load tester for servers of the Open Inference Protocol v2.
//!
//! Three parts, as in perf_analyzer: load generation (`arrivals`, `engine`), measurement
//! (`measure`) and report (`report`). The crate knows the wire and none of Gannet's crates.

pub mod arrivals;
pub mod clock;
mod control;
mod data;
pub mod echo;
mod engine;
pub mod flags;
mod grpc;
mod http;
mod http2;
pub mod link;
pub mod measure;
pub mod objective;
mod payload;
pub mod plan;
mod prepare;
pub mod progress;
pub mod quantity;
pub mod random;
pub mod report;
#[cfg(test)]
mod robustness;
pub mod search;
pub mod session;
mod signature;
pub mod target;
mod tensor;
