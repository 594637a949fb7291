//! Requests into one batch and outputs back: gathered once, scattered once, padded and cropped where asked.
//! Must not know engines, queues or errors of the outside.

use std::sync::Arc;

use bytes::Bytes;
use gannet_models::{Dim, Signature, settings::Padding};

use super::queue::GroupKey;
use crate::{
    Tensor, TensorView,
    request::Tensors,
    tensor::{Shape, size_bytes},
};

/// Outputs up to this size are shared by the requests of a batch as slices of one buffer; above it each request
/// gets its own copy, so that one slow reader does not hold the memory of all.
const SHARED_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// How the requests of one servable are laid out in a batch. Made once, at load.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// Whether axis 0 counts rows.
    pub batched: bool,
    /// (input, axis) of every variable axis but the batch axis, with its padding if any.
    variable: Vec<VariableAxis>,
    /// (output, axis, index into `variable`) of every output axis that a padded input axis stretches.
    cropped: Vec<(usize, usize, usize)>,
}

#[derive(Debug, Clone)]
struct VariableAxis {
    input: usize,
    axis: usize,
    buckets: Vec<usize>,
    value: f64,
}

/// One request's place in a batch.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Its inputs, in the signature's order.
    pub inputs: &'a Tensors,
    /// Its rows.
    pub rows: usize,
}

impl Layout {
    /// Derives the layout from the signature and the configured padding.
    #[must_use]
    pub fn new(signature: &Signature, padding: &[Padding]) -> Self {
        let first = usize::from(signature.batched);
        let symbol = |dim: &Dim| match dim {
            Dim::Dynamic(symbol) => symbol.clone(),
            Dim::Fixed(_) => None,
        };
        let mut variable = Vec::new();
        let mut symbols: Vec<Option<Arc<str>>> = Vec::new();
        for (input, spec) in signature.inputs.iter().enumerate() {
            for (axis, dim) in spec.shape.iter().enumerate().skip(first) {
                if matches!(dim, Dim::Fixed(_)) {
                    continue;
                }
                let symbol = symbol(dim);
                let rule = padding.iter().find(|p| symbol.as_ref() == Some(&p.axis));
                variable.push(VariableAxis {
                    input,
                    axis,
                    buckets: rule.map(|p| p.buckets.clone()).unwrap_or_default(),
                    value: rule.map_or(0.0, |p| p.value),
                });
                symbols.push(symbol);
            }
        }
        let padded = |dim: &Dim| {
            let name = symbol(dim)?;
            symbols
                .iter()
                .zip(&variable)
                .position(|(s, v)| s.as_ref() == Some(&name) && !v.buckets.is_empty())
        };
        let mut cropped = Vec::new();
        for (output, spec) in signature.outputs.iter().enumerate() {
            for (axis, dim) in spec.shape.iter().enumerate().skip(first) {
                if let Some(index) = padded(dim) {
                    cropped.push((output, axis, index));
                }
            }
        }
        Self { batched: signature.batched, variable, cropped }
    }

    /// What a request shares with those it may be batched with.
    #[must_use]
    pub fn group(&self, inputs: &Tensors) -> GroupKey {
        self.variable.iter().map(|v| v.padded(inputs[v.input].shape[v.axis])).collect()
    }

    /// The shape of input `index` in the batch, `rows` rows long.
    fn batch_shape(&self, index: usize, part: &Part<'_>, rows: usize) -> Shape {
        let mut shape = part.inputs[index].shape.clone();
        for v in self.variable.iter().filter(|v| v.input == index) {
            shape[v.axis] = v.padded(shape[v.axis]);
        }
        if self.batched {
            shape[0] = rows;
        }
        shape
    }

    fn fill_of(&self, index: usize) -> f64 {
        self.variable.iter().find(|v| v.input == index && !v.buckets.is_empty()).map_or(0.0, |v| v.value)
    }
}

impl VariableAxis {
    fn padded(&self, length: usize) -> usize {
        self.buckets.iter().copied().find(|&bucket| bucket >= length).unwrap_or(length)
    }
}

/// Buffers that an instance reuses from batch to batch.
#[derive(Debug, Default)]
pub struct Gather {
    buffers: Vec<Vec<u8>>,
    shapes: Vec<Shape>,
}

impl Gather {
    /// Gathers the inputs of `parts` (all of one group, at least one). A part on its own is not copied unless it
    /// is padded. The views are in the signature's order.
    pub fn assemble<'a>(&'a mut self, layout: &Layout, parts: &'a [Part<'a>]) -> Vec<TensorView<'a>> {
        let rows = parts.iter().map(|part| part.rows).sum();
        let inputs = parts[0].inputs.len();
        self.buffers.resize_with(inputs, Vec::new);
        self.shapes.clear();
        self.shapes.extend((0..inputs).map(|index| layout.batch_shape(index, &parts[0], rows)));
        for index in 0..inputs {
            if is_own(parts, index, &self.shapes[index]) {
                continue;
            }
            let buffer = &mut self.buffers[index];
            buffer.clear();
            for part in parts {
                let tensor = &part.inputs[index];
                let mut shape = self.shapes[index].clone();
                if layout.batched {
                    shape[0] = part.rows;
                }
                append(buffer, tensor, &shape, layout.fill_of(index));
            }
        }
        let views = (0..inputs).map(|index| {
            let tensor = &parts[0].inputs[index];
            let shape = &self.shapes[index];
            let own = is_own(parts, index, shape);
            TensorView {
                dtype: tensor.dtype,
                shape,
                data: if own { &tensor.data } else { &self.buffers[index] },
            }
        });
        views.collect()
    }

    /// Gives back the memory of an unusually large batch.
    pub fn shrink(&mut self, bytes_max: usize) {
        for buffer in &mut self.buffers {
            if buffer.capacity() > bytes_max {
                *buffer = Vec::new();
            }
        }
    }
}

fn is_own(parts: &[Part<'_>], index: usize, shape: &Shape) -> bool {
    parts.len() == 1 && parts[0].inputs[index].shape == *shape
}

/// Appends `tensor`, padded at the end of its axes up to `shape`.
fn append(buffer: &mut Vec<u8>, tensor: &Tensor, shape: &Shape, fill: f64) {
    let (Some(element_bytes), false) = (tensor.dtype.size_bytes(), tensor.shape == *shape) else {
        buffer.extend_from_slice(&tensor.data);
        return;
    };
    let start = buffer.len();
    let bytes = size_bytes(tensor.dtype, shape).unwrap_or(0);
    let value = fill_bytes(tensor.dtype, fill);
    buffer.extend(value.iter().copied().cycle().take(bytes));
    copy_overlap(&tensor.data, &tensor.shape, &mut buffer[start..], shape, element_bytes);
}

/// Copies the part that two row-major arrays have in common.
fn copy_overlap(from: &[u8], from_shape: &[usize], to: &mut [u8], to_shape: &[usize], element_bytes: usize) {
    if from_shape == to_shape {
        to.copy_from_slice(from);
        return;
    }
    let stride = |shape: &[usize]| shape[1..].iter().product::<usize>() * element_bytes;
    let (from_stride, to_stride) = (stride(from_shape), stride(to_shape));
    for index in 0..from_shape[0].min(to_shape[0]) {
        let from = &from[index * from_stride..][..from_stride];
        let to = &mut to[index * to_stride..][..to_stride];
        if from_shape.len() == 1 {
            to.copy_from_slice(from);
        } else {
            copy_overlap(from, &from_shape[1..], to, &to_shape[1..], element_bytes);
        }
    }
}

/// `value` as one little-endian element.
#[expect(clippy::cast_possible_truncation, reason = "padding values are small whole numbers; as saturates")]
fn fill_bytes(dtype: gannet_models::DType, value: f64) -> Vec<u8> {
    use gannet_models::DType as D;
    match dtype {
        D::Bool => vec![u8::from(value != 0.0)],
        D::Uint8 => (value as u8).to_le_bytes().to_vec(),
        D::Uint16 => (value as u16).to_le_bytes().to_vec(),
        D::Uint32 => (value as u32).to_le_bytes().to_vec(),
        D::Uint64 => (value as u64).to_le_bytes().to_vec(),
        D::Int8 => (value as i8).to_le_bytes().to_vec(),
        D::Int16 => (value as i16).to_le_bytes().to_vec(),
        D::Int32 => (value as i32).to_le_bytes().to_vec(),
        D::Int64 => (value as i64).to_le_bytes().to_vec(),
        D::Fp16 => half::f16::from_f64(value).to_le_bytes().to_vec(),
        D::Bf16 => half::bf16::from_f64(value).to_le_bytes().to_vec(),
        D::Fp32 => (value as f32).to_le_bytes().to_vec(),
        D::Fp64 => value.to_le_bytes().to_vec(),
        D::Bytes => vec![0; 4],
    }
}

/// The outputs of one or more runs over a batch, being collected.
#[derive(Debug, Default)]
pub struct Collected {
    /// By output index; `None` until the backend gave it.
    outputs: Vec<Option<Output>>,
}

#[derive(Debug)]
struct Output {
    dtype: gannet_models::DType,
    shape: Shape,
    data: Vec<u8>,
}

impl Collected {
    /// For `count` outputs.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { outputs: (0..count).map(|_| None).collect() }
    }

    /// Takes one output of one run; further runs append rows.
    ///
    /// # Errors
    /// A text when a batched model gave the output another number of rows than `rows`, or runs disagree.
    pub fn add(
        &mut self,
        index: usize,
        value: TensorView<'_>,
        batched: bool,
        rows: usize,
    ) -> Result<(), String> {
        if batched && value.shape.first() != Some(&rows) {
            return Err(format!(
                "output {index} has the shape {:?} for a batch of {rows} rows, so its first axis is not the batch; \
                 set max_batch_size = 0 in the model's configuration",
                value.shape
            ));
        }
        match &mut self.outputs[index] {
            None => {
                let (shape, data) = (Shape::from_slice(value.shape), value.data.to_vec());
                self.outputs[index] = Some(Output { dtype: value.dtype, shape, data });
            }
            Some(output) if output.shape[1..] == value.shape[1..] => {
                output.shape[0] += rows;
                output.data.extend_from_slice(value.data);
            }
            Some(output) => {
                return Err(format!(
                    "output {index} changed its shape from {:?} to {:?} between two runs of one batch",
                    output.shape, value.shape
                ));
            }
        }
        Ok(())
    }

    /// Hands each part its outputs, in the order of `parts`.
    ///
    /// # Errors
    /// A text when an output is missing.
    pub fn scatter(self, layout: &Layout, parts: &[Part<'_>]) -> Result<Vec<Tensors>, String> {
        let mut answers: Vec<Tensors> = parts.iter().map(|_| Tensors::new()).collect();
        for (index, output) in self.outputs.into_iter().enumerate() {
            let output = output.ok_or_else(|| format!("output {index} was not given"))?;
            let copy = parts.len() > 1 && output.data.len() > SHARED_OUTPUT_BYTES_MAX;
            let whole = Tensor { dtype: output.dtype, shape: output.shape, data: Bytes::from(output.data) };
            let mut row = 0;
            for (part, answer) in parts.iter().zip(&mut answers) {
                let mut tensor =
                    if layout.batched { whole.rows(row, row + part.rows) } else { whole.clone() };
                row += part.rows;
                let own = crop(layout, index, part, &mut tensor);
                if copy && !own {
                    tensor.data = Bytes::copy_from_slice(&tensor.data);
                }
                answer.push(tensor);
            }
        }
        Ok(answers)
    }
}

/// Cuts axes that padding stretched back to the request's own length. Whether it copied.
fn crop(layout: &Layout, output: usize, part: &Part<'_>, tensor: &mut Tensor) -> bool {
    let mut shape = tensor.shape.clone();
    for &(_, axis, variable) in layout.cropped.iter().filter(|(index, ..)| *index == output) {
        let v = &layout.variable[variable];
        let length = part.inputs[v.input].shape[v.axis];
        if shape[axis] == v.padded(length) {
            shape[axis] = length;
        }
    }
    let Some(element_bytes) = tensor.dtype.size_bytes() else { return false };
    if shape == tensor.shape {
        return false;
    }
    let mut data = vec![0; size_bytes(tensor.dtype, &shape).unwrap_or(0)];
    copy_overlap(&tensor.data, &tensor.shape, &mut data, &shape, element_bytes);
    *tensor = Tensor { dtype: tensor.dtype, shape, data: Bytes::from(data) };
    true
}

#[cfg(test)]
mod tests {
    use gannet_models::{DType, TensorSpec};
    use smallvec::smallvec;

    use super::*;

    fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor { dtype: DType::Fp32, shape: Shape::from_slice(shape), data: Bytes::from(data) }
    }

    fn floats(data: &[u8]) -> Vec<f32> {
        data.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
    }

    fn signature() -> Signature {
        let dynamic = |name: &str| Dim::Dynamic(Some(Arc::from(name)));
        let spec =
            |name: &str, shape| TensorSpec { name: name.into(), dtype: DType::Fp32, shape, labels: None };
        Signature {
            inputs: vec![spec("x", vec![dynamic("batch"), dynamic("seq")])],
            outputs: vec![spec("y", vec![dynamic("batch"), dynamic("seq")])],
            batched: true,
        }
    }

    #[test]
    fn gathers_runs_and_scatters_with_padding() {
        let padding = [Padding { axis: Arc::from("seq"), buckets: vec![2, 4], value: 9.0 }];
        let layout = Layout::new(&signature(), &padding);
        let a: Tensors = smallvec![tensor(&[1, 3], &[1., 2., 3.])];
        let b: Tensors = smallvec![tensor(&[2, 4], &[4., 5., 6., 7., 8., 9., 10., 11.])];
        assert_eq!(layout.group(&a), layout.group(&b));
        assert_ne!(layout.group(&a), layout.group(&smallvec![tensor(&[1, 2], &[1., 2.])]));
        let parts = [Part { inputs: &a, rows: 1 }, Part { inputs: &b, rows: 2 }];
        let mut gather = Gather::default();
        let views = gather.assemble(&layout, &parts);
        assert_eq!(views[0].shape, [3, 4]);
        assert_eq!(floats(views[0].data), [1., 2., 3., 9., 4., 5., 6., 7., 8., 9., 10., 11.]);
        // the model is the identity, run in two calls
        let mut collected = Collected::new(1);
        let (first, second) = views[0].data.split_at(32);
        let view = |rows, data| TensorView {
            dtype: DType::Fp32,
            shape: if rows == 2 { &[2, 4] } else { &[1, 4] },
            data,
        };
        collected.add(0, view(2, first), true, 2).unwrap();
        collected.add(0, view(1, second), true, 1).unwrap();
        let answers = collected.scatter(&layout, &parts).unwrap();
        assert_eq!(answers[0], a);
        assert_eq!(answers[1], b);
    }

    #[test]
    fn a_lone_request_is_not_copied() {
        let layout = Layout::new(&signature(), &[]);
        let a: Tensors = smallvec![tensor(&[1, 3], &[1., 2., 3.])];
        let parts = [Part { inputs: &a, rows: 1 }];
        let mut gather = Gather::default();
        let views = gather.assemble(&layout, &parts);
        assert_eq!(views[0].data.as_ptr(), a[0].data.as_ptr());
    }

    #[test]
    fn an_output_without_the_batch_axis_is_named() {
        let mut collected = Collected::new(1);
        let view = TensorView { dtype: DType::Fp32, shape: &[1, 4], data: &[0; 16] };
        let message = collected.add(0, view, true, 3).unwrap_err();
        assert!(message.contains("max_batch_size = 0"), "{message}");
    }
}
