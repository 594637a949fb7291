//! The chi-squared law, central and not. Must not know statistics.

use super::{
    bisect,
    gamma::{deviance, gamma_p, gamma_q, ln_gamma_rest},
};

/// P(X <= x) with `degrees` of freedom.
#[must_use]
pub fn chi_squared_cdf(x: f64, degrees: f64) -> f64 {
    gamma_p(0.5 * degrees, 0.5 * x)
}

/// P(X > x) with `degrees` of freedom, exact in the tail.
#[must_use]
pub fn chi_squared_survival(x: f64, degrees: f64) -> f64 {
    gamma_q(0.5 * degrees, 0.5 * x)
}

/// P(X <= x) with `degrees` of freedom and noncentrality `lambda`: a Poisson mixture of central laws, summed from
/// its largest weight outwards.
#[must_use]
pub fn noncentral_chi_squared_cdf(x: f64, degrees: f64, lambda: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if lambda <= 0.0 {
        return chi_squared_cdf(x, degrees);
    }
    let mean = 0.5 * lambda;
    let term = |j: f64| poisson(j, mean) * gamma_p(0.5 * degrees + j, 0.5 * x);
    let middle = mean.floor();
    let mut sum = 0.0;
    let mut j = middle;
    while j >= 0.0 {
        let next = term(j);
        sum += next;
        if poisson(j, mean) < 1e-18 {
            break;
        }
        j -= 1.0;
    }
    j = middle + 1.0;
    // both factors fall from here on
    loop {
        let next = term(j);
        sum += next;
        if next <= sum * 1e-17 || poisson(j, mean) < 1e-18 {
            return sum.min(1.0);
        }
        j += 1.0;
    }
}

/// e^-m m^j / j!
fn poisson(j: f64, mean: f64) -> f64 {
    if j <= 0.0 {
        return (-mean).exp();
    }
    // j! = j Γ(j)
    (-deviance(j, mean) - ln_gamma_rest(j) - j.ln()).exp()
}

/// The x with P(X <= x) = p.
#[must_use]
pub fn noncentral_chi_squared_quantile(p: f64, degrees: f64, lambda: f64) -> f64 {
    let mut high = degrees + lambda + 10.0 * (2.0 * (degrees + 2.0 * lambda)).sqrt() + 10.0;
    // a tail of 1e-15 is as far as a probability in double precision reaches
    while noncentral_chi_squared_cdf(high, degrees, lambda) < p && high < 1e12 {
        high *= 2.0;
    }
    bisect(0.0, high, |x| noncentral_chi_squared_cdf(x, degrees, lambda) - p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_laws_at_known_points() {
        let close = |got: f64, expected: f64| {
            assert!((got - expected).abs() <= 1e-12 * expected.abs(), "{got:e} is not {expected:e}");
        };
        // mpmath
        close(noncentral_chi_squared_cdf(20.0, 9.0, 5.0), 0.840_876_514_730_293_7);
        close(noncentral_chi_squared_cdf(10.0, 15.0, 3.0), 0.087_403_429_464_299_87);
        close(chi_squared_survival(2.0, 2.0), (-1f64).exp());
        close(chi_squared_cdf(2.0, 2.0), 1.0 - (-1f64).exp());
    }

    #[test]
    fn the_quantile_undoes_the_law() {
        for (degrees, lambda) in [(1.0, 0.0), (9.0, 5.0), (31.0, 400.0), (31.0, 20_000.0)] {
            for p in [0.001, 0.5, 0.999] {
                let x = noncentral_chi_squared_quantile(p, degrees, lambda);
                assert!(
                    (noncentral_chi_squared_cdf(x, degrees, lambda) - p).abs() < 1e-11,
                    "{degrees} {lambda} {p}"
                );
            }
        }
    }
}
