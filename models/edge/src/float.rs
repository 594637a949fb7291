//! Computes a graph in floats: for calibration, and as the reference for what quantisation costs. Must not know scales.

use crate::{
    error::{EdgeError, Result},
    graph::{Activation, Graph, Node, Op, Pool, TensorId},
    kernels::{self, Image},
};

/// A graph that is ready to compute one row at a time.
#[derive(Debug)]
pub struct FloatExecutor<'a> {
    graph: &'a Graph,
    /// Weights in the order of the loops, by node.
    packed: Vec<Vec<f32>>,
}

/// Every computed value of one row, by tensor; empty for constants.
pub type Values = Vec<Vec<f32>>;

impl<'a> FloatExecutor<'a> {
    /// Prepares a graph.
    #[must_use]
    pub fn new(graph: &'a Graph) -> Self {
        let pack = |node: &Node| {
            let weights = |outputs: usize| {
                let filter = graph.tensors[node.inputs[1]].floats().unwrap_or_default();
                kernels::pack(filter, outputs)
            };
            match node.op {
                Op::Conv2d(_) | Op::FullyConnected(_) => weights(graph.tensors[node.inputs[1]].shape[0]),
                _ => Vec::new(),
            }
        };
        Self { graph, packed: graph.nodes.iter().map(pack).collect() }
    }

    /// Computes one row; the inputs are in the order of the graph's ports, stored as their tensors are.
    ///
    /// # Errors
    /// [`EdgeError::Data`] when an input has another size; [`EdgeError::Unsupported`] when a node cannot be computed.
    pub fn run(&self, inputs: &[&[f32]]) -> Result<Values> {
        let mut values: Values = vec![Vec::new(); self.graph.tensors.len()];
        for (port, input) in self.graph.inputs.iter().zip(inputs) {
            let expected = self.graph.tensors[port.tensor].len();
            if input.len() != expected {
                return Err(EdgeError::Data {
                    what: format!("input '{}'", port.name),
                    fault: format!("expected {expected} values, got {}", input.len()),
                    way_round: "give samples of the model's input shape".into(),
                });
            }
            values[port.tensor] = input.to_vec();
        }
        for (index, node) in self.graph.nodes.iter().enumerate() {
            let out = self.node(index, node, &values).ok_or_else(|| EdgeError::Unsupported {
                node: node.name.clone(),
                operator: node.op.name(),
                reason: "its shapes do not fit together".into(),
                way_round: "this is a fault of the compiler: report it with the model".into(),
            })?;
            values[node.output] = out;
        }
        Ok(values)
    }

    fn node(&self, index: usize, node: &Node, values: &Values) -> Option<Vec<f32>> {
        let tensor = |place: usize| &self.graph.tensors[node.inputs[place]];
        let value = |place: usize| -> &[f32] { self.value(node.inputs[place], values) };
        let out_shape = &self.graph.tensors[node.output].shape;
        let mut out = match &node.op {
            Op::Conv2d(w) | Op::DepthwiseConv2d(w, _) => {
                let filter = &tensor(1).shape;
                let size = [filter[1], filter[2]];
                let image = Image::new(&tensor(0).shape, out_shape, size, w.stride, w.dilation, w.padding)?;
                match node.op {
                    Op::DepthwiseConv2d(_, multiplier) => {
                        kernels::convolve_depthwise(&image, multiplier, value(0), value(1), value(2))
                    }
                    _ => kernels::convolve(&image, value(0), &self.packed[index], value(2)),
                }
            }
            Op::FullyConnected(_) => kernels::multiply(value(0), &self.packed[index], value(2)),
            Op::MaxPool2d(p) => pool(p, &tensor(0).shape, out_shape, value(0), true)?,
            Op::AveragePool2d(p) => pool(p, &tensor(0).shape, out_shape, value(0), false)?,
            Op::Add(_) | Op::Sub(_) | Op::Mul(_) => {
                let (a, b) = (value(0), value(1));
                let left = kernels::broadcast(out_shape, &tensor(0).shape)?;
                let right = kernels::broadcast(out_shape, &tensor(1).shape)?;
                let compute = |(l, r): (&usize, &usize)| match node.op {
                    Op::Add(_) => a[*l] + b[*r],
                    Op::Sub(_) => a[*l] - b[*r],
                    _ => a[*l] * b[*r],
                };
                left.iter().zip(&right).map(compute).collect()
            }
            Op::Clamp(_) | Op::Reshape | Op::Quantize | Op::Dequantize => value(0).to_vec(),
            Op::Logistic => value(0).iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            Op::Tanh => value(0).iter().map(|x| x.tanh()).collect(),
            Op::HardSwish => value(0).iter().map(|x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0).collect(),
            Op::LeakyRelu(alpha) => value(0).iter().map(|x| if *x > 0.0 { *x } else { x * alpha }).collect(),
            Op::Softmax(beta) => softmax(value(0), *out_shape.last()?, *beta),
            Op::Pad => {
                let (_, places) = kernels::padded(&tensor(0).shape, tensor(1).ints()?)?;
                places.iter().map(|place| place.map_or(0.0, |place| value(0)[place])).collect()
            }
            Op::Transpose => {
                let permutation: Option<Vec<usize>> =
                    tensor(1).ints()?.iter().map(|axis| usize::try_from(*axis).ok()).collect();
                kernels::transposed(&tensor(0).shape, &permutation?)?
                    .iter()
                    .map(|place| value(0)[*place])
                    .collect()
            }
            Op::Concat(axis) => {
                let parts: Vec<(&[usize], &[f32])> = (0..node.inputs.len())
                    .map(|place| (tensor(place).shape.as_slice(), value(place)))
                    .collect();
                kernels::joined(&parts, *axis)?
            }
            Op::Mean { .. } => {
                let axes: Option<Vec<usize>> =
                    tensor(1).ints()?.iter().map(|axis| usize::try_from(*axis).ok()).collect();
                mean(value(0), &tensor(0).shape, &axes?)
            }
            Op::Other(_) => return None,
        };
        clamp(&mut out, node.op.activation());
        (out.len() == self.graph.tensors[node.output].len()).then_some(out)
    }

    fn value<'v>(&'v self, tensor: TensorId, values: &'v Values) -> &'v [f32] {
        self.graph.tensors[tensor].floats().unwrap_or(&values[tensor])
    }
}

fn clamp(values: &mut [f32], activation: Activation) {
    if activation != Activation::None {
        let (low, high) = activation.bounds();
        values.iter_mut().for_each(|value| *value = value.clamp(low, high));
    }
}

fn pool(pool: &Pool, input: &[usize], output: &[usize], x: &[f32], largest: bool) -> Option<Vec<f32>> {
    let image = Image::new(input, output, pool.filter, pool.stride, [1, 1], pool.padding)?;
    let channels = image.input[2];
    let mut out = vec![0.0; output.iter().product()];
    image.walk(|pixel, places| {
        for (channel, slot) in out[pixel * channels..(pixel + 1) * channels].iter_mut().enumerate() {
            let values = places.iter().map(|(_, at)| x[at * channels + channel]);
            #[expect(clippy::cast_precision_loss, reason = "windows are small")]
            let count = places.len().max(1) as f32;
            *slot = if largest { values.fold(f32::MIN, f32::max) } else { values.sum::<f32>() / count };
        }
    });
    Some(out)
}

fn softmax(x: &[f32], depth: usize, beta: f32) -> Vec<f32> {
    let row = |row: &[f32]| {
        let top = row.iter().copied().fold(f32::MIN, f32::max);
        let powers: Vec<f32> = row.iter().map(|value| ((value - top) * beta).exp()).collect();
        let sum: f32 = powers.iter().sum();
        powers.into_iter().map(move |power| power / sum)
    };
    x.chunks_exact(depth.max(1)).flat_map(row).collect()
}

fn mean(x: &[f32], shape: &[usize], axes: &[usize]) -> Vec<f32> {
    let (places, count) = kernels::reduced(shape, axes);
    let mut sums = vec![0.0; x.len() / count.max(1)];
    places.iter().zip(x).for_each(|(place, value)| sums[*place] += value);
    #[expect(clippy::cast_precision_loss, reason = "axes are short")]
    sums.iter_mut().for_each(|sum| *sum /= count as f32);
    sums
}
