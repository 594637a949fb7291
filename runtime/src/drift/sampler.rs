//! Which requests are sampled: a countdown for each thread, whose length is drawn so that every request is as likely
//! as any other. Must not know what a request is.

use std::{
    cell::Cell,
    hash::{BuildHasher as _, Hasher as _},
};

use gannet_stats::random::Random;

/// The longest countdown, so that a thread soon sees a rate that has changed. What comes after it is drawn anew, which
/// changes nothing: such a draw has no memory.
const COUNTDOWN_MAX: u64 = 1023;

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
    /// Whether the countdown ends with a sample.
    static ENDS_WITH_SAMPLE: Cell<bool> = const { Cell::new(false) };
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// Whether this thread's countdown is over.
#[inline]
pub(super) fn is_due() -> bool {
    LEFT.with(|left| {
        let before = left.get();
        left.set(before.wrapping_sub(1));
        before == 0
    })
}

/// Begins the next countdown; whether the one that is over ended with a sample that `share` of the rate keeps.
pub(super) fn draw(rate: f64, share: f64) -> bool {
    let state = STATE.get();
    let mut random = Random::new(if state == 0 { seed() } else { state });
    // a thread's first request is as likely as any other
    let sampled = if state == 0 { random.uniform() < rate } else { ENDS_WITH_SAMPLE.get() };
    let (skip, ends) = countdown(rate, random.positive());
    LEFT.set(skip);
    ENDS_WITH_SAMPLE.set(ends);
    let kept = sampled && (share >= 1.0 || random.uniform() < share);
    STATE.set(random.bits() | 1);
    kept
}

/// Requests to pass over, and whether the one behind them is a sample, for an even number in (0, 1].
fn countdown(rate: f64, even: f64) -> (u64, bool) {
    let skip = if rate > 0.0 { even.ln() / (-rate.min(1.0)).ln_1p() } else { f64::INFINITY };
    // what cannot be counted is longer than any countdown
    if skip <= COUNTDOWN_MAX as f64 { (skip as u64, true) } else { (COUNTDOWN_MAX, false) }
}

fn seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish() | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_as_likely_as_any_other() {
        for (rate, share) in [(0.0, 1.0), (0.0002, 1.0), (0.01, 1.0), (0.3, 0.5), (1.0, 1.0), (1.0, 0.1)] {
            let requests = 2_000_000u32;
            let sampled = (0..requests).filter(|_| is_due() && draw(rate, share)).count() as f64;
            let (expected, p) = (f64::from(requests) * rate * share, rate * share);
            // a countdown of before may still run
            let allowed = 5.0 * (f64::from(requests) * p * (1.0 - p)).sqrt() + 1025.0 * f64::max(p, 0.001);
            assert!(
                (sampled - expected).abs() <= allowed + 2.0,
                "{rate} {share}: {sampled}, expected {expected}"
            );
        }
        assert_eq!(countdown(1.0, 0.5), (0, true));
        assert_eq!(countdown(0.0, 0.5), (COUNTDOWN_MAX, false));
    }
}
