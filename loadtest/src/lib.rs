//! Load tester for servers of the Open Inference Protocol v2.
//!
//! Three parts, as in perf_analyzer: load generation (`arrivals`, `engine`), measurement
//! (`measure`) and report (`report`). The crate knows the wire and none of Gannet's crates.

pub mod clock;
pub mod random;
pub mod arrivals;
pub mod link;
pub mod measure;
mod engine;
mod grpc;
mod http;
mod http2;
mod control;
mod data;
pub mod flags;
pub mod objective;
pub mod plan;
pub mod quantity;
pub mod search;
pub mod target;
mod payload;
mod prepare;
pub mod echo;
pub mod progress;
pub mod report;
pub mod session;
mod signature;
mod tensor;
