//! Which range of values the 256 codes of a tensor stand for. Must not know weights.

use super::{RangeChoice, fixed_range};
use crate::{
    calibrate::{Calibration, Observed},
    error::{EdgeError, Result},
    graph::{Graph, Op, TensorId},
    lite::Quantisation,
};

/// A scale and a zero point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The value of one code.
    pub scale: f32,
    /// The code of zero.
    pub zero: i32,
}

/// The least scale: below it multipliers vanish.
const SCALE_MIN: f32 = 1e-9;
/// Steps by which a range is narrowed while the best is looked for.
const STEPS: usize = 60;
/// A range is never narrowed below this share of what was seen.
const NARROWEST: f32 = 0.4;

impl Range {
    /// The range from a lowest to a highest value; zero always has a code of its own.
    #[must_use]
    pub fn new(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        // what was never anything but zero gets a range that multipliers can reach
        let high = if high - low == 0.0 { 1.0 } else { high };
        let scale = ((high - low) / 255.0).max(SCALE_MIN);
        #[expect(clippy::cast_possible_truncation, reason = "between -128 and 127")]
        let zero = (-128.0 - low / scale).round().clamp(-128.0, 127.0) as i32;
        Self { scale, zero }
    }

    /// The nearest code.
    #[must_use]
    pub fn code(&self, value: f32) -> i8 {
        crate::integer::quantised(value, self.scale, self.zero)
    }

    /// The value of a code.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "nine bits")]
    pub fn value(&self, code: i8) -> f32 {
        (i32::from(code) - self.zero) as f32 * self.scale
    }

    pub(super) fn quantisation(self) -> Quantisation {
        Quantisation { scales: vec![self.scale], zero_points: vec![i64::from(self.zero)], axis: 0 }
    }
}

/// Tensors that must share one scale, because an operator keeps it.
struct Groups(Vec<TensorId>);

impl Groups {
    fn find(&mut self, tensor: TensorId) -> TensorId {
        let mut at = tensor;
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, a: TensorId, b: TensorId) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b)] = a.min(b);
    }
}

/// A range for every computed tensor.
pub(super) fn choose(
    graph: &Graph,
    calibration: &Calibration,
    choice: RangeChoice,
) -> Result<Vec<Option<Range>>> {
    let mut groups = Groups((0..graph.tensors.len()).collect());
    for node in graph.nodes.iter().filter(|node| node.op.keeps_scale()) {
        for input in node.inputs.iter().filter(|input| !graph.tensors[**input].is_constant()) {
            groups.join(*input, node.output);
        }
    }
    let mut fixed: Vec<Option<Range>> = vec![None; graph.tensors.len()];
    for node in &graph.nodes {
        if let Some(range) = fixed_range(&node.op) {
            let group = groups.find(node.output);
            if fixed[group].is_some_and(|other| other != range) {
                return Err(EdgeError::Unsupported {
                    node: node.name.clone(),
                    operator: node.op.name(),
                    reason: "its output shares a scale with another operator's, and both are fixed".into(),
                    way_round: "do not concatenate their outputs, or name one with --keep-float".into(),
                });
            }
            fixed[group] = Some(range);
        }
    }
    for (id, tensor) in graph.tensors.iter().enumerate().filter(|(_, tensor)| !tensor.is_constant()) {
        let group = groups.find(id);
        if let (Some(source), None) = (&tensor.fixed, fixed[group]) {
            fixed[group] = Some(Range { scale: source.scales[0], zero: source.zero_point });
        }
    }
    let mut members: Vec<Vec<TensorId>> = vec![Vec::new(); graph.tensors.len()];
    for id in 0..graph.tensors.len() {
        members[groups.find(id)].push(id);
    }
    let mut ranges = vec![None; graph.tensors.len()];
    for (group, members) in members.iter().enumerate() {
        let seen: Vec<&Observed> =
            members.iter().filter_map(|id| calibration.observed[*id].as_ref()).collect();
        if seen.is_empty() {
            continue;
        }
        let range = fixed[group].unwrap_or_else(|| of_seen(&seen, choice));
        members.iter().for_each(|id| ranges[*id] = Some(range));
    }
    for node in &graph.nodes {
        let least = least_scale(&node.op, node.inputs.iter().filter_map(|id| ranges[*id]));
        let group = groups.find(node.output);
        if let Some(range) = ranges[node.output].filter(|range| range.scale < least && fixed[group].is_none())
        {
            let wider = Range { scale: least, ..range };
            members[group].iter().for_each(|id| ranges[*id] = Some(wider));
        }
    }
    Ok(ranges)
}

/// The least scale of an operator's output: its kernel checks that a multiplier stays below one.
fn least_scale(op: &Op, inputs: impl Iterator<Item = Range>) -> f32 {
    let largest = inputs.map(|range| range.scale).fold(0.0, f32::max);
    match op {
        Op::Add(_) | Op::Sub(_) => largest * 2.1 / 1_048_576.0,
        Op::HardSwish => largest * 1.05 / 128.0,
        _ => 0.0,
    }
}

fn of_seen(seen: &[&Observed], choice: RangeChoice) -> Range {
    let low = seen.iter().map(|seen| seen.min).fold(0.0, f32::min);
    let high = seen.iter().map(|seen| seen.max).fold(0.0, f32::max);
    match choice {
        RangeChoice::MinMax => Range::new(low, high),
        RangeChoice::Percentile(percent) => {
            let at = |share: f32, values: &[f32]| {
                #[expect(clippy::cast_precision_loss, reason = "an index")]
                #[expect(clippy::cast_possible_truncation, reason = "an index")]
                #[expect(clippy::cast_sign_loss, reason = "an index")]
                let place = (share * (values.len() - 1) as f32).round() as usize;
                values[place.min(values.len() - 1)]
            };
            let share = (percent / 200.0).clamp(0.0, 0.5);
            let low = seen.iter().map(|seen| at(share, &seen.values)).fold(0.0, f32::min);
            let high = seen.iter().map(|seen| at(1.0 - share, &seen.values)).fold(0.0, f32::max);
            Range::new(low, high)
        }
        RangeChoice::MeanSquaredError => least_error(seen, low, high),
    }
}

/// Sums of a sorted list, so that what lies beyond a bound is told at once.
struct Tails {
    values: Vec<f32>,
    /// Of the first values, and of their squares.
    sums: Vec<(f64, f64)>,
    zeros: usize,
}

impl Tails {
    fn new(seen: &[&Observed]) -> Self {
        // the extremes count as seen once, even if they were not among those that were kept
        let mut values: Vec<f32> =
            seen.iter().flat_map(|seen| seen.values.iter().copied().chain([seen.min, seen.max])).collect();
        values.sort_by(f32::total_cmp);
        let mut sums = vec![(0.0, 0.0)];
        for value in &values {
            let value = f64::from(*value);
            let (sum, square) = sums.last().copied().unwrap_or_default();
            sums.push((sum + value, square + value * value));
        }
        let zeros = values.iter().filter(|value| **value == 0.0).count();
        Self { values, sums, zeros }
    }

    /// The squared error of all values under a range: of rounding inside, of clipping outside.
    #[expect(clippy::cast_precision_loss, reason = "counts of values")]
    fn error(&self, low: f32, high: f32) -> f64 {
        let range = Range::new(low, high);
        let (low, high) = (f64::from(range.value(-128)), f64::from(range.value(127)));
        let below = self.values.partition_point(|value| f64::from(*value) < low);
        let above = self.values.partition_point(|value| f64::from(*value) <= high);
        let beyond = |from: usize, to: usize, bound: f64| {
            let ((a, b), (c, d)) = (self.sums[from], self.sums[to]);
            (d - b) - 2.0 * bound * (c - a) + bound * bound * (to - from) as f64
        };
        let outside = beyond(0, below, low) + beyond(above, self.values.len(), high);
        let inside = (above - below).saturating_sub(self.zeros) as f64;
        outside + inside * f64::from(range.scale).powi(2) / 12.0
    }
}

/// The range with the least squared error: both ends are narrowed in turn.
fn least_error(seen: &[&Observed], low: f32, high: f32) -> Range {
    let tails = Tails::new(seen);
    let share = |step: usize| {
        #[expect(clippy::cast_precision_loss, reason = "few steps")]
        let part = step as f32 / STEPS as f32;
        1.0 - part * (1.0 - NARROWEST)
    };
    let (mut best_low, mut best_high) = (low, high);
    let mut least = tails.error(low, high);
    for _ in 0..2 {
        for step in 0..=STEPS {
            let (low, high) = (low * share(step), high * share(step));
            for (low, high) in [(low, high), (low, best_high), (best_low, high)] {
                let error = tails.error(low, high);
                if error < least {
                    (least, best_low, best_high) = (error, low, high);
                }
            }
        }
    }
    Range::new(best_low, best_high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_has_a_code_and_ends_are_reached() {
        let check = |low: f32, high: f32, zero: i32| {
            let range = Range::new(low, high);
            assert_eq!((range.zero, range.code(0.0)), (zero, i8::try_from(zero).unwrap()));
            assert!((range.value(127) - high.max(0.0)).abs() <= range.scale);
        };
        check(0.0, 6.0, -128);
        check(-1.0, 1.0, -1);
        check(2.0, 4.0, -128);
        check(-3.0, -1.0, 127);
        assert_eq!(Range::new(0.0, 0.0), Range::new(0.0, 1.0));
    }

    #[test]
    fn an_outlier_is_clipped_and_an_even_spread_is_not() {
        let mut values: Vec<f32> = (0..4000).map(|i| i as f32 / 4000.0).collect();
        let even = Observed { min: 0.0, max: values[3999], values: values.clone(), mean: Vec::new() };
        let range = of_seen(&[&even], RangeChoice::MeanSquaredError);
        assert!(range.value(127) > 0.99);
        values.push(10.0);
        let odd = Observed { min: 0.0, max: 2.0, values, mean: Vec::new() };
        let clipped = of_seen(&[&odd], RangeChoice::Percentile(1.0));
        assert!(clipped.value(127) < 1.01, "{clipped:?}");
    }
}
