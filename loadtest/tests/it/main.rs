//! Integration tests: the whole tester against servers in this process, on free ports.
//!
//! No test waits a fixed time for a result: runs end by count, and times are only bounded below.

#![allow(clippy::unwrap_used, reason = "tests")]

mod grpc_server;
mod http_servers;
mod load;
mod program;
mod server;
