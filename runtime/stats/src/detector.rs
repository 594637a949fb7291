//! Detectors of drift in a stream of bins: alarms whose mean distance, while nothing changed, is known in advance.
//! Mixtures of CUSUM e-detectors (Shin, Ramdas and Rinaldo 2023) against a reference with a tolerance (Huber's robust
//! likelihood ratio). Must not know what the bins are of, or what an alarm is for.
//!
//! A detector's statistic is the logarithm of a weighted sum of wealths, each of which restarts from one: alarmed at `h`,
//! it raises a false alarm after `e^h` batches or more in the mean, for every stream whose law, given what went before,
//! stays within the tolerance. Statistics of several detectors may be averaged (not their logarithms).

pub use self::real::Real;
use crate::{StatsError, binning::COARSE_BINS, special::log_sum_exp};

mod real;

/// Tilts of the location and of the scale, both ways.
const LOCATIONS: [f64; 4] = [0.3, -0.3, 0.6, -0.6];
const SCALES: [f64; 4] = [0.15, -0.15, 0.3, -0.3];
/// Experts that bet on them.
const FIXED: usize = LOCATIONS.len() + SCALES.len();
/// Rows that the experts which learn remember.
const MEMORIES: [f64; LEARNERS] = [256.0, 1024.0, 4096.0];
const LEARNERS: usize = 3;
/// Laws that are computed at once: one more than there are, of which nobody asks.
const LANES: usize = 4;
/// Weight of the reference in what they expect, in rows.
const PRIOR_ROWS: f32 = 32.0;

/// What is tolerated at most, of a reference that says nearly nothing.
const TOLERANCE_MAX: f64 = 0.9;

/// How much more often than tolerated an event may come, for each expert of [`RateDetector`], and the logarithm of it.
const RATES: [(f64, f32); 5] = [
    (1.25, 0.223_143_55),
    (1.5, 0.405_465_1),
    (2.0, std::f32::consts::LN_2),
    (4.0, 2.0 * std::f32::consts::LN_2),
    (8.0, 3.0 * std::f32::consts::LN_2),
];

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

/// Watches the bins of one feature.
#[derive(Debug, Clone, PartialEq)]
pub struct DriftDetector<R = f64> {
    /// The reference's shares, of so many bins.
    p: [R; COARSE_BINS],
    bins: u8,
    epsilon: R,
    fixed: Tilts<R>,
    fixed_wealth: [R; FIXED],
    /// What each expert that learns knows of each bin, and what it bets.
    known: [[R; COARSE_BINS]; LEARNERS],
    learnt: [[R; COARSE_BINS]; LEARNERS],
    learning_wealth: [R; LEARNERS],
    /// Batches from one look at what is known to the next.
    looks_every: u8,
    waits: u8,
}

/// Laws that are the reference's, tilted: the logarithm of a bin's ratio is a multiple of its normal score, or of that
/// one's square less one, less a constant, and cut.
#[derive(Debug, Clone, PartialEq)]
struct Tilts<R> {
    constant: [R; FIXED],
    low: [R; FIXED],
    high: [R; FIXED],
}

impl<R: Real> Tilts<R> {
    fn new(p: &[f64], epsilon: f64) -> Self {
        let tilted = |(p, s): (&f64, &f64)| {
            let mut raw = [0.0; FIXED];
            let locations = LOCATIONS.iter().map(|by| by * s);
            let tilts = locations.chain(SCALES.iter().map(|by| by * (s * s - 1.0)));
            raw.iter_mut().zip(tilts).for_each(|(raw, tilt)| *raw = p * tilt.exp());
            raw
        };
        let mut laws: Vec<[f64; FIXED]> = p.iter().zip(f64::normal_scores(p.len())).map(tilted).collect();
        let mut sums = [0.0; FIXED];
        laws.iter().for_each(|raw| sums.iter_mut().zip(raw).for_each(|(sum, raw)| *sum += raw));
        laws.iter_mut().for_each(|raw| raw.iter_mut().zip(&sums).for_each(|(raw, sum)| *raw /= sum));
        let (low, high) = cuts(p, &laws, epsilon);
        let logarithms = |of: [f64; FIXED]| of.map(|value| R::of(value.ln()));
        Self { constant: logarithms(sums), low: logarithms(low), high: logarithms(high) }
    }

    /// What all of them bet on a batch.
    #[inline]
    fn bets(&self, counts: &[R]) -> [R; FIXED] {
        let mut bets = [R::default(); FIXED];
        for (count, score) in counts.iter().zip(R::normal_scores(counts.len())) {
            let square = *score * *score - R::from(1.0);
            let mut tilts = [R::default(); FIXED];
            for lane in 0..LOCATIONS.len() {
                tilts[lane] = R::of(LOCATIONS[lane]) * *score;
                tilts[lane + LOCATIONS.len()] = R::of(SCALES[lane]) * square;
            }
            for lane in 0..FIXED {
                let ratio = tilts[lane] - self.constant[lane];
                bets[lane] += *count * ratio.max(self.low[lane]).min(self.high[lane]);
            }
        }
        bets
    }
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
        Ok(Self {
            p: std::array::from_fn(|bin| p.get(bin).map_or(R::default(), |p| R::of(*p))),
            bins: p.len() as u8,
            epsilon: R::of(epsilon),
            fixed: Tilts::new(p, epsilon),
            fixed_wealth: Default::default(),
            known: Default::default(),
            learnt: Default::default(),
            learning_wealth: Default::default(),
            looks_every: 1,
            waits: 0,
        })
    }

    /// Experts that learn look at what they know every so many batches: what they bet meanwhile is a little old, which
    /// is no less fair.
    #[must_use]
    pub fn looking_every(self, batches: u8) -> Self {
        Self { looks_every: batches.max(1), ..self }
    }

    /// Bins of the reference.
    #[must_use]
    pub fn bins(&self) -> usize {
        usize::from(self.bins).min(COARSE_BINS)
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
        StatsError::check_length("counts", self.bins(), counts.len())?;
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
        let bins = self.bins();
        let mut taken = [R::default(); COARSE_BINS];
        taken.iter_mut().zip(counts).take(bins).for_each(|(taken, count)| *taken = R::of(f64::from(*count)));
        stake(&mut self.fixed_wealth, self.fixed.bets(&taken[..bins]));
        // what they know bets before it learns
        if self.waits == 0 {
            self.look();
            self.waits = self.looks_every;
        }
        self.waits -= 1;
        let rows = sum(&taken, &[R::from(1.0); COARSE_BINS]);
        stake(&mut self.learning_wealth, self.learnt.each_ref().map(|learnt| sum(&taken, learnt)));
        for (known, memory) in self.known.iter_mut().zip(MEMORIES) {
            let keep = (R::from(1.0) - rows / R::of(memory)).max(R::default());
            known.iter_mut().zip(&taken).for_each(|(known, taken)| *known = *known * keep + *taken);
        }
    }

    /// What is known becomes what is bet on.
    #[inline(never)]
    fn look(&mut self) {
        let prior = R::from(PRIOR_ROWS);
        let mut laws = [[R::default(); LANES]; COARSE_BINS];
        let mut totals = [prior; LANES];
        for (bin, (law, p)) in laws.iter_mut().zip(&self.p).enumerate() {
            self.known.iter().zip(&mut *law).for_each(|(known, law)| *law = known[bin]);
            for lane in 0..LANES {
                totals[lane] += law[lane];
                law[lane] += prior * *p;
            }
        }
        let (p, laws) = (&self.p[..self.bins()], &mut laws[..self.bins()]);
        let shares = totals.map(|total| R::from(1.0) / total);
        laws.iter_mut().for_each(|law| (0..LANES).for_each(|lane| law[lane] = law[lane] * shares[lane]));
        let (low, high) = cuts(p, laws, self.epsilon);
        for (law, p) in laws.iter_mut().zip(p) {
            let one = R::from(1.0) / *p;
            for lane in 0..LANES {
                law[lane] = (law[lane] * one).max(low[lane]).min(high[lane]);
            }
        }
        laws.as_flattened_mut().iter_mut().for_each(|ratio| *ratio = ratio.ln());
        for (bin, law) in laws.iter().enumerate() {
            self.learnt.iter_mut().zip(law).for_each(|(learnt, law)| learnt[bin] = *law);
        }
    }

    /// The statistic after the last batch.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        let fixed = (0.5 / FIXED as f64).ln();
        let learning = (0.5 / LEARNERS as f64).ln();
        let fixed = self.fixed_wealth.iter().map(|wealth| fixed + (*wealth).into());
        let learning = self.learning_wealth.iter().map(|wealth| learning + (*wealth).into());
        log_sum_exp(fixed.chain(learning))
    }

    /// What the statistic is at most: the most that an expert has, which costs no logarithm.
    #[must_use]
    pub fn log_e_most(&self) -> f64 {
        let all = self.fixed_wealth.iter().chain(&self.learning_wealth);
        all.fold(f64::NEG_INFINITY, |most, wealth| most.max((*wealth).into()))
    }

    /// Begins anew, after an alarm.
    pub fn reset(&mut self) {
        self.fixed_wealth = Default::default();
        self.learning_wealth = Default::default();
        self.known = Default::default();
        self.waits = 0;
    }
}

/// The sum of products, in four parts, of which none waits for another.
#[inline]
fn sum<R: Real>(a: &[R; COARSE_BINS], b: &[R; COARSE_BINS]) -> R {
    let mut parts = [R::default(); 4];
    for (a, b) in a.as_chunks::<4>().0.iter().zip(b.as_chunks::<4>().0) {
        for lane in 0..4 {
            parts[lane] += a[lane] * b[lane];
        }
    }
    (parts[0] + parts[1]) + (parts[2] + parts[3])
}

/// Every expert bets what it has, or one where that is less.
#[inline]
fn stake<R: Real, const N: usize>(wealth: &mut [R; N], bets: [R; N]) {
    for lane in 0..N {
        wealth[lane] = wealth[lane].max(R::default()) + bets[lane];
    }
}

/// Watches how often a rare event comes, such as a missing value: against every rate up to the one that is tolerated.
/// A distance of distributions would not see two in a hundred become six.
#[derive(Debug, Clone, PartialEq)]
pub struct RateDetector {
    limit: f32,
    /// Experts whose rate is below one: as many of the first.
    experts: u8,
    /// The logarithm of each expert's ratio for a row without the event; for one with it, that of its times.
    without: [f32; RATES.len()],
    wealth: [f32; RATES.len()],
}

impl RateDetector {
    /// For events that came at `reference` before: half as often again, or one in a thousand more, is tolerated.
    ///
    /// # Errors
    /// [`StatsError`] for a rate outside 0 to 1.
    pub fn new(reference: f64) -> Result<Self, StatsError> {
        StatsError::check((0.0..=1.0).contains(&reference), "reference", "a rate from 0 to 1", reference)?;
        let limit = (1.5 * reference).max(reference + 0.001).min(1.0);
        let mut detector =
            Self { limit: limit as f32, experts: 0, without: Default::default(), wealth: Default::default() };
        for ((times, _), without) in RATES.iter().zip(&mut detector.without) {
            if times * limit < 1.0 {
                detector.experts += 1;
                *without = ((1.0 - times * limit) / (1.0 - limit)).ln() as f32;
            }
        }
        Ok(detector)
    }

    /// The highest rate that raises no alarm.
    #[must_use]
    pub fn limit(&self) -> f64 {
        f64::from(self.limit)
    }

    /// Takes one batch of rows, `events` of them with the event, and gives the statistic.
    pub fn add(&mut self, events: u64, rows: u64) -> f64 {
        self.take(events, rows);
        self.log_e()
    }

    /// Takes one batch of rows.
    pub fn take(&mut self, events: u64, rows: u64) {
        let (events, others) = (events as f32, rows.saturating_sub(events) as f32);
        let experts = usize::from(self.experts).min(RATES.len());
        for (expert, wealth) in self.wealth[..experts].iter_mut().enumerate() {
            *wealth = wealth.max(0.0) + events * RATES[expert].1 + others * self.without[expert];
        }
    }

    /// The statistic after the last batch; without an expert (nearly every row has the event) nothing is ever known.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        if self.experts == 0 {
            return 0.0;
        }
        let weight = -f64::from(self.experts).ln();
        log_sum_exp(self.wealth[..usize::from(self.experts)].iter().map(|wealth| weight + f64::from(*wealth)))
    }

    /// What the statistic is at most: the most that an expert has, which costs no logarithm.
    #[must_use]
    pub fn log_e_most(&self) -> f64 {
        // one that does not bet has nothing
        f64::from(self.wealth.iter().copied().fold(f32::NEG_INFINITY, f32::max))
    }

    /// Begins anew, after an alarm.
    pub fn reset(&mut self) {
        self.wealth = Default::default();
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
        assert!(RATES.iter().all(|(times, logarithm)| (times.ln() - f64::from(*logarithm)).abs() < 1e-7));
        assert!(RateDetector::new(1.5).is_err());
        assert_eq!(RateDetector::new(1.0).unwrap().add(64, 64), 0.0);
    }
}
