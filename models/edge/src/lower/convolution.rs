//! Operators that slide a window over an image or a sequence. Must not choose between paddings: that is a pass.

use super::{Lowering, View, refuse, view};
use crate::{
    error::{EdgeError, Result},
    graph::{Activation, Axis, Op, Padding, Pool, TensorId, Window, windows},
    onnx::Node,
};

/// Beyond these no window means anything.
const WINDOW_MAX: usize = 1 << 12;

/// A window of an image operator, height and width.
struct Geometry {
    filter: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    padding: Padding,
}

impl Lowering<'_> {
    pub(super) fn convolution(&mut self, node: &Node) -> Result<()> {
        let x = self.input(node, 0)?;
        let weights = self.required(node, 1)?;
        let image = self.image(node, &x)?;
        let rank = x.shape.len();
        let channels = x.shape[1];
        let groups = usize::try_from(node.attributes.int("group", 1)).unwrap_or(0);
        if weights.shape.len() != rank
            || groups == 0
            || weights.shape[1] * groups != channels
            || weights.is_empty()
        {
            let reason = format!(
                "expected weights [out, {channels} / {groups}, ...] of rank {rank}, got {:?}",
                weights.shape
            );
            return Err(EdgeError::malformed(format!("node '{}' (Conv)", node.name), reason));
        }
        let out = weights.shape[0];
        let depthwise = groups == channels && groups > 1 && out % groups == 0;
        if groups != 1 && !depthwise {
            let reason =
                format!("expected one group or one for each of {channels} channels, got {groups} groups");
            return Err(refuse(node, reason, "split it into a Conv for each group, then Concat"));
        }
        let filter = if rank == 3 { [1, weights.shape[2]] } else { [weights.shape[2], weights.shape[3]] };
        let geometry = self.geometry(node, &x, filter)?;
        let order: &[Option<usize>] = match (depthwise, rank) {
            (false, 3) => &[Some(0), None, Some(2), Some(1)],
            (false, _) => &[Some(0), Some(2), Some(3), Some(1)],
            (true, 3) => &[Some(1), None, Some(2), Some(0)],
            (true, _) => &[Some(1), Some(2), Some(3), Some(0)],
        };
        let axes = view::ordered(&weights.shape, order);
        let values = weights.to_floats();
        let values = view::source_order(&axes).into_iter().map(|place| values[place]).collect();
        let name = node.inputs[1].clone();
        let fixed = self.fixed_of(&name);
        let filter_id = self.graph.constant(name, axes.iter().map(|axis| axis.len).collect(), values);
        self.graph.tensors[filter_id].fixed = fixed;
        let bias = match self.optional(node, 2)? {
            Some(bias) if bias.len() == out => bias.to_floats(),
            Some(bias) => {
                let fault = format!("expected a bias of {out} values, got {:?}", bias.shape);
                return Err(EdgeError::malformed(format!("node '{}' (Conv)", node.name), fault));
            }
            None => vec![0.0; out],
        };
        let bias = self.graph.constant(format!("{}.bias", node.name), vec![out], bias);
        let Geometry { stride, dilation, padding, .. } = geometry;
        let window = Window { stride, dilation, padding, activation: Activation::None };
        let op = if depthwise { Op::DepthwiseConv2d(window, out / groups) } else { Op::Conv2d(window) };
        self.image_out(node, op, vec![image, filter_id, bias], &x, (&geometry, out))
    }

    pub(super) fn pool(&mut self, node: &Node) -> Result<()> {
        let x = self.input(node, 0)?;
        let mut image = self.image(node, &x)?;
        let kernel = node.attributes.lengths("kernel_shape").unwrap_or_default();
        let filter = match kernel.as_slice() {
            [width] if x.shape.len() == 3 => [1, *width],
            [height, width] if x.shape.len() == 4 => [*height, *width],
            _ => {
                let fault =
                    format!("expected a kernel_shape of {} lengths, got {kernel:?}", x.shape.len() - 2);
                return Err(EdgeError::malformed(format!("node '{}' ({})", node.name, node.operator), fault));
            }
        };
        let mut geometry = self.geometry(node, &x, filter)?;
        if geometry.dilation != [1, 1] {
            return Err(refuse(node, "expected no dilation", "use a pool without dilation"));
        }
        if node.attributes.int("ceil_mode", 0) != 0 {
            self.ceil_mode(node, &x, &geometry)?;
        }
        let counted = node.attributes.int("count_include_pad", 0) != 0;
        if let Padding::Explicit(pads) = geometry.padding {
            let same = is_same(&x, &geometry);
            let average = node.operator == "AveragePool";
            if pads == [0; 4] {
                geometry.padding = Padding::Valid;
            } else if same && !(average && counted) {
                geometry.padding = Padding::Same;
            } else if (average && counted) || (!average && self.is_never_negative(x.tensor)) {
                image = self.padded(node, image, pads);
                geometry.padding = Padding::Valid;
            } else {
                let reason = format!(
                    "its padding {pads:?} is neither TFLite's SAME nor zeros that cannot be told apart"
                );
                let way = "put the pool behind a Relu, or choose a padding that TFLite knows (export with SAME_UPPER)";
                return Err(refuse(node, reason, way));
            }
        }
        let Geometry { filter, stride, padding, .. } = geometry;
        let pool = Pool { filter, stride, padding, activation: Activation::None };
        let op = if node.operator == "MaxPool" { Op::MaxPool2d(pool) } else { Op::AveragePool2d(pool) };
        let seen = self.seen_after_padding(&x, image);
        self.image_out(node, op, vec![image], &seen, (&geometry, x.shape[1]))
    }

    /// Rounding up adds windows only where the stride does not fit.
    fn ceil_mode(&self, node: &Node, x: &View, geometry: &Geometry) -> Result<()> {
        let Padding::Explicit(pads) = geometry.padding else { return Ok(()) };
        let lengths = lengths(x);
        for axis in 0..2 {
            let rest = (lengths[axis] + pads[axis] + pads[axis + 2]).saturating_sub(geometry.filter[axis]);
            if !rest.is_multiple_of(geometry.stride[axis]) {
                let reason = format!("ceil_mode adds a window at the end of axis {axis}");
                return Err(refuse(node, reason, "use ceil_mode=False, or pad the input"));
            }
        }
        Ok(())
    }

    pub(super) fn global_pool(&mut self, node: &Node) -> Result<()> {
        let x = self.input(node, 0)?;
        let image = self.image(node, &x)?;
        if node.operator == "GlobalAveragePool" {
            let tensor = self.image_mean(node, image);
            let shape = [&x.shape[..2], &vec![1; x.shape.len() - 2]].concat();
            let axes = image_axes(&shape).expect("an image or a sequence");
            return self.bind(node, View { tensor, shape, axes });
        }
        let filter = lengths(&x);
        let pool = Pool { filter, stride: [1, 1], padding: Padding::Valid, activation: Activation::None };
        let geometry = Geometry { filter, stride: [1, 1], dilation: [1, 1], padding: Padding::Valid };
        self.image_out(node, Op::MaxPool2d(pool), vec![image], &x, (&geometry, x.shape[1]))
    }

    /// The mean over height and width. A MEAN has a scale of its own, where an average pool would keep that of its
    /// input, of which a mean fills a fraction.
    pub(super) fn image_mean(&mut self, node: &Node, image: TensorId) -> TensorId {
        let stored = &self.graph.tensors[image].shape;
        let shape = vec![stored[0], 1, 1, stored[3]];
        let axes = self.graph.integers("axes", vec![2], vec![1, 2]);
        self.emit(node, Op::Mean { keep_dims: true }, vec![image, axes], shape)
    }

    /// The tensor of an image in TFLite's order of axes.
    pub(super) fn image(&mut self, node: &Node, x: &View) -> Result<TensorId> {
        let target = image_axes(&x.shape).ok_or_else(|| {
            let reason = format!("expected an image [n, c, h, w] or a sequence [n, c, l], got {:?}", x.shape);
            refuse(node, reason, "reshape it to one of these")
        })?;
        self.materialise(node, x, &target)
    }

    fn geometry(&self, node: &Node, x: &View, filter: [usize; 2]) -> Result<Geometry> {
        let sequence = x.shape.len() == 3;
        let pair = |name: &str, default: usize| {
            let values = node.attributes.lengths(name).unwrap_or_default();
            match values.as_slice() {
                [] => [default; 2],
                [one] if sequence => [default, *one],
                [height, width, ..] => [*height, *width],
                [one] => [*one; 2],
            }
        };
        let (stride, dilation) = (pair("strides", 1), pair("dilations", 1));
        let lengths = lengths(x);
        let span = |axis: usize| (filter[axis].max(1) - 1) * dilation[axis] + 1;
        let pads = match node.attributes.text("auto_pad").as_str() {
            "" | "NOTSET" => match node.attributes.lengths("pads").unwrap_or_default().as_slice() {
                [] => [0; 4],
                [before, after] if sequence => [0, *before, 0, *after],
                [top, left, bottom, right] => [*top, *left, *bottom, *right],
                other => {
                    return Err(refuse(
                        node,
                        format!("expected pads on both sides, got {other:?}"),
                        "export again",
                    ));
                }
            },
            "VALID" => [0; 4],
            mode => {
                let mut pads = [0; 4];
                for axis in 0..2 {
                    let count = lengths[axis].div_ceil(stride[axis].max(1));
                    let total =
                        ((count.max(1) - 1) * stride[axis] + span(axis)).saturating_sub(lengths[axis]);
                    let before = if mode == "SAME_LOWER" { total.div_ceil(2) } else { total / 2 };
                    (pads[axis], pads[axis + 2]) = (before, total - before);
                }
                pads
            }
        };
        let numbers = filter.iter().chain(&stride).chain(&dilation);
        if numbers.clone().any(|n| *n == 0 || *n > WINDOW_MAX) || pads.iter().any(|n| *n > WINDOW_MAX) {
            let reason =
                format!("window {filter:?}, strides {stride:?}, dilations {dilation:?}, pads {pads:?}");
            return Err(refuse(node, reason, format!("use lengths between 1 and {WINDOW_MAX}")));
        }
        if (0..2).any(|axis| lengths[axis] + pads[axis] + pads[axis + 2] < span(axis)) {
            let reason = format!("its window {filter:?} is larger than the padded input {lengths:?}");
            return Err(refuse(node, reason, "use a larger input or a smaller window"));
        }
        Ok(Geometry { filter, stride, dilation, padding: Padding::Explicit(pads) })
    }

    /// Adds the node of an image operator and binds its output.
    fn image_out(
        &mut self,
        node: &Node,
        op: Op,
        inputs: Vec<TensorId>,
        x: &View,
        (geometry, out): (&Geometry, usize),
    ) -> Result<()> {
        let lengths = lengths(x);
        let count = |axis: usize| {
            let Geometry { filter, stride, dilation, padding } = geometry;
            windows(lengths[axis], filter[axis], stride[axis], dilation[axis], *padding, axis).0
        };
        let (height, width) = (count(0), count(1));
        let shape = match x.shape.len() {
            3 => vec![x.shape[0], out, width],
            _ => vec![x.shape[0], out, height, width],
        };
        crate::onnx_elements(&shape, &format!("output of node '{}'", node.name))?;
        let tensor = self.emit(node, op, inputs, vec![x.shape[0], height, width, out]);
        let axes = image_axes(&shape).expect("an image or a sequence");
        self.bind(node, View { tensor, shape, axes })
    }

    /// Zeros around an image.
    fn padded(&mut self, node: &Node, image: TensorId, [top, left, bottom, right]: [usize; 4]) -> TensorId {
        let mut shape = self.graph.tensors[image].shape.clone();
        shape[1] += top + bottom;
        shape[2] += left + right;
        let small = |value: usize| i32::try_from(value).expect("below the limit of a window");
        let values = vec![0, 0, small(top), small(bottom), small(left), small(right), 0, 0];
        let pads = self.graph.integers("paddings", vec![4, 2], values);
        self.emit(node, Op::Pad, vec![image, pads], shape)
    }

    /// The source's view of an image that was padded.
    fn seen_after_padding(&self, x: &View, image: TensorId) -> View {
        let stored = &self.graph.tensors[image].shape;
        let shape = match x.shape.len() {
            3 => vec![stored[0], stored[3], stored[2]],
            _ => vec![stored[0], stored[3], stored[1], stored[2]],
        };
        View { tensor: image, axes: image_axes(&shape).expect("an image"), shape }
    }

    /// Whether no value of a tensor can be below zero.
    fn is_never_negative(&self, tensor: TensorId) -> bool {
        let Some(index) = self.graph.maker(tensor) else { return false };
        let node = &self.graph.nodes[index];
        match &node.op {
            Op::Logistic | Op::Softmax(_) => true,
            Op::MaxPool2d(_) | Op::AveragePool2d(_) | Op::Pad | Op::Reshape | Op::Transpose => {
                self.is_never_negative(node.inputs[0])
            }
            op => op.activation().bounds().0 >= 0.0,
        }
    }
}

/// Channels last; `None` for what is no image and no sequence.
pub(super) fn image_axes(shape: &[usize]) -> Option<Vec<Axis>> {
    match shape.len() {
        3 => Some(view::ordered(shape, &[Some(0), None, Some(2), Some(1)])),
        4 => Some(view::ordered(shape, &[Some(0), Some(2), Some(3), Some(1)])),
        _ => None,
    }
}

/// Height and width of an image or a sequence.
fn lengths(x: &View) -> [usize; 2] {
    if x.shape.len() == 3 { [1, x.shape[2]] } else { [x.shape[2], x.shape[3]] }
}

/// Whether an explicit padding reads the same as TFLite's SAME.
fn is_same(x: &View, geometry: &Geometry) -> bool {
    let lengths = lengths(x);
    let Geometry { filter, stride, dilation, padding } = geometry;
    (0..2).all(|axis| {
        let of = |padding| windows(lengths[axis], filter[axis], stride[axis], dilation[axis], padding, axis);
        of(*padding) == of(Padding::Same)
    })
}
