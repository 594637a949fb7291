//! The boundary: this crate alone knows HTTP, gRPC, JSON, the environment and signals.
//!
//! It must not know how batches form or how versions are swapped: it asks the runtime.

pub mod respond;

pub mod admission;

pub mod ask;

pub mod repository;

pub mod state;

pub mod describe;

pub mod golden;

pub mod http;

pub mod grpc;

pub mod net;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
