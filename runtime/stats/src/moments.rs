//! Count, mean and variance of a stream, in constant memory and mergeable (Welford; Chan, Golub and LeVeque).
//! Must not know what is measured.

use serde::{Deserialize, Serialize};

/// Count, mean and sum of squared deviations.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Moments {
    n: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Of `n` values with this mean and variance (divided by n - 1).
    #[must_use]
    pub fn of(n: u64, mean: f64, variance: f64) -> Self {
        Self { n, mean, squares: variance * n.saturating_sub(1) as f64 }
    }

    /// Takes one value; what is not finite is ignored.
    pub fn push(&mut self, x: f64) {
        if x.is_finite() {
            self.n += 1;
            let off = x - self.mean;
            self.mean += off / self.n as f64;
            self.squares += off * (x - self.mean);
        }
    }

    /// Takes all that `other` took.
    pub fn merge(&mut self, other: &Self) {
        if other.n == 0 {
            return;
        }
        let n = self.n + other.n;
        let off = other.mean - self.mean;
        let share = other.n as f64 / n as f64;
        self.squares += other.squares + off * off * self.n as f64 * share;
        self.mean += off * share;
        self.n = n;
    }

    /// Values taken.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Their mean; 0 for none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Their variance, divided by n - 1; 0 below two values.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.n < 2 { 0.0 } else { self.squares / (self.n - 1) as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_merge_to_the_whole() {
        let values: Vec<f64> = (0..1000).map(|i| 1e6 + f64::from(i * i % 97)).collect();
        let of = |values: &[f64]| {
            let mut moments = Moments::default();
            values.iter().for_each(|&x| moments.push(x));
            moments
        };
        let whole = of(&values);
        for cut in [0, 1, 500, 999, 1000] {
            let mut merged = of(&values[..cut]);
            merged.merge(&of(&values[cut..]));
            assert_eq!(merged.n(), whole.n());
            assert!(
                (merged.mean() - whole.mean()).abs() < 1e-9
                    && (merged.variance() - whole.variance()).abs() < 1e-9
            );
        }
        let mean = values.iter().sum::<f64>() / 1000.0;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 999.0;
        assert!((whole.mean() - mean).abs() < 1e-9 && (whole.variance() - variance).abs() < 1e-9);
    }
}
