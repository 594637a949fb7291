//! Two answers to one request, compared output by output. Pure. Must not know who gave them.

use gannet_models::{DType, Redaction, Signature, redaction::Side};

use super::Tolerances;
use crate::{Tensor, request::Tensors, tensor::values};

/// Relative difference that counts as none where the route does not say otherwise; values below one are compared as
/// if they were one.
const TOLERANCE: f64 = 1e-3;
/// How many of the best are compared.
const BEST: usize = 5;
/// Values shown of each answer.
const SHOWN: usize = 4;

/// Answers to one request, with the signatures that name their outputs.
pub(super) struct Pair<'a> {
    pub(super) primary: (&'a Signature, &'a Tensors),
    pub(super) shadow: (&'a Signature, &'a Tensors),
    pub(super) rows: usize,
    /// Of the primary's model: what is not to be shown of values.
    pub(super) redaction: &'a Redaction,
}

/// How two answers differ, over all outputs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Difference {
    /// The largest difference of two values, in tolerances; more than 1 is a disagreement.
    pub(super) largest: f64,
    /// Where it is, with the values around it.
    pub(super) place: String,
    /// By row of outputs with several columns: whether the best one is the same.
    pub(super) best_same: Vec<bool>,
    /// Share of the five best that both have.
    pub(super) best_shared: Vec<f64>,
    /// Rank correlation of the columns.
    pub(super) ranks: Vec<f64>,
    /// The score of each row: its largest value, of either.
    pub(super) scores: Vec<(f64, f64)>,
}

pub(super) fn compare(pair: &Pair<'_>, tolerances: &Tolerances) -> Difference {
    let mut difference = Difference::default();
    let (signature, outputs) = pair.primary;
    for (spec, tensor) in signature.outputs.iter().zip(outputs) {
        let other = pair.shadow.0.output(&spec.name).and_then(|index| pair.shadow.1.get(index));
        let tolerance = tolerances.get(&spec.name).copied().unwrap_or(TOLERANCE);
        match other {
            None => difference.worst(f64::INFINITY, || format!("output '{}' is missing", spec.name)),
            Some(other) => {
                let before = difference.largest;
                output(&spec.name, (tensor, other), (pair.rows, tolerance), &mut difference);
                let hidden = pair.redaction.method(Side::Output, &spec.name).is_some();
                if hidden && difference.largest > before {
                    difference.place = format!("output '{}' differs; its values are redacted", spec.name);
                }
            }
        }
    }
    difference
}

impl Difference {
    fn worst(&mut self, size: f64, place: impl FnOnce() -> String) {
        if size > self.largest {
            self.largest = size;
            self.place = place();
        }
    }
}

fn output(
    name: &str,
    (first, second): (&Tensor, &Tensor),
    (rows, tolerance): (usize, f64),
    difference: &mut Difference,
) {
    if first.shape != second.shape || first.dtype != second.dtype {
        let text = |tensor: &Tensor| format!("{} {:?}", tensor.dtype, tensor.shape);
        difference
            .worst(f64::INFINITY, || format!("output '{name}' is {}, was {}", text(second), text(first)));
        return;
    }
    let (Some(a), Some(b)) = (values(first), values(second)) else {
        if first.data != second.data {
            difference.worst(f64::INFINITY, || format!("output '{name}' has other texts or flags"));
        }
        return;
    };
    for (index, (x, y)) in a.iter().zip(&b).enumerate() {
        let same = x == y || (x.is_nan() && y.is_nan());
        let size = if same { 0.0 } else { (x - y).abs() / (tolerance * x.abs().max(1.0)) };
        let size = if size.is_nan() { f64::INFINITY } else { size };
        difference.worst(size, || {
            let from = index.saturating_sub(SHOWN / 2);
            let shown = |values: &[f64]| {
                let texts = values[from..].iter().take(SHOWN).map(|value| digits(first.dtype, *value));
                texts.collect::<Vec<_>>().join(", ")
            };
            let (x, y) = (digits(first.dtype, *x), digits(first.dtype, *y));
            format!(
                "output '{name}' at {index}: {y}, was {x} (from {from} on: {}; were: {})",
                shown(&b),
                shown(&a)
            )
        });
    }
    let is_float = first.dtype.is_float();
    let width = a.len() / rows.max(1);
    if !is_float || width == 0 || width * rows != a.len() {
        return;
    }
    for (a, b) in a.chunks(width).zip(b.chunks(width)) {
        row(a, b, difference);
    }
}

/// A value with the digits that its type has.
fn digits(dtype: DType, value: f64) -> String {
    match dtype {
        DType::Fp32 | DType::Fp16 | DType::Bf16 => (value as f32).to_string(),
        _ => value.to_string(),
    }
}

fn row(a: &[f64], b: &[f64], difference: &mut Difference) {
    let largest = |row: &[f64]| row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    difference.scores.push((largest(a), largest(b)));
    if a.len() < 2 {
        return;
    }
    let (first, second) = (order(a), order(b));
    difference.best_same.push(first[0] == second[0]);
    if a.len() > BEST {
        let shared = first[..BEST].iter().filter(|index| second[..BEST].contains(index)).count();
        difference.best_shared.push(shared as f64 / BEST as f64);
    }
    difference.ranks.extend(spearman(a, b));
}

/// Indices, the largest value first.
fn order(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[j].total_cmp(&values[i]).then(i.cmp(&j)));
    order
}

/// Ranks, those of equal values averaged.
fn ranks(values: &[f64]) -> Vec<f64> {
    let order = order(values);
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let same =
            order[from..].iter().take_while(|&&index| values[index] == values[order[from]]).count().max(1);
        let rank = from as f64 + (same as f64 - 1.0) / 2.0;
        order[from..from + same].iter().for_each(|&index| ranks[index] = rank);
        from += same;
    }
    ranks
}

/// Spearman's rank correlation; `None` where all values of either are the same.
fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    let scale = (product(&a, &a) * product(&b, &b)).sqrt();
    (scale > 0.0).then(|| product(&a, &b) / scale)
}
