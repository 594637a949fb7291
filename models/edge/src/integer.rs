//! Computes an int8 model exactly as TFLite-micro's reference kernels do, bit by bit: what the golden vectors of a
//! bundle are made with. Must not know how scales were chosen.

mod elementwise;
pub(crate) mod fixed;
mod windowed;

use crate::{
    error::{EdgeError, Result},
    float::FloatExecutor,
    graph::{Activation, Data, Graph, Op, Port},
    kernels,
    lite::{Model, Node, Tensor, Type},
};

use self::fixed::Multiplier;

/// Values of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Codes.
    Int8(Vec<i8>),
    /// Floats, around nodes that were kept so.
    Float(Vec<f32>),
}

impl Values {
    fn codes(&self) -> Option<&[i8]> {
        match self {
            Self::Int8(codes) => Some(codes),
            Self::Float(_) => None,
        }
    }

    fn floats(&self) -> Option<&[f32]> {
        match self {
            Self::Float(values) => Some(values),
            Self::Int8(_) => None,
        }
    }
}

/// What is made ready for a node before any row is computed.
#[derive(Debug)]
enum Ready {
    Weights(Box<windowed::Weights>),
    /// One value for each of the 256 codes.
    Table(Box<[i8; 256]>),
    /// A float node, as a graph of its own.
    Float(Box<Graph>),
    Nothing,
}

/// A model that is ready to compute one row at a time.
#[derive(Debug)]
pub struct IntegerExecutor<'a> {
    model: &'a Model,
    ready: Vec<Ready>,
}

/// The range of codes that a clamp leaves, by the output's scale.
pub(crate) fn clamp_range(activation: Activation, output: &Tensor) -> (i32, i32) {
    let (scale, zero) = output.scale();
    #[expect(clippy::cast_possible_truncation, reason = "saturates outside of the codes")]
    let code = |value: f32| zero.saturating_add((value / scale).round() as i32);
    let (low, high) = activation.bounds();
    let from = if low.is_finite() { code(low).max(-128) } else { -128 };
    let to = if high.is_finite() { code(high).min(127) } else { 127 };
    (from, to)
}

impl<'a> IntegerExecutor<'a> {
    /// Prepares a model, which may come from any file.
    ///
    /// # Errors
    /// [`EdgeError::Unsupported`] names the first node that cannot be computed here.
    pub fn new(model: &'a Model) -> Result<Self> {
        let ready = model.nodes.iter().map(|node| {
            prepare(model, node)
                .ok_or_else(|| refuse(node, "its tensors are not those of an int8 or float operator"))
        });
        Ok(Self { model, ready: ready.collect::<Result<_>>()? })
    }

    /// Computes one row of codes (or floats, where the model's own inputs are floats).
    ///
    /// # Errors
    /// [`EdgeError::Data`] when an input has another size or type.
    pub fn run(&self, inputs: &[Values]) -> Result<Vec<Values>> {
        let all = self.run_all(inputs)?;
        let output = |id: &usize| {
            all[*id].clone().ok_or_else(|| EdgeError::malformed("model", "an output is never made"))
        };
        self.model.outputs.iter().map(output).collect()
    }

    /// The same, with every value in between.
    pub(crate) fn run_all(&self, inputs: &[Values]) -> Result<Vec<Option<Values>>> {
        let model = self.model;
        let mut all: Vec<Option<Values>> = vec![None; model.tensors.len()];
        for (id, tensor) in model.tensors.iter().enumerate().filter(|(_, tensor)| !tensor.data.is_empty()) {
            all[id] = match tensor.kind {
                Type::Int8 => Some(Values::Int8(tensor.as_i8())),
                Type::Float32 => Some(Values::Float(tensor.as_f32())),
                _ => None,
            };
        }
        for (place, id) in model.inputs.iter().enumerate() {
            let expected = model.tensors[*id].len();
            let given = inputs.get(place);
            let fits = match given {
                Some(Values::Int8(codes)) => codes.len() == expected && model.tensors[*id].kind == Type::Int8,
                Some(Values::Float(values)) => {
                    values.len() == expected && model.tensors[*id].kind == Type::Float32
                }
                None => false,
            };
            if !fits {
                return Err(EdgeError::Data {
                    what: format!("input {place}"),
                    fault: format!("expected {expected} values of type {}", model.tensors[*id].kind.name()),
                    way_round: "give as many as the model's input has".into(),
                });
            }
            all[*id] = given.cloned();
        }
        for (node, ready) in model.nodes.iter().zip(&self.ready) {
            let value =
                self.node(node, ready, &all).ok_or_else(|| refuse(node, "its shapes do not fit together"))?;
            let output = &model.tensors[node.outputs[0]];
            let len = match &value {
                Values::Int8(codes) => codes.len(),
                Values::Float(values) => values.len(),
            };
            if len != output.len() {
                return Err(refuse(node, &format!("it makes {len} values for a tensor of {}", output.len())));
            }
            all[node.outputs[0]] = Some(value);
        }
        Ok(all)
    }

    fn node(&self, node: &Node, ready: &Ready, all: &[Option<Values>]) -> Option<Values> {
        let id = |place: usize| node.inputs.get(place).copied().flatten();
        let tensor = |place: usize| id(place).map(|id| &self.model.tensors[id]);
        let value = |place: usize| id(place).and_then(|id| all[id].as_ref());
        let output = &self.model.tensors[node.outputs[0]];
        match (&node.op, ready) {
            (Op::Dequantize, _) => {
                let (scale, zero) = tensor(0)?.scale();
                #[expect(clippy::cast_possible_truncation, reason = "rounds to a float as the kernel does")]
                let real = |code: &i8| (f64::from(scale) * f64::from(i32::from(*code) - zero)) as f32;
                return Some(Values::Float(value(0)?.codes()?.iter().map(real).collect()));
            }
            (Op::Quantize, Ready::Nothing) => {
                let (scale, zero) = output.scale();
                return Some(Values::Int8(
                    value(0)?.floats()?.iter().map(|value| quantised(*value, scale, zero)).collect(),
                ));
            }
            (_, Ready::Float(graph)) => return float_node(graph, node, all),
            _ => {}
        }
        let x = value(0)?.codes()?;
        if let Ready::Table(table) = ready {
            return Some(Values::Int8(
                x.iter().map(|code| table[usize::from(code.cast_unsigned())]).collect(),
            ));
        }
        if let Ready::Weights(weights) = ready {
            return weights.run(x).map(Values::Int8);
        }
        let shape = &tensor(0)?.shape;
        let codes = match &node.op {
            Op::MaxPool2d(pool) => windowed::pool(pool, tensor(0)?, output, x, true)?,
            Op::AveragePool2d(pool) => windowed::pool(pool, tensor(0)?, output, x, false)?,
            Op::Add(_) | Op::Sub(_) | Op::Mul(_) => {
                elementwise::binary(&node.op, (tensor(0)?, x), (tensor(1)?, value(1)?.codes()?), output)?
            }
            Op::Softmax(beta) => elementwise::softmax(*beta, tensor(0)?, x)?,
            Op::Reshape => x.to_vec(),
            Op::Pad => {
                let zero = i8::try_from(output.scale().1).ok()?;
                let (_, places) = kernels::padded(shape, &tensor(1)?.as_i32())?;
                places
                    .iter()
                    .map(|place| place.map_or(Some(zero), |place| x.get(place).copied()))
                    .collect::<Option<_>>()?
            }
            Op::Transpose => {
                let axes: Option<Vec<usize>> =
                    tensor(1)?.as_i32().iter().map(|axis| usize::try_from(*axis).ok()).collect();
                let places = kernels::transposed(shape, &axes?)?;
                places.iter().map(|place| x.get(*place).copied()).collect::<Option<_>>()?
            }
            Op::Concat(axis) => {
                let part = |place: usize| Some((tensor(place)?.shape.as_slice(), value(place)?.codes()?));
                let parts: Option<Vec<(&[usize], &[i8])>> = (0..node.inputs.len()).map(part).collect();
                kernels::joined(&parts?, *axis)?
            }
            Op::Mean { .. } => elementwise::mean(tensor(0)?, x, &tensor(1)?.as_i32(), output)?,
            _ => return None,
        };
        Some(Values::Int8(codes))
    }
}

fn refuse(node: &Node, reason: &str) -> EdgeError {
    EdgeError::Unsupported {
        node: node.name.clone(),
        operator: node.op.name(),
        reason: reason.into(),
        way_round: "compile the model here, or run it in TFLite-micro itself".into(),
    }
}

/// The nearest code of a value.
#[must_use]
pub fn quantised(value: f32, scale: f32, zero: i32) -> i8 {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, then clamped")]
    let code = ((value / scale).round() as i32).saturating_add(zero).clamp(-128, 127);
    i8::try_from(code).expect("clamped")
}

fn prepare(model: &Model, node: &Node) -> Option<Ready> {
    let tensor = |place: usize| node.inputs.get(place).copied().flatten().map(|id| &model.tensors[id]);
    let (x, output) = (tensor(0)?, &model.tensors[*node.outputs.first()?]);
    if node.op == Op::Dequantize || (node.op == Op::Quantize && x.kind == Type::Float32) {
        let codes = if node.op == Op::Quantize { output } else { x };
        return (codes.kind == Type::Int8 && codes.scale().0 > 0.0).then_some(Ready::Nothing);
    }
    if x.kind == Type::Float32 {
        return float_graph(model, node).map(|graph| Ready::Float(Box::new(graph)));
    }
    let scaled =
        |tensor: &Tensor| tensor.kind == Type::Int8 && tensor.scale().0 > 0.0 && tensor.scale().0.is_finite();
    if !scaled(x) || !scaled(output) || x.is_empty() || output.is_empty() {
        return None;
    }
    if node.op.has_weights() {
        return windowed::Weights::new(&node.op, [x, tensor(1)?], tensor(2), output)
            .map(|weights| Ready::Weights(Box::new(weights)));
    }
    if let Some(table) = elementwise::table(&node.op, x, output) {
        return Some(Ready::Table(Box::new(table)));
    }
    Some(Ready::Nothing)
}

/// One float node as a graph.
fn float_graph(model: &Model, node: &Node) -> Option<Graph> {
    let mut graph = Graph::default();
    let mut inputs = Vec::new();
    for id in &node.inputs {
        let tensor = &model.tensors[(*id)?];
        let data = match tensor.kind {
            _ if tensor.data.is_empty() => Data::None,
            Type::Float32 => Data::Float(tensor.as_f32()),
            Type::Int32 => Data::Int(tensor.as_i32()),
            _ => return None,
        };
        let computed = data == Data::None;
        let place =
            graph.add(crate::graph::Tensor { shape: tensor.shape.clone(), data, ..Default::default() });
        if computed {
            graph.inputs.push(Port {
                name: String::new(),
                source_shape: Vec::new(),
                tensor: place,
                axes: Vec::new(),
            });
        }
        inputs.push(place);
    }
    let shape = model.tensors[*node.outputs.first()?].shape.clone();
    let output = graph.add(crate::graph::Tensor { shape, ..Default::default() });
    graph.nodes.push(crate::graph::Node { name: node.name.clone(), op: node.op.clone(), inputs, output });
    let sound =
        !node.op.has_weights() || (graph.nodes[0].inputs.len() == 3 && graph.tensors[1].is_constant());
    sound.then_some(graph)
}

fn float_node(graph: &Graph, node: &Node, all: &[Option<Values>]) -> Option<Values> {
    let computed = node
        .inputs
        .iter()
        .zip(&graph.nodes[0].inputs)
        .filter(|(_, place)| !graph.tensors[**place].is_constant());
    let inputs: Option<Vec<&[f32]>> = computed.map(|(id, _)| all[(*id)?].as_ref()?.floats()).collect();
    let values = FloatExecutor::new(graph).run(&inputs?).ok()?;
    Some(Values::Float(values[graph.nodes[0].output].clone()))
}

/// The factor between two scales, as a multiplier.
pub(super) fn between(from: f32, to: f32) -> Multiplier {
    Multiplier::new(f64::from(from / to))
}
