//! How far two histograms over the same bins are apart, as numbers that people know. Must not know what is in the
//! bins.

use crate::{
    StatsError,
    special::{chi_squared_survival, noncentral_chi_squared_quantile},
};

/// Added to every bin before logarithms are taken, so that an empty one is finite.
const SMOOTHING: f64 = 0.5;

/// Distances of two histograms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Population stability index, smoothed.
    pub psi: f64,
    /// What it would be for the same law, on average, with so few values.
    pub psi_bias: f64,
    /// Jensen and Shannon's divergence in nats, smoothed; the distance is its root.
    pub js_divergence: f64,
    /// Total variation.
    pub total_variation: f64,
    /// Hellinger's distance.
    pub hellinger: f64,
    /// The largest difference of one bin.
    pub largest: f64,
    /// Largest distance of the distribution functions at the bins' edges; for bins without an order it means nothing.
    pub ks: f64,
}

/// A test of two histograms for the same law.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChiSquared {
    /// The statistic.
    pub statistic: f64,
    /// Bins that hold anything, less one.
    pub degrees: u64,
    /// For one look.
    pub p_value: f64,
}

fn total<C: Copy + Into<u64>>(name: &'static str, counts: &[C]) -> Result<f64, StatsError> {
    let n = counts.iter().map(|count| (*count).into() as f64).sum::<f64>();
    StatsError::check(n > 0.0, name, "at least one value", n)?;
    Ok(n)
}

/// The distances of `current` from `reference`.
///
/// # Errors
/// [`StatsError`] for histograms of different lengths or without values.
pub fn scores<C: Copy + Into<u64>>(reference: &[C], current: &[C]) -> Result<Scores, StatsError> {
    StatsError::check_length("current", reference.len(), current.len())?;
    let (n, m) = (total("reference", reference)?, total("current", current)?);
    let bins = reference.len() as f64;
    let smooth = |count: C, n: f64| (count.into() as f64 + SMOOTHING) / (n + SMOOTHING * bins);
    let mut scores = Scores {
        psi: 0.0,
        psi_bias: bias(bins, n, m),
        js_divergence: 0.0,
        total_variation: 0.0,
        hellinger: 0.0,
        largest: 0.0,
        ks: 0.0,
    };
    let mut apart = 0.0f64;
    for (&a, &b) in reference.iter().zip(current) {
        let (p, q) = (smooth(a, n), smooth(b, m));
        let middle = 0.5 * (p + q);
        scores.psi += (q - p) * (q / p).ln();
        scores.js_divergence += 0.5 * (p * (p / middle).ln() + q * (q / middle).ln());
        let (p, q) = (a.into() as f64 / n, b.into() as f64 / m);
        scores.total_variation += 0.5 * (p - q).abs();
        scores.hellinger += 0.5 * (p.sqrt() - q.sqrt()).powi(2);
        scores.largest = scores.largest.max((p - q).abs());
        apart += p - q;
        scores.ks = scores.ks.max(apart.abs());
    }
    scores.hellinger = scores.hellinger.sqrt();
    Ok(scores)
}

/// The population stability index alone, less its bias, at least 0: as [`Scores::psi_debiased`], at a fraction of the
/// cost.
///
/// # Errors
/// As [`scores`].
pub fn psi<C: Copy + Into<u64>>(reference: &[C], current: &[C]) -> Result<f64, StatsError> {
    StatsError::check_length("current", reference.len(), current.len())?;
    let (n, m) = (total("reference", reference)?, total("current", current)?);
    let bins = reference.len() as f64;
    let smooth = |count: C, n: f64| (count.into() as f64 + SMOOTHING) / (n + SMOOTHING * bins);
    let of = |(a, b): (&C, &C)| {
        let (p, q) = (smooth(*a, n), smooth(*b, m));
        (q - p) * (q / p).ln()
    };
    let psi: f64 = reference.iter().zip(current).map(of).sum();
    Ok((psi - bias(bins, n, m)).max(0.0))
}

/// What the index is for the same law, on average.
fn bias(bins: f64, n: f64, m: f64) -> f64 {
    (bins - 1.0) * (1.0 / n + 1.0 / m)
}

impl Scores {
    /// The index less its bias, at least 0: what there is beyond chance.
    #[must_use]
    pub fn psi_debiased(&self) -> f64 {
        (self.psi - self.psi_bias).max(0.0)
    }

    /// Jensen and Shannon's distance in nats.
    #[must_use]
    pub fn js_distance(&self) -> f64 {
        self.js_divergence.max(0.0).sqrt()
    }
}

/// Sizes that a threshold is made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PsiThreshold {
    /// Bins.
    pub bins: u64,
    /// Values of the reference.
    pub reference: u64,
    /// Values of the window.
    pub current: u64,
    /// The index that is tolerated.
    pub tolerated: f64,
    /// Share of windows at that index that are over the threshold.
    pub alpha: f64,
}

impl PsiThreshold {
    /// The index above which a window differs by more than is tolerated. It takes many values a bin for granted.
    ///
    /// # Errors
    /// [`StatsError`] for a single bin, no values, a negative tolerance or an alpha outside (0, 1).
    pub fn value(&self) -> Result<f64, StatsError> {
        StatsError::check_alpha(self.alpha)?;
        StatsError::check(self.bins > 1, "bins", "at least 2", self.bins as f64)?;
        StatsError::check(self.tolerated >= 0.0, "tolerated", "at least 0", self.tolerated)?;
        let smaller = self.reference.min(self.current);
        StatsError::check(smaller > 0, "values", "at least 1 of each", smaller as f64)?;
        let h = 1.0 / self.reference as f64 + 1.0 / self.current as f64;
        let quantile =
            noncentral_chi_squared_quantile(1.0 - self.alpha, self.bins as f64 - 1.0, self.tolerated / h);
        Ok(h * quantile)
    }
}

/// The chi-squared test of two histograms.
///
/// # Errors
/// [`StatsError`] for histograms of different lengths or without values.
pub fn chi_squared<C: Copy + Into<u64>>(reference: &[C], current: &[C]) -> Result<ChiSquared, StatsError> {
    StatsError::check_length("current", reference.len(), current.len())?;
    let (n, m) = (total("reference", reference)?, total("current", current)?);
    let (mut statistic, mut filled) = (0.0, 0u64);
    let both = reference.iter().zip(current).map(|(a, b)| ((*a).into() as f64, (*b).into() as f64));
    for (a, b) in both.filter(|(a, b)| a + b > 0.0) {
        let (expected_a, expected_b) = ((a + b) * n / (n + m), (a + b) * m / (n + m));
        statistic += (a - expected_a).powi(2) / expected_a + (b - expected_b).powi(2) / expected_b;
        filled += 1;
    }
    let degrees = filled - 1;
    let p_value = if degrees == 0 { 1.0 } else { chi_squared_survival(statistic, degrees as f64) };
    Ok(ChiSquared { statistic, degrees, p_value })
}
