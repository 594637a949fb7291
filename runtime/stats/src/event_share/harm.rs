//! Whether the candidate's rate of events is higher than tolerated: a Beta mixture over the worse shares alone.
//! Must not know what an event is.

use serde::{Deserialize, Serialize};

use crate::{StatsError, special::ln_beta_upper_scaled};

/// Weight of the prior in events, when the null is the share of the traffic.
const STRENGTH: f64 = 10.0;

/// Events of the candidate among all, against the highest share that is tolerated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HarmTest {
    prior: [f64; 2],
    limit: f64,
    candidate: u64,
    others: u64,
}

impl HarmTest {
    /// The candidate gets `share` of the traffic; its rate may be `1 + tolerance` times that of the others.
    ///
    /// # Errors
    /// [`StatsError`] for a share outside (0, 1) or a tolerance below zero.
    pub fn new(share: f64, tolerance: f64) -> Result<Self, StatsError> {
        StatsError::check(share > 0.0 && share < 1.0, "share", "a number between 0 and 1", share)?;
        let good = tolerance >= 0.0 && tolerance.is_finite();
        StatsError::check(good, "tolerance", "a number of at least 0", tolerance)?;
        let worse = share * (1.0 + tolerance);
        let limit = worse / (worse + 1.0 - share);
        Ok(Self { prior: [STRENGTH * share, STRENGTH * (1.0 - share)], limit, candidate: 0, others: 0 })
    }

    /// Of all trials the share of events may be `limit`: for pairs that agree or not, and other plain rates.
    ///
    /// # Errors
    /// [`StatsError`] for a limit outside (0, 1).
    pub fn of_rate(limit: f64) -> Result<Self, StatsError> {
        StatsError::check(limit > 0.0 && limit < 1.0, "limit", "a number between 0 and 1", limit)?;
        Ok(Self { prior: [STRENGTH * limit, STRENGTH * (1.0 - limit)], limit, candidate: 0, others: 0 })
    }

    /// Takes further events: the candidate's, and those of the others (for a plain rate: trials without one).
    pub fn add(&mut self, candidate: u64, others: u64) {
        self.candidate = self.candidate.saturating_add(candidate);
        self.others = self.others.saturating_add(others);
    }

    /// The highest share of the events that is tolerated.
    #[must_use]
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// Events so far: the candidate's, and the others'.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.candidate, self.others)
    }

    /// Evidence now that the candidate is worse than tolerated.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        let [a, b] = self.prior;
        let (x, y) = (self.candidate as f64, self.others as f64);
        ln_beta_upper_scaled(a + x, b + y, self.limit) - ln_beta_upper_scaled(a, b, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn log_e(share: f64, tolerance: f64, candidate: u64, others: u64) -> f64 {
        let mut test = HarmTest::new(share, tolerance).unwrap();
        test.add(candidate, others);
        test.log_e()
    }

    #[test]
    fn the_mean_under_the_limit_is_one() {
        // every sequence of 12 events, weighted by its probability at the boundary of the null
        for (share, tolerance) in [(0.5, 0.1), (0.05, 0.0), (0.01, 0.5)] {
            let limit = HarmTest::new(share, tolerance).unwrap().limit();
            let mut mean = 0.0;
            let mut ways = 1.0;
            for x in 0..=12u64 {
                let probability = ways * limit.powi(x as i32) * (1.0 - limit).powi(12 - x as i32);
                mean += probability * log_e(share, tolerance, x, 12 - x).exp();
                ways *= (12 - x) as f64 / (x + 1) as f64;
            }
            assert!((mean - 1.0).abs() < 1e-10, "share {share}: mean {mean}");
        }
    }

    #[test]
    fn more_events_of_the_candidate_are_more_evidence() {
        let mut random = Random::new(3);
        for _ in 0..2000 {
            let (share, tolerance) = (0.001 + 0.99 * random.uniform(), random.uniform());
            let [x, y] = [(); 2].map(|()| {
                let bits = random.below(30) + 1;
                random.below(1 << bits)
            });
            let (here, more) = (log_e(share, tolerance, x, y), log_e(share, tolerance, x + 1, y));
            assert!(here.is_finite(), "{share} {tolerance} {x} {y}: {here}");
            assert!(more > here - 1e-7, "{share} {tolerance} {x} {y}: {here} then {more}");
        }
    }

    #[test]
    fn a_billion_events_are_weighed_as_one() {
        assert_eq!(log_e(0.05, 0.1, 0, 0), 0.0);
        assert!(log_e(0.5, 0.1, 1_000_000_000, 1_000_000_000) < -5.0);
        assert!(log_e(0.5, 0.1, 1_000_000_000, 500_000_000) > 1e6);
        assert!(log_e(0.01, 0.1, 0, 1_000_000_000).is_finite());
        assert!(log_e(0.01, 0.1, 1_000_000_000, 0) > 1e8);
    }

    #[test]
    fn parts_add_up() {
        let mut test = HarmTest::of_rate(0.02).unwrap();
        for _ in 0..10 {
            test.add(3, 97);
        }
        let mut whole = HarmTest::of_rate(0.02).unwrap();
        whole.add(30, 970);
        assert_eq!(test, whole);
        assert!(test.log_e() > 0.0);
        let text = serde_json::to_string(&test).unwrap();
        assert_eq!(serde_json::from_str::<HarmTest>(&text).unwrap().log_e(), test.log_e());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let message = |share, tolerance| HarmTest::new(share, tolerance).unwrap_err().to_string();
        assert_eq!(message(1.0, 0.1), "share: expected a number between 0 and 1, got 1");
        assert_eq!(message(0.5, -0.1), "tolerance: expected a number of at least 0, got -0.1");
        assert!(HarmTest::of_rate(0.0).is_err());
    }
}
