//! Sources that are quantised already (QuantizeLinear and DequantizeLinear around float operators): their scales are
//! kept, the pairs vanish. Must not choose scales.

use super::{Lowering, refuse};
use crate::{
    error::{EdgeError, Result},
    graph::Fixed,
    onnx::{Constant, Elements, Node},
};

impl Lowering<'_> {
    /// What a quantised source says of a constant that it dequantises into `name`.
    pub(super) fn fixed_of(&self, name: &str) -> Option<Fixed> {
        let node = self
            .source
            .nodes
            .iter()
            .find(|node| node.outputs.first().is_some_and(|output| output == name))?;
        if node.operator != "DequantizeLinear" {
            return None;
        }
        let scales = self.required(node, 1).ok()?.to_floats();
        let zero = self
            .optional(node, 2)
            .ok()?
            .map_or(0, |zero| zero.to_ints().and_then(|z| z.first().copied()).unwrap_or(0));
        // weights of int8 kernels are symmetric
        (zero == 0).then_some(Fixed { scales, zero_point: 0 })
    }

    /// The float values of a quantised constant.
    pub(super) fn dequantised(&self, node: &Node, value: &Constant) -> Result<Constant> {
        let (scale, zero) = self.scale(node)?;
        let axis = node.attributes.int("axis", 1);
        let axis = usize::try_from(if axis < 0 {
            axis + i64::try_from(value.shape.len()).unwrap_or(0)
        } else {
            axis
        });
        let inner: usize = match axis {
            Ok(axis) if scale.len() > 1 && axis < value.shape.len() && value.shape[axis] == scale.len() => {
                value.shape[axis + 1..].iter().product()
            }
            _ if scale.len() == 1 => value.len().max(1),
            _ => {
                let fault = format!("expected 1 scale or one for each slice, got {}", scale.len());
                return Err(EdgeError::malformed(format!("node '{}' (DequantizeLinear)", node.name), fault));
            }
        };
        let of = |place: usize| (place / inner.max(1)) % scale.len();
        let floats = value.to_floats();
        let values = floats
            .iter()
            .enumerate()
            .map(|(place, value)| (value - zero[of(place) % zero.len()]) * scale[of(place)]);
        Ok(Constant { shape: value.shape.clone(), elements: Elements::Float(values.collect()) })
    }

    fn scale(&self, node: &Node) -> Result<(Vec<f32>, Vec<f32>)> {
        let scale = self.required(node, 1)?.to_floats();
        let zero = self.optional(node, 2)?.map_or_else(|| vec![0.0], |zero| zero.to_floats());
        let sound = scale.iter().all(|scale| *scale > 0.0 && scale.is_finite())
            && !scale.is_empty()
            && !zero.is_empty();
        if !sound {
            let fault = "expected positive scales and a zero point";
            return Err(EdgeError::malformed(format!("node '{}' ({})", node.name, node.operator), fault));
        }
        Ok((scale, zero))
    }

    /// A pair on a computed value: the value passes through, and remembers its scale.
    pub(super) fn quantised(&mut self, node: &Node) -> Result<()> {
        let x = self.input(node, 0)?;
        if node.operator == "QuantizeLinear" {
            let (scale, zero) = self.scale(node)?;
            let [scale] = scale[..] else {
                return Err(refuse(
                    node,
                    "a computed value has several scales",
                    "quantise activations by tensor",
                ));
            };
            let is_unsigned = self.is_unsigned(node)?;
            #[expect(clippy::cast_possible_truncation, reason = "zero points are bytes")]
            let zero_point = zero[0] as i32 - if is_unsigned { 128 } else { 0 };
            if !(-128..=127).contains(&zero_point) {
                return Err(refuse(
                    node,
                    format!("expected 8 bits, got zero point {}", zero[0]),
                    "quantise to 8 bits",
                ));
            }
            self.graph.tensors[x.tensor].fixed = Some(Fixed { scales: vec![scale], zero_point });
        }
        self.bind(node, x)
    }

    /// Whether the codes are uint8, which the format leaves to the type of the zero point.
    fn is_unsigned(&self, node: &Node) -> Result<bool> {
        let Some(name) = node.inputs.get(2).filter(|name| !name.is_empty()) else { return Ok(true) };
        let _ = self.required(node, 2)?;
        Ok(self.source.unsigned.contains(name))
    }
}
