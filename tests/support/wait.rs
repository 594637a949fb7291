//! Waiting for conditions, with a bound. Must not know what is waited for.

use std::time::Duration;

use gannet_runtime::clock;

/// The longest that anything may take, on a slow machine in a debug build.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// Looks every few milliseconds until `condition` holds; panics with `what` after a minute.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(BOUND, condition), "not within {} s: {what}", BOUND.as_secs());
}

/// Looks every few milliseconds whether `condition` holds; false when it does not within `bound`.
pub(crate) fn holds_within(bound: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = clock::now() + bound;
    while !condition() {
        if clock::now() >= deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    true
}
