//! The directions in which rows differ most (principal components), by orthogonal iteration. For rows too wide to watch
//! each value of. Must not know what the rows are.

use crate::{StatsError, random::Random};

/// Rounds; the leading directions of data that has any settle in far fewer.
const ROUNDS: usize = 30;

/// Means, and directions of length 1 that are at right angles, the widest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    /// Of each column.
    pub mean: Vec<f64>,
    /// One row of weights for each component.
    pub axes: Vec<Vec<f64>>,
}

/// At most `count` directions of `rows`.
///
/// # Errors
/// [`StatsError`] for no rows, or rows of different lengths.
pub fn principal(rows: &[Vec<f64>], count: usize) -> Result<Principal, StatsError> {
    StatsError::check(!rows.is_empty(), "rows", "at least 1", 0.0)?;
    let width = rows[0].len();
    rows.iter().try_for_each(|row| StatsError::check_length("row", width, row.len()))?;
    let mut mean = vec![0.0; width];
    for row in rows {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value / rows.len() as f64);
    }
    let mut random = Random::new(1);
    let count = count.min(width).min(rows.len());
    let mut axes: Vec<Vec<f64>> = (0..count).map(|_| (0..width).map(|_| random.normal()).collect()).collect();
    orthogonal(&mut axes);
    for _ in 0..ROUNDS {
        let mut next = vec![vec![0.0; width]; axes.len()];
        for row in rows {
            for (axis, next) in axes.iter().zip(&mut next) {
                let score = score(&mean, axis, row);
                next.iter_mut()
                    .zip(row)
                    .zip(&mean)
                    .for_each(|((n, value), mean)| *n += score * (value - mean));
            }
        }
        axes = next;
        orthogonal(&mut axes);
    }
    Ok(Principal { mean, axes })
}

/// How far a row lies in a direction.
#[must_use]
pub fn score(mean: &[f64], axis: &[f64], row: &[f64]) -> f64 {
    row.iter().zip(mean).zip(axis).map(|((value, mean), weight)| (value - mean) * weight).sum()
}

/// Gram and Schmidt's procedure; what is left of nothing is dropped.
fn orthogonal(axes: &mut Vec<Vec<f64>>) {
    let mut done: Vec<Vec<f64>> = Vec::with_capacity(axes.len());
    for mut axis in axes.drain(..) {
        for other in &done {
            let along: f64 = axis.iter().zip(other).map(|(a, b)| a * b).sum();
            axis.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
        }
        let length = axis.iter().map(|a| a * a).sum::<f64>().sqrt();
        if length > 1e-9 {
            axis.iter_mut().for_each(|a| *a /= length);
            done.push(axis);
        }
    }
    *axes = done;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_those_of_the_spread() {
        let mut random = Random::new(4);
        let row = |random: &mut Random| {
            let (wide, narrow) = (3.0 * random.normal(), 0.5 * random.normal());
            vec![1.0 + 0.6 * wide - 0.8 * narrow, 2.0 + 0.8 * wide + 0.6 * narrow, 5.0]
        };
        let rows: Vec<Vec<f64>> = (0..2000).map(|_| row(&mut random)).collect();
        let found = principal(&rows, 3).unwrap();
        assert_eq!(found.axes.len(), 2, "the third column never changes");
        assert!((found.axes[0][0] / found.axes[0][1] - 0.75).abs() < 0.02, "{:?}", found.axes);
        assert!((found.mean[2] - 5.0).abs() < 1e-9);
        assert!(principal(&[], 1).is_err());
    }
}
