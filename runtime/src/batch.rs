//! Dynamic batching: who waits ([`queue`]), when a batch goes ([`policy`]), what a run costs ([`cost`]),
//! and how requests become one tensor and back ([`assemble`]).

pub mod assemble;
pub mod cost;
pub mod policy;
pub mod queue;
