//! Which of many tests to believe. Must not know what was tested.

use crate::StatsError;

/// Those whose p-value is at most `alpha` by their number: the chance of one wrong is at most `alpha`.
///
/// # Errors
/// [`StatsError`] for an alpha outside (0, 1).
pub fn bonferroni(p_values: &[f64], alpha: f64) -> Result<Vec<usize>, StatsError> {
    StatsError::check_alpha(alpha)?;
    let limit = alpha / p_values.len() as f64;
    Ok((0..p_values.len()).filter(|&index| p_values[index] <= limit).collect())
}

/// The procedure of Benjamini and Hochberg (1995): at most the share `alpha` of what it lists is wrong, on average,
/// if the tests are independent. Indexes ascending.
///
/// # Errors
/// [`StatsError`] for an alpha outside (0, 1).
pub fn benjamini_hochberg(p_values: &[f64], alpha: f64) -> Result<Vec<usize>, StatsError> {
    StatsError::check_alpha(alpha)?;
    let step = alpha / p_values.len() as f64;
    Ok(step_up(p_values, |p, rank| p <= step * rank as f64))
}

/// The same with e-values, given as logarithms (Wang and Ramdas, 2022): right whatever the dependence.
///
/// # Errors
/// [`StatsError`] for an alpha outside (0, 1).
pub fn e_benjamini_hochberg(log_e: &[f64], alpha: f64) -> Result<Vec<usize>, StatsError> {
    StatsError::check_alpha(alpha)?;
    let step = log_e.len() as f64 / alpha;
    let against: Vec<f64> = log_e.iter().map(|log_e| -log_e).collect();
    Ok(step_up(&against, |minus_log_e, rank| -minus_log_e >= (step / rank as f64).ln()))
}

/// The smallest values up to the last rank that passes. What is no number never does.
fn step_up(values: &[f64], passes: impl Fn(f64, usize) -> bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).filter(|&index| !values[index].is_nan()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let last = (0..order.len()).rev().find(|&rank| passes(values[order[rank]], rank + 1));
    order.truncate(last.map_or(0, |rank| rank + 1));
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_everything() {
        assert!(benjamini_hochberg(&[], 0.05).unwrap().is_empty());
        assert!(benjamini_hochberg(&[0.9, f64::NAN], 0.05).unwrap().is_empty());
        assert_eq!(benjamini_hochberg(&[0.03, 0.049], 0.05).unwrap(), [0, 1]);
        assert_eq!(e_benjamini_hochberg(&[9.0, 0.0, 4.0], 0.05).unwrap(), [0, 2]);
        assert!(bonferroni(&[0.1], 1.5).is_err());
    }
}
