//! Operators on axes: reshaping and transposing change the view alone; padding, joining, averaging and softmax need to
//! know which stored axis is meant. Must not know weights.

use super::{Lowering, View, convolution::image_axes, refuse, view};
use crate::{
    error::{EdgeError, Result},
    graph::{Axis, Op},
    onnx::Node,
};

impl Lowering<'_> {
    pub(super) fn reshape(&mut self, node: &Node) -> Result<()> {
        let x = self.input(node, 0)?;
        let shape = self.target_shape(node, &x.shape)?;
        self.bind(node, View { shape, ..x })
    }

    /// What shape a node of the reshaping kind gives.
    pub(super) fn target_shape(&self, node: &Node, from: &[usize]) -> Result<Vec<usize>> {
        let count: usize = from.iter().product();
        let rank = i64::try_from(from.len()).expect("few axes");
        let axis_of = |axis: i64, rank: i64| {
            usize::try_from(if axis < 0 { axis + rank } else { axis }).unwrap_or(usize::MAX)
        };
        let list = |name: &str| -> Result<Option<Vec<i64>>> {
            let constant = self.optional(node, 1)?;
            let given = constant.and_then(|constant| constant.to_ints().map(<[i64]>::to_vec));
            Ok(given.or_else(|| node.attributes.ints(name).map(<[i64]>::to_vec)))
        };
        let shape: Option<Vec<usize>> = match node.operator.as_str() {
            "Flatten" => {
                let axis = axis_of(node.attributes.int("axis", 1), rank).min(from.len());
                Some(vec![from[..axis].iter().product(), from[axis..].iter().product()])
            }
            "Squeeze" => {
                let axes = list("axes")?
                    .map(|axes| axes.iter().map(|axis| axis_of(*axis, rank)).collect::<Vec<_>>());
                let keep = |(axis, len): (usize, &usize)| match &axes {
                    Some(axes) => (!axes.contains(&axis)).then_some(*len),
                    None => (*len != 1).then_some(*len),
                };
                Some(from.iter().enumerate().filter_map(keep).collect())
            }
            "Unsqueeze" => {
                let axes = list("axes")?.unwrap_or_default();
                let rank = rank + i64::try_from(axes.len()).expect("few axes");
                let mut places: Vec<usize> = axes.iter().map(|axis| axis_of(*axis, rank)).collect();
                places.sort_unstable();
                let mut shape = from.to_vec();
                places
                    .iter()
                    .all(|place| {
                        *place <= shape.len() && {
                            shape.insert(*place, 1);
                            true
                        }
                    })
                    .then_some(shape)
            }
            _ => list("shape")?.and_then(|wanted| resolved(&wanted, from)),
        };
        let shape = shape.filter(|shape| shape.iter().product::<usize>() == count);
        shape.ok_or_else(|| {
            refuse(node, format!("its new shape does not hold {from:?}"), "export it with fixed shapes")
        })
    }

    pub(super) fn transpose(&mut self, node: &Node) -> Result<()> {
        let mut x = self.input(node, 0)?;
        let rank = x.shape.len();
        let permutation = node.attributes.lengths("perm").unwrap_or_else(|| (0..rank).rev().collect());
        let mut sorted = permutation.clone();
        sorted.sort_unstable();
        if sorted != (0..rank).collect::<Vec<_>>() {
            let fault = format!("expected a permutation of {rank} axes, got {permutation:?}");
            return Err(EdgeError::malformed(format!("node '{}' (Transpose)", node.name), fault));
        }
        let shape = permutation.iter().map(|axis| x.shape[*axis]).collect();
        let axes = match view::transposed(&x.axes, &x.shape, &permutation) {
            Some(axes) => axes,
            None => {
                let plain = view::row_major(&x.shape);
                x.tensor = self.materialise(node, &x, &plain)?;
                view::transposed(&plain, &x.shape, &permutation).expect("each axis is one of the source's")
            }
        };
        self.bind(node, View { tensor: x.tensor, shape, axes })
    }

    /// A stored tensor, and for each of its axes which of the source's it is.
    fn with_known_axes(&mut self, node: &Node, x: &View) -> Result<(usize, Vec<Option<usize>>)> {
        let rank = x.shape.len();
        let image = match rank {
            3 => vec![Some(0), None, Some(2), Some(1)],
            4 => vec![Some(0), Some(2), Some(3), Some(1)],
            _ => (0..rank).map(Some).collect(),
        };
        let stored = self.graph.tensors[x.tensor].shape.clone();
        for order in [image.clone(), (0..rank).map(Some).collect()] {
            let axes = view::ordered(&x.shape, &order);
            if axes.iter().map(|axis| axis.len).eq(stored.iter().copied())
                && view::same_memory(&axes, &x.axes)
            {
                return Ok((x.tensor, order));
            }
        }
        Ok((self.materialise(node, x, &view::ordered(&x.shape, &image))?, image))
    }

    pub(super) fn pad(&mut self, node: &Node) -> Result<()> {
        let x = self.input(node, 0)?;
        let mode = node.attributes.text("mode");
        let value = self.optional(node, 2)?.and_then(|constant| constant.to_floats().first().copied());
        let value = value.unwrap_or_else(|| node.attributes.float("value", 0.0));
        if !matches!(mode.as_str(), "" | "constant") || value != 0.0 {
            return Err(refuse(
                node,
                format!("expected zeros, got mode '{mode}' and value {value}"),
                "pad with zeros",
            ));
        }
        let given = self.optional(node, 1)?.and_then(|constant| constant.to_ints().map(<[i64]>::to_vec));
        let pads = given.or_else(|| node.attributes.ints("pads").map(<[i64]>::to_vec)).unwrap_or_default();
        let rank = x.shape.len();
        let pads: Option<Vec<usize>> =
            pads.iter().map(|pad| usize::try_from(*pad).ok().filter(|pad| *pad < 1 << 12)).collect();
        let pads = pads.filter(|pads| pads.len() == 2 * rank).ok_or_else(|| {
            refuse(
                node,
                format!("expected {} lengths that are not negative", 2 * rank),
                "use Slice-free padding",
            )
        })?;
        let (tensor, order) = self.with_known_axes(node, &x)?;
        let shape: Vec<usize> =
            (0..rank).map(|axis| x.shape[axis] + pads[axis] + pads[axis + rank]).collect();
        let small = |value: usize| i32::try_from(value).expect("below the limit");
        let side =
            |axis: &Option<usize>| axis.map_or([0, 0], |axis| [small(pads[axis]), small(pads[axis + rank])]);
        let values = order.iter().flat_map(side).collect();
        let paddings = self.graph.integers("paddings", vec![order.len(), 2], values);
        let axes = view::ordered(&shape, &order);
        crate::onnx_elements(&shape, &format!("output of node '{}'", node.name))?;
        let tensor =
            self.emit(node, Op::Pad, vec![tensor, paddings], axes.iter().map(|axis| axis.len).collect());
        self.bind(node, View { tensor, shape, axes })
    }

    pub(super) fn concat(&mut self, node: &Node) -> Result<()> {
        let parts =
            (0..node.inputs.len()).map(|index| self.input(node, index)).collect::<Result<Vec<_>>>()?;
        let Some(first) = parts.first() else {
            return Err(EdgeError::malformed(
                format!("node '{}' (Concat)", node.name),
                "expected inputs, got none",
            ));
        };
        let rank = first.shape.len();
        let axis = node.attributes.int("axis", 1);
        let axis = if axis < 0 { axis + i64::try_from(rank).expect("few axes") } else { axis };
        let axis = usize::try_from(axis).ok().filter(|axis| *axis < rank);
        let fits = |other: &View| {
            other.shape.len() == rank
                && (0..rank).all(|dim| Some(dim) == axis || other.shape[dim] == first.shape[dim])
        };
        let (Some(axis), true) = (axis, parts.iter().all(fits)) else {
            let fault = "expected inputs that differ along the axis alone";
            return Err(EdgeError::malformed(format!("node '{}' (Concat)", node.name), fault));
        };
        let (_, order) = self.with_known_axes(node, first)?;
        let stored = order.iter().position(|place| *place == Some(axis));
        let stored =
            stored.ok_or_else(|| refuse(node, "its axis is not stored", "concatenate before reshaping"))?;
        let mut inputs = Vec::new();
        for part in &parts {
            inputs.push(self.materialise(node, part, &view::ordered(&part.shape, &order))?);
        }
        let mut shape = first.shape.clone();
        shape[axis] = parts.iter().map(|part| part.shape[axis]).sum();
        let axes = view::ordered(&shape, &order);
        crate::onnx_elements(&shape, &format!("output of node '{}'", node.name))?;
        let tensor = self.emit(node, Op::Concat(stored), inputs, axes.iter().map(|axis| axis.len).collect());
        self.bind(node, View { tensor, shape, axes })
    }

    pub(super) fn mean(&mut self, node: &Node) -> Result<()> {
        let x = self.input(node, 0)?;
        let rank = x.shape.len();
        let given = self.optional(node, 1)?.and_then(|constant| constant.to_ints().map(<[i64]>::to_vec));
        let axes = given.or_else(|| node.attributes.ints("axes").map(<[i64]>::to_vec));
        let signed = i64::try_from(rank).expect("few axes");
        let place = |axis: &i64| {
            usize::try_from(if *axis < 0 { axis + signed } else { *axis }).ok().filter(|a| *a < rank)
        };
        let axes: Option<Vec<usize>> =
            axes.map_or(Some((0..rank).collect()), |axes| axes.iter().map(place).collect());
        let axes =
            axes.ok_or_else(|| refuse(node, format!("expected axes below {rank}"), "export it again"))?;
        let keep = node.attributes.int("keepdims", 1) != 0;
        let kept: Vec<usize> =
            (0..rank).map(|axis| if axes.contains(&axis) { 1 } else { x.shape[axis] }).collect();
        let shape: Vec<usize> =
            (0..rank).filter(|axis| keep || !axes.contains(axis)).map(|axis| kept[axis]).collect();
        let spatial = image_axes(&x.shape).is_some()
            && (2..rank).all(|axis| axes.contains(&axis))
            && axes.len() == rank - 2;
        if spatial {
            let target = image_axes(&x.shape).expect("an image");
            let image = self.materialise(node, &x, &target)?;
            let tensor = self.image_mean(node, image);
            return self.bind(node, View { tensor, shape, axes: image_axes(&kept).expect("an image") });
        }
        let (tensor, order) = self.with_known_axes(node, &x)?;
        let stored: Vec<i32> = (0..order.len())
            .filter(|place| order[*place].is_some_and(|axis| axes.contains(&axis)))
            .map(|place| i32::try_from(place).expect("few axes"))
            .collect();
        let stored_axes = view::ordered(&kept, &order);
        let input = self.graph.integers("axes", vec![stored.len()], stored);
        let out_shape = stored_axes.iter().map(|axis| axis.len).collect();
        let tensor = self.emit(node, Op::Mean { keep_dims: true }, vec![tensor, input], out_shape);
        self.bind(node, View { tensor, shape, axes: stored_axes })
    }

    pub(super) fn softmax(&mut self, node: &Node) -> Result<()> {
        let x = self.input(node, 0)?;
        let rank = i64::try_from(x.shape.len()).expect("few axes");
        let flattens = self.source.opset < 13;
        let axis = node.attributes.int("axis", if flattens { 1 } else { -1 });
        let axis = usize::try_from(if axis < 0 { axis + rank } else { axis })
            .ok()
            .filter(|axis| *axis < x.shape.len());
        let axis = axis.ok_or_else(|| refuse(node, "its axis does not exist", "export it again"))?;
        let inner: usize = x.shape[axis + 1..].iter().product();
        let len = if flattens { x.shape[axis] * inner } else { x.shape[axis] };
        let stride = if flattens { 1 } else { inner };
        let stored = self.graph.tensors[x.tensor].shape.clone();
        let merged = view::merged(&x.axes);
        let last = merged.last().copied().unwrap_or(Axis { len: 1, stride: 1 });
        let whole = last.len == len && last.stride == stride;
        let part = last.stride == stride && last.len % len == 0 && stride == 1;
        let (tensor, axes) = if (whole || part) && stored.last() == Some(&len) {
            (x.tensor, x.axes.clone())
        } else if stride == 1 {
            let outer = x.shape.iter().product::<usize>() / len;
            let target = view::row_major(&[outer, len]);
            (self.materialise(node, &x, &target)?, target)
        } else {
            let target = image_axes(&x.shape).filter(|_| axis == 1);
            let target =
                target.ok_or_else(|| refuse(node, "it goes over an inner axis", "put that axis last"))?;
            (self.materialise(node, &x, &target)?, target)
        };
        let shape = self.graph.tensors[tensor].shape.clone();
        let tensor = self.emit(node, Op::Softmax(1.0), vec![tensor], shape);
        self.bind(node, View { tensor, shape: x.shape, axes })
    }
}

/// Fills in what a Reshape leaves open.
fn resolved(wanted: &[i64], from: &[usize]) -> Option<Vec<usize>> {
    let count: usize = from.iter().product();
    let mut shape = Vec::new();
    let mut open = None;
    for (place, len) in wanted.iter().enumerate() {
        match len {
            0 => shape.push(*from.get(place)?),
            -1 if open.is_none() => {
                open = Some(place);
                shape.push(1);
            }
            _ => shape.push(usize::try_from(*len).ok()?),
        }
    }
    if let Some(open) = open {
        let known = shape.iter().try_fold(1usize, |product, len| product.checked_mul(*len))?;
        shape[open] = count.checked_div(known)?;
    }
    // the batch of the source may be written into the shape: here it is one row
    shape.iter().try_fold(1usize, |product, len| product.checked_mul(*len)).map(|_| shape)
}
