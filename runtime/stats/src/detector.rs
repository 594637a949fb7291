//! Detectors of drift in a stream of bins: alarms whose mean distance, while nothing changed, is known in advance.
//! Mixtures of CUSUM e-detectors (Shin, Ramdas and Rinaldo 2023) against a reference with a tolerance (Huber's robust
//! likelihood ratio). Must not know what the bins are of, or what an alarm is for.
//!
//! A detector's statistic is the logarithm of a weighted sum of wealths, each of which restarts from one: alarmed at `h`,
//! it raises a false alarm after `e^h` batches or more in the mean, for every stream whose law, given what went before,
//! stays within the tolerance. Statistics of several detectors may be averaged (not their logarithms).

pub use self::real::Real;
use crate::{
    StatsError,
    binning::COARSE_BINS,
    special::{log_sum_exp, normal_quantile},
};

mod real;

/// Tilts of the location and of the scale, both ways.
const LOCATIONS: [f64; 4] = [0.3, -0.3, 0.6, -0.6];
const SCALES: [f64; 4] = [0.15, -0.15, 0.3, -0.3];
/// Experts that bet on them.
const FIXED: usize = LOCATIONS.len() + SCALES.len();
/// Rows that the experts which learn remember. The last one does not bet: with it they are as many as are computed at
/// once.
const MEMORIES: [f64; LEARNERS] = [256.0, 1024.0, 4096.0, f64::INFINITY];
const LEARNERS: usize = 4;
/// Those that bet.
const LEARNERS_BET: usize = 3;
/// Weight of the reference in what they expect, in rows.
const PRIOR_ROWS: f32 = 32.0;

/// What is tolerated at most, of a reference that says nearly nothing.
const TOLERANCE_MAX: f64 = 0.9;

/// How much more often than tolerated an event may come, for each expert of [`RateDetector`].
const RATES: [f64; 5] = [1.25, 1.5, 2.0, 4.0, 8.0];

/// The law of the ball of total variation `epsilon` around `p` that is closest to `q`.
///
/// # Errors
/// [`StatsError`] for laws of different lengths.
pub fn closest_in_ball(p: &[f64], q: &[f64], epsilon: f64) -> Result<Vec<f64>, StatsError> {
    StatsError::check_length("q", p.len(), q.len())?;
    let lanes: Vec<[f64; 1]> = q.iter().map(|q| [*q]).collect();
    let ([low], [high]) = cuts(p, &lanes, epsilon);
    // within the ball both cuts are one, and q itself is the closest
    let is_within = low >= 1.0 && high <= 1.0;
    Ok(p.iter().zip(q).map(|(p, q)| if is_within { *q } else { q / (q / p).clamp(low, high) }).collect())
}

/// Where the likelihood ratio of each of `N` laws is cut, so that `epsilon` of mass is moved: from below and from above.
/// Within the ball nothing is to be moved, and both are one.
///
/// In the reciprocal of the cut the mass that it moves is convex and piecewise linear, so Newton's steps from one only
/// come nearer, and the last of a few is exact.
#[inline]
fn cuts<R: Real, const N: usize>(p: &[R], q: &[[R; N]], epsilon: R) -> ([R; N], [R; N]) {
    let one = R::from(1.0);
    let side = |sign: R| {
        let mut reciprocal = [one; N];
        // each step but the last takes a bin away
        for _ in 0..=p.len() {
            let (mut mass_p, mut mass_q) = ([R::default(); N], [R::default(); N]);
            for (p, q) in p.iter().zip(q) {
                for lane in 0..N {
                    let beyond = sign * (q[lane] * reciprocal[lane] - *p) > R::default();
                    mass_p[lane] += if beyond { *p } else { R::default() };
                    mass_q[lane] += if beyond { q[lane] } else { R::default() };
                }
            }
            let mut moved = false;
            for lane in 0..N {
                let next = (mass_p[lane] + sign * epsilon) / mass_q[lane];
                // nothing beyond the cut, or nothing left to move: it stays
                let is_nearer =
                    mass_q[lane] > R::default() && sign * (reciprocal[lane] - next) > R::default();
                moved |= is_nearer;
                reciprocal[lane] = if is_nearer { next } else { reciprocal[lane] };
            }
            if !moved {
                break;
            }
        }
        reciprocal.map(|reciprocal| one / reciprocal)
    };
    (side(R::from(-1.0)), side(one))
}

/// The logarithms of the ratios to bet on each of `N` laws against every law around `p`; zero where there is nothing to
/// bet on.
#[inline]
fn write_tables<R: Real, const N: usize>(p: &[R], q: &[[R; N]], epsilon: R, tables: &mut [[R; N]]) {
    let (low, high) = cuts(p, q, epsilon);
    for ((table, p), q) in tables.iter_mut().zip(p).zip(q) {
        for lane in 0..N {
            table[lane] = (q[lane] / *p).max(low[lane]).min(high[lane]);
        }
    }
    tables.as_flattened_mut().iter_mut().for_each(|ratio| *ratio = ratio.ln());
}

/// Watches the bins of one feature.
#[derive(Debug, Clone, PartialEq)]
pub struct DriftDetector<R = f64> {
    p: Box<[R]>,
    epsilon: R,
    /// By bin, what each expert bets.
    fixed: Box<[[R; FIXED]]>,
    fixed_wealth: [R; FIXED],
    /// By bin, what each expert that learns knows.
    known: Box<[[R; LEARNERS]]>,
    learning_wealth: [R; LEARNERS],
}

impl<R: Real> DriftDetector<R> {
    /// Against the reference's shares `p`, every one above zero, tolerating a total variation of `epsilon`.
    ///
    /// # Errors
    /// [`StatsError`] for fewer than two bins or more than [`COARSE_BINS`], an empty one, or a tolerance outside 0 to 1.
    pub fn new(p: &[f64], epsilon: f64) -> Result<Self, StatsError> {
        StatsError::check((2..=COARSE_BINS).contains(&p.len()), "bins", "2 to 16", p.len() as f64)?;
        let least = p.iter().copied().fold(f64::INFINITY, f64::min);
        StatsError::check(least > 0.0, "p", "shares above 0", least)?;
        StatsError::check((0.0..1.0).contains(&epsilon), "epsilon", "0 or more, below 1", epsilon)?;
        let bins = p.len() as f64;
        let tilted = |(bin, p): (usize, &f64)| {
            let s = normal_quantile((bin as f64 + 0.5) / bins);
            let mut raw = [0.0; FIXED];
            let locations = LOCATIONS.iter().map(|by| by * s);
            let tilts = locations.chain(SCALES.iter().map(|by| by * (s * s - 1.0)));
            raw.iter_mut().zip(tilts).for_each(|(raw, tilt)| *raw = p * tilt.exp());
            raw
        };
        let mut laws: Vec<[f64; FIXED]> = p.iter().enumerate().map(tilted).collect();
        for expert in 0..FIXED {
            let sum: f64 = laws.iter().map(|raw| raw[expert]).sum();
            laws.iter_mut().for_each(|raw| raw[expert] /= sum);
        }
        let mut fixed = vec![[0.0; FIXED]; p.len()];
        write_tables(p, &laws, epsilon, &mut fixed);
        Ok(Self {
            p: p.iter().map(|p| R::of(*p)).collect(),
            epsilon: R::of(epsilon),
            fixed: fixed.into_iter().map(|table| table.map(R::of)).collect(),
            fixed_wealth: Default::default(),
            known: vec![Default::default(); p.len()].into(),
            learning_wealth: Default::default(),
        })
    }

    /// The tolerance for a reference of `rows` rows in `bins` bins: the mean of its error, and `tolerated` or three of that
    /// error's standard deviations, whichever is more. With its mean alone, one reference of a hundred rows in four was found
    /// to differ from its own law; from 2,000 rows on `tolerated` is more.
    #[must_use]
    pub fn tolerance(tolerated: f64, bins: usize, rows: u64) -> f64 {
        let bins = bins as f64;
        let share = 1.0 / bins;
        // a bin's error is half-normal: its mean's square and its variance, as shares of what a normal one's variance is
        let (mean, variance) = (2.0 / std::f64::consts::PI, 1.0 - 2.0 / std::f64::consts::PI);
        let of_bin = share * (1.0 - share) / rows.max(1) as f64;
        let (mean, deviation) = (bins * (mean * of_bin).sqrt(), (bins * variance * of_bin).sqrt());
        (0.5 * mean + tolerated.max(1.5 * deviation)).min(TOLERANCE_MAX)
    }

    /// Takes one batch of rows, counted by bin, and gives the statistic.
    ///
    /// # Errors
    /// [`StatsError`] when the bins are not as many as the reference's.
    pub fn add(&mut self, counts: &[u64]) -> Result<f64, StatsError> {
        StatsError::check_length("counts", self.p.len(), counts.len())?;
        let mut taken = [0; COARSE_BINS];
        taken
            .iter_mut()
            .zip(counts)
            .for_each(|(taken, count)| *taken = u32::try_from(*count).unwrap_or(u32::MAX));
        self.take(&taken);
        Ok(self.log_e())
    }

    /// Takes one batch of rows, counted by bin; what is beyond the reference's bins is left out.
    pub fn take(&mut self, counts: &[u32; COARSE_BINS]) {
        let bins = self.p.len();
        let mut rows = R::default();
        let counts = counts.map(|count| R::of(f64::from(count)));
        counts[..bins].iter().for_each(|count| rows += *count);
        // what they know bets before it learns
        let tables = self.learnt();
        stake(&mut self.fixed_wealth, &counts, &self.fixed);
        stake(&mut self.learning_wealth, &counts, &tables[..bins]);
        let keep = MEMORIES.map(|memory| (R::from(1.0) - rows / R::of(memory)).max(R::default()));
        for (known, count) in self.known.iter_mut().zip(counts) {
            for lane in 0..LEARNERS {
                known[lane] = known[lane] * keep[lane] + count;
            }
        }
    }

    /// What the experts that learn bet on now, by bin.
    #[inline]
    fn learnt(&self) -> [[R; LEARNERS]; COARSE_BINS] {
        let prior = R::from(PRIOR_ROWS);
        let mut totals = [prior; LEARNERS];
        for known in &self.known {
            for lane in 0..LEARNERS {
                totals[lane] += known[lane];
            }
        }
        let shares = totals.map(|total| R::from(1.0) / total);
        let mut laws = [[R::default(); LEARNERS]; COARSE_BINS];
        for ((law, known), p) in laws.iter_mut().zip(&self.known).zip(&self.p) {
            for lane in 0..LEARNERS {
                law[lane] = (known[lane] + prior * *p) * shares[lane];
            }
        }
        let mut tables = [[R::default(); LEARNERS]; COARSE_BINS];
        let bins = self.p.len();
        write_tables(&self.p, &laws[..bins], self.epsilon, &mut tables[..bins]);
        tables
    }

    /// The statistic after the last batch.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        let fixed = (0.5 / FIXED as f64).ln();
        let learning = (0.5 / LEARNERS_BET as f64).ln();
        let fixed = self.fixed_wealth.iter().map(|wealth| fixed + (*wealth).into());
        let learning = self.learning_wealth[..LEARNERS_BET].iter().map(|wealth| learning + (*wealth).into());
        log_sum_exp(fixed.chain(learning))
    }

    /// What the statistic is at most: the most that an expert has, which costs no logarithm.
    #[must_use]
    pub fn log_e_most(&self) -> f64 {
        let all = self.fixed_wealth.iter().chain(&self.learning_wealth[..LEARNERS_BET]);
        all.fold(f64::NEG_INFINITY, |most, wealth| most.max((*wealth).into()))
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.p.len() * size_of::<R>() * (1 + FIXED + LEARNERS)
    }

    /// Begins anew, after an alarm.
    pub fn reset(&mut self) {
        self.fixed_wealth = Default::default();
        self.learning_wealth = Default::default();
        self.known.fill(Default::default());
    }
}

/// Every expert bets on the batch what it has, or one where that is less.
#[inline]
fn stake<R: Real, const N: usize>(wealth: &mut [R; N], counts: &[R], tables: &[[R; N]]) {
    let mut bets = [R::default(); N];
    for (count, table) in counts.iter().zip(tables) {
        for lane in 0..N {
            bets[lane] += *count * table[lane];
        }
    }
    for lane in 0..N {
        wealth[lane] = wealth[lane].max(R::default()) + bets[lane];
    }
}

/// Watches how often a rare event comes, such as a missing value: against every rate up to the one that is tolerated.
/// A distance of distributions would not see two in a hundred become six.
#[derive(Debug, Clone, PartialEq)]
pub struct RateDetector {
    limit: f64,
    /// Experts whose rate is one: as many of the first.
    experts: usize,
    /// Logarithms of each expert's ratio for a row with the event, and for one without.
    with: [f64; RATES.len()],
    without: [f64; RATES.len()],
    wealth: [f64; RATES.len()],
}

impl RateDetector {
    /// For events that came at `reference` before: half as often again, or one in a thousand more, is tolerated.
    ///
    /// # Errors
    /// [`StatsError`] for a rate outside 0 to 1.
    pub fn new(reference: f64) -> Result<Self, StatsError> {
        StatsError::check((0.0..=1.0).contains(&reference), "reference", "a rate from 0 to 1", reference)?;
        let limit = (1.5 * reference).max(reference + 0.001).min(1.0);
        let experts = RATES.iter().filter(|times| *times * limit < 1.0).count();
        let (mut with, mut without) = ([0.0; RATES.len()], [0.0; RATES.len()]);
        for (expert, times) in RATES.iter().enumerate().take(experts) {
            with[expert] = times.ln();
            without[expert] = ((1.0 - times * limit) / (1.0 - limit)).ln();
        }
        Ok(Self { limit, experts, with, without, wealth: [0.0; RATES.len()] })
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
        for (expert, wealth) in self.wealth.iter_mut().enumerate() {
            *wealth = wealth.max(0.0) + events * self.with[expert] + others * self.without[expert];
        }
    }

    /// The statistic after the last batch; without an expert (nearly every row has the event) nothing is ever known.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        if self.experts == 0 {
            return 0.0;
        }
        let weight = -(self.experts as f64).ln();
        log_sum_exp(self.wealth[..self.experts].iter().map(|wealth| weight + wealth))
    }

    /// What the statistic is at most: the most that an expert has, which costs no logarithm.
    #[must_use]
    pub fn log_e_most(&self) -> f64 {
        // one that does not bet has nothing
        self.wealth.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// Begins anew, after an alarm.
    pub fn reset(&mut self) {
        self.wealth = [0.0; RATES.len()];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn what_lies_within_the_tolerance_is_not_bet_against() {
        let p = [0.25; 4];
        let mut detector = DriftDetector::<f64>::new(&p, 0.05).unwrap();
        for _ in 0..500 {
            // a total variation of 0.04
            assert!(detector.add(&[276, 266, 234, 224]).unwrap() < 3.0);
        }
        let mut alarmed = (1..).map(|_| detector.add(&[400, 300, 200, 100]).unwrap());
        assert!(alarmed.position(|log_e| log_e > 20.0).unwrap() < 10);
        assert!(
            DriftDetector::<f64>::new(&[0.5, 0.0], 0.1).is_err()
                && DriftDetector::<f64>::new(&[1.0], 0.1).is_err()
        );
        assert!(detector.add(&[1, 2]).is_err());
    }

    #[test]
    fn a_small_reference_is_tolerated_what_it_errs_by() {
        let tolerance = DriftDetector::<f64>::tolerance;
        let mut random = Random::new(8);
        // how far references lie from their law, against what is tolerated
        for (rows, tolerated) in [(30, 0.0), (100, 0.0), (1000, 0.0), (100, 0.02)] {
            let beyond = (0..1000).filter(|_| {
                let mut counts = [0.0; 16];
                (0..rows).for_each(|_| counts[random.below(16) as usize] += 1.0);
                let off: f64 = counts.iter().map(|count| (count / rows as f64 - 1.0 / 16.0).abs()).sum();
                off / 2.0 > tolerance(tolerated, 16, rows)
            });
            let beyond = beyond.count();
            assert!(beyond <= 10, "{beyond} of 1000 references of {rows} rows");
        }
        let mean = |rows: f64| 8.0 * (2.0 / std::f64::consts::PI * 15.0 / 256.0 / rows).sqrt();
        assert!((tolerance(0.02, 16, 10_000) - 0.02 - mean(10_000.0)).abs() < 1e-12);
        assert!(DriftDetector::<f64>::new(&[0.5; 2], tolerance(0.02, 2, 0)).is_ok());
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
