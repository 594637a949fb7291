//! The test of Mann and Whitney, for those who compare with tools that use it. It holds for one look alone, and its
//! answer says which sample tends to be larger, not by how much. Must not know what is measured.

use crate::{StatsError, special::normal_survival};

/// Pairs whose differences are sorted for the shift at most.
const PAIRS_MAX: usize = 16_000_000;

/// The statistic of two samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MannWhitney {
    /// Pairs in which the first sample's value is larger; ties count half.
    pub u_first: f64,
    /// Two-sided p-value by the normal law, corrected for ties and continuity.
    pub p_value: f64,
}

/// Compares two samples.
///
/// # Errors
/// [`StatsError`] for an empty sample or a value that is no number.
pub fn mann_whitney(first: &[f64], second: &[f64]) -> Result<MannWhitney, StatsError> {
    check(first, second)?;
    let mut all: Vec<(f64, bool)> = first.iter().map(|&x| (x, true)).collect();
    all.extend(second.iter().map(|&x| (x, false)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rank_sum, mut ties, mut start) = (0.0, 0.0, 0);
    while start < all.len() {
        // equality of values: total_cmp tells -0 from 0
        let same = all[start..].iter().take_while(|(x, _)| *x == all[start].0).count();
        let rank = start as f64 + 0.5 * (same + 1) as f64;
        let firsts = all[start..start + same].iter().filter(|(_, is_first)| *is_first).count();
        rank_sum += rank * firsts as f64;
        ties += (same as f64).powi(3) - same as f64;
        start += same;
    }
    let (a, b) = (first.len() as f64, second.len() as f64);
    let n = a + b;
    let u_first = rank_sum - 0.5 * a * (a + 1.0);
    let deviation = (a * b / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)))).sqrt();
    let off = (u_first - 0.5 * a * b).abs() - 0.5;
    let p_value = if deviation > 0.0 { (2.0 * normal_survival(off / deviation)).min(1.0) } else { 1.0 };
    Ok(MannWhitney { u_first, p_value })
}

/// The median of all differences, second less first: by how much the second sample is shifted (Hodges and Lehmann).
///
/// # Errors
/// [`StatsError`] for an empty sample, a value that is no number, or more than 16 million pairs.
pub fn shift(first: &[f64], second: &[f64]) -> Result<f64, StatsError> {
    check(first, second)?;
    let pairs = first.len().saturating_mul(second.len());
    StatsError::check(
        pairs <= PAIRS_MAX,
        "pairs",
        "at most 16 million; take a random part of each",
        pairs as f64,
    )?;
    let mut differences = Vec::with_capacity(pairs);
    for &y in second {
        differences.extend(first.iter().map(|&x| y - x));
    }
    let middle = pairs / 2;
    let (below, upper, _) = differences.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if pairs % 2 == 1 {
        return Ok(upper);
    }
    Ok(0.5 * (upper + below.iter().copied().fold(f64::NEG_INFINITY, f64::max)))
}

fn check(first: &[f64], second: &[f64]) -> Result<(), StatsError> {
    for (name, sample) in [("first", first), ("second", second)] {
        if sample.is_empty() {
            return Err(StatsError::Length { name, expected: 1, got: 0 });
        }
        if let Some(&value) = sample.iter().find(|x| x.is_nan()) {
            return Err(StatsError::Range { name, expected: "numbers", got: value });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_pairs() {
        let brute = |first: &[f64], second: &[f64]| {
            let pairs = first.iter().flat_map(|x| second.iter().map(move |y| (x, y)));
            pairs
                .map(|(x, y)| {
                    if x > y {
                        1.0
                    } else if x == y {
                        0.5
                    } else {
                        0.0
                    }
                })
                .sum::<f64>()
        };
        let (a, b) = ([1.0, 5.0, 3.0, 3.0, 9.0], [2.0, 3.0, 3.0, 8.0]);
        assert_eq!(mann_whitney(&a, &b).unwrap().u_first, brute(&a, &b));
        assert_eq!(mann_whitney(&b, &a).unwrap().u_first, brute(&b, &a));
        assert_eq!(mann_whitney(&a, &b).unwrap().p_value, mann_whitney(&b, &a).unwrap().p_value);
        assert_eq!(mann_whitney(&[1.0; 4], &[1.0; 7]).unwrap().p_value, 1.0);
        assert_eq!(shift(&[0.0, 1.0], &[10.0, 11.0]).unwrap(), 10.0);
        assert!(mann_whitney(&[], &[1.0]).is_err() && shift(&[f64::NAN], &[1.0]).is_err());
    }
}
