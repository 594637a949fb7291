//! The loops of the image operators, once for floats and for integers. Must not know rounding, scales or graphs.

use crate::graph::{Padding, windows};

/// A number that is multiplied and added.
pub(crate) trait Scalar: Copy + Default + PartialEq {
    /// `self + a * b`; integers wrap as those of the device do.
    fn plus_product(self, a: Self, b: Self) -> Self;
}

impl Scalar for f32 {
    fn plus_product(self, a: Self, b: Self) -> Self {
        self + a * b
    }
}

impl Scalar for i32 {
    fn plus_product(self, a: Self, b: Self) -> Self {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// A window over an image of one row: where each output pixel reads.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Height, width, channels.
    pub(crate) input: [usize; 3],
    /// Height and width.
    pub(crate) filter: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    /// Height, width, channels.
    pub(crate) output: [usize; 3],
    /// Above and to the left.
    pub(crate) before: [usize; 2],
}

impl Image {
    /// The geometry of an operator; `None` if its tensors are no images of one row, or do not fit together.
    pub(crate) fn new(
        input: &[usize],
        output: &[usize],
        filter: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
        padding: Padding,
    ) -> Option<Self> {
        let (&[1, ih, iw, ic], &[1, oh, ow, oc]) = (input, output) else { return None };
        let sound = filter.iter().chain(&stride).chain(&dilation).all(|length| (1..1 << 16).contains(length));
        if !sound {
            return None;
        }
        let axis = |axis: usize, length: usize| {
            windows(length, filter[axis], stride[axis], dilation[axis], padding, axis)
        };
        let ((rows, top), (columns, left)) = (axis(0, ih), axis(1, iw));
        let fits = rows == oh && columns == ow;
        let (input, output, before) = ([ih, iw, ic], [oh, ow, oc], [top, left]);
        fits.then_some(Self { input, filter, stride, dilation, output, before })
    }

    /// Calls with each output pixel and each place of its window that lies inside: (output, place, input).
    pub(crate) fn walk(&self, mut pixel: impl FnMut(usize, &[(usize, usize)])) {
        let [ih, iw, _] = self.input;
        let mut places = Vec::with_capacity(self.filter[0] * self.filter[1]);
        for oy in 0..self.output[0] {
            for ox in 0..self.output[1] {
                places.clear();
                for fy in 0..self.filter[0] {
                    let y = (oy * self.stride[0] + fy * self.dilation[0]).wrapping_sub(self.before[0]);
                    if y >= ih {
                        continue;
                    }
                    for fx in 0..self.filter[1] {
                        let x = (ox * self.stride[1] + fx * self.dilation[1]).wrapping_sub(self.before[1]);
                        if x < iw {
                            places.push((fy * self.filter[1] + fx, y * iw + x));
                        }
                    }
                }
                pixel(oy * self.output[1] + ox, &places);
            }
        }
    }
}

/// Weights `[o,kh,kw,i]` as `[kh,kw,i,o]`, so that the innermost loop runs over outputs.
pub(crate) fn pack<T: Copy>(weights: &[T], outputs: usize) -> Vec<T> {
    let inner = weights.len() / outputs.max(1);
    (0..inner).flat_map(|k| (0..outputs).map(move |o| weights[o * inner + k])).collect()
}

/// A convolution; `packed` comes from [`pack`].
pub(crate) fn convolve<T: Scalar>(image: &Image, x: &[T], packed: &[T], bias: &[T]) -> Vec<T> {
    let (inputs, outputs) = (image.input[2], image.output[2]);
    let mut out = vec![T::default(); image.output.iter().product()];
    image.walk(|pixel, places| {
        let sums = &mut out[pixel * outputs..(pixel + 1) * outputs];
        sums.copy_from_slice(bias);
        for (place, at) in places {
            for (channel, value) in x[at * inputs..(at + 1) * inputs].iter().enumerate() {
                if *value == T::default() {
                    continue;
                }
                let row = (place * inputs + channel) * outputs;
                for (sum, weight) in sums.iter_mut().zip(&packed[row..row + outputs]) {
                    *sum = sum.plus_product(*value, *weight);
                }
            }
        }
    });
    out
}

/// A depthwise convolution, weights `[kh,kw,c*multiplier]`.
pub(crate) fn convolve_depthwise<T: Scalar>(
    image: &Image,
    multiplier: usize,
    x: &[T],
    weights: &[T],
    bias: &[T],
) -> Vec<T> {
    let (inputs, outputs) = (image.input[2], image.output[2]);
    let mut out = vec![T::default(); image.output.iter().product()];
    image.walk(|pixel, places| {
        let sums = &mut out[pixel * outputs..(pixel + 1) * outputs];
        sums.copy_from_slice(bias);
        for (place, at) in places {
            let (values, row) =
                (&x[at * inputs..(at + 1) * inputs], &weights[place * outputs..(place + 1) * outputs]);
            if multiplier == 1 {
                for ((sum, weight), value) in sums.iter_mut().zip(row).zip(values) {
                    *sum = sum.plus_product(*value, *weight);
                }
            } else {
                for (channel, (sum, weight)) in sums.iter_mut().zip(row).enumerate() {
                    *sum = sum.plus_product(values[channel / multiplier], *weight);
                }
            }
        }
    });
    out
}

/// Rows times weights, packed as `[i,o]`.
pub(crate) fn multiply<T: Scalar>(x: &[T], packed: &[T], bias: &[T]) -> Vec<T> {
    let outputs = bias.len();
    let inputs = packed.len() / outputs.max(1);
    let mut out = Vec::with_capacity(x.len() / inputs.max(1) * outputs);
    for row in x.chunks_exact(inputs.max(1)) {
        let mut sums = bias.to_vec();
        for (value, weights) in row.iter().zip(packed.chunks_exact(outputs)) {
            if *value == T::default() {
                continue;
            }
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = sum.plus_product(*value, *weight);
            }
        }
        out.extend(sums);
    }
    out
}

/// For each element of the output of an elementwise operator, where the two inputs have theirs.
pub(crate) fn broadcast(output: &[usize], input: &[usize]) -> Option<Vec<usize>> {
    let rank = output.len().max(input.len());
    let pad = |shape: &[usize]| -> Vec<usize> {
        std::iter::repeat_n(1, rank - shape.len()).chain(shape.iter().copied()).collect()
    };
    let (output, input) = (pad(output), pad(input));
    if output.iter().zip(&input).any(|(out, len)| len != out && *len != 1) {
        return None;
    }
    let mut places = vec![0];
    let mut step: usize = input.iter().product();
    for (out, len) in output.iter().zip(&input) {
        step /= len;
        let by = if *len == 1 { 0 } else { step };
        places = places.iter().flat_map(|base| (0..*out).map(move |index| base + index * by)).collect();
    }
    Some(places)
}

/// For each element of a transposed tensor, where it comes from.
pub(crate) fn transposed(shape: &[usize], permutation: &[usize]) -> Option<Vec<usize>> {
    let mut sorted = permutation.to_vec();
    sorted.sort_unstable();
    if sorted != (0..shape.len()).collect::<Vec<_>>() {
        return None;
    }
    let step = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let mut places = vec![0];
    for axis in permutation {
        let by = step(*axis);
        places =
            places.iter().flat_map(|base| (0..shape[*axis]).map(move |index| base + index * by)).collect();
    }
    Some(places)
}

/// For each element of a padded tensor, where it comes from, if from anywhere.
pub(crate) fn padded(shape: &[usize], paddings: &[i32]) -> Option<(Vec<usize>, Vec<Option<usize>>)> {
    if paddings.len() != 2 * shape.len() {
        return None;
    }
    let mut places: Vec<Option<usize>> = vec![Some(0)];
    let mut out = Vec::new();
    let mut step: usize = shape.iter().product();
    for (axis, len) in shape.iter().enumerate() {
        step /= len;
        let before = usize::try_from(paddings[2 * axis]).ok()?;
        let total = before + len + usize::try_from(paddings[2 * axis + 1]).ok()?;
        crate::onnx::elements_of(&[places.len(), total], "a padded tensor").ok()?;
        let place = |base: Option<usize>, index: usize| {
            let index = index.checked_sub(before).filter(|index| index < len)?;
            base.map(|base| base + index * step)
        };
        places = places.iter().flat_map(|base| (0..total).map(move |index| place(*base, index))).collect();
        out.push(total);
    }
    Some((out, places))
}

/// Joins tensors along an axis: each part's shape and elements.
pub(crate) fn joined<T: Copy>(parts: &[(&[usize], &[T])], axis: usize) -> Option<Vec<T>> {
    let (shape, _) = parts.first()?;
    let outer: usize = shape.get(..axis)?.iter().product();
    let mut all = Vec::new();
    for row in 0..outer {
        for (shape, values) in parts {
            let size: usize = shape.get(axis..)?.iter().product();
            all.extend(values.get(row * size..(row + 1) * size)?);
        }
    }
    Some(all)
}

/// For a mean over some axes: where each element of the input goes, and how many go to one place.
pub(crate) fn reduced(shape: &[usize], axes: &[usize]) -> (Vec<usize>, usize) {
    let kept = |axis: usize| if axes.contains(&axis) { 1 } else { shape[axis] };
    let mut step: usize = (0..shape.len()).map(kept).product();
    let count =
        shape.iter().enumerate().filter(|(axis, _)| axes.contains(axis)).map(|(_, len)| len).product();
    let mut places = vec![0];
    for (axis, len) in shape.iter().enumerate() {
        step /= kept(axis);
        let by = if axes.contains(&axis) { 0 } else { step };
        places = places.iter().flat_map(|base| (0..*len).map(move |index| base + index * by)).collect();
    }
    (places, count)
}
