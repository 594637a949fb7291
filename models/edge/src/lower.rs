//! From the source's nodes to the graph that is compiled: shapes are inferred, the layout is decided once and for all
//! (channels last), and constants are computed. Must not know quantisation or files.

mod constant;
mod convolution;
mod dense;
mod elementwise;
mod quantised;
mod shaping;
pub(crate) mod view;

use std::collections::HashMap;

use crate::{
    error::{EdgeError, Result},
    graph::{Axis, Graph, Op, Port, Tensor, TensorId},
    onnx::{Constant, Node, Source},
};

/// What compiles; for messages.
const COVERED: &str = "Conv, Gemm, MatMul, BatchNormalization, Relu, Clip, Sigmoid, Tanh, HardSwish, LeakyRelu, Softmax, \
                       Add, Sub, Mul, Div, MaxPool, AveragePool, GlobalAveragePool, GlobalMaxPool, ReduceMean, Pad, Concat, \
                       Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Identity, Dropout, QuantizeLinear, DequantizeLinear";

/// A computed value as the source sees it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    tensor: TensorId,
    shape: Vec<usize>,
    axes: Vec<Axis>,
}

/// What a name of the source stands for.
#[derive(Debug, Clone)]
enum Value {
    /// Known.
    Constant(Constant),
    /// Computed.
    Computed(View),
}

/// The graph as far as it is built.
pub(crate) struct Lowering<'a> {
    source: &'a Source,
    graph: Graph,
    values: HashMap<String, Value>,
}

/// Builds the graph of a source.
///
/// # Errors
/// [`EdgeError::Unsupported`] names the node, the operator, the reason and the way round.
pub fn lower(source: &Source) -> Result<Graph> {
    let mut lowering = Lowering { source, graph: Graph::default(), values: HashMap::new() };
    lowering.graph.name.clone_from(&source.name);
    for (name, constant) in &source.constants {
        lowering.values.insert(name.clone(), Value::Constant(constant.clone()));
    }
    for input in &source.inputs {
        let axes = lowering.input_axes(&input.name, &input.shape);
        let shape = axes.iter().map(|axis| axis.len).collect();
        let tensor = lowering.graph.add(Tensor { name: input.name.clone(), shape, ..Tensor::default() });
        let (name, source_shape) = (input.name.clone(), input.shape.clone());
        lowering.graph.inputs.push(Port { name, source_shape, tensor, axes: axes.clone() });
        let view = View { tensor, shape: input.shape.clone(), axes };
        lowering.values.insert(input.name.clone(), Value::Computed(view));
    }
    for node in &source.nodes {
        lowering.node(node)?;
    }
    for name in &source.outputs {
        lowering.output(name)?;
    }
    Ok(lowering.graph)
}

/// A refusal that teaches.
pub(crate) fn refuse(node: &Node, reason: impl Into<String>, way_round: impl Into<String>) -> EdgeError {
    let (name, operator) = (node.name.clone(), node.operator.clone());
    EdgeError::Unsupported { node: name, operator, reason: reason.into(), way_round: way_round.into() }
}

impl Lowering<'_> {
    fn node(&mut self, node: &Node) -> Result<()> {
        if self.all_constant(node) {
            return self.constant_node(node);
        }
        match node.operator.as_str() {
            "Conv" => self.convolution(node),
            "MaxPool" | "AveragePool" => self.pool(node),
            "GlobalAveragePool" | "GlobalMaxPool" => self.global_pool(node),
            "Gemm" | "MatMul" => self.dense(node),
            "BatchNormalization" => self.batch_normalization(node),
            "Relu" | "Clip" => self.clamp(node),
            "Sigmoid" => self.unary(node, Op::Logistic),
            "Tanh" => self.unary(node, Op::Tanh),
            "HardSwish" => self.unary(node, Op::HardSwish),
            "LeakyRelu" => self.unary(node, Op::LeakyRelu(node.attributes.float("alpha", 0.01))),
            "Add" | "Sub" | "Mul" | "Div" | "Sum" => self.binary(node),
            "Softmax" => self.softmax(node),
            "ReduceMean" => self.mean(node),
            "Pad" => self.pad(node),
            "Concat" => self.concat(node),
            "Transpose" => self.transpose(node),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => self.reshape(node),
            "Identity" | "Dropout" | "Cast" => self.pass_through(node),
            "Shape" => self.shape_of(node),
            "QuantizeLinear" | "DequantizeLinear" => self.quantised(node),
            "Constant" => self.constant_node(node),
            _ => Err(refuse(
                node,
                "the operator is not covered",
                format!(
                    "replace it by covered ones ({COVERED}), or leave that part to the caller on the device"
                ),
            )),
        }
    }

    /// The computed input of a node.
    fn input(&self, node: &Node, index: usize) -> Result<View> {
        match node.inputs.get(index).and_then(|name| self.values.get(name)) {
            Some(Value::Computed(view)) => Ok(view.clone()),
            Some(Value::Constant(_)) => Err(refuse(
                node,
                format!("expected input {index} to be computed, got a constant"),
                "swap the inputs, or fold the constant before exporting (onnxsim)",
            )),
            None => Err(EdgeError::malformed(
                format!("node '{}' ({})", node.name, node.operator),
                format!("expected an input {index}, got none"),
            )),
        }
    }

    /// A constant input of a node; none if it is left out.
    fn optional(&self, node: &Node, index: usize) -> Result<Option<Constant>> {
        match node.inputs.get(index).filter(|name| !name.is_empty()).map(|name| self.values.get(name)) {
            None => Ok(None),
            Some(Some(Value::Constant(constant))) => Ok(Some(constant.clone())),
            Some(_) => Err(refuse(
                node,
                format!("expected input {index} to be a constant, got a computed value"),
                "export the model for inference, with its weights as initializers",
            )),
        }
    }

    fn required(&self, node: &Node, index: usize) -> Result<Constant> {
        self.optional(node, index)?.ok_or_else(|| {
            let what = format!("node '{}' ({})", node.name, node.operator);
            EdgeError::malformed(what, format!("expected a constant input {index}, got none"))
        })
    }

    /// Adds a node that makes a tensor of a shape.
    fn emit(&mut self, node: &Node, op: Op, inputs: Vec<TensorId>, shape: Vec<usize>) -> TensorId {
        let name = node.outputs.first().cloned().unwrap_or_default();
        let output = self.graph.add(Tensor { name, shape, ..Tensor::default() });
        self.graph.nodes.push(crate::graph::Node { name: node.name.clone(), op, inputs, output });
        output
    }

    /// Binds the node's first output.
    fn bind(&mut self, node: &Node, view: View) -> Result<()> {
        crate::onnx_elements(&view.shape, &format!("output of node '{}'", node.name))?;
        if let Some(name) = node.outputs.first() {
            self.values.insert(name.clone(), Value::Computed(view));
        }
        Ok(())
    }

    /// A tensor that holds the view in the order of `target`: the same one where memory is the same.
    fn materialise(&mut self, node: &Node, view: &View, target: &[Axis]) -> Result<TensorId> {
        let shape: Vec<usize> = target.iter().map(|axis| axis.len).collect();
        if view::same_memory(&view.axes, target) {
            return Ok(self.reshaped(node, view.tensor, shape));
        }
        let cannot = || {
            refuse(
                node,
                format!(
                    "the order of its input (source shape {:?}) cannot be told from its axes",
                    view.shape
                ),
                "put the Reshape before it where no axes are merged",
            )
        };
        let from = view::refined(&view.axes, target).ok_or_else(cannot)?;
        let to = view::refined(target, &view.axes).ok_or_else(cannot)?;
        let place = |axis: &Axis| from.iter().position(|other| other == axis);
        let permutation: Vec<usize> = to.iter().map(place).collect::<Option<_>>().ok_or_else(cannot)?;
        let cut = self.reshaped(node, view.tensor, from.iter().map(|axis| axis.len).collect());
        let values = permutation.iter().map(|axis| i32::try_from(*axis).expect("few axes")).collect();
        let input = self.graph.integers("permutation", vec![permutation.len()], values);
        let turned =
            self.emit(node, Op::Transpose, vec![cut, input], to.iter().map(|axis| axis.len).collect());
        Ok(self.reshaped(node, turned, shape))
    }

    /// The same memory under another shape.
    fn reshaped(&mut self, node: &Node, tensor: TensorId, shape: Vec<usize>) -> TensorId {
        if self.graph.tensors[tensor].shape == shape {
            return tensor;
        }
        let values = shape.iter().map(|len| i32::try_from(*len).expect("below the limit")).collect();
        let input = self.graph.integers("shape", vec![shape.len()], values);
        self.emit(node, Op::Reshape, vec![tensor, input], shape)
    }

    /// How an input is stored: channels last if the first operator that cares is an image operator.
    fn input_axes(&self, name: &str, shape: &[usize]) -> Vec<Axis> {
        let mut name = name;
        // where each of the first axes of the operator lies in the input's axes
        let mut order: Vec<usize> = (0..shape.len()).collect();
        for node in &self.source.nodes {
            if !node.inputs.iter().any(|input| input == name) {
                continue;
            }
            match node.operator.as_str() {
                "Transpose" => {
                    let permutation = node.attributes.lengths("perm").unwrap_or_default();
                    if permutation.len() != order.len() || permutation.iter().any(|axis| *axis >= order.len())
                    {
                        break;
                    }
                    order = permutation.iter().map(|axis| order[*axis]).collect();
                }
                "Conv" | "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" => {
                    let place = |axis: usize| Some(order[axis]);
                    match order.len() {
                        4 => return view::ordered(shape, &[place(0), place(2), place(3), place(1)]),
                        3 => return view::ordered(shape, &[place(0), None, place(2), place(1)]),
                        _ => break,
                    }
                }
                "BatchNormalization" | "Relu" | "Clip" | "Sigmoid" | "Tanh" | "HardSwish" | "LeakyRelu"
                | "Add" | "Sub" | "Mul" | "Div" | "Pad" | "Concat" | "Identity" | "Dropout"
                | "QuantizeLinear" | "DequantizeLinear" => {}
                _ => break,
            }
            match node.outputs.first() {
                Some(output) => name = output,
                None => break,
            }
        }
        view::row_major(shape)
    }

    fn output(&mut self, name: &str) -> Result<()> {
        let Some(Value::Computed(view)) = self.values.get(name).cloned() else {
            return Err(EdgeError::Unsupported {
                node: name.into(),
                operator: "output".into(),
                reason: "expected a computed value, got a constant".into(),
                way_round: "leave it out of the graph's outputs".into(),
            });
        };
        let node = Node {
            name: name.into(),
            operator: "output".into(),
            inputs: Vec::new(),
            outputs: vec![name.into()],
            attributes: crate::onnx::Attributes::default(),
        };
        // it comes out as it is stored: the port says in which order, and costs nothing on the device
        let axes = view.axes.clone();
        let tensor = self.reshaped(&node, view.tensor, axes.iter().map(|axis| axis.len).collect());
        name.clone_into(&mut self.graph.tensors[tensor].name);
        self.graph.outputs.push(Port { name: name.into(), source_shape: view.shape, tensor, axes });
        Ok(())
    }
}
