//! The one test binary: a module for each capability. Must not hold tests itself.

#![expect(clippy::unwrap_used, reason = "a test ends where its world is not as it must be")]

mod support;

mod admin_api;
mod batching;
mod capture;
mod clients;
mod command_line;
mod control_modes;
mod drift;
mod edge;
mod image;
mod metrics_page;
mod ota;
mod overload;
mod ready;
mod registry;
mod rollouts;
mod routes;
mod secured;
mod shadows;
mod shutdown;
mod sim;
mod swap;
mod swapping;
mod tidy;
mod traces;
mod watching;
mod wire;
