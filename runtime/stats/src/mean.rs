//! Differences of means that may be looked at as often as one likes: the mixture sequential probability ratio test
//! (Johari et al., "Always valid inference", 2022) and asymptotic confidence sequences (Waudby-Smith et al., 2024).
//! Must not know what is measured.
//!
//! Asymptotic: the variance is plugged in as if it were known, so begin with [`SAMPLES_MIN`] values an arm, more
//! where single values weigh heavily. For values with bounds see [`crate::bounded`], which is exact.

use crate::{
    StatsError,
    moments::Moments,
    special::{lambert_w_minus_1, normal_survival},
};

/// Values of each arm below which nothing is said.
pub const SAMPLES_MIN: u64 = 100;

/// The difference of two means, and how well it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanDifference {
    /// Second mean less the first.
    pub difference: f64,
    /// Variance of that difference.
    pub variance: f64,
}

impl MeanDifference {
    /// Of two independent samples; `None` while one holds fewer than two values or neither varies.
    #[must_use]
    pub fn between(first: &Moments, second: &Moments) -> Option<Self> {
        if first.n() < 2 || second.n() < 2 {
            return None;
        }
        let variance = first.variance() / first.n() as f64 + second.variance() / second.n() as f64;
        (variance > 0.0).then(|| Self { difference: second.mean() - first.mean(), variance })
    }

    /// Evidence that the difference is not `null`, from a normal mixture of variance `tau2` around it.
    #[must_use]
    pub fn log_e(&self, null: f64, tau2: f64) -> f64 {
        let (v, off) = (self.variance, self.difference - null);
        0.5 * (v / (v + tau2)).ln() + tau2 * off * off / (2.0 * v * (v + tau2))
    }

    /// Evidence that the difference is larger than `limit`: the weakest against any difference up to it.
    #[must_use]
    pub fn log_e_above(&self, limit: f64, tau2: f64) -> f64 {
        self.log_e(limit.min(self.difference), tau2)
    }

    /// Half the width of the confidence sequence around the difference, of error probability `alpha`.
    #[must_use]
    pub fn half_width(&self, tau2: f64, alpha: f64) -> f64 {
        let v = self.variance;
        (v * (v + tau2) / tau2 * (-2.0 * alpha.ln() + ((v + tau2) / v).ln())).sqrt()
    }

    /// The p-value of one look; the smallest of all looks holds at any time.
    #[must_use]
    pub fn p_value(&self, null: f64, tau2: f64) -> f64 {
        (-self.log_e(null, tau2)).exp().min(1.0)
    }
}

/// How strongly a confidence sequence is tuned to one moment: -W(-alpha²/e) - 1.
fn tuning(alpha: f64) -> f64 {
    -lambert_w_minus_1(-alpha * alpha * (-1f64).exp()) - 1.0
}

/// The mixture variance for which the sequence is narrowest when the difference has variance `variance`. To be
/// chosen before the data that it judges.
///
/// # Errors
/// [`StatsError`] for an alpha outside (0, 1) or a variance that is not positive.
pub fn tau2(alpha: f64, variance: f64) -> Result<f64, StatsError> {
    StatsError::check_alpha(alpha)?;
    StatsError::check(variance > 0.0 && variance.is_finite(), "variance", "a positive number", variance)?;
    Ok(tuning(alpha) * variance)
}

/// Half the width of the confidence sequence of one mean after `t` values of standard deviation `deviation`,
/// narrowest at `t_best` values.
///
/// # Errors
/// [`StatsError`] for an alpha outside (0, 1), or a count of zero.
pub fn one_mean_half_width(t: u64, deviation: f64, t_best: u64, alpha: f64) -> Result<f64, StatsError> {
    StatsError::check_alpha(alpha)?;
    StatsError::check(t > 0, "t", "at least 1", t as f64)?;
    StatsError::check(t_best > 0, "t_best", "at least 1", t_best as f64)?;
    let t = t as f64;
    let rho2 = tuning(alpha) / t_best as f64;
    let inner = t * rho2 + 1.0;
    Ok(deviation * (2.0 * inner / (t * t * rho2) * (0.5 * inner.ln() - alpha.ln())).sqrt())
}

/// Welch's z of the difference and its two-sided p-value, for those who look once only.
#[must_use]
pub fn fixed_p_value(difference: &MeanDifference) -> f64 {
    2.0 * normal_survival((difference.difference / difference.variance.sqrt()).abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn evidence_and_width_are_two_sides_of_one_thing() {
        let difference = MeanDifference { difference: 0.7, variance: 0.01 };
        let (tau2, alpha) = (0.05, 0.02);
        let edge = difference.difference - difference.half_width(tau2, alpha);
        assert!((difference.log_e(edge, tau2) + f64::ln(alpha)).abs() < 1e-9);
        assert!((difference.log_e_above(edge, tau2) + f64::ln(alpha)).abs() < 1e-9);
        assert!(difference.log_e_above(2.0, tau2) < 0.0, "a difference below the limit is no evidence");
    }

    #[test]
    fn what_says_nothing_gives_nothing() {
        let constant = Moments::of(500, 1.0, 0.0);
        assert_eq!(MeanDifference::between(&constant, &constant), None);
        assert_eq!(MeanDifference::between(&Moments::default(), &Moments::of(9, 0.0, 1.0)), None);
        assert!(tau2(1.0, 1.0).is_err() && tau2(0.05, 0.0).is_err());
        assert!(one_mean_half_width(0, 1.0, 1, 0.05).is_err());
    }

    #[test]
    fn looking_often_does_not_raise_the_error() {
        let (mut random, mut alarms, runs) = (Random::new(11), 0, 400);
        let mixture = tau2(0.05, 2.0 / 2000.0).unwrap();
        for _ in 0..runs {
            let mut arms = [Moments::default(); 2];
            let wrong = (0..40).any(|_| {
                for arm in &mut arms {
                    (0..50).for_each(|_| arm.push(random.normal()));
                }
                let difference = MeanDifference::between(&arms[0], &arms[1]);
                arms[0].n() >= SAMPLES_MIN && difference.is_some_and(|d| d.log_e(0.0, mixture) > 20f64.ln())
            });
            alarms += u32::from(wrong);
        }
        assert!(alarms <= runs / 20, "{alarms} of {runs}");
    }
}
