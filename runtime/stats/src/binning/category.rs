//! Where texts fall: a bin for each category that the reference has often enough, and how a text's bin is found. Must not
//! know where texts come from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::StatsError;

/// Categories told apart, each with at least [`CATEGORY_SHARE`] of the reference.
const CATEGORIES_MAX: usize = 256;
const CATEGORY_SHARE: f64 = 0.001;
/// Bytes of a category's text.
const CATEGORY_BYTES_MAX: usize = 256;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binning::BinCounts;

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
}
