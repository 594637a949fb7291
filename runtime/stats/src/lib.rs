//! Sequential tests, confidence sequences, drift detectors and scores: what decides whether a version is worse, and
//! whether the data changed.
//!
//! Everything is a function of values. This crate must not know the clock, files, threads, models or any other
//! crate of ours: the command line needs it as well as the runtime. Where chance is needed, a seed is passed.
//!
//! Evidence against a hypothesis is an *e-value*, always as its natural logarithm (`log_e`): under the hypothesis
//! its mean is at most one, at any time one cares to look, so that it passes `1/alpha` with probability `alpha` at
//! most, ever. E-values of independent stages multiply: their logarithms are added.

pub mod error;

pub mod special;

pub mod random;

pub mod event_share;
pub mod gate;

pub mod moments;

pub mod mean;

pub mod bounded;

pub mod quantile;

pub mod rank;

pub mod split;

pub mod score;

pub mod binning;

pub mod detector;

pub mod clusters;

pub mod monitor;

pub mod adwin;

pub mod multiple;

pub mod frequent;

pub mod principal;

pub use error::StatsError;
