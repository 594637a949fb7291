//! How much higher or lower the candidate's rate can be: all ratios that a Beta mixture does not reject, over
//! stages with different shares of the traffic. Must not know what an event is.

use serde::{Deserialize, Serialize};

use crate::{
    StatsError,
    special::{bisect, ln_beta_scaled},
};

/// Weight of the prior in events.
const STRENGTH: f64 = 10.0;

/// Ratios beyond e^40 are infinite for us.
const LN_RATIO_MAX: f64 = 40.0;

/// Events of one stage, during which the candidate's share of the traffic stayed the same.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StageCounts {
    /// The candidate's share of the traffic.
    pub share: f64,
    /// Events of the candidate.
    pub candidate: u64,
    /// Events of the stable version.
    pub stable: u64,
}

/// A ratio of rates, candidate to stable, with bounds that hold at any time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RatioBounds {
    /// The likeliest; `None` while neither has an event, or the stable version has none.
    pub estimate: Option<f64>,
    /// The lowest that is not rejected.
    pub lower: f64,
    /// The highest that is not rejected; `None`: no bound.
    pub upper: Option<f64>,
}

/// The bounds of the ratio of rates, together right at all times with probability 1 - `alpha`.
///
/// # Errors
/// [`StatsError`] for a share outside (0, 1) or an alpha outside (0, 1).
pub fn ratio_bounds(stages: &[StageCounts], alpha: f64) -> Result<RatioBounds, StatsError> {
    StatsError::check_alpha(alpha)?;
    for stage in stages {
        let good = stage.share > 0.0 && stage.share < 1.0;
        StatsError::check(good, "share", "a number between 0 and 1", stage.share)?;
    }
    let (candidate, stable) =
        stages.iter().fold((0, 0), |(c, s), stage| (c + stage.candidate, s + stage.stable));
    if candidate + stable == 0 {
        return Ok(RatioBounds { estimate: None, lower: 0.0, upper: None });
    }
    let likeliest = match (candidate, stable) {
        (0, _) => -LN_RATIO_MAX,
        (_, 0) => LN_RATIO_MAX,
        // the derivative of the evidence by ln ratio, which rises
        _ => bisect(-LN_RATIO_MAX, LN_RATIO_MAX, |ln_ratio| {
            let excess = |stage: &StageCounts| {
                let n = (stage.candidate + stage.stable) as f64;
                n * stage.share_at(ln_ratio) - stage.candidate as f64
            };
            stages.iter().map(excess).sum()
        }),
    };
    let limit = -alpha.ln();
    let evidence = |ln_ratio: f64| stages.iter().map(|stage| stage.log_e(ln_ratio)).sum::<f64>() - limit;
    let lower = if candidate == 0 || evidence(-LN_RATIO_MAX) < 0.0 {
        0.0
    } else {
        bisect(-LN_RATIO_MAX, likeliest, |ln_ratio| -evidence(ln_ratio)).exp()
    };
    let upper =
        (stable > 0 && evidence(LN_RATIO_MAX) > 0.0).then(|| bisect(likeliest, LN_RATIO_MAX, evidence).exp());
    let estimate = match (candidate, stable) {
        (0, _) => Some(0.0),
        (_, 0) => None,
        _ => Some(likeliest.exp()),
    };
    Ok(RatioBounds { estimate, lower, upper })
}

impl StageCounts {
    /// The candidate's share of the events if its rate is e^`ln_ratio` times the stable version's.
    fn share_at(&self, ln_ratio: f64) -> f64 {
        let odds = ln_ratio.exp() * self.share / (1.0 - self.share);
        odds / (1.0 + odds)
    }

    /// Evidence against that ratio.
    fn log_e(&self, ln_ratio: f64) -> f64 {
        // kept off 0 and 1, where the deviances would lose their meaning
        let theta = self.share_at(ln_ratio).clamp(1e-290, 1.0 - f64::EPSILON);
        let (a, b) = (STRENGTH * self.share, STRENGTH * (1.0 - self.share));
        let (x, y) = (self.candidate as f64, self.stable as f64);
        ln_beta_scaled(a + x, b + y, theta) - ln_beta_scaled(a, b, theta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn bounds(share: f64, candidate: u64, stable: u64) -> RatioBounds {
        ratio_bounds(&[StageCounts { share, candidate, stable }], 0.01).unwrap()
    }

    #[test]
    fn bounds_enclose_the_estimate_and_narrow() {
        let mut width_before = f64::INFINITY;
        for scale in [1, 10, 100, 10_000, 10_000_000] {
            let bounds = bounds(0.05, 5 * scale, 95 * scale);
            let (estimate, upper) = (bounds.estimate.unwrap(), bounds.upper.unwrap_or(f64::INFINITY));
            assert!((estimate - 1.0).abs() < 1e-9, "{bounds:?}");
            assert!(bounds.lower < 1.0 && upper > 1.0, "{bounds:?}");
            assert!(upper - bounds.lower < width_before);
            width_before = upper - bounds.lower;
        }
        assert!(width_before < 0.01);
    }

    #[test]
    fn no_events_are_no_bounds() {
        assert_eq!(bounds(0.5, 0, 0), RatioBounds { estimate: None, lower: 0.0, upper: None });
        assert_eq!(ratio_bounds(&[], 0.01).unwrap().upper, None);
        let none_of_the_candidate = bounds(0.5, 0, 50);
        assert_eq!(none_of_the_candidate.lower, 0.0);
        assert!(none_of_the_candidate.upper.unwrap() < 0.4);
        let none_of_the_stable = bounds(0.5, 50, 0);
        assert!(none_of_the_stable.lower > 2.5 && none_of_the_stable.upper.is_none());
    }

    #[test]
    fn stages_of_different_shares_add_their_evidence() {
        let one = StageCounts { share: 0.01, candidate: 300, stable: 19_800 };
        let two = StageCounts { share: 0.5, candidate: 300, stable: 200 };
        let both = ratio_bounds(&[one, two], 0.05).unwrap();
        for alone in [one, two] {
            let alone = ratio_bounds(&[alone], 0.05).unwrap();
            assert!(both.upper.unwrap() - both.lower < alone.upper.unwrap() - alone.lower);
        }
        assert!((both.estimate.unwrap() - 1.5).abs() < 0.02, "{both:?}");
    }

    #[test]
    fn the_truth_stays_inside_at_all_looks() {
        let (mut random, mut outside, runs) = (Random::new(5), 0, 300);
        for _ in 0..runs {
            let mut stage = StageCounts { share: 0.2, candidate: 0, stable: 0 };
            let left = (0..60).any(|_| {
                for _ in 0..10 {
                    // ratio 2: 0.4 to 0.8
                    if random.uniform() < 1.0 / 3.0 { stage.candidate += 1 } else { stage.stable += 1 }
                }
                let bounds = ratio_bounds(&[stage], 0.05).unwrap();
                bounds.lower > 2.0 || bounds.upper.is_some_and(|upper| upper < 2.0)
            });
            outside += u32::from(left);
        }
        assert!(outside <= runs / 20, "{outside} of {runs} left the bounds");
    }
}
