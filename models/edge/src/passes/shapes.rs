//! Reshapes that nobody would miss are left out: rows of weights are read whatever the shape of their input, and an
//! input of the graph may as well be stored under the shape that is needed. Must not know values.

use super::Note;
use crate::graph::{Axis, Graph, Op};

pub(super) fn elide(graph: &mut Graph, notes: &mut Vec<Note>) {
    let mut index = 0;
    while index < graph.nodes.len() {
        if graph.nodes[index].op == Op::Reshape
            && (skip(graph, index) || at_input(graph, index) || twice(graph, index))
        {
            let node = graph.nodes.remove(index);
            notes.push(Note { pass: "elide-reshape", node: node.name, what: "costs nothing".into() });
            index = 0;
        } else {
            index += 1;
        }
    }
}

/// Whether all who read the reshaped value read the same memory without it; then they do.
fn skip(graph: &mut Graph, index: usize) -> bool {
    let (input, output) = (graph.nodes[index].inputs[0], graph.nodes[index].output);
    let readers = graph.readers(output);
    let is_row = |reader: &usize| {
        let node = &graph.nodes[*reader];
        let inner =
            |weights: &usize| graph.tensors[*weights].shape.last() == Some(&graph.tensors[output].len());
        matches!(node.op, Op::FullyConnected(_)) && node.inputs.get(1).is_some_and(inner)
    };
    if readers.is_empty() || graph.is_output(output) || !readers.iter().all(is_row) {
        return false;
    }
    for reader in readers {
        graph.nodes[reader].inputs[0] = input;
    }
    true
}

/// Whether the value is an input of the graph that nobody else reads; then it takes the shape.
fn at_input(graph: &mut Graph, index: usize) -> bool {
    let (input, output) = (graph.nodes[index].inputs[0], graph.nodes[index].output);
    let shape = graph.tensors[output].shape.clone();
    let one = graph.has_one_reader(input) && !graph.is_output(output);
    let Some(port) = graph.inputs.iter_mut().find(|port| port.tensor == input && one) else { return false };
    let Some(axes) = cut(&port.axes, &shape) else { return false };
    port.axes = axes;
    graph.tensors[input].shape = shape;
    for reader in graph.readers(output) {
        graph.nodes[reader].inputs.iter_mut().filter(|id| **id == output).for_each(|id| *id = input);
    }
    true
}

/// Whether only another reshape reads it; then that one is enough.
fn twice(graph: &mut Graph, index: usize) -> bool {
    let (input, output) = (graph.nodes[index].inputs[0], graph.nodes[index].output);
    let readers = graph.readers(output);
    let all = !readers.is_empty() && readers.iter().all(|reader| graph.nodes[*reader].op == Op::Reshape);
    if !all || graph.is_output(output) {
        return false;
    }
    for reader in readers {
        graph.nodes[reader].inputs[0] = input;
    }
    true
}

/// The same axes under another shape; `None` if it cuts across them.
fn cut(axes: &[Axis], shape: &[usize]) -> Option<Vec<Axis>> {
    let mut rest: Vec<Axis> = axes.iter().filter(|axis| axis.len > 1).copied().collect();
    let mut all = vec![Axis { len: 1, stride: 0 }; shape.len()];
    for (place, len) in shape.iter().enumerate().rev().filter(|(_, len)| **len > 1) {
        let mut got = rest.pop()?;
        while got.len < *len {
            let more = rest.pop()?;
            if more.stride != got.stride * got.len {
                return None;
            }
            got.len *= more.len;
        }
        if got.len % len != 0 {
            return None;
        }
        all[place] = Axis { len: *len, stride: got.stride };
        if got.len > *len {
            rest.push(Axis { len: got.len / len, stride: got.stride * len });
        }
    }
    rest.is_empty().then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_cut_along_their_own_boundaries() {
        let check = |axes: &[(usize, usize)], shape: &[usize], expected: Option<&[(usize, usize)]>| {
            let of = |list: &[(usize, usize)]| -> Vec<Axis> {
                list.iter().map(|(len, stride)| Axis { len: *len, stride: *stride }).collect()
            };
            assert_eq!(cut(&of(axes), shape), expected.map(of));
        };
        check(&[(1, 12), (12, 1)], &[1, 3, 4], Some(&[(1, 0), (3, 4), (4, 1)]));
        check(&[(3, 4), (4, 1)], &[12], Some(&[(12, 1)]));
        check(&[(4, 1), (3, 4)], &[12], None);
        check(&[(4, 1), (3, 4)], &[2, 2, 3], Some(&[(2, 2), (2, 1), (3, 4)]));
    }
}
