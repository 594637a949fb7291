//! A feature in bins that its reference chose: how the reference fell, and how it falls now. Counts of the same bins add up
//! over threads and windows, and every score is made of them. Must not know where values come from.

mod category;
mod numeric;

use serde::{Deserialize, Serialize};

pub(crate) use self::numeric::Held;
pub use self::{category::CategoryBins, numeric::NumericBins};
use crate::{StatsError, moments::Moments};

/// Bins that a detector watches.
pub const COARSE_BINS: usize = 16;

/// The quantile at `share`, between the two values around it, as numpy's default does; `sorted` is not empty.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    let high = (low + 1).min(sorted.len() - 1);
    // numpy's own order of rounding
    if part < 0.5 {
        sorted[low] + (sorted[high] - sorted[low]) * part
    } else {
        sorted[high] - (sorted[high] - sorted[low]) * (1.0 - part)
    }
}

/// The edges between `bins` quantile bins of ascending values, equal ones once.
///
/// # Errors
/// [`StatsError`] for no values, or values that are not finite and ascending.
pub fn quantile_edges(sorted: &[f64], bins: usize) -> Result<Vec<f64>, StatsError> {
    StatsError::check(!sorted.is_empty(), "values", "at least 1", 0.0)?;
    let is_good = sorted.is_sorted() && sorted.iter().all(|x| x.is_finite());
    StatsError::check(is_good, "values", "finite and ascending", f64::NAN)?;
    let mut edges: Vec<f64> = (1..bins).map(|bin| quantile(sorted, bin as f64 / bins as f64)).collect();
    edges.dedup();
    Ok(edges)
}

/// Values counted by bin.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BinCounts {
    /// By bin.
    pub counts: Vec<u32>,
    /// Of the finite values.
    pub moments: Moments,
}

impl BinCounts {
    /// Nothing counted in `bins` bins.
    #[must_use]
    pub fn new(bins: usize) -> Self {
        Self { counts: vec![0; bins], moments: Moments::default() }
    }

    /// Takes a numeric value; `None` is missing.
    #[inline]
    pub fn push(&mut self, bins: &NumericBins, value: Option<f64>) {
        match value {
            Some(value) => {
                self.count(bins.bin(value), 1);
                self.moments.push(value);
            }
            None => self.count(bins.special()[2], 1),
        }
    }

    /// Takes a category; `None` is missing.
    #[inline]
    pub fn push_category(&mut self, bins: &CategoryBins, value: Option<&str>) {
        let bin = value.map_or(bins.special()[1], |value| bins.bin(value));
        self.count(bin, 1);
    }

    /// Counts `rows` more in a bin; four thousand million are as many as can be told.
    #[inline]
    pub fn count(&mut self, bin: usize, rows: u32) {
        self.counts[bin] = self.counts[bin].saturating_add(rows);
    }

    /// Takes all that `other` took in the same bins.
    ///
    /// # Errors
    /// [`StatsError`] when the bins are not as many.
    pub fn merge(&mut self, other: &Self) -> Result<(), StatsError> {
        StatsError::check_length("counts", self.counts.len(), other.counts.len())?;
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a = a.saturating_add(*b));
        self.moments.merge(&other.moments);
        Ok(())
    }

    /// Values taken.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }
}

/// For each bin, which of at most [`COARSE_BINS`] coarser ones it belongs to: neighbours together, of about equal
/// shares. What the reference never saw goes with the last.
#[must_use]
pub fn coarse(reference: &[u32]) -> Vec<usize> {
    let total = reference.iter().map(|count| f64::from(*count)).sum::<f64>().max(1.0);
    let filled = reference.iter().filter(|count| **count > 0).count().max(1);
    let bins = COARSE_BINS.min(filled);
    let (mut below, mut at, mut started) = (0.0, 0, 0.0);
    reference
        .iter()
        .map(|count| {
            let share = f64::from(*count) / total;
            // the next one begins where this bin's middle lies beyond the border, but never before it holds something
            let next = (at + 1) as f64 / bins as f64;
            if started > 0.0 && share > 0.0 && below + share / 2.0 > next && at + 1 < bins {
                at += 1;
                started = 0.0;
            }
            below += share;
            started += share;
            at
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn coarse_bins_hold_about_the_same() {
        let mut random = Random::new(3);
        let values: Vec<f64> = (0..10_000).map(|_| random.normal()).collect();
        let bins = NumericBins::of(&values).unwrap();
        let mut counts = BinCounts::new(bins.len());
        values.iter().for_each(|value| counts.push(&bins, Some(*value)));
        let places = coarse(&counts.counts);
        assert!(places.is_sorted() && *places.last().unwrap() == COARSE_BINS - 1, "{places:?}");
        let mut sums = [0; COARSE_BINS];
        places.iter().zip(&counts.counts).for_each(|(place, count)| sums[*place] += count);
        assert!(sums.iter().all(|sum| (300..=1000).contains(sum)), "{sums:?}");
        assert_eq!(coarse(&[5, 0, 5, 0]), [0, 0, 1, 1]);
        assert_eq!(coarse(&[0, 0, 9]), [0, 0, 0]);
    }
}
