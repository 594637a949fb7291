//! Fixed-point arithmetic as TFLite-micro's reference kernels do it, bit by bit: multipliers with two roundings, and
//! the exponential, logistic and hyperbolic functions of gemmlowp. Must not know tensors.
//!
//! Source: the published arithmetic of gemmlowp (fixedpoint.h) and of TFLite's quantisation specification.

/// A real factor as a 31-bit fraction and a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Multiplier {
    pub(crate) fraction: i32,
    /// To the left where it is positive.
    pub(crate) shift: i32,
}

/// A number between one half and one, and a power of two.
fn frexp(value: f64) -> (f64, i32) {
    if value == 0.0 || !value.is_finite() {
        return (value, 0);
    }
    let bits = value.to_bits();
    let exponent = i32::try_from((bits >> 52) & 0x7ff).expect("11 bits");
    if exponent == 0 {
        let (fraction, exponent) = frexp(value * 2f64.powi(64));
        return (fraction, exponent - 64);
    }
    (f64::from_bits((bits & !(0x7ff << 52)) | (1022 << 52)), exponent - 1022)
}

impl Multiplier {
    /// The nearest multiplier of a factor that is not negative.
    #[expect(clippy::cast_possible_truncation, reason = "at most 2^31, which is then halved")]
    pub(crate) fn new(factor: f64) -> Self {
        let (fraction, mut shift) = frexp(factor);
        let mut fixed = (fraction * f64::from(1u32 << 31)).round() as i64;
        if fixed == 1 << 31 {
            fixed /= 2;
            shift += 1;
        }
        if shift < -31 {
            return Self::default();
        }
        Self { fraction: i32::try_from(fixed).unwrap_or(i32::MAX), shift }
    }

    /// `value` times the factor, rounded twice as the device does.
    pub(crate) fn apply(self, value: i32) -> i32 {
        let left = value.wrapping_shl(self.shift.max(0).cast_unsigned());
        divide_by_power(doubling_high(left, self.fraction), -self.shift.min(0))
    }
}

/// The high half of twice the product, rounded.
pub(crate) fn doubling_high(a: i32, b: i32) -> i32 {
    if a == i32::MIN && b == i32::MIN {
        return i32::MAX;
    }
    let product = i64::from(a) * i64::from(b);
    let nudge = if product >= 0 { 1 << 30 } else { 1 - (1 << 30) };
    i32::try_from((product + nudge) / (1 << 31)).expect("half of 63 bits")
}

/// The same for 16 bits.
pub(crate) fn doubling_high_16(a: i16, b: i16) -> i16 {
    if a == i16::MIN && b == i16::MIN {
        return i16::MAX;
    }
    let product = i32::from(a) * i32::from(b);
    let nudge = if product >= 0 { 1 << 14 } else { 1 - (1 << 14) };
    i16::try_from((product + nudge) / (1 << 15)).expect("half of 31 bits")
}

/// Division by a power of two, to the nearest, ties away from zero.
pub(crate) fn divide_by_power(value: i32, exponent: i32) -> i32 {
    let exponent = exponent.clamp(0, 31);
    let mask = (1i64 << exponent) - 1;
    let rest = i64::from(value) & mask;
    let threshold = (mask >> 1) + i64::from(value < 0);
    // a shift by 31 leaves the sign alone
    (value >> exponent) + i32::from(rest > threshold)
}

/// Multiplication by a power of two, saturating to the left and rounding to the right.
fn by_power(value: i32, exponent: i32) -> i32 {
    if exponent <= 0 {
        return divide_by_power(value, -exponent);
    }
    let wide = i64::from(value) << exponent;
    i32::try_from(wide.clamp(i64::from(i32::MIN), i64::from(i32::MAX))).expect("clamped")
}

/// `exp(a)` for `a` between minus one quarter and zero, 31 fractional bits.
fn exp_small(a: i32) -> i32 {
    const EXP_MINUS_EIGHTH: i32 = 1_895_147_668;
    const THIRD: i32 = 715_827_883;
    let x = a.wrapping_add(1 << 28);
    let x2 = doubling_high(x, x);
    let x3 = doubling_high(x2, x);
    let x4 = doubling_high(x2, x2);
    let quarter = by_power(x4, -2);
    let sum = by_power(doubling_high(quarter.wrapping_add(x3), THIRD).wrapping_add(x2), -1);
    EXP_MINUS_EIGHTH.wrapping_add(doubling_high(EXP_MINUS_EIGHTH, x.wrapping_add(sum)))
}

/// `exp(a)` for `a` at most zero with `integer_bits` before the point; the result has 31 fractional bits.
pub(crate) fn exp_negative(a: i32, integer_bits: i32) -> i32 {
    const FACTORS: [(i32, i32); 7] = [
        (-2, 1_672_461_947),
        (-1, 1_302_514_674),
        (0, 790_015_084),
        (1, 290_630_308),
        (2, 39_332_535),
        (3, 720_401),
        (4, 242),
    ];
    if a == 0 {
        return i32::MAX;
    }
    let fractional_bits = 31 - integer_bits;
    let quarter = 1i32 << (fractional_bits - 2);
    let modulo = (a & (quarter - 1)).wrapping_sub(quarter);
    let mut result = exp_small(by_power(modulo, integer_bits));
    let remainder = modulo.wrapping_sub(a);
    for (exponent, factor) in FACTORS {
        if integer_bits > exponent && remainder & (1 << (fractional_bits + exponent)) != 0 {
            result = doubling_high(result, factor);
        }
    }
    if integer_bits > 5 && a < -(1 << (fractional_bits + 5)) {
        result = 0;
    }
    result
}

/// The reciprocal of half of one plus `a`, `a` between zero and one, two integer bits: Newton's method.
fn newton(a: i32) -> i32 {
    let half = {
        let sum = i64::from(a) + i64::from(i32::MAX);
        let sign = if sum >= 0 { 1 } else { -1 };
        i32::try_from((sum + sign) / 2).expect("the mean of two")
    };
    // 48/17 and -32/17
    let mut x = 1_515_870_810i32.wrapping_add(doubling_high(half, -1_010_580_540));
    for _ in 0..3 {
        let rest = (1i32 << 29).wrapping_sub(doubling_high(half, x));
        x = x.wrapping_add(by_power(doubling_high(x, rest), 2));
    }
    x
}

/// `1 / (1 + a)` for `a` between zero and one, 31 fractional bits.
pub(crate) fn reciprocal_of_one_plus(a: i32) -> i32 {
    by_power(newton(a), 1)
}

/// `1 / (1 + exp(-a))`, `integer_bits` before the point of `a`, 31 fractional bits in the result.
pub(crate) fn logistic(a: i32, integer_bits: i32) -> i32 {
    if a == 0 {
        return 1 << 30;
    }
    let positive = reciprocal_of_one_plus(exp_negative(-a.abs(), integer_bits));
    if a > 0 { positive } else { i32::MAX - positive }
}

/// `tanh(a)`, `integer_bits` before the point of `a`, 31 fractional bits in the result.
pub(crate) fn tanh(a: i32, integer_bits: i32) -> i32 {
    if a == 0 {
        return 0;
    }
    let power = exp_negative(-a.abs(), integer_bits + 1);
    let result = by_power(newton(power).wrapping_sub(1 << 29), 2);
    if a < 0 { -result } else { result }
}

/// The largest input of a function on `integer_bits` that does not overflow after a shift to the left.
pub(crate) fn input_radius(integer_bits: i32, left_shift: i32) -> i32 {
    let most = f64::from((1 << integer_bits) - 1) * 2f64.powi(31 - integer_bits - left_shift);
    #[expect(clippy::cast_possible_truncation, reason = "saturates, as the comparison needs")]
    let radius = most.floor() as i32;
    radius
}

/// A factor for the functions above, which take `integer_bits` before the point.
pub(crate) fn input_multiplier(scale: f32, integer_bits: i32) -> Multiplier {
    let (fraction, shift) = frexp(f64::from(scale) * f64::from(1u32 << (31 - integer_bits)));
    #[expect(clippy::cast_possible_truncation, reason = "at most 2^31, saturated")]
    let fraction = (fraction * f64::from(1u32 << 31)).round() as i32;
    Multiplier { fraction, shift }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_near_the_real_ones() {
        let one = f64::from(1u32 << 31);
        for step in -2000..2000 {
            let real = f64::from(step) / 250.0;
            let raw = (real * f64::from(1 << 27)) as i32;
            let near = |got: i32, expected: f64| {
                assert!((f64::from(got) / one - expected).abs() < 1e-5, "{real}: {got}")
            };
            near(logistic(raw, 4), 1.0 / (1.0 + (-real).exp()));
            near(tanh(raw, 4), real.tanh());
            if step <= 0 {
                near(exp_negative(raw, 4), real.exp());
            }
        }
    }

    #[test]
    fn rounding_goes_away_from_zero() {
        let check =
            |value: i32, exponent: i32, expected: i32| assert_eq!(divide_by_power(value, exponent), expected);
        check(5, 1, 3);
        check(-5, 1, -3);
        check(4, 3, 1);
        check(-4, 3, -1);
        check(3, 3, 0);
        assert_eq!(doubling_high(i32::MIN, i32::MIN), i32::MAX);
        assert_eq!(Multiplier::new(0.5), Multiplier { fraction: 1 << 30, shift: 0 });
        assert_eq!(Multiplier::new(0.5).apply(7), 4);
        assert_eq!(Multiplier::new(1e-12), Multiplier::default());
    }
}
