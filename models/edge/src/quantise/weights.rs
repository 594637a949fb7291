//! The weights of one product as codes, with their scales and the bias. Must not know the model they go into.

use super::Range;
use crate::{
    calibrate::Calibration,
    error::{EdgeError, Result},
    graph::{Fixed, Graph, Node, Op},
    integer::fixed::Multiplier,
};

/// The largest code of a weight: symmetric, as kernels expect.
const CODE_MAX: f32 = 127.0;
/// A bias stays below this, so that sums do not overflow.
const BIAS_MAX: f64 = 1_073_741_824.0;
/// Steps by which a scale is narrowed while the best is looked for.
const STEPS: usize = 40;

/// One product with weights, in rows: one for each output channel.
pub(super) struct Layer {
    /// Row after row.
    rows: Vec<f32>,
    /// Values of a row.
    inner: usize,
    bias: Vec<f32>,
    /// The mean of what each weight of a row is multiplied with; by row, or the same for all.
    means: Vec<f32>,
    depthwise: bool,
    fixed: Option<Fixed>,
}

/// What is chosen for a layer.
pub(super) struct Choice {
    pub(super) per_channel: bool,
    pub(super) bias_correction: bool,
    pub(super) input: Range,
    pub(super) output: Range,
}

/// Codes in the order of the tensor.
pub(super) struct Codes {
    pub(super) codes: Vec<i8>,
    pub(super) scales: Vec<f32>,
    pub(super) bias: Vec<i32>,
}

impl Layer {
    pub(super) fn new(graph: &Graph, node: &Node, calibration: &Calibration) -> Result<Self> {
        let missing = || EdgeError::Unsupported {
            node: node.name.clone(),
            operator: node.op.name(),
            reason: "its weights are not known".into(),
            way_round: "export the model with its weights as initializers".into(),
        };
        let filter = &graph.tensors[node.inputs[1]];
        let values = filter.floats().ok_or_else(missing)?;
        let bias = graph.tensors[node.inputs[2]].floats().ok_or_else(missing)?.to_vec();
        let depthwise = matches!(node.op, Op::DepthwiseConv2d(..));
        let inner = values.len() / bias.len().max(1);
        let rows = if depthwise {
            (0..bias.len())
                .flat_map(|channel| {
                    (0..inner).map(move |place| values[place * (values.len() / inner) + channel])
                })
                .collect()
        } else {
            values.to_vec()
        };
        let seen =
            calibration.observed[node.inputs[0]].as_ref().map(|seen| seen.mean.clone()).unwrap_or_default();
        let shape = &graph.tensors[node.inputs[0]].shape;
        let means = match &node.op {
            Op::FullyConnected(_) => folded(&seen, inner),
            op => {
                // by channel: borders are few
                let channels = folded(&seen, shape.last().copied().unwrap_or(1));
                match op {
                    Op::DepthwiseConv2d(_, times) => {
                        channels.iter().flat_map(|mean| std::iter::repeat_n(*mean, *times)).collect()
                    }
                    _ => (0..inner).map(|place| channels[place % channels.len().max(1)]).collect(),
                }
            }
        };
        Ok(Self { rows, inner, bias, means, depthwise, fixed: filter.fixed.clone() })
    }

    fn channels(&self) -> usize {
        self.bias.len()
    }

    fn row(&self, channel: usize) -> &[f32] {
        &self.rows[channel * self.inner..(channel + 1) * self.inner]
    }

    /// The mean of what a weight is multiplied with.
    fn mean(&self, channel: usize, place: usize) -> f32 {
        let at = if self.depthwise { channel } else { place };
        self.means.get(at).copied().unwrap_or(0.0)
    }

    pub(super) fn quantise(&self, choice: &Choice) -> Codes {
        let scales = self.scales(choice);
        let channels = self.channels();
        let mut rows = vec![0i8; self.rows.len()];
        let mut bias = Vec::with_capacity(channels);
        for channel in 0..channels {
            let scale = scales[channel % scales.len()];
            let codes = &mut rows[channel * self.inner..(channel + 1) * self.inner];
            for (code, value) in codes.iter_mut().zip(self.row(channel)) {
                *code = nearest(*value, scale);
            }
            let mut offset = f64::from(self.bias[channel]);
            if choice.bias_correction && self.fixed.is_none() {
                offset += self.mean_error(channel, scale, codes);
            }
            let unit = f64::from(scale * choice.input.scale);
            #[expect(clippy::cast_possible_truncation, reason = "clamped")]
            bias.push((offset / unit).round().clamp(-BIAS_MAX, BIAS_MAX) as i32);
        }
        let codes = if self.depthwise {
            (0..rows.len()).map(|place| rows[place % channels * self.inner + place / channels]).collect()
        } else {
            rows
        };
        Codes { codes, scales, bias }
    }

    /// What rounding takes away on average.
    fn mean_error(&self, channel: usize, scale: f32, codes: &[i8]) -> f64 {
        let lost = |(place, (value, code)): (usize, (&f32, &i8))| {
            (f64::from(*value) - f64::from(*code) * f64::from(scale)) * f64::from(self.mean(channel, place))
        };
        self.row(channel).iter().zip(codes).enumerate().map(lost).sum()
    }

    fn scales(&self, choice: &Choice) -> Vec<f32> {
        if let Some(fixed) = &self.fixed
            && (fixed.scales.len() == 1 || (fixed.scales.len() == self.channels() && choice.per_channel))
        {
            return fixed.scales.clone();
        }
        // a channel whose bias would not fit gets a coarser scale
        let least =
            |bias: f32| (f64::from(bias.abs()) / (BIAS_MAX * f64::from(choice.input.scale))).max(1e-12);
        #[expect(clippy::cast_possible_truncation, reason = "scales are floats")]
        let least = |bias: f32| least(bias) as f32;
        // a row of zeros computes its bias alone, in fine steps
        let empty = choice.output.scale / (128.0 * choice.input.scale);
        if choice.per_channel {
            let of = |channel: usize| {
                best_scale(self.row(channel)).unwrap_or(empty).max(least(self.bias[channel]))
            };
            return (0..self.channels()).map(of).collect();
        }
        let bias = self.bias.iter().copied().map(least).fold(0.0, f32::max);
        vec![agreed(best_scale(&self.rows).unwrap_or(empty).max(bias), choice)]
    }
}

/// Scales that are tried for one on which all releases agree: one in about sixty is.
const AGREED_TRIES: u32 = 4000;

/// The next scale with which the kernels of all TFLite-micro releases compute the same: until 2026 they multiplied the
/// scales of a whole layer as floats, since then as doubles, and golden vectors shall hold for both.
fn agreed(scale: f32, choice: &Choice) -> f32 {
    let (input, output) = (choice.input.scale, f64::from(choice.output.scale));
    let same = |scale: &f32| {
        let (before, since) = (f64::from(input * scale), f64::from(input) * f64::from(*scale));
        Multiplier::new(before / output) == Multiplier::new(since / output)
    };
    let bits = scale.to_bits();
    (0..AGREED_TRIES).map(|step| f32::from_bits(bits + step)).find(same).unwrap_or(scale)
}

/// Means folded onto so many places.
fn folded(means: &[f32], places: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; places.max(1)];
    for (index, mean) in means.iter().enumerate() {
        sums[index % places.max(1)] += f64::from(*mean);
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of elements")]
    let count = (means.len() as f64 / places.max(1) as f64).max(1.0);
    #[expect(clippy::cast_possible_truncation, reason = "means of floats")]
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

fn nearest(value: f32, scale: f32) -> i8 {
    #[expect(clippy::cast_possible_truncation, reason = "clamped")]
    let code = (value / scale).round().clamp(-CODE_MAX, CODE_MAX) as i8;
    code
}

/// The scale with the least squared error; none for zeros alone.
fn best_scale(values: &[f32]) -> Option<f32> {
    let top = values.iter().fold(0.0f32, |top, value| top.max(value.abs()));
    if top == 0.0 || !top.is_finite() {
        return None;
    }
    let error = |scale: f32| -> f64 {
        let inverse = 1.0 / scale;
        let each = |value: &f32| {
            let code = (value * inverse).round().clamp(-CODE_MAX, CODE_MAX);
            f64::from((code * scale - value).powi(2))
        };
        values.iter().map(each).sum()
    };
    let candidate = |step: usize| {
        #[expect(clippy::cast_precision_loss, reason = "few steps")]
        let share = 1.0 - 0.5 * step as f32 / STEPS as f32;
        top / CODE_MAX * share
    };
    let all = (0..STEPS).map(candidate).map(|scale| (error(scale), scale));
    all.min_by(|a, b| a.0.total_cmp(&b.0)).map(|best| best.1)
}
