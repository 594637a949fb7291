//! The lower branch of Lambert's function. Must not know statistics.

/// The w <= -1 with w e^w = z, for -1/e <= z < 0; not a number outside.
#[must_use]
pub fn lambert_w_minus_1(z: f64) -> f64 {
    if !(-(-1f64).exp() - f64::EPSILON..0.0).contains(&z) {
        return f64::NAN;
    }
    // with w = -u: u - ln u = -ln(-z) =: L >= 1, which has no overflow and one root above 1
    let l = (-(-z).ln()).max(1.0);
    let mut u = l + l.ln() + (2.0 * (l - 1.0)).sqrt().min(1.0) + 1e-9;
    for _ in 0..100 {
        let step = (u - u.ln() - l) * u / (u - 1.0);
        let next = (u - step).max(1.0 + f64::EPSILON);
        if (next - u).abs() <= f64::EPSILON * u {
            break;
        }
        u = next;
    }
    -u
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lamberts_function_at_known_points() {
        let close = |z: f64, expected: f64| {
            let got = lambert_w_minus_1(z);
            assert!((got - expected).abs() <= 1e-13 * expected.abs(), "W({z}): {got} is not {expected}");
        };
        // mpmath
        close(-0.1, -3.577_152_063_957_297);
        close(-0.36, -1.222_770_133_978_506);
        close(-1e-5, -14.163_600_815_810_183);
        assert!(lambert_w_minus_1(0.1).is_nan() && lambert_w_minus_1(-0.5).is_nan());
    }

    #[test]
    fn it_undoes_its_inverse() {
        for i in 1..700 {
            let w = -1.0 - f64::from(i);
            assert!((lambert_w_minus_1(w * w.exp()) - w).abs() < 1e-11 * w.abs(), "{w}");
        }
    }
}
