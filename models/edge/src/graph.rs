//! The graph that is compiled: float, channels last, one row at a time, with operators as TFLite knows them. Must not
//! know ONNX, bytes or quantisation.

use std::fmt;

/// Which tensor of a graph.
pub type TensorId = usize;

/// A clamp that an operator applies to what it computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Activation {
    /// None.
    #[default]
    None,
    /// At least zero.
    Relu,
    /// Between minus one and one.
    ReluN1To1,
    /// Between zero and six.
    Relu6,
}

impl Activation {
    /// The bounds of the clamp.
    #[must_use]
    pub fn bounds(self) -> (f32, f32) {
        match self {
            Self::None => (f32::NEG_INFINITY, f32::INFINITY),
            Self::Relu => (0.0, f32::INFINITY),
            Self::ReluN1To1 => (-1.0, 1.0),
            Self::Relu6 => (0.0, 6.0),
        }
    }
}

/// What lies beyond the edge of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// TFLite's: as much as gives `ceil(input / stride)` windows, the odd one at the end.
    Same,
    /// Nothing: windows lie inside.
    Valid,
    /// Top, left, bottom, right. Exists only until the padding is chosen.
    Explicit([usize; 4]),
}

/// A window that slides over height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub stride: [usize; 2],
    /// Height and width.
    pub dilation: [usize; 2],
    /// Beyond the edge.
    pub padding: Padding,
    /// Applied to the result.
    pub activation: Activation,
}

/// A pooling window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Height and width.
    pub filter: [usize; 2],
    /// Height and width.
    pub stride: [usize; 2],
    /// Beyond the edge, which no pool counts.
    pub padding: Padding,
    /// Applied to the result.
    pub activation: Activation,
}

/// What a node computes. Inputs are in TFLite's order.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `[n,h,w,i]`, weights `[o,kh,kw,i]`, bias `[o]`.
    Conv2d(Window),
    /// `[n,h,w,c]`, weights `[1,kh,kw,c*multiplier]`, bias.
    DepthwiseConv2d(Window, usize),
    /// Rows, weights `[o,i]`, bias `[o]`.
    FullyConnected(Activation),
    /// The largest of each window.
    MaxPool2d(Pool),
    /// The mean of each window.
    AveragePool2d(Pool),
    /// Elementwise, with broadcasting.
    Add(Activation),
    /// Elementwise, with broadcasting.
    Sub(Activation),
    /// Elementwise, with broadcasting.
    Mul(Activation),
    /// A clamp that could not be fused.
    Clamp(Activation),
    /// `1 / (1 + exp(-x))`.
    Logistic,
    /// Hyperbolic tangent.
    Tanh,
    /// `x * clamp(x + 3, 0, 6) / 6`.
    HardSwish,
    /// `x` or `alpha * x` below zero.
    LeakyRelu(f32),
    /// Over the last axis.
    Softmax(f32),
    /// Zeros around; input 1 is `[rank,2]`.
    Pad,
    /// The same values under another shape, which is that of the output; input 1 repeats it.
    Reshape,
    /// Axes in another order; input 1 is the permutation.
    Transpose,
    /// Along an axis.
    Concat(usize),
    /// Over the axes of input 1.
    Mean {
        /// Whether they stay, with length one.
        keep_dims: bool,
    },
    /// To another scale, or from float.
    Quantize,
    /// To float.
    Dequantize,
    /// Known by its number alone: only in files that were not made here.
    Other(i32),
}

/// The values of a tensor that are known.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Data {
    /// Computed at run time.
    #[default]
    None,
    /// Weights.
    Float(Vec<f32>),
    /// Axes, shapes, paddings.
    Int(Vec<i32>),
}

/// A scale and zero point that the source has already chosen, for int8.
#[derive(Debug, Clone, PartialEq)]
pub struct Fixed {
    /// One, or one for each slice along the axis.
    pub scales: Vec<f32>,
    /// Of all slices.
    pub zero_point: i32,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tensor {
    /// For messages and for inputs and outputs.
    pub name: String,
    /// Axes, outermost first.
    pub shape: Vec<usize>,
    /// Its values, if they are known.
    pub data: Data,
    /// What a quantised source says of it.
    pub fixed: Option<Fixed>,
}

impl Tensor {
    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its values are known.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.data != Data::None
    }

    /// Its weights, if it has any.
    #[must_use]
    pub fn floats(&self) -> Option<&[f32]> {
        match &self.data {
            Data::Float(values) => Some(values),
            _ => None,
        }
    }

    /// Its integers, if it has any.
    #[must_use]
    pub fn ints(&self) -> Option<&[i32]> {
        match &self.data {
            Data::Int(values) => Some(values),
            _ => None,
        }
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The name in the source.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Its inputs.
    pub inputs: Vec<TensorId>,
    /// Its one output.
    pub output: TensorId,
}

/// One axis of a tensor as it is stored: how far one step along it moves in the source's row-major order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Steps.
    pub len: usize,
    /// Elements of the source's order in a step.
    pub stride: usize,
}

/// An input or an output: the source's view of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// The name in the source.
    pub name: String,
    /// The shape in the source.
    pub source_shape: Vec<usize>,
    /// The stored tensor.
    pub tensor: TensorId,
    /// Its axes, in the source's order.
    pub axes: Vec<Axis>,
}

/// A whole graph; nodes stand in the order in which they run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    /// The name in the source.
    pub name: String,
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// What goes in.
    pub inputs: Vec<Port>,
    /// What comes out.
    pub outputs: Vec<Port>,
}

impl Graph {
    /// Adds a tensor.
    pub fn add(&mut self, tensor: Tensor) -> TensorId {
        self.tensors.push(tensor);
        self.tensors.len() - 1
    }

    /// Adds weights.
    pub fn constant(&mut self, name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) -> TensorId {
        self.add(Tensor { name: name.into(), shape, data: Data::Float(values), fixed: None })
    }

    /// Adds integers.
    pub fn integers(&mut self, name: impl Into<String>, shape: Vec<usize>, values: Vec<i32>) -> TensorId {
        self.add(Tensor { name: name.into(), shape, data: Data::Int(values), fixed: None })
    }

    /// Who reads a tensor, by place in the order.
    #[must_use]
    pub fn readers(&self, tensor: TensorId) -> Vec<usize> {
        let reads = |(index, node): (usize, &Node)| node.inputs.contains(&tensor).then_some(index);
        self.nodes.iter().enumerate().filter_map(reads).collect()
    }

    /// Who makes a tensor.
    #[must_use]
    pub fn maker(&self, tensor: TensorId) -> Option<usize> {
        self.nodes.iter().position(|node| node.output == tensor)
    }

    /// Whether a tensor is an output of the graph.
    #[must_use]
    pub fn is_output(&self, tensor: TensorId) -> bool {
        self.outputs.iter().any(|port| port.tensor == tensor)
    }

    /// Whether exactly one node reads a tensor, and nobody outside.
    #[must_use]
    pub fn has_one_reader(&self, tensor: TensorId) -> bool {
        !self.is_output(tensor) && self.readers(tensor).len() == 1
    }

    /// Multiplications and additions of one node, as pairs.
    #[must_use]
    pub fn macs(&self, node: &Node) -> u64 {
        let len = |id: TensorId| self.tensors[id].len() as u64;
        match &node.op {
            Op::Conv2d(_) => {
                let out = self.tensors[node.output].shape.last().copied().unwrap_or(1).max(1) as u64;
                len(node.output) * (len(node.inputs[1]) / out)
            }
            Op::DepthwiseConv2d(..) => {
                let filter = &self.tensors[node.inputs[1]].shape;
                len(node.output) * (filter[1] * filter[2]) as u64
            }
            Op::FullyConnected(_) => {
                let out = self.tensors[node.inputs[1]].shape[0].max(1) as u64;
                len(node.output) / out * len(node.inputs[1])
            }
            _ => 0,
        }
    }
}

impl Op {
    /// TFLite's name of the operator.
    #[must_use]
    pub fn name(&self) -> String {
        crate::lite::schema::operator_name(crate::lite::schema::operator_code(self))
    }

    /// The clamp that is applied to the result.
    #[must_use]
    pub fn activation(&self) -> Activation {
        match self {
            Self::Conv2d(window) | Self::DepthwiseConv2d(window, _) => window.activation,
            Self::MaxPool2d(pool) | Self::AveragePool2d(pool) => pool.activation,
            Self::FullyConnected(activation)
            | Self::Add(activation)
            | Self::Sub(activation)
            | Self::Mul(activation)
            | Self::Clamp(activation) => *activation,
            _ => Activation::None,
        }
    }

    /// Where a clamp can be fused.
    pub(crate) fn activation_mut(&mut self) -> Option<&mut Activation> {
        match self {
            Self::Conv2d(window) | Self::DepthwiseConv2d(window, _) => Some(&mut window.activation),
            Self::MaxPool2d(pool) | Self::AveragePool2d(pool) => Some(&mut pool.activation),
            Self::FullyConnected(activation)
            | Self::Add(activation)
            | Self::Sub(activation)
            | Self::Mul(activation) => Some(activation),
            _ => None,
        }
    }

    /// Whether it has weights that are multiplied.
    #[must_use]
    pub fn has_weights(&self) -> bool {
        matches!(self, Self::Conv2d(_) | Self::DepthwiseConv2d(..) | Self::FullyConnected(_))
    }

    /// Whether the values come out on the scale on which they go in.
    #[must_use]
    pub fn keeps_scale(&self) -> bool {
        matches!(
            self,
            Self::MaxPool2d(_)
                | Self::AveragePool2d(_)
                | Self::Pad
                | Self::Reshape
                | Self::Transpose
                | Self::Concat(_)
                | Self::Clamp(Activation::Relu6)
        )
    }
}

/// How many windows there are along one axis, and how much lies before the first.
#[must_use]
pub fn windows(
    input: usize,
    filter: usize,
    stride: usize,
    dilation: usize,
    padding: Padding,
    axis: usize,
) -> (usize, usize) {
    let span = (filter.max(1) - 1) * dilation + 1;
    let stride = stride.max(1);
    match padding {
        Padding::Same => {
            let count = input.div_ceil(stride);
            let total = ((count.max(1) - 1) * stride + span).saturating_sub(input);
            (count, total / 2)
        }
        Padding::Valid => ((input + 1).saturating_sub(span).div_ceil(stride), 0),
        Padding::Explicit(pads) => {
            let (before, after) = (pads[axis], pads[axis + 2]);
            ((input + before + after + 1).saturating_sub(span).div_ceil(stride), before)
        }
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = |id: TensorId| {
            let dims: Vec<String> = self.tensors[id].shape.iter().map(usize::to_string).collect();
            format!("[{}]", dims.join(","))
        };
        for port in &self.inputs {
            writeln!(
                f,
                "in   %{} '{}' {} (source {:?})",
                port.tensor,
                port.name,
                shape(port.tensor),
                port.source_shape
            )?;
        }
        for node in &self.nodes {
            let inputs: Vec<String> = node.inputs.iter().map(|id| format!("%{id}{}", shape(*id))).collect();
            let (name, out) = (node.op.name(), node.output);
            writeln!(
                f,
                "%{out}{} = {name}({}) {} '{}'",
                shape(out),
                inputs.join(", "),
                details(&node.op),
                node.name
            )?;
        }
        for port in &self.outputs {
            writeln!(
                f,
                "out  %{} '{}' {} (source {:?})",
                port.tensor,
                port.name,
                shape(port.tensor),
                port.source_shape
            )?;
        }
        Ok(())
    }
}

fn details(op: &Op) -> String {
    match op {
        Op::Conv2d(window) => {
            format!("stride {:?} {:?} {:?}", window.stride, window.padding, window.activation)
        }
        Op::DepthwiseConv2d(window, multiplier) => {
            format!("stride {:?} {:?} {:?} x{multiplier}", window.stride, window.padding, window.activation)
        }
        Op::MaxPool2d(pool) | Op::AveragePool2d(pool) => {
            format!("{:?} stride {:?} {:?} {:?}", pool.filter, pool.stride, pool.padding, pool.activation)
        }
        other => format!("{:?}", other.activation()),
    }
}
