//! Every formula against values computed elsewhere (scipy, river, Evidently, hash libraries). Must not repeat the
//! formulas.
#![expect(clippy::unwrap_used, reason = "a golden file that is not as expected fails the test")]

#[path = "golden/drift.rs"]
mod drift;
#[path = "golden/file.rs"]
mod file;
#[path = "golden/rollout.rs"]
mod rollout;
#[path = "golden/streams.rs"]
mod streams;
