//! Waiting for conditions, with a bound. Must not know what is waited for.

use std::time::Duration;

use gannet_runtime::clock;

/// The longest that anything may take, on a slow machine in a debug build.
const BOUND: Duration = Duration::from_secs(60);

/// Looks every few milliseconds until `condition` holds; panics with `what` after a minute.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + BOUND;
    while !condition() {
        assert!(clock::now() < deadline, "not within {} s: {what}", BOUND.as_secs());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
