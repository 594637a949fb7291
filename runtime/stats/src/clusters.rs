//! How many independent values those of some samples are worth, where values of one sample are alike: measured by how far
//! samples lie apart in each bin (Kish's effective sample size, 1965). Must not know what the values are.

/// Samples, each by its values' bins.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    samples: u64,
    values: u64,
    /// By bin, of the samples' shares: their sum and that of their squares.
    sums: Vec<(f64, f64)>,
}

impl Clusters {
    /// None yet, in so many bins.
    #[must_use]
    pub fn new(bins: usize) -> Self {
        Self { samples: 0, values: 0, sums: vec![(0.0, 0.0); bins] }
    }

    /// Takes a sample: its values by bin. One without values says nothing.
    pub fn push(&mut self, counts: &[u64]) {
        let values: u64 = counts.iter().sum();
        if values == 0 {
            return;
        }
        self.samples += 1;
        self.values += values;
        for ((sum, squares), count) in self.sums.iter_mut().zip(counts) {
            let share = *count as f64 / values as f64;
            *sum += share;
            *squares += share * share;
        }
    }

    /// What they are worth: as many as would err by as much if they were independent. At most as many as there are, and
    /// of samples that say nothing of what they have in common, as many as the samples.
    #[must_use]
    pub fn effective(&self) -> u64 {
        let n = self.samples as f64;
        let (mut alone, mut together) = (0.0, 0.0);
        for (sum, squares) in &self.sums {
            let share = sum / n.max(1.0);
            alone += share * (1.0 - share);
            together += (squares - sum * share).max(0.0) / (n * (n - 1.0)).max(1.0);
        }
        if self.samples < 2 || alone <= f64::EPSILON {
            return self.samples;
        }
        // without a difference the quotient is infinite, which is cut off as well
        ((alone / together) as u64).clamp(1, self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Samples of so many values in eight bins, of which all of a sample are equal with that probability.
    fn clusters(samples: u64, width: u64, equal: f64) -> Clusters {
        let mut random = Random::new(7);
        let mut clusters = Clusters::new(8);
        for _ in 0..samples {
            let mut counts = [0; 8];
            let common = random.below(8);
            for _ in 0..width {
                let is_common = random.uniform() < equal;
                counts[if is_common { common } else { random.below(8) } as usize] += 1;
            }
            clusters.push(&counts);
        }
        clusters
    }

    #[test]
    fn equal_values_are_one_and_independent_ones_are_many() {
        let check = |equal: f64, least: u64, most: u64| {
            let effective = clusters(200, 50, equal).effective();
            assert!((least..=most).contains(&effective), "{equal}: {effective}");
        };
        check(1.0, 180, 220);
        check(0.0, 8000, 10_000);
        // two values of a sample are both the common one with a probability of a quarter: 200 * 50 / (1 + 49 / 4)
        check(0.5, 650, 860);
    }

    #[test]
    fn what_says_nothing_is_worth_its_samples() {
        assert_eq!(Clusters::new(8).effective(), 0);
        assert_eq!(clusters(1, 50, 0.0).effective(), 1);
        let mut same = Clusters::new(2);
        (0..3).for_each(|_| same.push(&[9, 0]));
        same.push(&[0, 0]);
        assert_eq!(same.effective(), 3);
        let mut even = Clusters::new(2);
        (0..3).for_each(|_| even.push(&[5, 5]));
        assert_eq!(even.effective(), 30);
    }
}
