//! One feature watched against its reference: how its values fall now, how far that is from the reference in the usual
//! scores, and the evidence that it is no longer the same. Values wait in a block for their bins, at most 32 of them; then
//! they are counted, and none is kept. Must not know where values come from, any clock, or what an alarm is for.

mod correlation;
mod thresholds;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::correlation::Correlation;
pub use self::thresholds::Thresholds;

use crate::{
    StatsError,
    binning::{BinCounts, COARSE_BINS, CategoryBins, Held, NumericBins, coarse},
    detector::{DriftDetector, RateDetector},
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
            Self::Numeric(bins) => bins.bytes(),
            Self::Category(bins) => bins.bytes(),
        }
    }

    /// What each bin holds, for people: a bin of numbers by its upper edge.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Numeric(bins) => {
                let edges = bins.edges().into_iter().map(|edge| format!("<= {edge}"));
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

    /// Bins whose share a distance of distributions hardly sees, with their names: the last ones.
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
    /// By bin: the detector's.
    places: Box<[u8]>,
    detector: Option<DriftDetector<f32>>,
    rare: Box<[RateDetector]>,
    is_numeric: bool,
    /// Values that came last, in their order: numbers as they are, texts by their bins.
    block: [Held; BLOCK_ROWS],
    block_rows: u8,
    /// Rows since the last bet, and how many of them fell into each bin.
    batch_rows: u8,
    batch: Box<[u8]>,
    window: Box<[u32]>,
    last: Option<Box<[u32]>>,
    smoothed: Box<[f32]>,
    correlation: Correlation,
}

/// Batches after which the experts that learn look at what they know.
const LOOKS_EVERY: u8 = 8;
/// Values that wait for their bins.
const BLOCK_ROWS: usize = 32;

fn rows_of(counts: &[u32]) -> u64 {
    counts.iter().map(|count| u64::from(*count)).sum()
}

/// A window that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Where its values fell.
    pub counts: Box<[u32]>,
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
        coarse.iter().zip(counts).for_each(|(bin, n)| shares[*bin] += f64::from(*n) * worth);
        // what the reference never had may come all the same
        let total: f64 = rows as f64 + 0.5 * count as f64;
        shares.iter_mut().for_each(|share| *share = (*share + 0.5) / total);
        let tolerance = DriftDetector::<f32>::tolerance(TOLERATED, count, rows);
        let detector = match count {
            0 | 1 => None,
            _ => Some(DriftDetector::new(&shares, tolerance)?.looking_every(LOOKS_EVERY)),
        };
        let rare = reference.bins.rare().into_iter().map(|(_, bin)| {
            // what a short reference happens not to have may be there all the same: two standard errors, and the rule
            // of three
            let count = f64::from(counts[bin]) * worth;
            let rate = ((count + 2.0 * count.sqrt() + 3.0) / rows as f64).min(1.0);
            RateDetector::new(rate)
        });
        Ok(Self {
            rare: rare.collect::<Result<_, StatsError>>()?,
            places: coarse.iter().map(|bin| *bin as u8).collect(),
            detector,
            is_numeric: matches!(reference.bins, Bins::Numeric(_)),
            block: [Held::MISSING; BLOCK_ROWS],
            block_rows: 0,
            batch_rows: 0,
            batch: vec![0; bins].into(),
            window: vec![0; bins].into(),
            last: None,
            smoothed: counts.iter().map(|n| (f64::from(*n) / counted as f64) as f32).collect(),
            correlation: Correlation::default(),
            reference_rows: rows,
            reference,
        })
    }

    /// Takes one value.
    #[inline]
    pub fn push(&mut self, value: Value<'_>) {
        self.push_known(value);
    }

    /// Takes one value; whether it may be one that the reference has: every text that is not among its categories is
    /// unknown.
    #[inline]
    pub fn push_known(&mut self, value: Value<'_>) -> bool {
        let (held, is_known) = match value {
            Value::Number(value) if self.is_numeric => (Held::number(value), true),
            _ => self.held(value),
        };
        self.block[usize::from(self.block_rows) % BLOCK_ROWS] = held;
        self.block_rows += 1;
        if usize::from(self.block_rows) == BLOCK_ROWS {
            self.end_block();
        }
        is_known
    }

    /// What stands for a text, and whether it is known, or for what is missing.
    fn held(&self, value: Value<'_>) -> (Held, bool) {
        match (&self.reference.bins, value) {
            (Bins::Numeric(_), _) => (Held::MISSING, true),
            (Bins::Category(bins), Value::Text(text)) => {
                let (bin, [other, _]) = (bins.bin(text), bins.special());
                (Held::bin(bin), bin != other)
            }
            (Bins::Category(bins), _) => (Held::bin(bins.special()[1]), true),
        }
    }

    /// Finds the bins of a block, counts, and bets where a batch is full.
    #[inline(never)]
    fn end_block(&mut self) {
        let rows = usize::from(std::mem::take(&mut self.block_rows)).min(BLOCK_ROWS);
        let (block, mut bins) = (&self.block, [0; BLOCK_ROWS]);
        match &self.reference.bins {
            Bins::Numeric(of) => of.find(block, &mut bins),
            Bins::Category(_) => bins.iter_mut().zip(block).for_each(|(bin, held)| *bin = held.to_bin()),
        }
        let batch = &mut *self.batch;
        bins[..rows].iter().for_each(|bin| batch[*bin] += 1);
        if self.correlation.is_listening() {
            let scores = self.detector.as_ref().map_or(1, DriftDetector::bins);
            self.correlation.take(bins[..rows].iter().map(|bin| self.places[*bin]), scores);
        }
        self.batch_rows += rows as u8;
        if u64::from(self.batch_rows) >= BATCH_ROWS {
            self.end_batch();
        }
    }

    /// Counts a batch, and bets on it.
    #[inline(never)]
    fn end_batch(&mut self) {
        let rows = u64::from(std::mem::take(&mut self.batch_rows));
        let mut coarse = [0; COARSE_BINS];
        for (place, count) in self.places.iter().zip(&self.batch) {
            coarse[usize::from(*place) % COARSE_BINS] += u32::from(*count);
        }
        // a window is far shorter than what a count can hold
        for (window, count) in self.window.iter_mut().zip(&self.batch) {
            *window = window.wrapping_add(u32::from(*count));
        }
        if let Some(detector) = &mut self.detector {
            detector.take(&coarse);
        }
        let rare = self.batch.len() - self.rare.len();
        for (detector, events) in self.rare.iter_mut().zip(&self.batch[rare..]) {
            detector.take(u64::from(*events), rows);
        }
        self.batch.fill(0);
        self.correlation.end_batch();
    }

    /// Whether the evidence has come to `h`: most looks are over without a logarithm.
    #[must_use]
    pub fn is_at(&self, h: f64) -> bool {
        let most = |most: f64, detector: &RateDetector| most.max(detector.log_e_most());
        let distribution = self.detector.as_ref().map_or(0.0, DriftDetector::log_e_most);
        self.rare.iter().fold(distribution, most) >= h && self.log_e() >= h
    }

    /// The evidence that the feature changed, as a logarithm: half of it is bet on its distribution, half on what is
    /// rare.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        let rare = (0.5 / self.rare.len() as f64).ln();
        let distribution = self.detector.as_ref().map_or(0.0, DriftDetector::log_e) + 0.5f64.ln();
        let rare = self.rare.iter().map(|detector| rare + detector.log_e());
        log_sum_exp(rare.chain([distribution]))
    }

    /// What is rare and has come more often, the strongest evidence first; those with evidence above `log_e`.
    #[must_use]
    pub fn rare_above(&self, log_e: f64) -> Vec<&'static str> {
        let names = self.reference.bins.rare().into_iter().map(|(name, _)| name);
        let known = names.zip(self.rare.iter().map(RateDetector::log_e));
        let mut found: Vec<(&str, f64)> = known.filter(|(_, evidence)| *evidence > log_e).collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1));
        found.into_iter().map(|(name, _)| name).collect()
    }

    /// Evidence begins anew, after an alarm.
    pub fn reset(&mut self) {
        self.detector.iter_mut().for_each(DriftDetector::reset);
        self.rare.iter_mut().for_each(RateDetector::reset);
    }

    /// Ends the window: how far it is from the reference, and from which index on that is more than chance. `None` when it
    /// has no rows.
    pub fn end_window(&mut self, thresholds: &mut Thresholds) -> Option<Window> {
        // a bet may be on fewer rows
        if self.block_rows > 0 {
            self.end_block();
        }
        if self.batch_rows > 0 {
            self.end_batch();
        }
        let rows = self.rows();
        if rows == 0 {
            return None;
        }
        for (smoothed, count) in self.smoothed.iter_mut().zip(&self.window) {
            *smoothed += SMOOTHING * ((f64::from(*count) / rows as f64) as f32 - *smoothed);
        }
        let last = std::mem::replace(&mut self.window, vec![0; self.places.len()].into());
        self.last = Some(last);
        self.window(thresholds)
    }

    fn judge(&self, counts: &[u32], thresholds: &mut Thresholds) -> Result<Window, StatsError> {
        let reference = &self.reference.counts;
        let threshold = PsiThreshold {
            bins: counts.iter().zip(&reference.counts).filter(|(a, b)| **a > 0 || **b > 0).count().max(2)
                as u64,
            reference: self.reference_rows,
            current: rows_of(counts),
            tolerated: PSI_TOLERATED,
            alpha: thresholds.alpha,
        };
        let rows = reference.rows() as f64;
        let smoothed: Vec<u32> =
            self.smoothed.iter().map(|share| (f64::from(*share) * rows).round() as u32).collect();
        Ok(Window {
            scores: scores(&reference.counts, counts)?,
            psi_threshold: thresholds.of(threshold)?,
            wasserstein: self.wasserstein(counts),
            psi_smoothed: psi(&reference.counts, &smoothed)?,
            counts: counts.into(),
        })
    }

    /// The area between the distribution functions, linear within bins, by the reference's standard deviation.
    fn wasserstein(&self, counts: &[u32]) -> Option<f64> {
        let Bins::Numeric(bins) = &self.reference.bins else { return None };
        let deviation = self.reference.counts.moments.variance().sqrt();
        let edges = bins.edges();
        if deviation <= 0.0 || edges.len() < 2 {
            return None;
        }
        let shares = |counts: &[u32]| {
            // what is beyond the reference lies at its ends
            let [below, above, ..] = bins.special();
            let finite = &counts[..=edges.len()];
            let beyond = [below, above].map(|bin| f64::from(counts[bin]));
            let total = finite.iter().map(|n| f64::from(*n)).chain(beyond).sum::<f64>().max(1.0);
            let mut sum = beyond[0];
            finite[..edges.len()]
                .iter()
                .map(|n| {
                    sum += f64::from(*n);
                    sum / total
                })
                .collect::<Vec<f64>>()
        };
        let (reference, current) = (shares(&self.reference.counts.counts), shares(counts));
        let apart: Vec<f64> = reference.iter().zip(&current).map(|(a, b)| (a - b).abs()).collect();
        let area: f64 = (1..edges.len())
            .map(|i| f64::from(edges[i] - edges[i - 1]) * f64::midpoint(apart[i], apart[i - 1]))
            .sum();
        Some(area / deviation)
    }

    /// The last window that is over.
    #[must_use]
    pub fn window(&self, thresholds: &mut Thresholds) -> Option<Window> {
        self.judge(self.last.as_ref()?, thresholds).ok()
    }

    /// The window that is under way, as if it were over; `None` while it has no rows.
    #[must_use]
    pub fn under_way(&self, thresholds: &mut Thresholds) -> Option<Window> {
        (self.rows() > 0).then(|| self.judge(&self.window, thresholds).ok()).flatten()
    }

    /// Bytes that it takes, those of its reference included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let counts = self.reference.counts.counts.len();
        let last = self.last.as_ref().map_or(0, |last| last.len());
        size_of::<Self>()
            + size_of::<Reference>()
            + self.reference.bins.bytes()
            + size_of::<u32>() * (counts + last)
            + (size_of::<u32>() + size_of::<f32>() + 2 * size_of::<u8>()) * counts
            + size_of_val(&*self.rare)
    }

    /// Rows of the window that is under way, as far as they are counted: those of a batch at once.
    #[must_use]
    pub fn rows(&self) -> u64 {
        rows_of(&self.window)
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
