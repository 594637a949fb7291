//! Scales and offsets behind a product with weights become part of the weights: batch normalisation costs nothing.
//! Must not know where they came from.

use super::Note;
use crate::graph::{Activation, Data, Graph, Op, TensorId};

pub(super) fn fold(graph: &mut Graph, notes: &mut Vec<Note>) {
    let mut index = 0;
    while index < graph.nodes.len() {
        match foldable(graph, index) {
            Some((maker, values)) => {
                let node = graph.nodes.remove(index);
                let is_scale = matches!(node.op, Op::Mul(_));
                apply(graph, maker, &values, is_scale);
                let (before, activation) = (graph.nodes[maker].output, node.op.activation());
                if graph.tensors[node.output].fixed.is_none() {
                    graph.tensors[node.output].fixed = graph.tensors[before].fixed.take();
                }
                graph.nodes[maker].output = node.output;
                if let Some(slot) = graph.nodes[maker].op.activation_mut() {
                    *slot = activation;
                }
                let kind = if is_scale { "scale" } else { "offset" };
                let what = format!("takes in the {kind} of '{}'", node.name);
                notes.push(Note { pass: "fold-affine", node: graph.nodes[maker].name.clone(), what });
            }
            None => index += 1,
        }
    }
}

/// The product before a scale or an offset, and one value for each of its output channels.
fn foldable(graph: &Graph, index: usize) -> Option<(usize, Vec<f32>)> {
    let node = &graph.nodes[index];
    if !matches!(node.op, Op::Mul(_) | Op::Add(_)) {
        return None;
    }
    let (input, values) = (node.inputs[0], graph.tensors[node.inputs[1]].floats()?);
    let maker = graph.maker(input)?;
    let product = &graph.nodes[maker];
    let plain = product.op.has_weights() && product.op.activation() == Activation::None;
    if !plain || !graph.has_one_reader(input) || graph.tensors[product.inputs[1]].fixed.is_some() {
        return None;
    }
    let channels = graph.tensors[product.inputs[2]].len();
    let shape = &graph.tensors[node.inputs[1]].shape;
    if values.len() == 1 {
        return Some((maker, vec![values[0]; channels]));
    }
    let last = graph.tensors[input].shape.last() == Some(&channels);
    (last && values.len() == channels && shape.last() == Some(&channels)).then(|| (maker, values.to_vec()))
}

fn apply(graph: &mut Graph, maker: usize, values: &[f32], is_scale: bool) {
    let (weights, bias) = (graph.nodes[maker].inputs[1], graph.nodes[maker].inputs[2]);
    let (weights, bias) = (own(graph, maker, 1, weights), own(graph, maker, 2, bias));
    let depthwise = matches!(graph.nodes[maker].op, Op::DepthwiseConv2d(..));
    if let Data::Float(bias) = &mut graph.tensors[bias].data {
        for (value, with) in bias.iter_mut().zip(values) {
            *value = if is_scale { *value * with } else { *value + with };
        }
    }
    if !is_scale {
        return;
    }
    let inner = graph.tensors[weights].len() / values.len();
    if let Data::Float(weights) = &mut graph.tensors[weights].data {
        for (place, value) in weights.iter_mut().enumerate() {
            let channel = if depthwise { place % values.len() } else { place / inner };
            *value *= values[channel];
        }
    }
}

/// The constant, copied if another node reads it too.
fn own(graph: &mut Graph, maker: usize, place: usize, constant: TensorId) -> TensorId {
    if graph.readers(constant).len() <= 1 {
        return constant;
    }
    let copy = graph.tensors[constant].clone();
    let copy = graph.add(copy);
    graph.nodes[maker].inputs[place] = copy;
    copy
}
