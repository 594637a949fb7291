//! Special functions, each to about 1e-13 relative, in logarithms where the values themselves would vanish, and
//! without cancellation for counts up to 1e9 and beyond. Must not know statistics.
//!
//! Written here because the public crates compute `ln B` and `I_x` as differences of large logarithms, which loses
//! six digits at a billion events, and none has the noncentral chi-squared law.

mod beta;
mod chi_squared;
mod gamma;
mod lambert;
mod normal;

pub use beta::{ln_beta_scaled, ln_beta_upper_scaled};
pub use chi_squared::{
    chi_squared_cdf, chi_squared_survival, noncentral_chi_squared_cdf, noncentral_chi_squared_quantile,
};
pub use gamma::{deviance, gamma_p, gamma_q, ln_gamma, ln_gamma_rest};
pub use lambert::lambert_w_minus_1;
pub use normal::{normal_cdf, normal_quantile, normal_survival};

/// ln(sum e^x) without overflow; negative infinity for nothing.
#[must_use]
pub fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if top.is_infinite() { top } else { top + values.map(|x| (x - top).exp()).sum::<f64>().ln() }
}

/// The zero of a function that rises from `low` to `high`, by bisection to the last bit.
#[must_use]
pub fn bisect(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    // 200 halvings outlast the 64 bits of any interval
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if f(middle) < 0.0 { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_exponentials_neither_overflow_nor_vanish() {
        let sum = |values: &[f64]| log_sum_exp(values.iter().copied());
        assert!((sum(&[1000.0, 1000.0]) - 1000.0 - 2f64.ln()).abs() < 1e-12);
        assert!((sum(&[-1e4, -1e4 - 1.0]) + 1e4 - (1.0 + (-1f64).exp()).ln()).abs() < 1e-11);
        assert_eq!(sum(&[]), f64::NEG_INFINITY);
        assert_eq!(sum(&[f64::INFINITY, 0.0]), f64::INFINITY);
    }

    #[test]
    fn bisection_finds_the_zero() {
        assert!((bisect(0.0, 2.0, |x| x * x - 2.0) - 2f64.sqrt()).abs() < 1e-15);
    }
}
