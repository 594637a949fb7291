//! When to look again: pure functions of what happened and of chance. Must not know what is looked at.

use std::time::Duration;

/// The wait after the first failure, before chance.
pub(crate) const FIRST: Duration = Duration::from_millis(500);
/// The longest wait after failures.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);

/// The wait after `failures` failures in a row: doubled each time up to [`LONGEST`], of which a random part between
/// half and all is taken, so that a thousand servers do not come back at once. `asked` is what the registry asked for
/// (`Retry-After`), which is never undercut, and never believed beyond [`LONGEST`]. `chance` is from 0 to 1.
#[must_use]
pub(crate) fn after_failure(failures: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    let drawn = doubled.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
    let asked = asked.unwrap_or_default().min(LONGEST);
    // spread those who were all told the same
    drawn.max(asked + asked.mul_f64(chance.clamp(0.0, 1.0) / 10.0))
}

/// The wait between two looks that went well: `poll`, a tenth more or less.
#[must_use]
pub(crate) fn after_success(poll: Duration, chance: f64) -> Duration {
    poll.mul_f64(0.9 + chance.clamp(0.0, 1.0) / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_double_the_wait_up_to_a_bound() {
        let ms = |failures, chance| after_failure(failures, None, chance).as_millis();
        assert_eq!([ms(1, 1.0), ms(2, 1.0), ms(3, 1.0), ms(4, 0.0)], [500, 1000, 2000, 2000]);
        assert_eq!(ms(40, 1.0), 300_000);
        assert_eq!(ms(u32::MAX, 0.0), 150_000);
    }

    #[test]
    fn what_the_registry_asks_for_is_kept_within_reason() {
        let asked = |s| Some(Duration::from_secs(s));
        assert_eq!(after_failure(1, asked(20), 0.0), Duration::from_secs(20));
        assert_eq!(after_failure(1, asked(20), 1.0), Duration::from_secs(22));
        assert_eq!(after_failure(1, asked(86_400), 0.0), LONGEST);
    }

    #[test]
    fn looks_are_spread() {
        let poll = Duration::from_secs(10);
        assert_eq!(after_success(poll, 0.0), Duration::from_secs(9));
        assert_eq!(after_success(poll, 1.0), Duration::from_secs(11));
    }
}
