//! How much memory TFLite-micro takes for a model, without running it: on a 64-bit host with the recording allocator
//! (what its own recorder prints), and on a Cortex-M with the kernels of CMSIS-NN. Must not know how plans are made.
//!
//! The arena has a head, which holds computed values and scratch memory, and a tail of structures that grows towards
//! it. The sizes are those of the structures in TFLite-micro's public headers (August 2026; for the host, of the
//! Python package that the tests pin, which has compression compiled in), as both compilers lay them out; the scratch of CMSIS-NN follows its `*_get_buffer_size` functions for cores with DSP and without MVE.

use crate::{
    graph::{Activation, Op, Padding},
    lite::{Model, Node, Type},
    plan::{self, Lifetime, aligned},
};

/// Scratch requests that every operator may make; room for so many is kept while operators prepare.
const REQUESTS_PER_OPERATOR: usize = 12;

/// Where the model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// x86-64, reference kernels, recording allocator.
    Host64,
    /// Cortex-M4 or M7, CMSIS-NN.
    CortexM,
}

/// What a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Arena {
    /// Computed values and scratch memory.
    pub head: usize,
    /// Structures that live as long as the interpreter.
    pub tail: usize,
    /// Both.
    pub total: usize,
    /// What must be given, which is more than the total where preparing needs more than running.
    pub required: usize,
}

/// The sizes of the structures on a target.
struct Sizes {
    pointer: usize,
    /// The allocator, the planner, the allocator around them, the one for options, the subgraph.
    fixed: [usize; 5],
    eval_tensor: usize,
    node: usize,
    tensor: usize,
    affine: usize,
    scratch_handle: usize,
    scratch_request: usize,
    allocation_info: usize,
    planned_buffer: usize,
    convolution: usize,
    fully_connected: usize,
    pool: usize,
    softmax: usize,
    concat: usize,
}

const HOST64: Sizes = Sizes {
    pointer: 8,
    fixed: [104, 72, 272, 16, 24],
    eval_tensor: 24,
    node: 64,
    tensor: 64,
    affine: 24,
    scratch_handle: 8,
    scratch_request: 16,
    allocation_info: 32,
    planned_buffer: 40,
    convolution: 80,
    fully_connected: 72,
    pool: 32,
    softmax: 80,
    concat: 80,
};

const CORTEX_M: Sizes = Sizes {
    pointer: 4,
    fixed: [36, 44, 36, 8, 8],
    eval_tensor: 12,
    node: 32,
    tensor: 32,
    affine: 12,
    scratch_handle: 4,
    scratch_request: 12,
    allocation_info: 24,
    planned_buffer: 40,
    convolution: 60,
    fully_connected: 72,
    pool: 36,
    softmax: 64,
    concat: 24,
};

/// The tail while it grows.
struct Tail {
    used: usize,
    /// The most that head and tail needed together.
    peak: usize,
}

impl Tail {
    fn take(&mut self, bytes: usize, alignment: usize) {
        self.used = (self.used + bytes).next_multiple_of(alignment);
    }

    /// A moment at which the head holds so many bytes.
    fn with_head(&mut self, bytes: usize) {
        self.peak = self.peak.max(self.used + bytes);
    }
}

/// What a model takes on a target.
#[must_use]
pub fn arena(model: &Model, target: Target) -> Arena {
    let sizes = match target {
        Target::Host64 => &HOST64,
        Target::CortexM => &CORTEX_M,
    };
    let scratch = scratch(model, target);
    let head = head(model, &scratch);
    let mut tail = Tail { used: 0, peak: 0 };
    sizes.fixed.iter().for_each(|bytes| tail.take(*bytes, sizes.pointer));
    tail.take(sizes.eval_tensor * model.tensors.len(), sizes.pointer);
    tail.take(sizes.node * model.nodes.len(), sizes.pointer);
    for node in &model.nodes {
        let (bytes, alignment) = options(&node.op, target);
        if bytes > 0 {
            tail.take(bytes, alignment);
        }
    }
    for node in &model.nodes {
        if let Some(bytes) = operator_data(&node.op, sizes) {
            tail.take(bytes, plan::ALIGNMENT);
        }
    }
    let mut requests = REQUESTS_PER_OPERATOR;
    for (index, node) in model.nodes.iter().enumerate() {
        for bytes in channel_data(model, node) {
            tail.take(bytes, plan::ALIGNMENT);
        }
        tail.with_head(requests * sizes.scratch_request + preparing(model, node, sizes));
        requests += scratch[index].len();
    }
    let count: usize = scratch.iter().map(Vec::len).sum();
    if count > 0 {
        tail.take(sizes.scratch_handle * count, sizes.pointer);
    }
    let lifetimes = plan::of_model(model).len() + count;
    let infos = sizes.pointer + sizes.allocation_info * (model.tensors.len() + count);
    let planning = aligned(requests * sizes.scratch_request + infos) + sizes.planned_buffer * lifetimes;
    // the planner works between two aligned addresses
    tail.with_head(planning + aligned(tail.used) - tail.used);
    tail.with_head(head);
    for ports in [&model.inputs, &model.outputs] {
        tail.take(sizes.pointer * ports.len(), plan::ALIGNMENT);
        for port in ports {
            tail.take(sizes.tensor, sizes.pointer);
            if model.tensors[*port].quantisation.is_some() {
                tail.take(sizes.affine, sizes.pointer);
                tail.take(8, 4);
            }
        }
    }
    let total = aligned(head + tail.used);
    Arena { head, tail: tail.used, total, required: aligned(total.max(tail.peak)) }
}

/// The head: the plan in the file where there is one, and TFLite-micro's own for the rest.
fn head(model: &Model, scratch: &[Vec<usize>]) -> usize {
    let mut lifetimes = plan::of_model(model);
    for (step, requests) in scratch.iter().enumerate() {
        let one = |bytes: &usize| Lifetime {
            tensor: None,
            bytes: aligned(*bytes),
            first: step + 1,
            last: step + 1,
        };
        lifetimes.extend(requests.iter().map(one));
    }
    let fixed: Vec<Option<usize>> = lifetimes
        .iter()
        .map(|lifetime| {
            let offsets = model.offline_plan.as_ref()?;
            usize::try_from(*offsets.get(lifetime.tensor?)?).ok()
        })
        .collect();
    plan::end(&lifetimes, &plan::as_the_device_does(&lifetimes, &fixed))
}

/// Scratch memory of each node.
pub(crate) fn scratch(model: &Model, target: Target) -> Vec<Vec<usize>> {
    model.nodes.iter().map(|node| scratch_of(model, node, target)).collect()
}

fn scratch_of(model: &Model, node: &Node, target: Target) -> Vec<usize> {
    let tensor = |place: usize| node.inputs.get(place).copied().flatten().map(|id| &model.tensors[id]);
    let (Some(x), Some(output)) = (tensor(0), node.outputs.first().map(|id| &model.tensors[*id])) else {
        return Vec::new();
    };
    let int8 = x.kind == Type::Int8;
    if let (Op::Mean { .. }, Some(axes)) = (&node.op, tensor(1)) {
        let rest = [4 * x.shape.len(), 4 * axes.len()];
        return if int8 { [4 * output.len()].into_iter().chain(rest).collect() } else { rest.to_vec() };
    }
    if target == Target::Host64 || !int8 {
        return Vec::new();
    }
    let filter = tensor(1).map(|tensor| tensor.shape.as_slice()).unwrap_or_default();
    let bytes = match (&node.op, filter) {
        (Op::Conv2d(window), &[_, height, width, channels]) => {
            let padding = padding(window.padding, &x.shape, [height, width], window.stride);
            let pointwise = padding == [0, 0] && height == 1 && width == 1 && window.dilation == [1, 1];
            if pointwise { 0 } else { 4 * (height * width * channels).next_multiple_of(4) }
        }
        (Op::DepthwiseConv2d(window, 1), &[_, height, width, channels]) => {
            let padding = padding(window.padding, &x.shape, [height, width], window.stride);
            let fast = height == 3 && width == 3 && padding.iter().all(|pad| *pad <= 1);
            if fast || window.dilation != [1, 1] { 0 } else { 2 * height * width * channels }
        }
        (Op::AveragePool2d(_), _) => 4 * x.shape.last().copied().unwrap_or(0),
        _ => 0,
    };
    if bytes > 0 { vec![bytes] } else { Vec::new() }
}

/// Above and to the left.
fn padding(padding: Padding, input: &[usize], filter: [usize; 2], stride: [usize; 2]) -> [usize; 2] {
    let of = |axis: usize| {
        let length = input.get(axis + 1).copied().unwrap_or(1);
        crate::graph::windows(length, filter[axis], stride[axis], 1, padding, axis).1
    };
    [of(0), of(1)]
}

/// The size and alignment of an operator's options.
fn options(op: &Op, target: Target) -> (usize, usize) {
    let host = target == Target::Host64;
    match op {
        Op::Conv2d(_) | Op::DepthwiseConv2d(..) => (28, 4),
        Op::FullyConnected(_) if host => (32, 8),
        // enumerations are bytes there
        Op::FullyConnected(_) => (5, 1),
        Op::MaxPool2d(_) | Op::AveragePool2d(_) => (40, 4),
        Op::Softmax(_) | Op::LeakyRelu(_) => (4, 4),
        Op::Add(_) | Op::Sub(_) => {
            if host {
                (8, 4)
            } else {
                (2, 1)
            }
        }
        Op::Mul(_) => {
            if host {
                (4, 4)
            } else {
                (1, 1)
            }
        }
        Op::Concat(_) => (8, 4),
        Op::Reshape => (36, 4),
        Op::Mean { .. } => (1, 1),
        _ => (0, 1),
    }
}

/// The size of what an operator keeps.
fn operator_data(op: &Op, sizes: &Sizes) -> Option<usize> {
    Some(match op {
        Op::Conv2d(_) | Op::DepthwiseConv2d(..) => sizes.convolution,
        Op::FullyConnected(_) => sizes.fully_connected,
        Op::MaxPool2d(_) | Op::AveragePool2d(_) => sizes.pool,
        Op::Softmax(_) => sizes.softmax,
        Op::Add(_) => 60,
        Op::Sub(_) => 52,
        Op::Mul(_) => 36,
        Op::Pad => 56,
        Op::Mean { .. } => 44,
        Op::Concat(_) => sizes.concat,
        Op::Logistic | Op::Tanh => 16,
        Op::HardSwish => 20,
        Op::LeakyRelu(_) => 24,
        Op::Clamp(Activation::Relu6) => 8,
        Op::Clamp(_) => 28,
        Op::Quantize | Op::Dequantize => 32,
        Op::Reshape | Op::Transpose | Op::Other(_) => return None,
    })
}

/// Multipliers and shifts for each output channel.
fn channel_data(model: &Model, node: &Node) -> Vec<usize> {
    let Some(filter) = node.inputs.get(1).copied().flatten().map(|id| &model.tensors[id]) else {
        return Vec::new();
    };
    let channels = match node.op {
        Op::Conv2d(_) => filter.shape.first().copied(),
        Op::DepthwiseConv2d(..) => filter.shape.get(3).copied(),
        Op::FullyConnected(_) => filter
            .quantisation
            .as_ref()
            .map(|quantisation| quantisation.scales.len())
            .filter(|scales| *scales > 1),
        _ => None,
    };
    channels.map_or_else(Vec::new, |channels| vec![4 * channels; 2])
}

/// Temporary structures while a node prepares.
fn preparing(model: &Model, node: &Node, sizes: &Sizes) -> usize {
    let of = |id: &usize| {
        let slices = model.tensors[*id].quantisation.as_ref().map(|quantisation| quantisation.scales.len());
        let codes =
            slices.map_or(0, |slices| (sizes.affine + 4 + 4 * slices).next_multiple_of(sizes.pointer));
        sizes.tensor + codes
    };
    let all: usize = node.inputs.iter().flatten().chain(&node.outputs).map(of).sum();
    let input = |place: usize| node.inputs.get(place).copied().flatten().map_or(0, |id| of(&id));
    match node.op {
        // once in the operator, once in what it shares with others
        Op::Conv2d(_) | Op::DepthwiseConv2d(..) => 2 * all - input(2),
        Op::Tanh => all + input(0),
        Op::Mean { .. } => all + input(0) + input(1),
        _ => all,
    }
}
