//! A feature in bins that its reference chose: where a value falls, how the reference fell, and how it falls now.
//! Counts of the same bins add up over threads and windows, and every score is made of them. Must not know where values
//! come from.

use std::{collections::BTreeMap, hint::select_unpredictable};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{StatsError, moments::Moments};

/// Bins between a numeric feature's quantiles.
const QUANTILE_BINS: usize = 32;
/// Shares at which the tails begin, beside those quantiles.
const TAILS: [f64; 4] = [0.001, 0.01, 0.99, 0.999];
/// A value with a larger share has a bin of its own.
const POINT_MASS: f64 = 0.02;
/// Edges of a numeric feature: a bound on what a file may bring.
const EDGES_MAX: usize = 128;
/// Categories told apart, each with at least [`CATEGORY_SHARE`] of the reference.
const CATEGORIES_MAX: usize = 256;
const CATEGORY_SHARE: f64 = 0.001;
/// Bytes of a category's text.
const CATEGORY_BYTES_MAX: usize = 256;
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

/// Where the values of a numeric feature fall. Behind the bins between edges come four more: below and above all of
/// the reference, missing, and not finite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "NumericBinsFile", into = "NumericBinsFile")]
pub struct NumericBins {
    edges: Box<[f64]>,
    least: f64,
    greatest: f64,
}

/// As it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct NumericBinsFile {
    edges: Vec<f64>,
    least: f64,
    greatest: f64,
}

impl From<NumericBins> for NumericBinsFile {
    fn from(bins: NumericBins) -> Self {
        Self { edges: bins.edges.into(), least: bins.least, greatest: bins.greatest }
    }
}

impl TryFrom<NumericBinsFile> for NumericBins {
    type Error = StatsError;

    fn try_from(file: NumericBinsFile) -> Result<Self, StatsError> {
        Self::with(file.edges, file.least, file.greatest)
    }
}

impl NumericBins {
    /// Chosen by a reference: its quantiles, its tails, and a bin for each value that is there more often than others.
    ///
    /// # Errors
    /// [`StatsError`] when no value is finite.
    pub fn of(values: &[f64]) -> Result<Self, StatsError> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let mut edges = quantile_edges(&sorted, QUANTILE_BINS)?;
        edges.extend(TAILS.map(|share| quantile(&sorted, share)));
        let least_count = sorted.len() as f64 * POINT_MASS;
        for equal in sorted.chunk_by(|a, b| a == b).filter(|equal| equal.len() as f64 > least_count) {
            // a bin holds what is above its lower edge, up to its upper one
            let below = sorted.partition_point(|x| *x < equal[0]);
            edges.extend(below.checked_sub(1).map(|index| sorted[index]));
            edges.push(equal[0]);
        }
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let (least, greatest) = (sorted[0], sorted[sorted.len() - 1]);
        // what lies on the last edge or before is all there is: nothing is behind it
        edges.retain(|edge| *edge < greatest);
        Self::with(edges, least, greatest)
    }

    fn with(edges: Vec<f64>, least: f64, greatest: f64) -> Result<Self, StatsError> {
        let is_good = edges.is_sorted_by(|a, b| a < b) && edges.iter().all(|edge| edge.is_finite());
        StatsError::check(is_good, "edges", "finite and ascending", f64::NAN)?;
        StatsError::check(edges.len() < EDGES_MAX, "edges", "fewer than 128", edges.len() as f64)?;
        StatsError::check(least <= greatest, "least", "at most the greatest", least)?;
        Ok(Self { edges: edges.into(), least, greatest })
    }

    /// How many bins there are, the last four included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.edges.len() + 5
    }

    /// There is always one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The edges between the bins, ascending.
    #[must_use]
    pub fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// The greatest value of the reference.
    #[must_use]
    pub fn greatest(&self) -> f64 {
        self.greatest
    }

    /// The bins of values below the reference, above it, missing, and not finite.
    #[must_use]
    pub fn special(&self) -> [usize; 4] {
        let first = self.edges.len() + 1;
        [first, first + 1, first + 2, first + 3]
    }

    /// The bin of a value: as many edges as are strictly below it, unless it is beyond the reference.
    #[must_use]
    #[inline]
    pub fn bin(&self, value: f64) -> usize {
        let [below, above, _, not_finite] = self.special();
        if value >= self.least && value <= self.greatest {
            return self.search(value);
        }
        if !value.is_finite() {
            return not_finite;
        }
        if value < self.least { below } else { above }
    }

    /// Edges strictly below, without a branch that depends on the value.
    #[inline]
    fn search(&self, value: f64) -> usize {
        let (mut at, mut left) = (0, self.edges.len());
        while left > 1 {
            let half = left / 2;
            // which way it goes is not predictable: a branch would be wrong every other time
            at = select_unpredictable(self.edges[at + half - 1] < value, at + half, at);
            left -= half;
        }
        at + usize::from(self.edges.get(at).is_some_and(|edge| *edge < value))
    }
}

/// Where the values of a categorical feature fall: a bin for each category that the reference has often enough, then
/// one for all others, and one for missing ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct CategoryBins {
    /// All of them, one behind the other, and where each ends.
    text: Box<str>,
    ends: Box<[u32]>,
    /// An open hash table: each slot holds a category's place and one, or nothing. It is filled to a half at most, by the
    /// reference alone, so that no stream of values can make its searches long.
    slots: Box<[u16]>,
}

impl From<CategoryBins> for Vec<String> {
    fn from(bins: CategoryBins) -> Self {
        bins.categories().map(str::to_owned).collect()
    }
}

impl TryFrom<Vec<String>> for CategoryBins {
    type Error = StatsError;

    fn try_from(categories: Vec<String>) -> Result<Self, StatsError> {
        StatsError::check(
            categories.len() <= CATEGORIES_MAX,
            "categories",
            "at most 256",
            categories.len() as f64,
        )?;
        let longest = categories.iter().map(String::len).max().unwrap_or(0);
        StatsError::check(
            longest <= CATEGORY_BYTES_MAX,
            "a category's bytes",
            "at most 256",
            longest as f64,
        )?;
        let mut end = 0;
        let ends = categories.iter().map(|category| {
            end += category.len() as u32;
            end
        });
        let (ends, text) = (ends.collect(), categories.concat().into());
        let mut bins = Self { text, ends, slots: vec![0; 2 * categories.len().next_power_of_two()].into() };
        for (place, category) in categories.iter().enumerate() {
            if let Err(slot) = bins.find(category) {
                bins.slots[slot] = place as u16 + 1;
            }
        }
        Ok(bins)
    }
}

impl CategoryBins {
    /// Chosen by a reference: the most frequent first, equally frequent ones in their order.
    #[must_use]
    pub fn of<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let mut rows = 0u64;
        for value in values {
            rows += 1;
            if value.len() <= CATEGORY_BYTES_MAX {
                *counts.entry(value).or_default() += 1;
            }
        }
        let mut often: Vec<(&str, u64)> =
            counts.into_iter().filter(|(_, count)| *count as f64 >= rows as f64 * CATEGORY_SHARE).collect();
        often.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let categories = often.into_iter().take(CATEGORIES_MAX).map(|(value, _)| value.to_owned());
        // there are at most so many, and each is short enough
        Self::try_from(categories.collect::<Vec<_>>()).unwrap_or_else(|_| Self::none())
    }

    fn none() -> Self {
        Self { text: "".into(), ends: Box::default(), slots: vec![0; 2].into() }
    }

    /// How many bins there are, the last two included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len() + 2
    }

    /// There are always two.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The categories, the most frequent first.
    pub fn categories(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.ends.len()).map(|place| self.category(place))
    }

    #[inline]
    fn category(&self, place: usize) -> &str {
        let begin = if place > 0 { self.ends[place - 1] } else { 0 };
        &self.text[begin as usize..self.ends[place] as usize]
    }

    /// A category's place, or the slot where it would be.
    #[inline]
    fn find(&self, value: &str) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = xxh3_64(value.as_bytes()) as usize & mask;
        loop {
            match usize::from(self.slots[slot]).checked_sub(1) {
                Some(place) if self.category(place) == value => return Ok(place),
                Some(_) => slot = (slot + 1) & mask,
                None => return Err(slot),
            }
        }
    }

    /// The bin of a category; the bin of all others where the reference does not have it.
    #[must_use]
    #[inline]
    pub fn bin(&self, value: &str) -> usize {
        self.find(value).unwrap_or(self.ends.len())
    }

    /// The bin of other categories, and of missing ones.
    #[must_use]
    pub fn special(&self) -> [usize; 2] {
        [self.ends.len(), self.ends.len() + 1]
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len() + 4 * self.ends.len() + 2 * self.slots.len()
    }
}

/// Values counted by bin.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BinCounts {
    /// By bin.
    pub counts: Vec<u64>,
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
                self.counts[bins.bin(value)] += 1;
                self.moments.push(value);
            }
            None => self.counts[bins.special()[2]] += 1,
        }
    }

    /// Takes a category; `None` is missing.
    #[inline]
    pub fn push_category(&mut self, bins: &CategoryBins, value: Option<&str>) {
        let bin = value.map_or(bins.special()[1], |value| bins.bin(value));
        self.counts[bin] += 1;
    }

    /// Takes all that `other` took in the same bins.
    ///
    /// # Errors
    /// [`StatsError`] when the bins are not as many.
    pub fn merge(&mut self, other: &Self) -> Result<(), StatsError> {
        StatsError::check_length("counts", self.counts.len(), other.counts.len())?;
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.moments.merge(&other.moments);
        Ok(())
    }

    /// Values taken.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// For each bin, which of at most [`COARSE_BINS`] coarser ones it belongs to: neighbours together, of about equal
/// shares. What the reference never saw goes with the last.
#[must_use]
pub fn coarse(reference: &[u64]) -> Vec<usize> {
    let total = reference.iter().sum::<u64>().max(1) as f64;
    let filled = reference.iter().filter(|count| **count > 0).count().max(1);
    let bins = COARSE_BINS.min(filled);
    let (mut below, mut at, mut started) = (0.0, 0, 0.0);
    reference
        .iter()
        .map(|count| {
            let share = *count as f64 / total;
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

    fn normal(rows: usize) -> Vec<f64> {
        let mut random = Random::new(3);
        (0..rows).map(|_| random.normal()).collect()
    }

    #[test]
    fn a_value_falls_behind_the_edges_strictly_below_it() {
        let values = normal(10_000);
        let bins = NumericBins::of(&values).unwrap();
        assert_eq!(bins.edges().len(), 35, "31 quantiles and four tails");
        let [below, above, missing, not_finite] = bins.special();
        for value in values.iter().chain(bins.edges()) {
            assert_eq!(bins.bin(*value), bins.edges().iter().filter(|edge| *edge < value).count());
        }
        assert_eq!(
            [bins.bin(-9.0), bins.bin(9.0), bins.bin(f64::NAN), bins.bin(f64::INFINITY)],
            [below, above, not_finite, not_finite]
        );
        let mut counts = BinCounts::new(bins.len());
        values.iter().for_each(|value| counts.push(&bins, Some(*value)));
        counts.push(&bins, None);
        assert_eq!((counts.rows(), counts.counts[missing]), (10_001, 1));
        let share = counts.counts[10] as f64 / 10_000.0;
        assert!((share - 1.0 / 32.0).abs() < 0.001, "{share}");
        let text = serde_json::to_string(&bins).unwrap();
        assert_eq!(serde_json::from_str::<NumericBins>(&text).unwrap(), bins);
        assert!(serde_json::from_str::<NumericBins>(r#"{"edges":[2,1],"least":0,"greatest":3}"#).is_err());
    }

    #[test]
    fn a_frequent_value_has_a_bin_of_its_own() {
        let mut values = normal(1000);
        values.extend([0.0; 500]);
        let bins = NumericBins::of(&values).unwrap();
        let mut counts = BinCounts::new(bins.len());
        values.iter().for_each(|value| counts.push(&bins, Some(*value)));
        assert_eq!(counts.counts[bins.bin(0.0)], 500);
        let constant = NumericBins::of(&[7.0; 50]).unwrap();
        assert_eq!((constant.edges(), constant.bin(7.0), constant.bin(7.1)), (&[][..], 0, 2));
        assert!(NumericBins::of(&[f64::NAN]).is_err());
    }

    #[test]
    fn categories_that_are_often_there_are_told_apart() {
        let values: Vec<String> =
            (0..10_000).map(|i| if i < 9000 { format!("c{}", i % 7) } else { format!("rare{i}") }).collect();
        let bins = CategoryBins::of(values.iter().map(String::as_str));
        assert_eq!(bins.categories().len(), 7);
        assert_eq!(bins.bin("rare9001"), bins.special()[0]);
        let mut counts = BinCounts::new(bins.len());
        values.iter().for_each(|value| counts.push_category(&bins, Some(value)));
        counts.push_category(&bins, None);
        assert_eq!(counts.counts[7..], [1000, 1]);
        let again: CategoryBins = serde_json::from_str(&serde_json::to_string(&bins).unwrap()).unwrap();
        assert_eq!(again, bins);
    }

    #[test]
    fn coarse_bins_hold_about_the_same() {
        let values = normal(10_000);
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
