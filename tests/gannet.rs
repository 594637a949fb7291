//! The one test binary: a module for each capability. Must not hold tests itself.

#![expect(clippy::unwrap_used, reason = "a test ends where its world is not as it must be")]

mod support;

mod batching;
mod clients;
mod overload;
mod ready;
mod sim;
mod swap;
mod swapping;
mod tidy;
mod watching;
mod wire;
