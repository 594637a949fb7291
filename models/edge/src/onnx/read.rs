//! From the bytes of an ONNX file to its nodes in order, with every name resolved to something that exists. Must not
//! know what the operators compute.

use std::collections::{HashMap, HashSet};

use prost::Message as _;

use super::{
    proto::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto},
    tensor::{Constant, ELEMENTS_MAX, RANK_MAX, elements_of},
};
use crate::error::{EdgeError, Result};

/// Bytes of a file that are read: models for microcontrollers are a hundredth of this.
const FILE_BYTES_MAX: usize = 1 << 29;
/// Nodes of a graph.
const NODES_MAX: usize = 1 << 14;
/// The oldest operator set whose operators mean what is computed here.
const OPSET_MIN: i64 = 7;
/// `TensorProto.DataType`.
const UINT8: i32 = 2;

/// The attributes of a node, by name.
#[derive(Debug, Clone, Default)]
pub struct Attributes(HashMap<String, AttributeProto>);

/// One node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name, or else its first output's.
    pub name: String,
    /// Its operator, of the standard set.
    pub operator: String,
    /// The names of its inputs; empty where an optional one is left out.
    pub inputs: Vec<String>,
    /// The names of its outputs.
    pub outputs: Vec<String>,
    /// Its attributes.
    pub attributes: Attributes,
}

/// An input of the graph.
#[derive(Debug, Clone)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its axes; one that is open in the file is 1 here: the device computes one row at a time.
    pub shape: Vec<usize>,
}

/// A value that is known before anything runs.
pub type SourceValue = Constant;

/// A whole file, checked.
#[derive(Debug, Clone)]
pub struct Source {
    /// The graph's name.
    pub name: String,
    /// The version of the operator set.
    pub opset: i64,
    /// The inputs, constants left out.
    pub inputs: Vec<Input>,
    /// The names of the outputs.
    pub outputs: Vec<String>,
    /// The nodes, each after those that it needs.
    pub nodes: Vec<Node>,
    /// The constants by name.
    pub constants: HashMap<String, SourceValue>,
    /// Those of the constants that are uint8 in the file.
    pub unsigned: HashSet<String>,
}

impl Source {
    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// [`EdgeError::Malformed`] when they are no ONNX model, [`EdgeError::Unsupported`] when it cannot be compiled.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > FILE_BYTES_MAX {
            let (limit, got) = (FILE_BYTES_MAX as u64, bytes.len() as u64);
            return Err(EdgeError::TooLarge { what: "bytes of the ONNX file".into(), limit, got });
        }
        let model = ModelProto::decode(bytes).map_err(|error| {
            EdgeError::malformed("ONNX file", format!("expected a ModelProto, got {error}"))
        })?;
        let opset = model.opset_import.iter().find(|set| set.domain.is_empty() || set.domain == "ai.onnx");
        let opset = opset.map_or(0, |set| set.version);
        let graph =
            model.graph.ok_or_else(|| EdgeError::malformed("ONNX file", "expected a graph, got none"))?;
        if opset < OPSET_MIN {
            return Err(EdgeError::Unsupported {
                node: graph.name,
                operator: "model".into(),
                reason: format!("expected operator set {OPSET_MIN} or later, got {opset}"),
                way_round: "export it again, or run onnx.version_converter".into(),
            });
        }
        Self::of_graph(graph, opset)
    }

    fn of_graph(graph: GraphProto, opset: i64) -> Result<Self> {
        if graph.node.len() > NODES_MAX {
            let (limit, got) = (NODES_MAX as u64, graph.node.len() as u64);
            return Err(EdgeError::TooLarge { what: "nodes of the graph".into(), limit, got });
        }
        let mut constants = HashMap::new();
        for tensor in &graph.initializer {
            constants.insert(tensor.name.clone(), Constant::decode(tensor)?);
        }
        let open = graph.input.iter().filter(|input| !constants.contains_key(&input.name));
        let inputs = open.map(input).collect::<Result<Vec<_>>>()?;
        let mut known: HashMap<&str, ()> = HashMap::new();
        known.extend(constants.keys().map(|name| (name.as_str(), ())));
        known.extend(inputs.iter().map(|input| (input.name.as_str(), ())));
        for node in &graph.node {
            for name in node.input.iter().filter(|name| !name.is_empty()) {
                if !known.contains_key(name.as_str()) {
                    let fault =
                        format!("expected '{name}' to be made by an earlier node, got none that makes it");
                    return Err(EdgeError::malformed(
                        format!("node '{}' ({})", node_name(node), node.op_type),
                        fault,
                    ));
                }
            }
            known.extend(node.output.iter().map(|name| (name.as_str(), ())));
        }
        let outputs: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
        if let Some(missing) = outputs.iter().find(|name| !known.contains_key(name.as_str())) {
            let fault = format!("expected a node that makes output '{missing}', got none");
            return Err(EdgeError::malformed("ONNX file", fault));
        }
        if inputs.is_empty() || outputs.is_empty() {
            let fault = format!("expected inputs and outputs, got {} and {}", inputs.len(), outputs.len());
            return Err(EdgeError::malformed("ONNX file", fault));
        }
        let unsigned = graph.initializer.iter().filter(|tensor| tensor.data_type == UINT8);
        let unsigned = unsigned.map(|tensor| tensor.name.clone()).collect();
        let name = graph.name;
        let nodes = graph.node.into_iter().map(node).collect::<Result<Vec<_>>>()?;
        Ok(Self { name, opset, inputs, outputs, nodes, constants, unsigned })
    }
}

fn node_name(node: &NodeProto) -> String {
    if node.name.is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name.clone() }
}

fn node(node: NodeProto) -> Result<Node> {
    let name = node_name(&node);
    if !node.domain.is_empty() && node.domain != "ai.onnx" && node.domain != "com.microsoft" {
        return Err(EdgeError::Unsupported {
            node: name,
            operator: node.op_type,
            reason: format!("expected an operator of the standard set, got domain '{}'", node.domain),
            way_round: "export it without custom operators".into(),
        });
    }
    let attributes =
        node.attribute.into_iter().map(|attribute| (attribute.name.clone(), attribute)).collect();
    let (operator, inputs, outputs) = (node.op_type, node.input, node.output);
    Ok(Node { name, operator, inputs, outputs, attributes: Attributes(attributes) })
}

fn input(info: &ValueInfoProto) -> Result<Input> {
    let what = format!("input '{}'", info.name);
    let tensor = info.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| EdgeError::malformed(&what, "expected a tensor, got another kind"))?;
    if tensor.elem_type != 1 {
        return Err(EdgeError::Unsupported {
            node: info.name.clone(),
            operator: "input".into(),
            reason: format!("expected float32, got data type {}", tensor.elem_type),
            way_round: "export the model with float32 inputs; they are quantised here".into(),
        });
    }
    let dims = tensor.shape.as_ref().map(|shape| shape.dim.as_slice()).unwrap_or_default();
    let length = |(axis, dim): (usize, &super::proto::DimensionProto)| match dim.dim_value {
        Some(value) if value > 0 => usize::try_from(value).map_err(|_| axis),
        // only the batch may be open: the rest decides how much memory is needed
        _ if axis == 0 => Ok(1),
        _ => Err(axis),
    };
    let shape: Result<Vec<usize>, usize> = dims.iter().take(RANK_MAX + 1).enumerate().map(length).collect();
    let mut shape = shape.map_err(|axis| EdgeError::Unsupported {
        node: info.name.clone(),
        operator: "input".into(),
        reason: format!("expected fixed axes after the first, got an open axis {axis}"),
        way_round: "export it with a fixed input shape (only the batch may be open)".into(),
    })?;
    if let Some(batch) = shape.first_mut().filter(|_| dims.len() > 1) {
        *batch = 1;
    }
    elements_of(&shape, &what)?;
    Ok(Input { name: info.name.clone(), shape })
}

impl Attributes {
    /// Whether there is one of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// An integer.
    #[must_use]
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.0.get(name).map_or(default, |attribute| attribute.i)
    }

    /// A float.
    #[must_use]
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.0.get(name).map_or(default, |attribute| attribute.f)
    }

    /// A text.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        self.0
            .get(name)
            .map(|attribute| String::from_utf8_lossy(&attribute.s).into_owned())
            .unwrap_or_default()
    }

    /// A list of integers.
    #[must_use]
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.0.get(name).map(|attribute| attribute.ints.as_slice())
    }

    /// A list of lengths, none of which may be negative or absurd.
    #[must_use]
    pub fn lengths(&self, name: &str) -> Option<Vec<usize>> {
        let length = |value: &i64| usize::try_from(*value).ok().filter(|value| *value <= ELEMENTS_MAX);
        self.ints(name)?.iter().map(length).collect()
    }

    /// A tensor.
    ///
    /// # Errors
    /// Those of [`Constant::decode`].
    pub fn tensor(&self, name: &str) -> Result<Option<Constant>> {
        self.0.get(name).and_then(|attribute| attribute.t.as_ref()).map(Constant::decode).transpose()
    }

    /// A list of floats.
    #[must_use]
    pub fn floats(&self, name: &str) -> Option<&[f32]> {
        self.0.get(name).map(|attribute| attribute.floats.as_slice())
    }
}
