//! The one test binary: a module for each capability. Must not hold tests itself.

mod support;

mod batching;
mod clients;
mod overload;
mod ready;
mod sim;
mod swap;
mod tidy;
mod wire;
