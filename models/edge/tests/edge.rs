//! The one test binary of the edge compiler: a module for each capability. Must not hold tests itself.

#![expect(clippy::unwrap_used, reason = "a test ends where its world is not as it must be")]
#![allow(missing_docs, unreachable_pub, dead_code, reason = "what is shared is shared with an example too")]

mod support;

mod bundles;
mod judges;
mod mutation;
mod options;
mod qemu;
mod quantised;
mod random_graphs;
