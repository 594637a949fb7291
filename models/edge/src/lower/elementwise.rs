//! Operators that compute each element by itself. Must not know images, except where channels are.

use super::{Lowering, Value, View, refuse, view};
use crate::{
    error::{EdgeError, Result},
    graph::{Activation, Axis, Op},
    onnx::{Constant, Node},
};

impl Lowering<'_> {
    pub(super) fn unary(&mut self, node: &Node, op: Op) -> Result<()> {
        let x = self.input(node, 0)?;
        let shape = self.graph.tensors[x.tensor].shape.clone();
        let tensor = self.emit(node, op, vec![x.tensor], shape);
        self.bind(node, View { tensor, ..x })
    }

    pub(super) fn pass_through(&mut self, node: &Node) -> Result<()> {
        if node.operator == "Cast" && !matches!(node.attributes.int("to", 1), 1 | 10 | 11 | 16) {
            return Err(refuse(node, "expected a cast between floats", "keep computed values in float32"));
        }
        let x = self.input(node, 0)?;
        self.bind(node, x)
    }

    pub(super) fn clamp(&mut self, node: &Node) -> Result<()> {
        if node.operator == "Relu" {
            return self.unary(node, Op::Clamp(Activation::Relu));
        }
        let bound = |index: usize, name: &str, open: f32| -> Result<f32> {
            let given =
                self.optional(node, index)?.and_then(|constant| constant.to_floats().first().copied());
            Ok(given.unwrap_or_else(|| node.attributes.float(name, open)))
        };
        let (low, high) = (bound(1, "min", f32::MIN)?, bound(2, "max", f32::MAX)?);
        let activation = match (low, high) {
            (low, high) if low == 0.0 && high >= 1e30 => Activation::Relu,
            (low, high) if low == 0.0 && high == 6.0 => Activation::Relu6,
            (low, high) if low == -1.0 && high == 1.0 => Activation::ReluN1To1,
            (low, high) if low <= -1e30 && high >= 1e30 => return self.pass_through(node),
            _ => {
                let reason = format!("expected the bounds 0..6, 0..inf or -1..1, got {low}..{high}");
                return Err(refuse(node, reason, "train it with ReLU or ReLU6"));
            }
        };
        self.unary(node, Op::Clamp(activation))
    }

    pub(super) fn binary(&mut self, node: &Node) -> Result<()> {
        let operands: Vec<&String> = node.inputs.iter().collect();
        let [a, b] = operands[..] else {
            return Err(refuse(
                node,
                format!("expected 2 inputs, got {}", operands.len()),
                "add two at a time",
            ));
        };
        let op = node.operator.as_str();
        match (self.values.get(a).cloned(), self.values.get(b).cloned()) {
            (Some(Value::Computed(x)), Some(Value::Constant(c))) => self.with_constant(node, op, &x, &c),
            (Some(Value::Constant(c)), Some(Value::Computed(x))) => match op {
                "Sub" => {
                    let minus = self.scaled(node, &x, &Constant::floats(Vec::new(), vec![-1.0]))?;
                    self.with_constant(node, "Add", &minus, &c)
                }
                "Div" => {
                    Err(refuse(node, "a constant is divided by a computed value", "leave the division out"))
                }
                _ => self.with_constant(node, op, &x, &c),
            },
            (Some(Value::Computed(a)), Some(Value::Computed(b))) => self.of_two(node, &a, &b),
            _ => Err(EdgeError::malformed(format!("node '{}'", node.name), "expected two known inputs")),
        }
    }

    fn with_constant(&mut self, node: &Node, op: &str, x: &View, constant: &Constant) -> Result<()> {
        let values = constant.to_floats();
        let (kind, values): (Op, Vec<f32>) = match op {
            "Sub" => (Op::Add(Activation::None), values.iter().map(|value| -value).collect()),
            "Div" => (Op::Mul(Activation::None), values.iter().map(|value| 1.0 / value).collect()),
            "Mul" => (Op::Mul(Activation::None), values),
            _ => (Op::Add(Activation::None), values),
        };
        let view = self.with_values(node, kind, x, &Constant::floats(constant.shape.clone(), values))?;
        self.bind(node, view)
    }

    fn scaled(&mut self, node: &Node, x: &View, by: &Constant) -> Result<View> {
        self.with_values(node, Op::Mul(Activation::None), x, by)
    }

    /// A node on a computed value and a constant, which is put into the order of the stored value.
    fn with_values(&mut self, node: &Node, op: Op, x: &View, constant: &Constant) -> Result<View> {
        let rank = x.shape.len().max(constant.shape.len());
        let shape = padded_shape(&x.shape, rank);
        let other = padded_shape(&constant.shape, rank);
        if constant.is_empty() || shape.iter().zip(&other).any(|(len, other)| *other != 1 && other != len) {
            let reason = format!("a constant of shape {:?} does not fit {:?}", constant.shape, x.shape);
            return Err(refuse(node, reason, "use one that broadcasts to the computed value's shape"));
        }
        let steps = view::strides(&other);
        let dims = view::strides(&shape);
        let step_of = |axis: usize| if other[axis] == 1 { 0 } else { steps[axis] };
        // the constant's place for a place in the source's order
        let place = |flat: usize| -> usize {
            (0..rank).map(|axis| flat / dims[axis] % shape[axis] * step_of(axis)).sum()
        };
        let stored = &self.graph.tensors[x.tensor].shape;
        let axes = if stored.iter().copied().eq(x.axes.iter().map(|axis| axis.len)) {
            x.axes.clone()
        } else {
            let tensor = self.materialise(node, x, &x.axes)?;
            return self.with_values(node, op, &View { tensor, ..x.clone() }, constant);
        };
        let varies = |axis: &Axis| (1..axis.len).any(|step| place(step * axis.stride) != 0);
        let kept: Vec<Axis> =
            axes.iter().map(|axis| if varies(axis) { *axis } else { Axis { len: 1, stride: 0 } }).collect();
        let values = constant.to_floats();
        let ordered = view::source_order(&kept).into_iter().map(|flat| values[place(flat)]).collect();
        let mut const_shape: Vec<usize> = kept.iter().map(|axis| axis.len).collect();
        while const_shape.len() > 1 && const_shape[0] == 1 {
            const_shape.remove(0);
        }
        let id = self.graph.constant(format!("{}.constant", node.name), const_shape, ordered);
        let stored = self.graph.tensors[x.tensor].shape.clone();
        let tensor = self.emit(node, op, vec![x.tensor, id], stored);
        Ok(View { tensor, shape, axes })
    }

    fn of_two(&mut self, node: &Node, a: &View, b: &View) -> Result<()> {
        let op = match node.operator.as_str() {
            "Add" | "Sum" => Op::Add(Activation::None),
            "Sub" => Op::Sub(Activation::None),
            "Mul" => Op::Mul(Activation::None),
            _ => {
                return Err(refuse(
                    node,
                    "two computed values are divided",
                    "multiply by a constant instead",
                ));
            }
        };
        let swap = b.shape.iter().product::<usize>() > a.shape.iter().product::<usize>();
        if swap && node.operator == "Sub" {
            return Err(refuse(node, "the smaller value is on the left", "multiply by -1 and add"));
        }
        let (a, b) = if swap { (b, a) } else { (a, b) };
        let rank = a.shape.len().max(b.shape.len());
        let (shape, other) = (padded_shape(&a.shape, rank), padded_shape(&b.shape, rank));
        if shape.iter().zip(&other).any(|(len, other)| *other != 1 && other != len) {
            let reason = format!("shapes {:?} and {:?} widen each other", a.shape, b.shape);
            return Err(refuse(node, reason, "expand one of them before"));
        }
        let left = self.materialise(node, a, &a.axes)?;
        let target: Vec<Axis> = if shape == other {
            a.axes.clone()
        } else {
            let dims = view::along(&a.axes, &shape);
            let dims = dims.ok_or_else(|| {
                refuse(node, "a flattened value is broadcast", "broadcast before flattening")
            })?;
            let steps = view::strides(&other);
            let axis = |dim: &Option<usize>| match dim {
                Some(dim) if other[*dim] > 1 => Axis { len: other[*dim], stride: steps[*dim] },
                _ => Axis { len: 1, stride: 0 },
            };
            dims.iter().map(axis).collect()
        };
        let b = View { tensor: b.tensor, shape: other, axes: b.axes.clone() };
        let right = self.materialise(node, &b, &target)?;
        let stored = self.graph.tensors[left].shape.clone();
        let tensor = self.emit(node, op, vec![left, right], stored);
        self.bind(node, View { tensor, shape, axes: a.axes.clone() })
    }

    /// A scale and an offset for each channel, which later passes fold into weights.
    pub(super) fn batch_normalization(&mut self, node: &Node) -> Result<()> {
        let x = self.input(node, 0)?;
        let part = |index: usize| self.required(node, index).map(|constant| constant.to_floats());
        let (scale, offset, mean, variance) = (part(1)?, part(2)?, part(3)?, part(4)?);
        let channels = x.shape.get(1).copied().unwrap_or(0);
        if [&scale, &offset, &mean, &variance].iter().any(|values| values.len() != channels) {
            let fault = format!("expected {channels} values for each channel");
            return Err(EdgeError::malformed(format!("node '{}' (BatchNormalization)", node.name), fault));
        }
        let epsilon = f64::from(node.attributes.float("epsilon", 1e-5));
        #[expect(clippy::cast_possible_truncation, reason = "weights are float32")]
        let factors: Vec<f32> = (0..channels)
            .map(|c| (f64::from(scale[c]) / (f64::from(variance[c]) + epsilon).sqrt()) as f32)
            .collect();
        let offsets = (0..channels).map(|c| offset[c] - mean[c] * factors[c]).collect();
        let mut shape = vec![1; x.shape.len()];
        shape[1] = channels;
        let scaled = self.scaled(node, &x, &Constant::floats(shape.clone(), factors))?;
        let view =
            self.with_values(node, Op::Add(Activation::None), &scaled, &Constant::floats(shape, offsets))?;
        self.bind(node, view)
    }
}

/// A shape with ones before it.
fn padded_shape(shape: &[usize], rank: usize) -> Vec<usize> {
    let mut padded = vec![1; rank - shape.len()];
    padded.extend(shape);
    padded
}
