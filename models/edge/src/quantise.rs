//! From a float graph and what was seen of it to an int8 model. Must not know files, ONNX or TFLite's bytes.
//!
//! Weights are symmetric, one scale for each output channel; computed values have one scale and a zero point, shared
//! where the operator keeps it. Ranges are those with the least mean squared error; what rounding the weights shifts on
//! average is put back through the bias (Nagel et al., 2019).

mod equalise;
mod ranges;
mod weights;

use std::collections::HashMap;

use crate::{
    calibrate::Calibration,
    error::{EdgeError, Result},
    graph::{Data, Graph, Node, Op, TensorId},
    lite::{self, Model, Quantisation, Type},
};

pub use self::{equalise::equalise, ranges::Range};

/// How the range of a computed value is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum RangeChoice {
    /// The least mean squared error.
    #[default]
    MeanSquaredError,
    /// Everything that was seen.
    MinMax,
    /// All but this share of the values, in percent of them, half on each side.
    Percentile(f32),
}

/// What may be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantiseOptions {
    /// How ranges are chosen.
    pub range: RangeChoice,
    /// One scale for each output of a fully connected layer. TFLite-micro before January 2025 computes it wrongly.
    pub dense_per_channel: bool,
    /// Whether the mean error of rounded weights is put back through the bias.
    pub bias_correction: bool,
    /// Whether the biases of convolutions carry their scales, which are products of two others: four bytes for each
    /// channel that no TFLite-micro kernel reads.
    pub bias_scales: bool,
    /// Nodes that stay float, by name.
    pub keep_float: Vec<String>,
}

impl Default for QuantiseOptions {
    fn default() -> Self {
        Self {
            range: RangeChoice::default(),
            dense_per_channel: false,
            bias_correction: true,
            bias_scales: false,
            keep_float: Vec::new(),
        }
    }
}

/// An int8 model, and where it holds what the graph computes.
#[derive(Debug, Clone)]
pub struct Quantised {
    /// The model.
    pub model: Model,
    /// The tensor of codes, by tensor of the graph.
    pub codes: Vec<Option<usize>>,
}

/// What is known while the model is built.
struct Builder<'a> {
    graph: &'a Graph,
    calibration: &'a Calibration,
    options: &'a QuantiseOptions,
    ranges: Vec<Option<Range>>,
    model: Model,
    /// The codes of a tensor of the graph.
    codes: HashMap<TensorId, usize>,
    /// The floats of it.
    floats: HashMap<TensorId, usize>,
    /// Other constants, by what they are for.
    constants: HashMap<(TensorId, bool), usize>,
}

/// Quantises a graph whose paddings are chosen.
///
/// # Errors
/// [`EdgeError::Unsupported`] names what has no int8 form, or a node to keep that does not exist.
pub fn quantise(graph: &Graph, calibration: &Calibration, options: &QuantiseOptions) -> Result<Quantised> {
    if let Some(missing) =
        options.keep_float.iter().find(|name| graph.nodes.iter().all(|node| node.name != **name))
    {
        let known: Vec<&str> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(EdgeError::Unsupported {
            node: missing.clone(),
            operator: "--keep-float".into(),
            reason: "no node is called so after optimisation".into(),
            way_round: format!("name one of {}", known.join(", ")),
        });
    }
    let ranges = ranges::choose(graph, calibration, options.range)?;
    let mut builder = Builder {
        graph,
        calibration,
        options,
        ranges,
        model: Model { description: "gannet".into(), ..Model::default() },
        codes: HashMap::new(),
        floats: HashMap::new(),
        constants: HashMap::new(),
    };
    for port in &graph.inputs {
        let id = builder.codes_of(port.tensor)?;
        builder.model.inputs.push(id);
    }
    for node in &graph.nodes {
        if options.keep_float.contains(&node.name) {
            builder.float_node(node)?;
        } else {
            builder.node(node)?;
        }
    }
    for port in &graph.outputs {
        let id = builder.codes_of(port.tensor)?;
        builder.model.outputs.push(id);
    }
    let mut model = builder.model;
    for (port, id) in
        graph.inputs.iter().zip(model.inputs.clone()).chain(graph.outputs.iter().zip(model.outputs.clone()))
    {
        model.tensors[id].name.clone_from(&port.name);
    }
    model.check()?;
    let mut codes = vec![None; graph.tensors.len()];
    builder.codes.into_iter().for_each(|(tensor, id)| codes[tensor] = Some(id));
    Ok(Quantised { model, codes })
}

impl Builder<'_> {
    fn add(
        &mut self,
        shape: Vec<usize>,
        kind: Type,
        quantisation: Option<Quantisation>,
        data: Vec<u8>,
    ) -> usize {
        self.model.tensors.push(lite::Tensor { name: String::new(), shape, kind, quantisation, data });
        self.model.tensors.len() - 1
    }

    fn push(&mut self, name: &str, op: Op, inputs: Vec<usize>, output: usize) {
        let inputs = inputs.into_iter().map(Some).collect();
        self.model.nodes.push(lite::Node { op, inputs, outputs: vec![output], name: name.into() });
    }

    fn range(&self, tensor: TensorId) -> Result<Range> {
        self.ranges[tensor].ok_or_else(|| EdgeError::Data {
            what: format!("tensor '{}'", self.graph.tensors[tensor].name),
            fault: "nothing was seen of it".into(),
            way_round: "calibrate with at least one sample".into(),
        })
    }

    /// The tensor that holds a computed value as codes; made, or quantised from floats, where it does not exist.
    fn codes_of(&mut self, tensor: TensorId) -> Result<usize> {
        if let Some(id) = self.codes.get(&tensor) {
            return Ok(*id);
        }
        let range = self.range(tensor)?;
        let shape = self.graph.tensors[tensor].shape.clone();
        let id = self.add(shape, Type::Int8, Some(range.quantisation()), Vec::new());
        self.codes.insert(tensor, id);
        if let Some(floats) = self.floats.get(&tensor).copied() {
            self.push("quantize", Op::Quantize, vec![floats], id);
        }
        Ok(id)
    }

    /// The tensor that holds a computed value as floats.
    fn floats_of(&mut self, tensor: TensorId) -> usize {
        if let Some(id) = self.floats.get(&tensor) {
            return *id;
        }
        let id = self.add(self.graph.tensors[tensor].shape.clone(), Type::Float32, None, Vec::new());
        self.floats.insert(tensor, id);
        if let Some(codes) = self.codes.get(&tensor).copied() {
            self.push("dequantize", Op::Dequantize, vec![codes], id);
        }
        id
    }

    fn float_constant(&mut self, tensor: TensorId) -> usize {
        if let Some(id) = self.constants.get(&(tensor, true)) {
            return *id;
        }
        let of = &self.graph.tensors[tensor];
        let (kind, data) = match &of.data {
            Data::Int(values) => (Type::Int32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Data::Float(values) => {
                (Type::Float32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            Data::None => (Type::Float32, Vec::new()),
        };
        let id = self.add(of.shape.clone(), kind, None, data);
        self.constants.insert((tensor, true), id);
        id
    }

    fn float_node(&mut self, node: &Node) -> Result<()> {
        let mut inputs = Vec::new();
        for input in &node.inputs {
            let constant = self.graph.tensors[*input].is_constant();
            inputs.push(if constant { self.float_constant(*input) } else { self.floats_of(*input) });
        }
        let output = self.add(self.graph.tensors[node.output].shape.clone(), Type::Float32, None, Vec::new());
        self.floats.insert(node.output, output);
        self.push(&node.name, node.op.clone(), inputs, output);
        Ok(())
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        if node.op.has_weights() {
            return self.product(node);
        }
        let mut inputs = Vec::new();
        for input in &node.inputs {
            let id = match &self.graph.tensors[*input].data {
                Data::None => self.codes_of(*input)?,
                Data::Int(_) => self.float_constant(*input),
                Data::Float(values) => self.elementwise_constant(*input, values),
            };
            inputs.push(id);
        }
        let output = self.codes_of(node.output)?;
        self.push(&node.name, node.op.clone(), inputs, output);
        Ok(())
    }

    /// A constant operand of a sum or a product, with the scale of its own extent.
    fn elementwise_constant(&mut self, tensor: TensorId, values: &[f32]) -> usize {
        if let Some(id) = self.constants.get(&(tensor, false)) {
            return *id;
        }
        let low = values.iter().copied().fold(0.0, f32::min);
        let high = values.iter().copied().fold(0.0, f32::max);
        let range = Range::new(low, high);
        let data = values.iter().map(|value| range.code(*value).cast_unsigned()).collect();
        let id =
            self.add(self.graph.tensors[tensor].shape.clone(), Type::Int8, Some(range.quantisation()), data);
        self.constants.insert((tensor, false), id);
        id
    }

    /// A product with weights.
    fn product(&mut self, node: &Node) -> Result<()> {
        let x = self.codes_of(node.inputs[0])?;
        let (input, output) = (self.range(node.inputs[0])?, self.range(node.output)?);
        let layer = weights::Layer::new(self.graph, node, self.calibration)?;
        let per_channel = !matches!(node.op, Op::FullyConnected(_)) || self.options.dense_per_channel;
        let chosen = layer.quantise(&weights::Choice {
            per_channel,
            bias_correction: self.options.bias_correction,
            input,
            output,
        });
        let filter = &self.graph.tensors[node.inputs[1]];
        let axis = if matches!(node.op, Op::DepthwiseConv2d(..)) { 3 } else { 0 };
        let slices = chosen.scales.len();
        let axis_of = |slices: usize| if slices > 1 { axis } else { 0 };
        let bias_scales: Vec<f32> = chosen.scales.iter().map(|scale| scale * input.scale).collect();
        let of = |scales: Vec<f32>, axis: usize| {
            Some(Quantisation { zero_points: vec![0; scales.len()], scales, axis })
        };
        let codes = chosen.codes.iter().map(|code| code.cast_unsigned()).collect();
        let weights = self.add(filter.shape.clone(), Type::Int8, of(chosen.scales, axis_of(slices)), codes);
        let channels = chosen.bias.len();
        let bias = chosen.bias.iter().flat_map(|value| value.to_le_bytes()).collect();
        // the fully connected kernel checks the scale of its bias
        let with_scales = self.options.bias_scales || matches!(node.op, Op::FullyConnected(_));
        let scales = with_scales.then(|| of(bias_scales, 0)).flatten();
        let bias = self.add(vec![channels], Type::Int32, scales, bias);
        let out = self.codes_of(node.output)?;
        self.push(&node.name, node.op.clone(), vec![x, weights, bias], out);
        Ok(())
    }
}

/// The range of codes that is fixed by an operator, whatever was seen.
pub(crate) fn fixed_range(op: &Op) -> Option<Range> {
    match op {
        Op::Softmax(_) | Op::Logistic => Some(Range { scale: 1.0 / 256.0, zero: -128 }),
        Op::Tanh => Some(Range { scale: 1.0 / 128.0, zero: 0 }),
        _ => None,
    }
}
