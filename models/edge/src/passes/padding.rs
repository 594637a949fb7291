//! How a convolution gets what lies beyond the edge, where TFLite's SAME does not read what the source asks for: by
//! widening its kernel with zeros (flash, work), or by a Pad before it (memory, one more operator). Chosen by cost.
//! Must not know scales.

use super::{Note, peak_bytes};
use crate::graph::{Data, Graph, Node, Op, Padding, Tensor, Window, windows};

/// What a Pad costs in the file beyond its values: the operator, two tensors, a buffer.
const PAD_FLASH_BYTES: usize = 160;
/// What it takes of memory beyond its output: the structures of one more operator and two more tensors.
const PAD_MEMORY_BYTES: usize = 120;
/// A byte of memory is worth this many of flash: devices have about four times as much flash.
const MEMORY_WEIGHT: usize = 4;
/// Zeros that are added on one side of a kernel, at most.
const WIDENING_MAX: usize = 3;

/// Zeros added before and after a kernel, for height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Widening {
    before: [usize; 2],
    after: [usize; 2],
}

pub(super) fn choose(graph: &mut Graph, element_bytes: usize, notes: &mut Vec<Note>) {
    let mut open: Vec<(usize, Widening)> = Vec::new();
    for index in 0..graph.nodes.len() {
        match settled(graph, index) {
            Some(padding) => set(&mut graph.nodes[index].op, padding),
            None if window(&graph.nodes[index].op)
                .is_some_and(|w| matches!(w.padding, Padding::Explicit(_))) =>
            {
                open.push((index, widening(graph, index).unwrap_or_default()));
            }
            None => {}
        }
    }
    let cost = |widen: &[bool]| {
        let mut trial = graph.clone();
        let flash = apply(&mut trial, &open, widen);
        flash + MEMORY_WEIGHT * peak_bytes(&trial, element_bytes)
    };
    let can: Vec<bool> = open.iter().map(|(_, widening)| *widening != Widening::default()).collect();
    let mut best = (cost(&can), can.clone());
    let start = vec![false; open.len()];
    best = best.clone().min((cost(&start), start));
    // one change at a time, as long as it pays
    loop {
        let flip = |place: usize| {
            let mut trial = best.1.clone();
            trial[place] = !trial[place];
            (cost(&trial), trial)
        };
        let found = (0..open.len()).filter(|place| can[*place]).map(flip).min();
        match found.filter(|found| found.0 < best.0) {
            Some(found) => best = found,
            None => break,
        }
    }
    for ((index, _), widen) in open.iter().zip(&best.1) {
        let what = if *widen { "its kernel is widened with zeros" } else { "a Pad is put before it" };
        let node = graph.nodes[*index].name.clone();
        notes.push(Note { pass: "choose-padding", node, what: what.into() });
    }
    apply(graph, &open, &best.1);
}

fn window(op: &Op) -> Option<&Window> {
    match op {
        Op::Conv2d(window) | Op::DepthwiseConv2d(window, _) => Some(window),
        _ => None,
    }
}

fn set(op: &mut Op, to: Padding) {
    if let Op::Conv2d(window) | Op::DepthwiseConv2d(window, _) = op {
        window.padding = to;
    }
}

/// Height and width of the input and of the kernel.
fn lengths(graph: &Graph, node: &Node) -> ([usize; 2], [usize; 2]) {
    let (x, w) = (&graph.tensors[node.inputs[0]].shape, &graph.tensors[node.inputs[1]].shape);
    ([x[1], x[2]], [w[1], w[2]])
}

/// VALID or SAME, where they read what is asked for.
fn settled(graph: &Graph, index: usize) -> Option<Padding> {
    let node = &graph.nodes[index];
    let window = window(&node.op)?;
    let (input, kernel) = lengths(graph, node);
    let reads = |padding: Padding| {
        (0..2).all(|axis| {
            let of =
                |p| windows(input[axis], kernel[axis], window.stride[axis], window.dilation[axis], p, axis);
            of(padding) == of(window.padding)
        })
    };
    [Padding::Valid, Padding::Same].into_iter().find(|padding| reads(*padding))
}

/// The fewest zeros around the kernel with which SAME reads what is asked for.
fn widening(graph: &Graph, index: usize) -> Option<Widening> {
    let node = &graph.nodes[index];
    let window = window(&node.op)?;
    let (input, kernel) = lengths(graph, node);
    let mut all = Widening::default();
    for axis in 0..2 {
        let (stride, dilation) = (window.stride[axis], window.dilation[axis]);
        let (count, pad) = windows(input[axis], kernel[axis], stride, dilation, window.padding, axis);
        let sizes =
            (0..=2 * WIDENING_MAX).flat_map(|sum| (0..=sum).map(move |before| (before, sum - before)));
        let fits = |(before, after): &(usize, usize)| {
            let same =
                windows(input[axis], kernel[axis] + before + after, stride, dilation, Padding::Same, axis);
            *before <= WIDENING_MAX && *after <= WIDENING_MAX && same == (count, pad + before * dilation)
        };
        (all.before[axis], all.after[axis]) = sizes.into_iter().find(fits)?;
    }
    Some(all)
}

/// Carries a choice out; the bytes of flash that it costs.
fn apply(graph: &mut Graph, open: &[(usize, Widening)], widen: &[bool]) -> usize {
    let mut flash = 0;
    // from the back: a Pad moves those behind it
    for ((index, widening), widen) in open.iter().zip(widen).rev() {
        if *widen {
            flash += widened(graph, *index, *widening);
        } else {
            padded(graph, *index);
            flash += PAD_FLASH_BYTES + MEMORY_WEIGHT * PAD_MEMORY_BYTES;
        }
    }
    flash
}

fn widened(graph: &mut Graph, index: usize, widening: Widening) -> usize {
    let filter = graph.nodes[index].inputs[1];
    let Tensor { name, shape, data, fixed } = graph.tensors[filter].clone();
    let Data::Float(values) = data else { unreachable!("weights are floats") };
    let [outer, height, width, inner] = shape[..] else { unreachable!("a kernel has four axes") };
    let new_height = height + widening.before[0] + widening.after[0];
    let new_width = width + widening.before[1] + widening.after[1];
    let mut wide = vec![0.0; outer * new_height * new_width * inner];
    for o in 0..outer {
        for y in 0..height {
            for x in 0..width {
                let from = ((o * height + y) * width + x) * inner;
                let to =
                    ((o * new_height + y + widening.before[0]) * new_width + x + widening.before[1]) * inner;
                wide[to..to + inner].copy_from_slice(&values[from..from + inner]);
            }
        }
    }
    let more = wide.len() - values.len();
    let shape = vec![outer, new_height, new_width, inner];
    let filter = graph.add(Tensor { name, shape, data: Data::Float(wide), fixed });
    graph.nodes[index].inputs[1] = filter;
    set(&mut graph.nodes[index].op, Padding::Same);
    more
}

fn padded(graph: &mut Graph, index: usize) {
    let node = graph.nodes[index].clone();
    let Some(Window { padding: Padding::Explicit(pads), .. }) = window(&node.op).copied() else { return };
    let small = |value: usize| i32::try_from(value).expect("below the limit of a window");
    let [top, left, bottom, right] = pads.map(small);
    let mut shape = graph.tensors[node.inputs[0]].shape.clone();
    shape[1] += pads[0] + pads[2];
    shape[2] += pads[1] + pads[3];
    let paddings = graph.integers("paddings", vec![4, 2], vec![0, 0, top, bottom, left, right, 0, 0]);
    let output = graph.add(Tensor { name: format!("{}.padded", node.name), shape, ..Tensor::default() });
    let name = format!("{}.pad", node.name);
    graph.nodes[index].inputs[0] = output;
    set(&mut graph.nodes[index].op, Padding::Valid);
    graph.nodes.insert(index, Node { name, op: Op::Pad, inputs: vec![node.inputs[0], paddings], output });
}
