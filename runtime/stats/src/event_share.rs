//! Which share of the bad events is the candidate's. Under equal rates it is the share of the traffic that the
//! candidate gets, however the rates vary in time; so only events are counted, and nothing is assumed of the rest
//! (Lindon and Malek, "Anytime-valid inference for multinomial count data", 2022).
//!
//! Holds while that share of the traffic stays as it is: begin anew when it changes, and add the logarithms. The
//! rates must be small (an event is one request of many). Must not know what an event is.
//!
//! [`ShareTest`] asks whether the shares are as they should be (also: sample ratio mismatch); [`HarmTest`] whether
//! the candidate's rate is higher than tolerated; [`ratio_bounds`] how much higher or lower it can be;
//! [`rate_bounds`] bounds one rate alone.

mod harm;
mod rate;
mod ratio;
mod share;

pub use harm::HarmTest;
pub use rate::{RateBounds, rate_bounds};
pub use ratio::{RatioBounds, StageCounts, ratio_bounds};
pub use share::{SRM_ALPHA, SRM_STRENGTH, ShareTest};
