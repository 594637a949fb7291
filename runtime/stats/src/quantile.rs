//! Bounds of quantiles and of whole distributions that hold at any time (Howard and Ramdas, "Sequential estimation
//! of quantiles", 2022). Must not know what is measured.

use crate::StatsError;

/// Between which sample quantiles the true one lies, after `t` values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankBounds {
    /// Lower rank as a share; below 0 there is no lower bound yet.
    pub lower: f64,
    /// Upper rank as a share; above 1 there is no upper bound yet.
    pub upper: f64,
}

/// The ranks around `p` after `t` values, right at all times with probability 1 - `alpha`.
///
/// # Errors
/// [`StatsError`] for `t` of zero, or a `p` or `alpha` outside (0, 1).
pub fn rank_bounds(t: u64, p: f64, alpha: f64) -> Result<RankBounds, StatsError> {
    StatsError::check_alpha(alpha)?;
    StatsError::check(p > 0.0 && p < 1.0, "p", "a number between 0 and 1", p)?;
    StatsError::check(t > 0, "t", "at least 1", t as f64)?;
    let t = t as f64;
    let l = (1.4 * (2.1 * t).ln().ln() + (10.0 / alpha).ln()) / t;
    let f = 1.5 * (p * (1.0 - p) * l).sqrt() + 0.8 * l;
    Ok(RankBounds { lower: p - f, upper: p + f })
}

impl RankBounds {
    /// The bounds within an ascending sample; `None` where there is no bound yet.
    #[must_use]
    pub fn of_sorted(&self, sample: &[f64]) -> (Option<f64>, Option<f64>) {
        let n = sample.len() as f64;
        // outwards: the largest value with at most, and the smallest with at least, that share of the sample below
        let lower = (self.lower > 0.0).then(|| (self.lower * n).floor() as usize);
        let upper = (self.upper < 1.0).then(|| (self.upper * n).ceil() as usize);
        let lower = lower.and_then(|rank| sample.get(rank.checked_sub(1)?));
        (lower.copied(), upper.and_then(|rank| sample.get(rank.max(1) - 1)).copied())
    }

    /// The bounds within a histogram: the bins' edges outwards of the ranks, `edges` one fewer than `counts`; `None`
    /// where there is no bound yet.
    #[must_use]
    pub fn of_bins(&self, edges: &[f64], counts: &[u64]) -> (Option<f64>, Option<f64>) {
        let n = counts.iter().sum::<u64>() as f64;
        let bin_at = |share: f64| {
            let mut below = 0.0;
            counts.iter().position(|&count| {
                below += count as f64;
                below >= share * n && below > 0.0
            })
        };
        let lower = (self.lower > 0.0).then(|| bin_at(self.lower)).flatten();
        let upper = (self.upper < 1.0).then(|| bin_at(self.upper)).flatten();
        (
            lower.and_then(|bin| edges.get(bin.checked_sub(1)?)).copied(),
            upper.and_then(|bin| edges.get(bin)).copied(),
        )
    }
}

/// How far the sample's distribution function may be from the true one, anywhere, at any time, after `t` values.
///
/// # Errors
/// [`StatsError`] for `t` of zero or an alpha outside (0, 1).
pub fn distribution_bound(t: u64, alpha: f64) -> Result<f64, StatsError> {
    StatsError::check_alpha(alpha)?;
    StatsError::check(t > 0, "t", "at least 1", t as f64)?;
    let t = t as f64;
    Ok(0.85 * (((1.0 + t.ln()).ln() + 0.8 * (1612.0 / alpha).ln()) / t).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn the_median_stays_inside_at_all_looks() {
        let (mut random, mut outside, runs) = (Random::new(6), 0, 200);
        for _ in 0..runs {
            let mut sample = Vec::new();
            let left = (0..10).any(|_| {
                sample.extend((0..50).map(|_| random.normal()));
                sample.sort_by(f64::total_cmp);
                let (low, high) = rank_bounds(sample.len() as u64, 0.5, 0.05).unwrap().of_sorted(&sample);
                low.is_some_and(|low| low > 0.0) || high.is_some_and(|high| high < 0.0)
            });
            outside += u32::from(left);
        }
        assert!(outside <= runs / 20, "{outside} of {runs}");
    }

    #[test]
    fn bins_bound_outwards() {
        let sample: Vec<f64> = (1..=1000).map(|i| f64::from(i) - 0.5).collect();
        let edges: Vec<f64> = (1..100).map(|i| f64::from(i) * 10.0).collect();
        let ranks = rank_bounds(1000, 0.5, 0.05).unwrap();
        let (low, high) = ranks.of_sorted(&sample);
        let (bin_low, bin_high) = ranks.of_bins(&edges, &[10; 100]);
        assert!(bin_low.unwrap() <= low.unwrap() && bin_high.unwrap() >= high.unwrap());
        assert!(low.unwrap() - bin_low.unwrap() <= 10.0 && bin_high.unwrap() - high.unwrap() <= 10.0);
        let extreme = rank_bounds(100, 0.99, 0.05).unwrap();
        assert_eq!(extreme.of_sorted(&sample[..100]).1, None, "a p99 has no upper bound after 100 values");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(rank_bounds(0, 0.5, 0.05).is_err() && rank_bounds(1, 1.0, 0.05).is_err());
        assert!(rank_bounds(1, 0.5, 0.05).unwrap().upper.is_finite());
        assert!(distribution_bound(0, 0.05).is_err() && distribution_bound(1, 0.05).is_ok());
    }
}
