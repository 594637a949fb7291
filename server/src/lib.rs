//! The boundary: this crate alone knows HTTP, gRPC, JSON, the environment and signals.
//!
//! It must not know how batches form or how versions are swapped: it asks the runtime.

pub mod config;

pub mod app;

pub mod backends;

pub mod shutdown;

pub mod cli;

pub mod net;

pub mod tls;

pub mod token;

pub mod http;

pub mod grpc;

pub mod ask;

pub mod protocol;

pub mod respond;

pub mod guard;

pub mod admission;

mod patience;

pub mod state;

pub mod describe;

pub mod repository;

pub mod sources;

pub mod webhook;

pub mod traffic;

pub mod edge;

pub mod ota;

pub mod golden;

pub mod rehearsal;

pub mod baseline;

pub mod cloud_event;

pub mod capture;

pub mod trace;

pub mod drift;

pub mod admin;

pub mod exporter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
