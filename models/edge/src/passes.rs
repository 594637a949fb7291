//! What makes the graph smaller without changing what it computes. Must not know bytes of files or scales.

mod affine;
mod padding;
mod shapes;

use crate::{
    graph::{Activation, Graph, Op, Padding},
    plan,
};

/// What a pass did, for `--emit passes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The pass.
    pub pass: &'static str,
    /// The node it changed.
    pub node: String,
    /// What it did.
    pub what: String,
}

/// A graph that only holds what TFLite has, with what was done to it.
#[derive(Debug, Clone)]
pub struct Optimised {
    /// The graph.
    pub graph: Graph,
    /// What was done, in order.
    pub notes: Vec<Note>,
}

/// Runs all passes. `element_bytes` is the size of a computed value: 1 for int8, 4 for float.
#[must_use]
pub fn optimise(mut graph: Graph, element_bytes: usize) -> Optimised {
    let mut notes = Vec::new();
    merge_pads(&mut graph, &mut notes);
    affine::fold(&mut graph, &mut notes);
    fuse_clamps(&mut graph, &mut notes);
    shapes::elide(&mut graph, &mut notes);
    padding::choose(&mut graph, element_bytes, &mut notes);
    sweep(&mut graph);
    Optimised { graph, notes }
}

/// A Pad before a convolution becomes part of its window.
fn merge_pads(graph: &mut Graph, notes: &mut Vec<Note>) {
    for index in (0..graph.nodes.len()).rev() {
        let (Op::Conv2d(window) | Op::DepthwiseConv2d(window, _)) = &graph.nodes[index].op else { continue };
        let input = graph.nodes[index].inputs[0];
        let (Padding::Explicit(pads), Some(maker)) = (window.padding, graph.maker(input)) else { continue };
        if graph.nodes[maker].op != Op::Pad || !graph.has_one_reader(input) {
            continue;
        }
        let Some(&[0, 0, top, bottom, left, right, 0, 0]) =
            graph.tensors[graph.nodes[maker].inputs[1]].ints()
        else {
            continue;
        };
        let add = |pad: usize, more: i32| pad + usize::try_from(more).unwrap_or(0);
        let merged = [add(pads[0], top), add(pads[1], left), add(pads[2], bottom), add(pads[3], right)];
        let before = graph.nodes[maker].inputs[0];
        let name = graph.nodes[maker].name.clone();
        let node = &mut graph.nodes[index];
        if let Op::Conv2d(window) | Op::DepthwiseConv2d(window, _) = &mut node.op {
            window.padding = Padding::Explicit(merged);
        }
        node.inputs[0] = before;
        notes.push(Note { pass: "merge-pad", node: node.name.clone(), what: format!("takes in '{name}'") });
        graph.nodes.remove(maker);
    }
}

/// A clamp behind an operator that can clamp becomes part of it.
fn fuse_clamps(graph: &mut Graph, notes: &mut Vec<Note>) {
    let mut index = 0;
    while index < graph.nodes.len() {
        let clamp = &graph.nodes[index];
        let (Op::Clamp(activation), Some(maker)) = (&clamp.op, graph.maker(clamp.inputs[0])) else {
            index += 1;
            continue;
        };
        let (activation, name, output, input) =
            (*activation, clamp.name.clone(), clamp.output, clamp.inputs[0]);
        let fits = graph.has_one_reader(input);
        let free = graph.nodes[maker].op.activation_mut().filter(|slot| fits && **slot == Activation::None);
        if free.map(|slot| *slot = activation).is_none() {
            index += 1;
            continue;
        }
        let fixed = graph.tensors[output].fixed.take().or_else(|| graph.tensors[input].fixed.take());
        graph.tensors[output].fixed = fixed;
        graph.nodes[maker].output = output;
        let node = graph.nodes[maker].name.clone();
        notes.push(Note {
            pass: "fuse-activation",
            node,
            what: format!("takes in '{name}' ({activation:?})"),
        });
        graph.nodes.remove(index);
    }
}

/// Removes nodes that nobody needs, then tensors, and numbers the rest anew.
pub(crate) fn sweep(graph: &mut Graph) {
    while let Some(dead) = graph
        .nodes
        .iter()
        .position(|node| !graph.is_output(node.output) && graph.readers(node.output).is_empty())
    {
        graph.nodes.remove(dead);
    }
    let mut used = vec![false; graph.tensors.len()];
    for node in &graph.nodes {
        node.inputs.iter().chain([&node.output]).for_each(|id| used[*id] = true);
    }
    graph.inputs.iter().chain(&graph.outputs).for_each(|port| used[port.tensor] = true);
    let mut places = vec![0; used.len()];
    let mut kept = Vec::new();
    for (id, tensor) in std::mem::take(&mut graph.tensors).into_iter().enumerate() {
        places[id] = kept.len();
        if used[id] {
            kept.push(tensor);
        }
    }
    graph.tensors = kept;
    for node in &mut graph.nodes {
        node.inputs.iter_mut().chain([&mut node.output]).for_each(|id| *id = places[*id]);
    }
    graph.inputs.iter_mut().chain(&mut graph.outputs).for_each(|port| port.tensor = places[port.tensor]);
}

/// The most memory that computed values need at any one time.
pub(crate) fn peak_bytes(graph: &Graph, element_bytes: usize) -> usize {
    plan::lower_bound(&plan::lifetimes(graph, element_bytes))
}
