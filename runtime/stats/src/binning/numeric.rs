//! Where numbers fall: bins between edges that the reference chose, and how a number's bin is found. Must not know where
//! numbers come from.

use serde::{Deserialize, Serialize};

use super::{quantile, quantile_edges};
use crate::StatsError;

/// Bins between a numeric feature's quantiles.
const QUANTILE_BINS: usize = 32;
/// Shares at which the tails begin, beside those quantiles.
const TAILS: [f64; 4] = [0.001, 0.01, 0.99, 0.999];
/// A value with a larger share has a bin of its own.
const POINT_MASS: f64 = 0.02;
/// Edges of a numeric feature: a bound on what a file may bring.
const EDGES_MAX: usize = 128;

/// A value that waits for its bin: the bits of a number, in 32 bits and at most the greatest one of these, or a bin that
/// is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held(u32);

impl Held {
    /// A missing number: one that is none, as no arithmetic makes it.
    pub(crate) const MISSING: Self = Self(0x7fc0_0001);
    /// A number that is not finite.
    const NOT_FINITE: Self = Self(f32::INFINITY.to_bits());

    #[inline]
    pub(crate) fn number(value: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the nearest one is meant")]
        let narrow = value as f32;
        match narrow {
            // both zeros are one
            narrow if narrow.is_finite() => Self((narrow + 0.0).to_bits()),
            _ if value.is_finite() => Self(f32::MAX.copysign(narrow).to_bits()),
            _ => Self::NOT_FINITE,
        }
    }

    #[inline]
    pub(crate) fn bin(bin: usize) -> Self {
        Self(u32::try_from(bin).unwrap_or(u32::MAX))
    }

    #[inline]
    pub(crate) fn to_bin(self) -> usize {
        self.0 as usize
    }
}

/// A number as a whole number that is greater for a greater one, since whole numbers are compared sooner. What is missing or
/// not finite is greater than all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u32);

/// The bit of a number's sign.
const SIGN: u32 = 1 << 31;

impl Key {
    const MISSING: Self = Self::of(Held::MISSING);
    const NOT_FINITE: Self = Self::of(Held::NOT_FINITE);

    #[inline]
    const fn of(Held(bits): Held) -> Self {
        Self(bits ^ ((bits.cast_signed() >> 31).cast_unsigned() | SIGN))
    }

    fn number(value: f64) -> Self {
        Self::of(Held::number(value))
    }

    fn value(self) -> f32 {
        let is_negative = self.0 & SIGN == 0;
        f32::from_bits(if is_negative { !self.0 } else { self.0 ^ SIGN })
    }
}

/// Where the values of a numeric feature fall. Behind the bins between edges come four more: below and above all of
/// the reference, missing, and not finite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "NumericBinsFile", into = "NumericBinsFile")]
pub struct NumericBins {
    /// Behind them, as many of the greatest as make 32.
    edges: Box<[Key]>,
    count: u8,
    least: Key,
    greatest: Key,
}

/// As it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct NumericBinsFile {
    edges: Vec<f64>,
    least: f64,
    greatest: f64,
}

/// The shortest number that is this one in 32 bits: for people.
fn short(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

impl From<NumericBins> for NumericBinsFile {
    fn from(bins: NumericBins) -> Self {
        let edges = bins.edges().into_iter().map(short).collect();
        Self { edges, least: short(bins.least.value()), greatest: short(bins.greatest()) }
    }
}

impl TryFrom<NumericBinsFile> for NumericBins {
    type Error = StatsError;

    fn try_from(file: NumericBinsFile) -> Result<Self, StatsError> {
        let narrow = |value| Key::number(value).value();
        let edges = file.edges.into_iter().map(narrow).collect();
        Self::with(edges, narrow(file.least), narrow(file.greatest))
    }
}

impl NumericBins {
    /// Chosen by a reference: its quantiles, its tails, and a bin for each value that is there more often than others.
    ///
    /// # Errors
    /// [`StatsError`] when no value is finite.
    pub fn of(values: &[f64]) -> Result<Self, StatsError> {
        let finite = values.iter().filter(|x| x.is_finite());
        let mut sorted: Vec<f64> = finite.map(|x| f64::from(Key::number(*x).value())).collect();
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
        let narrow = |value| Key::number(value).value();
        let mut edges: Vec<f32> = edges.into_iter().map(narrow).collect();
        edges.sort_by(f32::total_cmp);
        edges.dedup();
        let [least, greatest] = [sorted[0], sorted[sorted.len() - 1]].map(narrow);
        // what lies on the last edge or before is all there is: nothing is behind it
        edges.retain(|edge| *edge < greatest);
        Self::with(edges, least, greatest)
    }

    fn with(edges: Vec<f32>, least: f32, greatest: f32) -> Result<Self, StatsError> {
        let is_good = edges.is_sorted_by(|a, b| a < b) && edges.iter().all(|edge| edge.is_finite());
        StatsError::check(is_good, "edges", "finite and ascending", f64::NAN)?;
        StatsError::check(edges.len() < EDGES_MAX, "edges", "fewer than 128", edges.len() as f64)?;
        StatsError::check(least <= greatest, "least", "at most the greatest", f64::from(least))?;
        let key = |value| Key::number(f64::from(value));
        let count = edges.len() as u8;
        let mut edges: Vec<Key> = edges.into_iter().map(key).collect();
        edges.resize(edges.len().max(SHORT), Key::MISSING);
        Ok(Self { edges: edges.into(), count, least: key(least), greatest: key(greatest) })
    }

    /// How many bins there are, the last four included.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count) + 5
    }

    /// There is always one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The edges between the bins, ascending.
    #[must_use]
    pub fn edges(&self) -> Vec<f32> {
        self.edges[..usize::from(self.count)].iter().map(|edge| edge.value()).collect()
    }

    /// The greatest value of the reference.
    #[must_use]
    pub fn greatest(&self) -> f32 {
        self.greatest.value()
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.edges)
    }

    /// The bins of values below the reference, above it, missing, and not finite.
    #[must_use]
    pub fn special(&self) -> [usize; 4] {
        let first = usize::from(self.count) + 1;
        [first, first + 1, first + 2, first + 3]
    }

    /// The bin of a value: as many edges as are strictly below it, unless it is beyond the reference.
    #[must_use]
    pub fn bin(&self, value: f64) -> usize {
        let mut bin = [0];
        self.find(&[Held::number(value)], &mut bin);
        bin[0]
    }

    /// The bin of each value.
    #[inline]
    pub(crate) fn find<const N: usize>(&self, values: &[Held; N], bins: &mut [usize; N]) {
        let keys = values.map(Key::of);
        match self.edges.len() {
            0..=LONG => self.find_among::<SHORT, N>(&keys, bins),
            _ => self.find_among::<LONG, N>(&keys, bins),
        }
    }

    /// Among `W` to `2 * W` edges, in as many steps for every value, none of them a branch, so that no value waits for
    /// the one before.
    #[inline]
    fn find_among<const W: usize, const N: usize>(&self, values: &[Key; N], bins: &mut [usize; N]) {
        let (Some(first), Some(last)) = (self.edges.first_chunk::<W>(), self.edges.last_chunk::<W>()) else {
            return;
        };
        // the part that has what is looked for: the first W edges, or the last ones
        let rest = self.edges.len() - W;
        let pivot = if rest > 0 { self.edges[rest - 1] } else { Key::MISSING };
        let parts = [(first, 0), (last, rest)];
        let span = self.greatest.0 - self.least.0;
        for (value, bin) in values.iter().zip(bins) {
            let (part, begin) = parts[usize::from(pivot < *value)];
            // three edges at a time, which do not wait for each other
            let is_below = |at: usize| usize::from(part[at] < *value);
            let (far, near) = (W / 4, W / 16);
            let mut at = far * (is_below(far - 1) + is_below(2 * far - 1) + is_below(3 * far - 1));
            at +=
                near * (is_below(at + near - 1) + is_below(at + 2 * near - 1) + is_below(at + 3 * near - 1));
            *bin = begin + at + (0..near).map(|next| is_below(at + next)).sum::<usize>();
            // one comparison for both ends
            if value.0.wrapping_sub(self.least.0) > span {
                *bin = self.special_of(*value);
            }
        }
    }

    #[cold]
    fn special_of(&self, value: Key) -> usize {
        let [below, above, missing, not_finite] = self.special();
        match value {
            Key::MISSING => missing,
            Key::NOT_FINITE => not_finite,
            value if value < self.least => below,
            _ => above,
        }
    }
}

/// Edges that are looked at together, where there are at most twice as many; and otherwise.
const SHORT: usize = 32;
const LONG: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{binning::BinCounts, random::Random};

    fn normal(rows: usize) -> Vec<f64> {
        let mut random = Random::new(3);
        (0..rows).map(|_| f64::from(Key::number(random.normal()).value())).collect()
    }

    #[test]
    fn a_value_falls_behind_the_edges_strictly_below_it() {
        let values = normal(10_000);
        let bins = NumericBins::of(&values).unwrap();
        assert_eq!(bins.edges().len(), 35, "31 quantiles and four tails");
        let [below, above, missing, not_finite] = bins.special();
        let edges: Vec<f64> = bins.edges().iter().map(|edge| f64::from(*edge)).collect();
        let all: Vec<f64> = values.iter().chain(&edges).copied().collect();
        for value in &all {
            assert_eq!(bins.bin(*value), edges.iter().filter(|edge| *edge < value).count());
        }
        for count in [0, 1, 31, 32, 33, 63, 64, 65, 100, 127] {
            let edges: Vec<f32> = (0..count).map(|edge| edge as f32).collect();
            let bins = NumericBins::with(edges, -1.0, 200.0).unwrap();
            for value in -1..=200 {
                let (whole, half) = (f64::from(value), f64::from(value) + 0.5);
                assert_eq!(bins.bin(whole), value.clamp(0, count) as usize, "{whole} of {count}");
                assert_eq!(
                    bins.bin(half.min(200.0)),
                    (value + 1).clamp(0, count) as usize,
                    "{half} of {count}"
                );
            }
        }
        let ascending = [f64::MIN, -1e30, -1.0, -1e-30, 0.0, 1e-30, 1.0, 1e30, f64::MAX, f64::NAN];
        assert!(
            ascending.map(Key::number).is_sorted_by(|a, b| a < b) && Key::number(-0.0) == Key::number(0.0)
        );
        assert_eq!(
            [f64::MIN, -2.5, 0.0, 7.0].map(|value| Key::number(value).value()),
            [f32::MIN, -2.5, 0.0, 7.0]
        );
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
        assert_eq!([0.1f32, 7.28275, 1e30, -0.0].map(short), [0.1, 7.28275, 1e30, 0.0]);
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
        assert_eq!((constant.edges(), constant.bin(7.0), constant.bin(7.1)), (vec![], 0, 2));
        assert!(NumericBins::of(&[f64::NAN]).is_err());
    }
}
