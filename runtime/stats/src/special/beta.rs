//! The beta function and its upper part, scaled so that evidence can be computed from them without cancellation.
//! Must not know statistics.

use super::gamma::{deviance, ln_gamma_rest, nonzero};

/// Steps of the continued fraction; it needs about the square root of the larger argument.
const STEPS_MAX: usize = 1_000_000;

/// ln B(x, y) - x ln θ - y ln(1 - θ), for x, y > 0 and 0 < θ < 1.
///
/// With N = x + y this is the deviance of (x, y) from (Nθ, N(1-θ)) plus terms that grow like a logarithm, so that
/// nothing large is subtracted.
#[must_use]
pub fn ln_beta_scaled(x: f64, y: f64, theta: f64) -> f64 {
    let n = x + y;
    let rest = ln_gamma_rest(x) + ln_gamma_rest(y) - ln_gamma_rest(n);
    rest + deviance(x, n * theta) + deviance(y, n * (1.0 - theta))
}

/// ln of the integral of t^(x-1) (1-t)^(y-1) from θ to 1, less x ln θ + y ln(1 - θ).
#[must_use]
pub fn ln_beta_upper_scaled(x: f64, y: f64, theta: f64) -> f64 {
    if theta > (x + 1.0) / (x + y + 2.0) {
        // the upper part is the smaller one: its own fraction, exact however small it is
        return fraction(y, x, 1.0 - theta).ln() - y.ln();
    }
    let whole = ln_beta_scaled(x, y, theta);
    let ln_lower = fraction(x, y, theta).ln() - x.ln();
    whole + (-(ln_lower - whole).exp()).ln_1p()
}

/// The continued fraction F of I_z(p, q) = z^p (1-z)^q / (p B(p, q)) F, by Lentz's method (Numerical Recipes, 6.4).
/// Converges fast for z < (p+1)/(p+q+2).
fn fraction(p: f64, q: f64, z: f64) -> f64 {
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (p + q) * z / (p + 1.0));
    let mut h = d;
    for m in 1..STEPS_MAX {
        let m = m as f64;
        let even = m * (q - m) * z / ((p - 1.0 + 2.0 * m) * (p + 2.0 * m));
        d = 1.0 / nonzero(1.0 + even * d);
        c = nonzero(1.0 + even / c);
        h *= d * c;
        let odd = -(p + m) * (p + q + m) * z / ((p + 2.0 * m) * (p + 1.0 + 2.0 * m));
        d = 1.0 / nonzero(1.0 + odd * d);
        c = nonzero(1.0 + odd / c);
        let step = d * c;
        h *= step;
        if (step - 1.0).abs() <= f64::EPSILON {
            break;
        }
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() <= 1e-11 * expected.abs().max(1.0), "{got} is not {expected}");
    }

    #[test]
    fn the_upper_part_on_both_sides_and_at_any_size() {
        // mpmath: log(quad or betainc) - x log θ - y log(1-θ), 50 digits
        close(ln_beta_upper_scaled(0.5, 9.5, 0.05), 0.335987292330372);
        close(ln_beta_upper_scaled(20.5, 89.5, 0.0547), 11.221726634278471);
        close(ln_beta_upper_scaled(75.0, 30.0, 0.52), 7.634_902_182_046_256);
        close(ln_beta_upper_scaled(3.0, 500.0, 0.1), -3.876103626283147);
        close(ln_beta_upper_scaled(0.5, 1000.5, 0.05), -3.921_793_808_877_674);
        close(ln_beta_upper_scaled(3000.0, 2000.0, 0.6), -3.317_659_889_365_875);
        close(ln_beta_upper_scaled(3000.0, 2000.0, 0.58), 1.4962498551689395);
        close(ln_beta_upper_scaled(3000.0, 2000.0, 0.62), -4.699_699_955_527_851);
        close(ln_beta_upper_scaled(100000.5, 1900000.5, 0.0475), 131.1093213966232);
    }

    #[test]
    fn nothing_is_lost_at_a_billion() {
        let whole = ln_beta_scaled(5e8, 5e8, 0.5);
        // at the mode the deviances vanish: B(n, n) 4^n = 2 sqrt(pi/n) (1 + 1/8n ...)
        close(whole, 0.5 * (std::f64::consts::PI / 5e8).ln() + std::f64::consts::LN_2 + 1.0 / 4e9);
        assert!(ln_beta_upper_scaled(1e9, 1e9, 0.4999).is_finite());
        assert!(ln_beta_upper_scaled(0.5, 1e9, 0.05).is_finite());
        assert!(ln_beta_upper_scaled(1e9, 0.5, 0.05).is_finite());
    }
}
