//! Whether events fall on the arms in the shares they should: a Dirichlet-multinomial mixture against fixed shares.
//! Must not know what an event is.

use serde::{Deserialize, Serialize};

use crate::{
    StatsError,
    special::{deviance, ln_gamma_rest},
};

/// Weight of the prior in the test for sample ratio mismatch.
pub const SRM_STRENGTH: f64 = 100.0;

/// Error probability at which a sample ratio mismatch is taken for real.
pub const SRM_ALPHA: f64 = 1e-4;

/// Counts by arm, against the shares they should have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShareTest {
    shares: Vec<f64>,
    strength: f64,
    counts: Vec<u64>,
    log_e_max: f64,
}

impl ShareTest {
    /// `shares` add up to one; `strength` is the weight of the prior in events: the larger, the finer and the
    /// slower the departures it looks for.
    ///
    /// # Errors
    /// [`StatsError`] for fewer than two shares, shares outside (0, 1) or not adding up to one, or a strength that
    /// is not positive.
    pub fn new(shares: &[f64], strength: f64) -> Result<Self, StatsError> {
        if shares.len() < 2 {
            return Err(StatsError::Length { name: "shares", expected: 2, got: shares.len() });
        }
        for &share in shares {
            StatsError::check(share > 0.0 && share < 1.0, "share", "a number between 0 and 1", share)?;
        }
        let sum: f64 = shares.iter().sum();
        StatsError::check((sum - 1.0).abs() < 1e-9, "shares", "a sum of 1", sum)?;
        StatsError::check(strength > 0.0 && strength.is_finite(), "strength", "a positive number", strength)?;
        Ok(Self { shares: shares.to_vec(), strength, counts: vec![0; shares.len()], log_e_max: 0.0 })
    }

    /// The test for sample ratio mismatch of two arms, `share` of the second.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn sample_ratio(share: f64) -> Result<Self, StatsError> {
        Self::new(&[1.0 - share, share], SRM_STRENGTH)
    }

    /// Takes further events of every arm, and looks.
    ///
    /// # Errors
    /// [`StatsError::Length`] when there are not as many counts as shares.
    pub fn add(&mut self, counts: &[u64]) -> Result<f64, StatsError> {
        StatsError::check_length("counts", self.counts.len(), counts.len())?;
        self.counts.iter_mut().zip(counts).for_each(|(held, count)| *held = held.saturating_add(*count));
        let log_e = self.log_e();
        self.log_e_max = self.log_e_max.max(log_e);
        Ok(log_e)
    }

    /// Events of every arm so far.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Evidence now that the shares are others.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        let total = self.counts.iter().sum::<u64>() as f64 + self.strength;
        let mut log_e = ln_gamma_rest(self.strength) - ln_gamma_rest(total);
        for (&share, &count) in self.shares.iter().zip(&self.counts) {
            // ln Γ without its large parts, which add up to the deviances of the posterior from the null
            let prior = self.strength * share;
            let posterior = prior + count as f64;
            log_e += ln_gamma_rest(posterior) - ln_gamma_rest(prior) + deviance(posterior, total * share);
        }
        log_e
    }

    /// The p-value that holds at any time: of the strongest evidence seen at any look.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        (-self.log_e_max).exp().min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::ln_gamma;

    fn naive(shares: &[f64], strength: f64, counts: &[u64]) -> f64 {
        let n: u64 = counts.iter().sum();
        let mut log_e = ln_gamma(strength) - ln_gamma(strength + n as f64);
        for (&share, &count) in shares.iter().zip(counts) {
            let a = strength * share;
            log_e += ln_gamma(a + count as f64) - ln_gamma(a) - count as f64 * share.ln();
        }
        log_e
    }

    #[test]
    fn it_is_the_formula_and_keeps_its_digits() {
        for (shares, counts) in [
            (vec![0.5, 0.5], vec![3, 9]),
            (vec![0.9, 0.05, 0.05], vec![0, 7, 0]),
            (vec![0.2, 0.8], vec![900, 2500]),
        ] {
            let mut test = ShareTest::new(&shares, 20.0).unwrap();
            let log_e = test.add(&counts).unwrap();
            assert!((log_e - naive(&shares, 20.0, &counts)).abs() < 1e-9, "{counts:?}");
        }
        // exact shares at a billion: -ln sqrt(n/k) and no noise
        let mut test = ShareTest::new(&[0.5, 0.5], 100.0).unwrap();
        let log_e = test.add(&[500_000_000, 500_000_000]).unwrap();
        assert!((log_e + 0.5 * (1e9f64 / 100.0).ln()).abs() < 0.01, "{log_e}");
    }

    #[test]
    fn looks_in_between_change_nothing_but_the_p_value() {
        let mut streamed = ShareTest::sample_ratio(0.1).unwrap();
        let mut p_before = 1.0;
        for _ in 0..50 {
            streamed.add(&[17, 3]).unwrap();
            assert!(streamed.p_value() <= p_before);
            p_before = streamed.p_value();
        }
        let mut whole = ShareTest::sample_ratio(0.1).unwrap();
        whole.add(&[850, 150]).unwrap();
        assert_eq!(streamed.log_e(), whole.log_e());
        let text = serde_json::to_string(&streamed).unwrap();
        assert_eq!(serde_json::from_str::<ShareTest>(&text).unwrap(), streamed);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let message = |shares: &[f64], strength| ShareTest::new(shares, strength).unwrap_err().to_string();
        assert_eq!(message(&[0.5, 0.6], 1.0), "shares: expected a sum of 1, got 1.1");
        assert_eq!(message(&[1.0, 0.0], 1.0), "share: expected a number between 0 and 1, got 1");
        assert_eq!(message(&[0.5, 0.5], 0.0), "strength: expected a positive number, got 0");
        assert_eq!(message(&[1.0], 1.0), "shares: expected 2 values, got 1");
    }
}
