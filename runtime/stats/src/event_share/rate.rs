//! How high one rate can be: all rates that a Beta mixture does not reject. Must not know what an event is.

use serde::{Deserialize, Serialize};

use crate::{
    StatsError,
    special::{bisect, ln_beta_scaled},
};

/// Jeffreys' prior: rates near 0 and 1 are bounded as well as others.
const PRIOR: f64 = 0.5;

/// Rates below this are zero for us.
const RATE_MIN: f64 = 1e-15;

/// A rate with bounds that hold at any time, as long as it stays what it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RateBounds {
    /// Events by trials; `None` without a trial.
    pub estimate: Option<f64>,
    /// The lowest rate that is not rejected.
    pub lower: f64,
    /// The highest rate that is not rejected.
    pub upper: f64,
}

/// The bounds of a rate after `events` in `trials`, right at all times with probability 1 - `alpha`.
///
/// # Errors
/// [`StatsError`] for more events than trials or an alpha outside (0, 1).
pub fn rate_bounds(events: u64, trials: u64, alpha: f64) -> Result<RateBounds, StatsError> {
    StatsError::check_alpha(alpha)?;
    StatsError::check(events <= trials, "events", "no more than trials", events as f64)?;
    if trials == 0 {
        return Ok(RateBounds { estimate: None, lower: 0.0, upper: 1.0 });
    }
    let (x, y) = (events as f64, (trials - events) as f64);
    let evidence = |rate: f64| {
        let mixture = ln_beta_scaled(PRIOR + x, PRIOR + y, rate) - ln_beta_scaled(PRIOR, PRIOR, rate);
        mixture + alpha.ln()
    };
    let estimate = x / (x + y);
    let (lowest, highest) = (RATE_MIN, 1.0 - RATE_MIN);
    let inside = estimate.clamp(lowest, highest);
    let lower = if events == 0 || evidence(lowest) < 0.0 {
        0.0
    } else {
        bisect(lowest, inside, |rate| -evidence(rate))
    };
    let upper =
        if events == trials || evidence(highest) < 0.0 { 1.0 } else { bisect(inside, highest, evidence) };
    Ok(RateBounds { estimate: Some(estimate), lower, upper })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn bounds_narrow_around_the_rate() {
        let bounds = |events, trials| rate_bounds(events, trials, 0.01).unwrap();
        assert_eq!(bounds(0, 0), RateBounds { estimate: None, lower: 0.0, upper: 1.0 });
        let none = bounds(0, 1000);
        assert!(none.lower == 0.0 && none.upper < 0.01, "{none:?}");
        let all = bounds(1000, 1000);
        assert!(all.upper == 1.0 && all.lower > 0.99, "{all:?}");
        let billion = bounds(20_000_000, 1_000_000_000);
        assert!(billion.lower > 0.0199 && billion.upper < 0.0201, "{billion:?}");
        assert!(rate_bounds(2, 1, 0.01).is_err() && rate_bounds(1, 2, 0.0).is_err());
    }

    #[test]
    fn the_rate_stays_inside_at_all_looks() {
        let (mut random, mut outside, runs) = (Random::new(8), 0, 300);
        for _ in 0..runs {
            let mut events = 0;
            let left = (1..=100u64).any(|look| {
                events += (0..10).filter(|_| random.uniform() < 0.1).count() as u64;
                let bounds = rate_bounds(events, look * 10, 0.05).unwrap();
                bounds.lower > 0.1 || bounds.upper < 0.1
            });
            outside += u32::from(left);
        }
        assert!(outside <= runs / 20, "{outside} of {runs}");
    }
}
