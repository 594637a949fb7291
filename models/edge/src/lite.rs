//! A TFLite model as values: tensors with types, scales and bytes, and operators. Must not know ONNX, or how scales are
//! chosen.

mod flatbuffer;
mod read;
pub mod schema;
mod write;

use crate::{
    error::{EdgeError, Result},
    graph::{Activation, Data, Graph, Op, Padding, Port},
};

pub use self::{read::read, schema::Type, write::write};

/// How codes stand for values: `value = scale * (code - zero point)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantisation {
    /// One, or one for each slice along the axis.
    pub scales: Vec<f32>,
    /// As many.
    pub zero_points: Vec<i64>,
    /// Which axis has slices.
    pub axis: usize,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Empty for all but inputs and outputs, to save flash.
    pub name: String,
    /// Axes, outermost first.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub kind: Type,
    /// None for floats and integers that are no codes.
    pub quantisation: Option<Quantisation>,
    /// Its bytes; empty where they are computed.
    pub data: Vec<u8>,
}

/// One operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// Its inputs; none where an optional one is left out.
    pub inputs: Vec<Option<usize>>,
    /// Its outputs.
    pub outputs: Vec<usize>,
    /// The name in the source, for reports; not in the file.
    pub name: String,
}

/// A whole model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Model {
    /// A line for people.
    pub description: String,
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// All operators in the order in which they run.
    pub nodes: Vec<Node>,
    /// Which tensors go in.
    pub inputs: Vec<usize>,
    /// Which come out.
    pub outputs: Vec<usize>,
    /// An offset for each tensor, -1 where TFLite-micro shall choose.
    pub offline_plan: Option<Vec<i32>>,
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

    /// Bytes at run time.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len() * self.kind.bytes()
    }

    /// The one scale and zero point of a tensor of codes.
    #[must_use]
    pub fn scale(&self) -> (f32, i32) {
        self.quantisation.as_ref().map_or((0.0, 0), |quantisation| {
            let zero = quantisation.zero_points.first().copied().unwrap_or(0);
            (quantisation.scales.first().copied().unwrap_or(0.0), i32::try_from(zero).unwrap_or(0))
        })
    }

    /// Its bytes as 32-bit integers.
    #[must_use]
    pub fn as_i32(&self) -> Vec<i32> {
        self.data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect()
    }

    /// Its bytes as floats.
    #[must_use]
    pub fn as_f32(&self) -> Vec<f32> {
        self.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// Its bytes as codes.
    #[must_use]
    pub fn as_i8(&self) -> Vec<i8> {
        self.data.iter().map(|byte| byte.cast_signed()).collect()
    }
}

impl Model {
    /// A float model of a graph whose paddings are chosen.
    ///
    /// # Errors
    /// [`EdgeError::Unsupported`] for what TFLite-micro does not have.
    pub fn of_graph(graph: &Graph) -> Result<Self> {
        let tensor = |tensor: &crate::graph::Tensor| {
            let (kind, data) = match &tensor.data {
                Data::None => (Type::Float32, Vec::new()),
                Data::Float(values) => {
                    (Type::Float32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
                }
                Data::Int(values) => {
                    (Type::Int32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
                }
            };
            Tensor { name: String::new(), shape: tensor.shape.clone(), kind, quantisation: None, data }
        };
        let nodes = graph.nodes.iter().map(|node| {
            let inputs = node.inputs.iter().copied().map(Some).collect();
            Node { op: node.op.clone(), inputs, outputs: vec![node.output], name: node.name.clone() }
        });
        let mut model = Self {
            description: "gannet".into(),
            tensors: graph.tensors.iter().map(tensor).collect(),
            nodes: nodes.collect(),
            inputs: graph.inputs.iter().map(|port| port.tensor).collect(),
            outputs: graph.outputs.iter().map(|port| port.tensor).collect(),
            offline_plan: None,
        };
        model.name_ports(graph.inputs.iter().chain(&graph.outputs));
        model.check()?;
        Ok(model)
    }

    pub(crate) fn name_ports<'a>(&mut self, ports: impl Iterator<Item = &'a Port>) {
        for port in ports {
            self.tensors[port.tensor].name.clone_from(&port.name);
        }
    }

    /// Refuses what TFLite-micro does not have.
    pub(crate) fn check(&self) -> Result<()> {
        for node in &self.nodes {
            let refuse = |reason: &str, way: &str| EdgeError::Unsupported {
                node: node.name.clone(),
                operator: node.op.name(),
                reason: reason.into(),
                way_round: way.into(),
            };
            if node.op == Op::Clamp(Activation::ReluN1To1) {
                return Err(refuse(
                    "TFLite-micro has no clamp of its own to -1..1",
                    "put it behind a Conv, Gemm or Add",
                ));
            }
            if let Op::Conv2d(window) | Op::DepthwiseConv2d(window, _) = &node.op
                && matches!(window.padding, Padding::Explicit(_))
            {
                return Err(refuse(
                    "its padding was not chosen",
                    "this is a fault of the compiler: report it",
                ));
            }
        }
        Ok(())
    }
}
