//! Detectors of drift in a stream of bins: alarms whose mean distance, while nothing changed, is known in advance.
//! Mixtures of CUSUM e-detectors (Shin, Ramdas and Rinaldo 2023) against a reference with a tolerance (Huber's robust
//! likelihood ratio). Must not know what the bins are of, or what an alarm is for.
//!
//! A detector's statistic is the logarithm of a weighted sum of wealths, each of which restarts from one: alarmed at `h`,
//! it raises a false alarm after `e^h` batches or more in the mean, for every stream whose law, given what went before,
//! stays within the tolerance. Statistics of several detectors may be averaged (not their logarithms).

use serde::{Deserialize, Serialize};

use crate::{
    StatsError,
    special::{log_sum_exp, normal_quantile},
};

/// Tilts of the location and of the scale, both ways.
const LOCATIONS: [f64; 4] = [0.3, -0.3, 0.6, -0.6];
const SCALES: [f64; 4] = [0.15, -0.15, 0.3, -0.3];
/// Rows that the experts which learn remember.
const MEMORIES: [f64; 3] = [256.0, 1024.0, 4096.0];
/// Weight of the reference in what they expect, in rows.
const PRIOR_ROWS: f64 = 32.0;

/// How much more often than tolerated an event may come, for each expert of [`RateDetector`].
const RATES: [f64; 5] = [1.25, 1.5, 2.0, 4.0, 8.0];

/// The law of the ball of total variation `epsilon` around `p` that is closest to `q`.
///
/// # Errors
/// [`StatsError`] for laws of different lengths.
pub fn closest_in_ball(p: &[f64], q: &[f64], epsilon: f64) -> Result<Vec<f64>, StatsError> {
    StatsError::check_length("q", p.len(), q.len())?;
    if total_variation(p, q) <= epsilon {
        return Ok(q.to_vec());
    }
    let (low, high) = clips(p, q, epsilon);
    Ok(p.iter().zip(q).map(|(p, q)| q / (q / p).clamp(low, high)).collect())
}

fn total_variation(p: &[f64], q: &[f64]) -> f64 {
    0.5 * p.iter().zip(q).map(|(p, q)| (p - q).abs()).sum::<f64>()
}

/// Where the likelihood ratio is cut, so that `epsilon` of mass is moved: from below and from above. Both sums are
/// piecewise linear in the reciprocal of the cut, so the bins beyond it, in order of their ratio, are tried one by one.
fn clips(p: &[f64], q: &[f64], epsilon: f64) -> (f64, f64) {
    let mut order: Vec<usize> = (0..p.len()).collect();
    let ratios: Vec<f64> = q.iter().zip(p).map(|(q, p)| q / p).collect();
    let ratio = |bin: usize| ratios[bin];
    order.sort_by(|a, b| ratio(*a).total_cmp(&ratio(*b)));
    let cut = |bins: &mut dyn Iterator<Item = usize>, sign: f64| {
        let (mut mass_p, mut mass_q, mut cut) = (0.0, 0.0, 1.0);
        for bin in bins {
            // beyond the cut lie those that are farther out than it
            if mass_p > 0.0 && sign * (ratio(bin) - cut) <= 0.0 {
                break;
            }
            mass_p += p[bin];
            mass_q += q[bin];
            let moved = mass_p + sign * epsilon;
            cut = if moved > 0.0 { mass_q / moved } else { f64::INFINITY };
        }
        cut
    };
    (cut(&mut order.iter().copied(), -1.0), cut(&mut order.iter().rev().copied(), 1.0))
}

/// The logarithm of the ratio to bet on `q` against every law around `p`; zero where there is nothing to bet on.
fn table(p: &[f64], q: &[f64], epsilon: f64) -> Vec<f64> {
    let mut table = vec![0.0; p.len()];
    write_table(p, q, epsilon, &mut table);
    table
}

fn write_table(p: &[f64], q: &[f64], epsilon: f64, table: &mut [f64]) {
    if total_variation(p, q) <= epsilon {
        table.fill(0.0);
        return;
    }
    let (low, high) = clips(p, q, epsilon);
    for ((out, p), q) in table.iter_mut().zip(p).zip(q) {
        *out = (q / p).clamp(low, high).ln();
    }
}

/// Watches the bins of one feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftDetector {
    p: Vec<f64>,
    epsilon: f64,
    fixed: Vec<Expert>,
    learning: Vec<Learner>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Expert {
    table: Vec<f64>,
    wealth: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Learner {
    memory: f64,
    counts: Vec<f64>,
    expert: Expert,
}

impl Expert {
    fn add(&mut self, counts: &[u64]) {
        let bet: f64 = counts.iter().zip(&self.table).map(|(count, log)| *count as f64 * log).sum();
        self.wealth = self.wealth.max(0.0) + bet;
    }
}

impl DriftDetector {
    /// Against the reference's shares `p`, every one above zero, tolerating a total variation of `epsilon`.
    ///
    /// # Errors
    /// [`StatsError`] for fewer than two bins, an empty one, or a tolerance outside 0 to 1.
    pub fn new(p: &[f64], epsilon: f64) -> Result<Self, StatsError> {
        StatsError::check(p.len() > 1, "bins", "at least 2", p.len() as f64)?;
        let least = p.iter().copied().fold(f64::INFINITY, f64::min);
        StatsError::check(least > 0.0, "p", "shares above 0", least)?;
        StatsError::check((0.0..1.0).contains(&epsilon), "epsilon", "0 or more, below 1", epsilon)?;
        let bins = p.len() as f64;
        let place = |bin: usize| normal_quantile((bin as f64 + 0.5) / bins);
        let tilted = |tilt: &dyn Fn(f64) -> f64| {
            let raw: Vec<f64> = p.iter().enumerate().map(|(bin, p)| p * tilt(place(bin)).exp()).collect();
            let sum: f64 = raw.iter().sum();
            let q: Vec<f64> = raw.iter().map(|x| x / sum).collect();
            Expert { table: table(p, &q, epsilon), wealth: 0.0 }
        };
        let fixed = LOCATIONS.iter().map(|by| tilted(&|s| by * s));
        let fixed = fixed.chain(SCALES.iter().map(|by| tilted(&|s| by * (s * s - 1.0)))).collect();
        let learner = |memory: &f64| Learner {
            memory: *memory,
            counts: vec![0.0; p.len()],
            expert: Expert { table: vec![0.0; p.len()], wealth: 0.0 },
        };
        Ok(Self { p: p.to_vec(), epsilon, fixed, learning: MEMORIES.iter().map(learner).collect() })
    }

    /// The tolerance that covers `tolerated` and the mean error of a reference of `rows` rows in `bins` bins.
    #[must_use]
    pub fn tolerance(tolerated: f64, bins: usize, rows: u64) -> f64 {
        let bins = bins as f64;
        let share = 1.0 / bins;
        let spread = (2.0 / std::f64::consts::PI * share * (1.0 - share) / rows.max(1) as f64).sqrt();
        tolerated + 0.5 * bins * spread
    }

    /// Takes one batch of rows, counted by bin, and gives the statistic.
    ///
    /// # Errors
    /// [`StatsError`] when the bins are not as many as the reference's.
    pub fn add(&mut self, counts: &[u64]) -> Result<f64, StatsError> {
        self.take(counts)?;
        Ok(self.log_e())
    }

    /// Takes one batch of rows, counted by bin.
    ///
    /// # Errors
    /// As [`DriftDetector::add`].
    pub fn take(&mut self, counts: &[u64]) -> Result<(), StatsError> {
        StatsError::check_length("counts", self.p.len(), counts.len())?;
        let rows = counts.iter().sum::<u64>() as f64;
        self.fixed.iter_mut().for_each(|expert| expert.add(counts));
        for Learner { memory, counts: known, expert } in &mut self.learning {
            // bets what it knew before, then learns
            expert.add(counts);
            let keep = (1.0 - rows / *memory).max(0.0);
            known.iter_mut().zip(counts).for_each(|(known, count)| *known = *known * keep + *count as f64);
            let total: f64 = known.iter().sum::<f64>() + PRIOR_ROWS;
            let q: Vec<f64> =
                known.iter().zip(&self.p).map(|(known, p)| (known + PRIOR_ROWS * p) / total).collect();
            write_table(&self.p, &q, self.epsilon, &mut expert.table);
        }
        Ok(())
    }

    /// The statistic after the last batch.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        let fixed = (0.5 / self.fixed.len() as f64).ln();
        let learning = (0.5 / self.learning.len() as f64).ln();
        let fixed = self.fixed.iter().map(|expert| fixed + expert.wealth);
        log_sum_exp(fixed.chain(self.learning.iter().map(|learner| learning + learner.expert.wealth)))
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let tables = self.fixed.len() + 2 * self.learning.len() + 1;
        8 * self.p.len() * tables
            + self.fixed.len() * size_of::<Expert>()
            + self.learning.len() * size_of::<Learner>()
    }

    /// Begins anew, after an alarm.
    pub fn reset(&mut self) {
        self.fixed.iter_mut().for_each(|expert| expert.wealth = 0.0);
        for learner in &mut self.learning {
            learner.counts.fill(0.0);
            learner.expert.table.fill(0.0);
            learner.expert.wealth = 0.0;
        }
    }
}

/// Watches how often a rare event comes, such as a missing value: against every rate up to the one that is tolerated.
/// A distance of distributions would not see two in a hundred become six.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateDetector {
    limit: f64,
    experts: Vec<RateExpert>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RateExpert {
    /// Logarithms of the ratios for a row with the event, and for one without.
    with: f64,
    without: f64,
    wealth: f64,
}

impl RateDetector {
    /// For events that came at `reference` before: half as often again, or one in a thousand more, is tolerated.
    ///
    /// # Errors
    /// [`StatsError`] for a rate outside 0 to 1.
    pub fn new(reference: f64) -> Result<Self, StatsError> {
        StatsError::check((0.0..=1.0).contains(&reference), "reference", "a rate from 0 to 1", reference)?;
        let limit = (1.5 * reference).max(reference + 0.001).min(1.0);
        let rates = RATES.iter().map(|times| times * limit).filter(|rate| *rate < 1.0);
        let expert = |rate: f64| RateExpert {
            with: (rate / limit).ln(),
            without: ((1.0 - rate) / (1.0 - limit)).ln(),
            wealth: 0.0,
        };
        Ok(Self { limit, experts: rates.map(expert).collect() })
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.experts.len() * size_of::<RateExpert>()
    }

    /// The highest rate that raises no alarm.
    #[must_use]
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// Takes one batch of rows, `events` of them with the event, and gives the statistic.
    pub fn add(&mut self, events: u64, rows: u64) -> f64 {
        self.take(events, rows);
        self.log_e()
    }

    /// Takes one batch of rows.
    pub fn take(&mut self, events: u64, rows: u64) {
        let (events, others) = (events as f64, rows.saturating_sub(events) as f64);
        for RateExpert { with, without, wealth } in &mut self.experts {
            *wealth = wealth.max(0.0) + events * *with + others * *without;
        }
    }

    /// The statistic after the last batch; without an expert (nearly every row has the event) nothing is ever known.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        if self.experts.is_empty() {
            return 0.0;
        }
        let weight = -(self.experts.len() as f64).ln();
        log_sum_exp(self.experts.iter().map(|expert| weight + expert.wealth))
    }

    /// Begins anew, after an alarm.
    pub fn reset(&mut self) {
        self.experts.iter_mut().for_each(|expert| expert.wealth = 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn what_lies_within_the_tolerance_is_not_bet_against() {
        let p = [0.25; 4];
        let mut detector = DriftDetector::new(&p, 0.05).unwrap();
        for _ in 0..500 {
            // a total variation of 0.04
            assert!(detector.add(&[276, 266, 234, 224]).unwrap() < 3.0);
        }
        let mut alarmed = (1..).map(|_| detector.add(&[400, 300, 200, 100]).unwrap());
        assert!(alarmed.position(|log_e| log_e > 20.0).unwrap() < 10);
        assert!(DriftDetector::new(&[0.5, 0.0], 0.1).is_err() && DriftDetector::new(&[1.0], 0.1).is_err());
        assert!(detector.add(&[1, 2]).is_err());
    }

    #[test]
    fn a_rare_event_that_comes_more_often_is_seen() {
        let mut random = Random::new(5);
        let mut batch = |rate: f64| (0..64).filter(|_| random.uniform() < rate).count() as u64;
        let mut detector = RateDetector::new(0.02).unwrap();
        let most = (0..5000).map(|_| detector.add(batch(0.02), 64)).fold(f64::NEG_INFINITY, f64::max);
        assert!(most < 10.0, "{most}");
        let delay = (1..).find(|_| detector.add(batch(0.06), 64) > 17.5).unwrap();
        assert!(delay < 60, "{delay} batches");
        assert!(RateDetector::new(1.5).is_err());
        assert_eq!(RateDetector::new(1.0).unwrap().add(64, 64), 0.0);
    }
}
