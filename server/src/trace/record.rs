//! A traced request, as it is told of. Must not know how it is written.

use gannet_models::Version;
use gannet_runtime::{Time, request::Timing};

use super::context::Context;
use crate::protocol::Protocol;

/// A request, as it is told of.
#[derive(Debug)]
pub(super) struct Record {
    /// Whose part it is; without a parent it is the first of its trace.
    pub(super) context: Context,
    /// Its own number.
    pub(super) span: [u8; 8],
    pub(super) protocol: Protocol,
    pub(super) model: String,
    pub(super) id: String,
    pub(super) arrived: Time,
    pub(super) ended: Time,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Answered {
        version: Version,
        /// The version that the request was assigned to, if its model has a route.
        arm: Option<Version>,
        rows: usize,
        timing: Timing,
    },
    Failed {
        version: Option<Version>,
        /// One of a few words.
        kind: &'static str,
        message: String,
    },
}
