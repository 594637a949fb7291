//! Means of values between known bounds, by betting: exact for any law and any dependence, as long as each value's
//! mean given the past is what the hypothesis says (Waudby-Smith and Ramdas, "Estimating means of bounded random
//! variables by betting", 2024). Must not know what is measured.
//!
//! Values are taken one by one and in order: a bet is made before its value is seen.

use serde::{Deserialize, Serialize};

use crate::StatsError;

/// Share of the wealth that is ever at stake.
const STAKE_MAX: f64 = 0.5;

/// What is known of a stream on [0, 1] before its next value: the shared part of the bets' sizes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Running {
    n: u64,
    sum: f64,
    /// Squared distances, each from the mean as it was known when the value came.
    squares: f64,
}

impl Running {
    const NEW: Self = Self { n: 0, sum: 0.0, squares: 0.0 };

    /// Mean with half a value of prior weight; 1/2 for none.
    fn mean(&self) -> f64 {
        (0.5 + self.sum) / (self.n + 1) as f64
    }

    /// Variance with a quarter of prior weight.
    fn variance(&self) -> f64 {
        (0.25 + self.squares) / (self.n + 1) as f64
    }

    /// The size of the next bet before it is capped: sqrt(2 ln(2/alpha) / (v t ln(1 + t))).
    fn bet(&self, alpha: f64) -> f64 {
        let t = (self.n + 1) as f64;
        (2.0 * (2.0 / alpha).ln() / (self.variance() * t * (1.0 + t).ln())).sqrt()
    }

    fn push(&mut self, x: f64) {
        self.n += 1;
        self.sum += x;
        self.squares += (x - self.mean()).powi(2);
    }
}

/// Evidence that the mean of values in `[low, high]` is above a limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanAbove {
    low: f64,
    high: f64,
    /// The limit, on [0, 1].
    limit: f64,
    alpha: f64,
    running: Running,
    log_e: f64,
}

impl MeanAbove {
    /// `alpha` tunes the bets to the moment when the evidence would reach 1/alpha; it is no part of the validity.
    ///
    /// # Errors
    /// [`StatsError`] for bounds that are not finite and rising, a limit not strictly between them, or an alpha
    /// outside (0, 1).
    pub fn new(low: f64, high: f64, limit: f64, alpha: f64) -> Result<Self, StatsError> {
        check_bounds(low, high)?;
        StatsError::check(limit > low && limit < high, "limit", "a number between the bounds", limit)?;
        StatsError::check_alpha(alpha)?;
        Ok(Self { low, high, limit: (limit - low) / (high - low), alpha, running: Running::NEW, log_e: 0.0 })
    }

    /// The same against a mean below `limit`: turn the values around, `above(-high, -low, -limit)`, and push `-x`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn turned(low: f64, high: f64, limit: f64, alpha: f64) -> Result<Self, StatsError> {
        Self::new(-high, -low, -limit, alpha)
    }

    /// Takes one value; what lies outside the bounds counts as the bound, and what is no number is ignored.
    pub fn push(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        let x = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        let stake = self.running.bet(self.alpha).min(STAKE_MAX / self.limit);
        self.log_e += (stake * (x - self.limit)).ln_1p();
        self.running.push(x);
    }

    /// Values taken.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.running.n
    }

    /// Evidence now that the mean is above the limit.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        self.log_e
    }
}

/// Bounds of a mean that hold at any time: the predictable plug-in empirical Bernstein sequence (theorem 2 of the
/// same paper).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BoundedMean {
    low: f64,
    high: f64,
    alpha: f64,
    running: Running,
    bets: f64,
    bets_times_values: f64,
    /// What the bets may have lost to variance.
    cost: f64,
}

impl BoundedMean {
    /// Of values in `[low, high]`, wrong with probability `alpha` at most, ever.
    ///
    /// # Errors
    /// [`StatsError`] for bounds that are not finite and rising, or an alpha outside (0, 1).
    pub fn new(low: f64, high: f64, alpha: f64) -> Result<Self, StatsError> {
        check_bounds(low, high)?;
        StatsError::check_alpha(alpha)?;
        let running = Running::NEW;
        Ok(Self { low, high, alpha, running, bets: 0.0, bets_times_values: 0.0, cost: 0.0 })
    }

    /// Takes one value; what lies outside the bounds counts as the bound, and what is no number is ignored.
    pub fn push(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        let x = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        let bet = self.running.bet(self.alpha).min(STAKE_MAX);
        let off = x - self.running.mean();
        self.bets += bet;
        self.bets_times_values += bet * x;
        // 4 (x - mean)² times (-ln(1 - bet) - bet) / 4
        self.cost += off * off * (-(-bet).ln_1p() - bet);
        self.running.push(x);
    }

    /// Values taken.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.running.n
    }

    /// The mean of what was taken; `None` for nothing.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let n = self.running.n;
        (n > 0).then(|| self.low + (self.high - self.low) * self.running.sum / n as f64)
    }

    /// Lower and upper bound of the mean, within the bounds of the values.
    #[must_use]
    pub fn bounds(&self) -> (f64, f64) {
        if self.running.n == 0 {
            return (self.low, self.high);
        }
        let centre = self.bets_times_values / self.bets;
        let half = ((2.0 / self.alpha).ln() + self.cost) / self.bets;
        let place = |x: f64| self.low + (self.high - self.low) * x.clamp(0.0, 1.0);
        (place(centre - half), place(centre + half))
    }
}

fn check_bounds(low: f64, high: f64) -> Result<(), StatsError> {
    StatsError::check(low.is_finite(), "low", "a finite number", low)?;
    StatsError::check(high.is_finite() && high > low, "high", "a finite number above low", high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn paired_differences_are_tested_on_their_own_scale() {
        let mut random = Random::new(1);
        let mut worse = MeanAbove::new(-1.0, 1.0, 0.02, 0.01).unwrap();
        let mut same = worse;
        for _ in 0..4000 {
            worse.push(0.1 + 0.2 * (random.uniform() - 0.5));
            same.push(0.2 * (random.uniform() - 0.5));
        }
        assert!(worse.log_e() > 100.0 && same.log_e() < 0.0, "{} {}", worse.log_e(), same.log_e());
        let mut lower = MeanAbove::turned(0.0, 1.0, 0.4, 0.01).unwrap();
        (0..1000).for_each(|_| lower.push(-0.1));
        assert!(lower.log_e() > 50.0);
    }

    #[test]
    fn the_bets_are_fair() {
        // the mean of e over all sequences of six coins whose mean is the limit
        for limit in [0.1, 0.5, 0.9] {
            let mut mean = 0.0;
            for coins in 0..64u32 {
                let mut test = MeanAbove::new(0.0, 1.0, limit, 0.05).unwrap();
                let mut probability = 1.0;
                for i in 0..6 {
                    let one = coins >> i & 1 == 1;
                    test.push(if one { 1.0 } else { 0.0 });
                    probability *= if one { limit } else { 1.0 - limit };
                }
                mean += probability * test.log_e().exp();
            }
            assert!((mean - 1.0).abs() < 1e-12, "{limit}: {mean}");
        }
    }

    #[test]
    fn the_mean_stays_inside_at_all_looks() {
        let (mut random, mut outside, runs) = (Random::new(2), 0, 300);
        for _ in 0..runs {
            let mut sequence = BoundedMean::new(0.0, 10.0, 0.05).unwrap();
            let left = (0..1000).any(|_| {
                sequence.push(10.0 * random.beta(1.0, 4.0));
                let (low, high) = sequence.bounds();
                low > 2.0 || high < 2.0
            });
            outside += u32::from(left);
            let (low, high) = sequence.bounds();
            assert!(high - low < 1.5, "wide: {low} to {high}");
        }
        assert!(outside <= runs / 20, "{outside} of {runs}");
    }

    #[test]
    fn a_stream_can_be_put_down_and_taken_up() {
        let (mut random, mut whole) = (Random::new(4), MeanAbove::new(0.0, 1.0, 0.3, 0.05).unwrap());
        let mut parts = whole;
        for _ in 0..100 {
            let x = random.uniform();
            whole.push(x);
            parts.push(x);
            let text = serde_json::to_string(&parts).unwrap();
            parts = serde_json::from_str(&text).unwrap();
        }
        assert!((whole.log_e() - parts.log_e()).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(
            MeanAbove::new(0.0, 1.0, 1.0, 0.05).unwrap_err().to_string(),
            "limit: expected a number between the bounds, got 1"
        );
        assert!(BoundedMean::new(1.0, 1.0, 0.05).is_err());
        let empty = BoundedMean::new(-1.0, 1.0, 0.05).unwrap();
        assert_eq!((empty.mean(), empty.bounds()), (None, (-1.0, 1.0)));
    }
}
