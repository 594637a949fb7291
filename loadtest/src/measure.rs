//! Measurement: what happens to each answer, and what a run's result is made of.
//!
//! Must not know how load is generated or how results are shown.

pub mod cpu;
mod quantiles;
pub mod recorder;
pub mod server_stats;
mod windows;

pub use quantiles::{LatencyHistogram, Percentiles};
pub use recorder::{Checks, FailureKind, Measurement, Recorder, Snapshot};
pub use windows::{WINDOW_NS, Window, WindowSummary};
