//! Operators that compute each code by itself, or along one axis. Must not know weights.

use super::{
    between, clamp_range,
    fixed::{self, Multiplier, divide_by_power, doubling_high, doubling_high_16},
};
use crate::{
    graph::{Activation, Op},
    kernels,
    lite::Tensor,
};

/// Codes are shifted by this before they are scaled, to keep bits.
const SUM_SHIFT: u32 = 20;
/// Integer bits of the logistic and the hyperbolic tangent.
const FUNCTION_BITS: i32 = 4;
/// Integer bits of the differences and of the sum of a softmax.
const DIFFERENCE_BITS: i32 = 5;
const SUM_BITS: i32 = 12;

fn code(value: i32, (low, high): (i32, i32)) -> i8 {
    i8::try_from(value.max(low).min(high).clamp(-128, 127)).expect("clamped")
}

/// What a function of one code gives for each of the 256; `None` if the operator is no such function.
pub(super) fn table(op: &Op, x: &Tensor, output: &Tensor) -> Option<[i8; 256]> {
    let (scale, zero) = x.scale();
    let (out_scale, out_zero) = output.scale();
    let each = |of: &dyn Fn(i32) -> i8| {
        let mut table = [0; 256];
        for value in -128i8..=127 {
            table[usize::from(value.cast_unsigned())] = of(i32::from(value));
        }
        table
    };
    Some(match op {
        Op::Clamp(Activation::Relu) => {
            let range = (clamp_range(Activation::Relu, output).0, 127);
            let by = between(scale, out_scale);
            each(&|value| code(out_zero + by.apply(value - zero), range))
        }
        Op::Clamp(Activation::Relu6) => {
            let range = (zero, clamp_range(Activation::Relu6, x).1);
            each(&|value| code(value, range))
        }
        Op::Quantize => {
            let by = Multiplier::new(f64::from(scale) / f64::from(out_scale));
            each(&|value| code(out_zero.wrapping_add(by.apply(value - zero)), (-128, 127)))
        }
        Op::Logistic | Op::Tanh => {
            let by = fixed::input_multiplier(scale, FUNCTION_BITS);
            let radius = fixed::input_radius(FUNCTION_BITS, by.shift);
            each(&|value| function(op, value - zero, by, radius))
        }
        Op::LeakyRelu(alpha) => {
            let (same, less) =
                (between(scale, out_scale), Multiplier::new(f64::from(scale * alpha.abs() / out_scale)));
            each(&|value| {
                let value = value - zero;
                let scaled = if value >= 0 {
                    same.apply(value)
                } else if *alpha < 0.0 {
                    -less.apply(value)
                } else {
                    less.apply(value)
                };
                code(out_zero + scaled, (-128, 127))
            })
        }
        Op::HardSwish => {
            let hires = (1.0f32 / 128.0) * scale;
            let out = sixteen(hires / out_scale);
            let reluish = sixteen(hires / (3.0f32 / 32768.0));
            each(&|value| hard_swish(value - zero, out, reluish, out_zero))
        }
        _ => return None,
    })
}

fn function(op: &Op, value: i32, by: Multiplier, radius: i32) -> i8 {
    if value <= -radius {
        return i8::MIN;
    }
    if value >= radius {
        return i8::MAX;
    }
    let scaled = by.apply(value);
    let result = match op {
        Op::Logistic => divide_by_power(fixed::logistic(scaled, FUNCTION_BITS), 31 - 8) - 128,
        _ => divide_by_power(fixed::tanh(scaled, FUNCTION_BITS), 31 - 7),
    };
    code(result, (-128, 127))
}

/// A factor with a fraction of 15 bits.
fn sixteen(factor: f32) -> (i16, i32) {
    let Multiplier { fraction, shift } = Multiplier::new(f64::from(factor));
    let fraction = if fraction >= i32::MAX - (1 << 15) {
        i16::MAX
    } else {
        i16::try_from((fraction + (1 << 15)) >> 16).unwrap_or(i16::MAX)
    };
    (fraction, shift)
}

fn shifted_left(value: i16, by: i32) -> i16 {
    let wide = i64::from(value) << by.clamp(0, 32);
    i16::try_from(wide.clamp(i64::from(i16::MIN), i64::from(i16::MAX))).expect("clamped")
}

fn hard_swish(value: i32, out: (i16, i32), reluish: (i16, i32), out_zero: i32) -> i8 {
    // nine bits times 2^7
    let hires = i16::try_from(value << 7).unwrap_or(if value < 0 { i16::MIN } else { i16::MAX });
    let preshift = doubling_high_16(hires, out.0);
    let mut gate = hires;
    if reluish.1 > 0 {
        gate = shifted_left(gate, reluish.1 - 1);
    }
    gate = doubling_high_16(gate, reluish.0);
    if reluish.1 > 0 {
        gate = shifted_left(gate, 1);
    }
    if reluish.1 < 0 {
        gate = i16::try_from(divide_by_power(i32::from(gate), -reluish.1)).unwrap_or(0);
    }
    let gate = (i32::from(gate) + (1 << 15)) >> 1;
    let product = gate * i32::from(preshift) / (1 << 15);
    code(divide_by_power(product, -out.1) + out_zero, (-128, 127))
}

/// A sum, difference or product with broadcasting.
pub(super) fn binary(
    op: &Op,
    (a, left): (&Tensor, &[i8]),
    (b, right): (&Tensor, &[i8]),
    output: &Tensor,
) -> Option<Vec<i8>> {
    let (from_left, from_right) =
        (kernels::broadcast(&output.shape, &a.shape)?, kernels::broadcast(&output.shape, &b.shape)?);
    let ((a_scale, a_zero), (b_scale, b_zero), (scale, zero)) = (a.scale(), b.scale(), output.scale());
    let range = clamp_range(op.activation(), output);
    let pairs = from_left.iter().zip(&from_right).map(|(l, r)| {
        let (l, r) = (left.get(*l).copied()?, right.get(*r).copied()?);
        Some((i32::from(l) - a_zero, i32::from(r) - b_zero))
    });
    if let Op::Mul(_) = op {
        let by = Multiplier::new(f64::from(a_scale) * f64::from(b_scale) / f64::from(scale));
        return pairs
            .map(|pair| pair.map(|(l, r)| code(zero.wrapping_add(by.apply(l * r)), range)))
            .collect();
    }
    let twice = 2.0 * f64::from(a_scale.max(b_scale));
    let out = twice / (f64::from(1u32 << SUM_SHIFT) * f64::from(scale));
    let of = |scale: f32| Multiplier::new(f64::from(scale) / twice);
    let (by_a, by_b, by_out) = (of(a_scale), of(b_scale), Multiplier::new(out));
    let sign = if matches!(op, Op::Sub(_)) { -1 } else { 1 };
    let compute = |(l, r): (i32, i32)| {
        let (l, r) = (by_a.apply(l << SUM_SHIFT), by_b.apply(r << SUM_SHIFT));
        code(zero.wrapping_add(by_out.apply(l + sign * r)), range)
    };
    pairs.map(|pair| pair.map(compute)).collect()
}

/// Over the last axis.
pub(super) fn softmax(beta: f32, x: &Tensor, codes: &[i8]) -> Option<Vec<i8>> {
    let depth = *x.shape.last()?;
    let factor = f64::from(beta) * f64::from(x.scale().0) * f64::from(1u32 << (31 - DIFFERENCE_BITS));
    let by = Multiplier::new(factor.min(f64::from(i32::MAX)));
    let least = -fixed::input_radius(DIFFERENCE_BITS, by.shift);
    let power = |difference: i32| {
        let scaled = doubling_high(difference.wrapping_shl(by.shift.max(0).cast_unsigned()), by.fraction);
        fixed::exp_negative(scaled, DIFFERENCE_BITS)
    };
    let mut out = Vec::with_capacity(codes.len());
    for row in codes.chunks_exact(depth) {
        let top = i32::from(*row.iter().max()?);
        let differences = || row.iter().map(|code| i32::from(*code) - top);
        let sum = differences()
            .filter(|difference| *difference >= least)
            .fold(0i32, |sum, difference| sum.wrapping_add(divide_by_power(power(difference), SUM_BITS)));
        let zeros = i32::try_from(sum.leading_zeros()).ok()?;
        let shifted =
            sum.cast_unsigned().wrapping_shl(zeros.cast_unsigned()).wrapping_sub(1 << 31).cast_signed();
        let reciprocal = fixed::reciprocal_of_one_plus(shifted);
        let exponent = SUM_BITS - zeros + 31 - 8;
        out.extend(differences().map(|difference| {
            if difference < least {
                return i8::MIN;
            }
            code(divide_by_power(doubling_high(reciprocal, power(difference)), exponent) - 128, (-128, 127))
        }));
    }
    Some(out)
}

/// A mean over some axes, with its own output scale.
pub(super) fn mean(x: &Tensor, codes: &[i8], axes: &[i32], output: &Tensor) -> Option<Vec<i8>> {
    let rank = i32::try_from(x.shape.len()).ok()?;
    let place = |axis: &i32| {
        usize::try_from(if *axis < 0 { axis + rank } else { *axis }).ok().filter(|a| *a < x.shape.len())
    };
    let axes: Option<Vec<usize>> = axes.iter().map(place).collect();
    let (places, count) = kernels::reduced(&x.shape, &axes?);
    let ((scale, zero), (out_scale, out_zero)) = (x.scale(), output.scale());
    let by = Multiplier::new(f64::from(scale) / f64::from(out_scale));
    // the division by the count becomes part of the multiplier
    let bits = 63 - i32::try_from(u64::try_from(count).ok()?.leading_zeros()).ok()?;
    let shift = bits.min(32).min(31 + by.shift);
    let fraction =
        i32::try_from((i64::from(by.fraction) << shift.max(0)) / i64::try_from(count).ok()?).ok()?;
    let by = Multiplier { fraction, shift: by.shift - shift };
    let mut sums = vec![0i32; x.len() / count];
    places.iter().zip(codes).for_each(|(place, code)| sums[*place] += i32::from(*code));
    let offset = zero.wrapping_mul(i32::try_from(count).ok()?);
    Some(
        sums.iter()
            .map(|sum| code(by.apply(sum.wrapping_sub(offset)).wrapping_add(out_zero), (-128, 127)))
            .collect(),
    )
}
