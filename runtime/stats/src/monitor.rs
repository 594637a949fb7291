//! One feature watched against its reference: how its values fall now, how far that is from the reference in the usual
//! scores, and the evidence that it is no longer the same. Everything is counted; no value is kept. Must not know where
//! values come from, any clock, or what an alarm is for.

mod correlation;
mod thresholds;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::correlation::Correlation;
pub use self::thresholds::Thresholds;

use crate::{
    StatsError,
    binning::{BinCounts, COARSE_BINS, CategoryBins, NumericBins, coarse},
    detector::{DriftDetector, RateDetector},
    moments::Moments,
    score::{PsiThreshold, Scores, psi, scores},
    special::log_sum_exp,
};

/// Rows of one bet of the detectors.
pub const BATCH_ROWS: u64 = 64;
/// Total variation that is no drift, beside the reference's own error.
const TOLERATED: f64 = 0.02;
/// Population stability index that is no drift.
const PSI_TOLERATED: f64 = 0.02;
/// Weight of a new window in the smoothed counts.
const SMOOTHING: f32 = 0.2;
/// Lag-1 correlation above which batches are no longer nearly independent. Measured: at 0.5 the statistic came to its
/// threshold without any drift, at 0.3 it stayed far below.
const CORRELATION_MAX: f64 = 0.3;

/// Where a feature's values fall.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bins {
    /// Numbers.
    Numeric(NumericBins),
    /// Texts.
    Category(CategoryBins),
}

/// A value to watch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A number, finite or not.
    Number(f64),
    /// A text.
    Text(&'a str),
    /// None.
    Missing,
}

/// A feature as its reference has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Where values fall.
    pub bins: Bins,
    /// Where the reference's fell.
    pub counts: BinCounts,
}

impl Bins {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Numeric(bins) => bins.len(),
            Self::Category(bins) => bins.len(),
        }
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Numeric(bins) => 8 * bins.edges().len(),
            Self::Category(bins) => bins.bytes(),
        }
    }

    /// What each bin holds, for people: a bin of numbers by its upper edge.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Numeric(bins) => {
                let edges = bins.edges().iter().map(|edge| format!("<= {edge}"));
                let last = format!("<= {}", bins.greatest());
                let special = ["below", "above", "missing", "not finite"].map(str::to_owned);
                edges.chain([last]).chain(special).collect()
            }
            Self::Category(bins) => {
                let special = ["<other>", "<missing>"].map(str::to_owned);
                bins.categories().map(str::to_owned).chain(special).collect()
            }
        }
    }

    /// The bin of a value; a value of the other kind is missing.
    #[must_use]
    pub fn bin(&self, value: Value<'_>) -> usize {
        match (self, value) {
            (Self::Numeric(bins), Value::Number(value)) => bins.bin(value),
            (Self::Numeric(bins), _) => bins.special()[2],
            (Self::Category(bins), Value::Text(value)) => bins.bin(value),
            (Self::Category(bins), _) => bins.special()[1],
        }
    }

    /// How many of these values were finite numbers.
    fn finite(&self, counts: &[u64]) -> u64 {
        match self {
            Self::Numeric(bins) => {
                let [.., above, _, _] = bins.special();
                counts[..=above].iter().sum()
            }
            Self::Category(_) => 0,
        }
    }

    /// Bins whose share a distance of distributions hardly sees, with their names.
    #[must_use]
    pub fn rare(&self) -> Vec<(&'static str, usize)> {
        match self {
            Self::Numeric(bins) => ["below_range", "above_range", "missing", "not_finite"]
                .into_iter()
                .zip(bins.special())
                .collect(),
            Self::Category(bins) => ["unknown_category", "missing"].into_iter().zip(bins.special()).collect(),
        }
    }
}

impl Reference {
    /// Of numbers; `None` is missing.
    ///
    /// # Errors
    /// [`StatsError`] when none is finite.
    pub fn of_numbers(values: &[Option<f64>]) -> Result<Self, StatsError> {
        let finite: Vec<f64> = values.iter().flatten().copied().filter(|value| value.is_finite()).collect();
        let bins = NumericBins::of(&finite)?;
        let mut counts = BinCounts::new(bins.len());
        values.iter().for_each(|value| counts.push(&bins, *value));
        Ok(Self { bins: Bins::Numeric(bins), counts })
    }

    /// Of categories; `None` is missing.
    #[must_use]
    pub fn of_categories(values: &[Option<&str>]) -> Self {
        let bins = CategoryBins::of(values.iter().flatten().copied());
        let mut counts = BinCounts::new(bins.len());
        values.iter().for_each(|value| counts.push_category(&bins, *value));
        Self { bins: Bins::Category(bins), counts }
    }
}

/// One feature being watched.
#[derive(Debug, Clone)]
pub struct FeatureMonitor {
    reference: Arc<Reference>,
    /// How many independent rows the reference is worth.
    reference_rows: u64,
    /// By bin: the detector's in the lower half, and in the upper one its number among the rare ones, from one.
    places: Box<[u8]>,
    /// The detector's bins.
    coarse_bins: usize,
    detector: Option<DriftDetector<f32>>,
    rare: Box<[(&'static str, RateDetector)]>,
    /// Bins of the rows since the last bet, in their order.
    batch: [u16; BATCH_ROWS as usize],
    batch_rows: usize,
    window: Box<[u32]>,
    sums: Sums,
    last: Option<Window>,
    smoothed: Box<[f32]>,
    correlation: Correlation,
}

/// Rare bins of a feature, at most, and one for all others.
const RARE_MAX: usize = 5;

/// Finite values of a window, less the reference's mean: sums, so that no value waits for a division of the one before.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    /// The reference's mean.
    center: f64,
    sum: f64,
    squares: f64,
}

/// A window that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Where its values fell.
    pub counts: BinCounts,
    /// How far that is from the reference.
    pub scores: Scores,
    /// The index above which it differs by more than is tolerated.
    pub psi_threshold: f64,
    /// Wasserstein's distance by the reference's standard deviation; `None` for categories.
    pub wasserstein: Option<f64>,
    /// The population stability index of the smoothed counts.
    pub psi_smoothed: f64,
}

impl FeatureMonitor {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// [`StatsError`] for a reference without values, or whose counts do not fit its bins.
    pub fn new(reference: impl Into<Arc<Reference>>) -> Result<Self, StatsError> {
        let reference: Arc<Reference> = reference.into();
        let rows = reference.counts.rows();
        Self::of_rows(reference, rows)
    }

    /// The same against a reference that is worth so many independent rows, at most those that it counts: values out of one
    /// sample are alike, and many of few samples err as much as few.
    ///
    /// # Errors
    /// As [`FeatureMonitor::new`].
    pub fn of_rows(reference: Arc<Reference>, rows: u64) -> Result<Self, StatsError> {
        let (bins, counts) = (reference.bins.count(), &reference.counts.counts);
        StatsError::check_length("counts", bins, counts.len())?;
        let counted = reference.counts.rows();
        StatsError::check(counted > 0, "reference", "at least 1 row", 0.0)?;
        let rows = rows.clamp(1, counted);
        let worth = rows as f64 / counted as f64;
        let coarse = coarse(counts);
        let count = coarse.last().map_or(0, |last| last + 1);
        let mut shares = vec![0.0; count];
        coarse.iter().zip(counts).for_each(|(bin, n)| shares[*bin] += *n as f64 * worth);
        // what the reference never had may come all the same
        let total: f64 = rows as f64 + 0.5 * count as f64;
        shares.iter_mut().for_each(|share| *share = (*share + 0.5) / total);
        let tolerance = DriftDetector::<f32>::tolerance(TOLERATED, count, rows);
        let detector = if count > 1 { Some(DriftDetector::new(&shares, tolerance)?) } else { None };
        let mut places: Box<[u8]> = coarse.iter().map(|bin| *bin as u8).collect();
        let rare = (1..).zip(reference.bins.rare()).map(|(number, (name, bin))| {
            places[bin] |= number << 4;
            // what a short reference happens not to have may be there all the same: two standard errors, and the rule
            // of three
            let count = counts[bin] as f64 * worth;
            let rate = ((count + 2.0 * count.sqrt() + 3.0) / rows as f64).min(1.0);
            Ok((name, RateDetector::new(rate)?))
        });
        Ok(Self {
            rare: rare.collect::<Result<_, StatsError>>()?,
            places,
            coarse_bins: count,
            detector,
            batch: [0; BATCH_ROWS as usize],
            batch_rows: 0,
            window: vec![0; bins].into(),
            sums: Sums { center: reference.counts.moments.mean(), ..Sums::default() },
            last: None,
            smoothed: counts.iter().map(|n| (*n as f64 / counted as f64) as f32).collect(),
            correlation: Correlation::default(),
            reference_rows: rows,
            reference,
        })
    }

    /// Takes one value.
    #[inline]
    pub fn push(&mut self, value: Value<'_>) {
        let bin = self.reference.bins.bin(value);
        self.window[bin] = self.window[bin].saturating_add(1);
        if let Value::Number(value) = value
            && value.is_finite()
        {
            let off = value - self.sums.center;
            self.sums.sum += off;
            self.sums.squares += off * off;
        }
        self.batch[self.batch_rows] = bin as u16;
        self.batch_rows += 1;
        if self.batch_rows == self.batch.len() {
            self.bet();
        }
    }

    /// Bets on the rows of a batch.
    #[inline(never)]
    fn bet(&mut self) {
        let (mut coarse, mut rare) = ([0; COARSE_BINS], [0; RARE_MAX]);
        let block = self.batch.map(|bin| {
            let place = self.places[usize::from(bin)];
            rare[usize::from(place >> 4) % RARE_MAX] += 1;
            place & 15
        });
        block.iter().for_each(|bin| coarse[usize::from(*bin) % COARSE_BINS] += 1);
        if let Some(detector) = &mut self.detector {
            detector.take(&coarse);
        }
        for ((_, detector), events) in self.rare.iter_mut().zip(&rare[1..]) {
            detector.take(*events, BATCH_ROWS);
        }
        self.correlation.take(&block, self.coarse_bins);
        self.batch_rows = 0;
    }

    /// Whether the evidence has come to `h`: most looks are over without a logarithm.
    #[must_use]
    pub fn is_at(&self, h: f64) -> bool {
        let most = |most: f64, (_, detector): &(&str, RateDetector)| most.max(detector.log_e_most());
        let distribution = self.detector.as_ref().map_or(0.0, DriftDetector::log_e_most);
        self.rare.iter().fold(distribution, most) >= h && self.log_e() >= h
    }

    /// The evidence that the feature changed, as a logarithm: half of it is bet on its distribution, half on what is
    /// rare.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        let rare = (0.5 / self.rare.len() as f64).ln();
        let distribution = self.detector.as_ref().map_or(0.0, DriftDetector::log_e) + 0.5f64.ln();
        let rare = self.rare.iter().map(|(_, detector)| rare + detector.log_e());
        log_sum_exp(rare.chain([distribution]))
    }

    /// What is rare and has come more often, the strongest evidence first; those with evidence above `log_e`.
    #[must_use]
    pub fn rare_above(&self, log_e: f64) -> Vec<&'static str> {
        let known = self.rare.iter().map(|(name, detector)| (*name, detector.log_e()));
        let mut found: Vec<(&str, f64)> = known.filter(|(_, evidence)| *evidence > log_e).collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1));
        found.into_iter().map(|(name, _)| name).collect()
    }

    /// Evidence begins anew, after an alarm.
    pub fn reset(&mut self) {
        self.detector.iter_mut().for_each(DriftDetector::reset);
        self.rare.iter_mut().for_each(|(_, detector)| detector.reset());
    }

    /// Ends the window: how far it is from the reference, and from which index on that is more than chance. `None` when it has
    /// no rows.
    pub fn end_window(&mut self, thresholds: &mut Thresholds) -> Option<&Window> {
        let rows = self.rows();
        if rows == 0 {
            return None;
        }
        let counts = self.counted();
        self.window.fill(0);
        self.sums = Sums { center: self.sums.center, ..Sums::default() };
        for (smoothed, count) in self.smoothed.iter_mut().zip(&counts.counts) {
            *smoothed += SMOOTHING * (*count as f32 / rows as f32 - *smoothed);
        }
        let window = self.judge(counts, thresholds).ok()?;
        Some(&*self.last.insert(window))
    }

    /// The window's counts with its moments.
    fn counted(&self) -> BinCounts {
        let Sums { center, sum, squares } = self.sums;
        let counts: Vec<u64> = self.window.iter().map(|count| u64::from(*count)).collect();
        let n = self.reference.bins.finite(&counts);
        let mean = if n > 0 { sum / n as f64 } else { 0.0 };
        let variance = if n > 1 { (squares - sum * mean).max(0.0) / (n - 1) as f64 } else { 0.0 };
        BinCounts { counts, moments: Moments::of(n, center + mean, variance) }
    }

    fn judge(&self, counts: BinCounts, thresholds: &mut Thresholds) -> Result<Window, StatsError> {
        let reference = &self.reference.counts;
        let threshold = PsiThreshold {
            bins: counts.counts.iter().zip(&reference.counts).filter(|(a, b)| **a + **b > 0).count().max(2)
                as u64,
            reference: self.reference_rows,
            current: counts.rows(),
            tolerated: PSI_TOLERATED,
            alpha: thresholds.alpha,
        };
        let rows = reference.rows() as f64;
        let smoothed: Vec<u64> =
            self.smoothed.iter().map(|share| (f64::from(*share) * rows).round() as u64).collect();
        Ok(Window {
            scores: scores(&reference.counts, &counts.counts)?,
            psi_threshold: thresholds.of(threshold)?,
            wasserstein: self.wasserstein(&counts),
            psi_smoothed: psi(&reference.counts, &smoothed)?,
            counts,
        })
    }

    /// The area between the distribution functions, linear within bins, by the reference's standard deviation.
    fn wasserstein(&self, counts: &BinCounts) -> Option<f64> {
        let Bins::Numeric(bins) = &self.reference.bins else { return None };
        let deviation = self.reference.counts.moments.variance().sqrt();
        let edges = bins.edges();
        if deviation <= 0.0 || edges.len() < 2 {
            return None;
        }
        let shares = |counts: &BinCounts| {
            // what is beyond the reference lies at its ends
            let [below, above, ..] = bins.special();
            let finite = &counts.counts[..=edges.len()];
            let total =
                (finite.iter().sum::<u64>() + counts.counts[below] + counts.counts[above]).max(1) as f64;
            let mut sum = counts.counts[below] as f64;
            finite[..edges.len()]
                .iter()
                .map(|n| {
                    sum += *n as f64;
                    sum / total
                })
                .collect::<Vec<f64>>()
        };
        let (reference, current) = (shares(&self.reference.counts), shares(counts));
        let apart: Vec<f64> = reference.iter().zip(&current).map(|(a, b)| (a - b).abs()).collect();
        let area: f64 =
            (1..edges.len()).map(|i| (edges[i] - edges[i - 1]) * f64::midpoint(apart[i], apart[i - 1])).sum();
        Some(area / deviation)
    }

    /// The last window that is over.
    #[must_use]
    pub fn window(&self) -> Option<&Window> {
        self.last.as_ref()
    }

    /// The window that is under way, as if it were over; `None` while it has no rows.
    #[must_use]
    pub fn under_way(&self, thresholds: &mut Thresholds) -> Option<Window> {
        (self.rows() > 0).then(|| self.judge(self.counted(), thresholds).ok()).flatten()
    }

    /// Bytes that it takes, those of its reference included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let counts = self.reference.counts.counts.len();
        let last = self.last.as_ref().map_or(0, |last| last.counts.counts.len());
        let detector = self.detector.as_ref().map_or(0, DriftDetector::bytes);
        size_of::<Self>()
            + size_of::<Reference>()
            + self.reference.bins.bytes()
            + size_of::<u64>() * (counts + last)
            + (size_of::<u32>() + size_of::<f32>() + size_of::<u8>()) * counts
            + detector
            + size_of_val(&*self.rare)
    }

    /// Rows of the window that is under way.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.window.iter().map(|count| u64::from(*count)).sum()
    }

    /// What it is held against.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Whether values follow each other too closely for the evidence to mean what it says: then fewer should be
    /// sampled.
    #[must_use]
    pub fn is_correlated(&self) -> bool {
        self.correlation.value().is_some_and(|value| value > CORRELATION_MAX)
    }
}

#[cfg(test)]
mod tests;
