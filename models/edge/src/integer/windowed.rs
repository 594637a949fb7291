//! Products with weights and pools, on codes. Must not know other operators.

use super::{clamp_range, fixed::Multiplier};
use crate::{
    graph::{Op, Pool},
    kernels::{self, Image},
    lite::{Tensor, Type},
};

/// How a product runs over its input.
#[derive(Debug)]
enum Kind {
    Convolution(Image),
    Depthwise(Image, usize),
    Rows,
}

/// A product that is ready to run.
#[derive(Debug)]
pub(super) struct Weights {
    kind: Kind,
    /// In the order of the loops.
    packed: Vec<i32>,
    bias: Vec<i32>,
    /// One for each output channel.
    multipliers: Vec<Multiplier>,
    input_zero: i32,
    output_zero: i32,
    range: (i32, i32),
}

impl Weights {
    pub(super) fn new(
        op: &Op,
        [x, filter]: [&Tensor; 2],
        bias: Option<&Tensor>,
        output: &Tensor,
    ) -> Option<Self> {
        let codes: Vec<i32> = filter.as_i8().into_iter().map(i32::from).collect();
        let whole = filter.kind == Type::Int8 && codes.len() == filter.len() && !codes.is_empty();
        let channels = match op {
            Op::DepthwiseConv2d(..) => *filter.shape.get(3)?,
            _ => *filter.shape.first()?,
        };
        if !whole || channels == 0 {
            return None;
        }
        let bias = bias.map_or_else(|| vec![0; channels], Tensor::as_i32);
        let scales = &filter.quantisation.as_ref()?.scales;
        if bias.len() != channels || !(scales.len() == 1 || scales.len() == channels) {
            return None;
        }
        let (input, output_scale) = (f64::from(x.scale().0), f64::from(output.scale().0));
        let multiplier = |channel: usize| {
            Multiplier::new(input * f64::from(scales[channel % scales.len()]) / output_scale)
        };
        let kind = match op {
            Op::Conv2d(w) | Op::DepthwiseConv2d(w, _) => {
                let &[_, height, width, inner] = filter.shape.as_slice() else { return None };
                let size = [height, width];
                let image = Image::new(&x.shape, &output.shape, size, w.stride, w.dilation, w.padding)?;
                let fits = image.output[2] == channels;
                match op {
                    Op::DepthwiseConv2d(_, times) if fits && times * image.input[2] == channels => {
                        Kind::Depthwise(image, *times)
                    }
                    Op::Conv2d(_) if fits && image.input[2] == inner => Kind::Convolution(image),
                    _ => return None,
                }
            }
            _ if filter.shape.len() == 2 && x.len() % filter.shape[1] == 0 => Kind::Rows,
            _ => return None,
        };
        let packed =
            if matches!(kind, Kind::Depthwise(..)) { codes } else { kernels::pack(&codes, channels) };
        let (input_zero, output_zero) = (x.scale().1, output.scale().1);
        let range = clamp_range(op.activation(), output);
        let multipliers = (0..channels).map(multiplier).collect();
        Some(Self { kind, packed, bias, multipliers, input_zero, output_zero, range })
    }

    pub(super) fn run(&self, codes: &[i8]) -> Option<Vec<i8>> {
        let x: Vec<i32> = codes.iter().map(|code| i32::from(*code) - self.input_zero).collect();
        let sums = match &self.kind {
            Kind::Convolution(image) => kernels::convolve(image, &x, &self.packed, &self.bias),
            Kind::Depthwise(image, times) => {
                kernels::convolve_depthwise(image, *times, &x, &self.packed, &self.bias)
            }
            Kind::Rows => kernels::multiply(&x, &self.packed, &self.bias),
        };
        let (low, high) = self.range;
        let code = |(place, sum): (usize, &i32)| {
            let scaled = self.multipliers[place % self.multipliers.len()].apply(*sum);
            i8::try_from(scaled.wrapping_add(self.output_zero).max(low).min(high)).ok()
        };
        sums.iter().enumerate().map(code).collect()
    }
}

/// A pool, whose input and output share one scale.
pub(super) fn pool(pool: &Pool, x: &Tensor, output: &Tensor, codes: &[i8], largest: bool) -> Option<Vec<i8>> {
    let image = Image::new(&x.shape, &output.shape, pool.filter, pool.stride, [1, 1], pool.padding)?;
    let channels = image.input[2];
    let (low, high) = clamp_range(pool.activation, output);
    let mut out = vec![0; output.len()];
    let mut whole = channels == image.output[2];
    image.walk(|pixel, places| {
        let Ok(count) = i32::try_from(places.len()) else { return };
        if count == 0 || !whole {
            whole = false;
            return;
        }
        for (channel, slot) in out[pixel * channels..(pixel + 1) * channels].iter_mut().enumerate() {
            let values = places.iter().map(|(_, at)| i32::from(codes[at * channels + channel]));
            let value = if largest {
                values.max().unwrap_or(-128)
            } else {
                let sum: i32 = values.sum();
                // to the nearest, ties away from zero
                if sum > 0 { (sum + count / 2) / count } else { (sum - count / 2) / count }
            };
            *slot = i8::try_from(value.max(low).min(high)).unwrap_or(0);
        }
    });
    whole.then_some(out)
}
