//! Constants of an ONNX file, decoded and checked against their shapes. Must not know nodes.

use super::proto::TensorProto;
use crate::error::{EdgeError, Result};

/// Elements that any one tensor may have: beyond what a microcontroller's flash holds, and small enough that sizes
/// never overflow.
pub(crate) const ELEMENTS_MAX: usize = 1 << 27;
/// Axes that any one tensor may have.
pub(crate) const RANK_MAX: usize = 8;

/// The values of a constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// Floating-point, of any width in the file.
    Float(Vec<f32>),
    /// Integers and booleans, of any width in the file.
    Int(Vec<i64>),
}

/// A constant tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Constant {
    /// Its axes, outermost first.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub elements: Elements,
}

impl Constant {
    /// Floats of a shape; their count must fit.
    #[must_use]
    pub fn floats(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self { shape, elements: Elements::Float(values) }
    }

    /// Integers of a shape; their count must fit.
    #[must_use]
    pub fn ints(shape: Vec<usize>, values: Vec<i64>) -> Self {
        Self { shape, elements: Elements::Int(values) }
    }

    /// The number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.elements {
            Elements::Float(values) => values.len(),
            Elements::Int(values) => values.len(),
        }
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as floats.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "constants of shapes and codes are small")]
    pub fn to_floats(&self) -> Vec<f32> {
        match &self.elements {
            Elements::Float(values) => values.clone(),
            Elements::Int(values) => values.iter().map(|value| *value as f32).collect(),
        }
    }

    /// The values as integers, or nothing if they are floats.
    #[must_use]
    pub fn to_ints(&self) -> Option<&[i64]> {
        match &self.elements {
            Elements::Int(values) => Some(values),
            Elements::Float(_) => None,
        }
    }

    /// Decodes a tensor of the file.
    ///
    /// # Errors
    /// [`EdgeError::Malformed`] when the data do not fit the shape, [`EdgeError::Unsupported`] for other types.
    pub fn decode(tensor: &TensorProto) -> Result<Self> {
        let what = || format!("constant '{}'", tensor.name);
        if tensor.data_location != 0 {
            return Err(EdgeError::Unsupported {
                node: tensor.name.clone(),
                operator: "initializer".into(),
                reason: "expected its values in the file, got a reference to another file".into(),
                way_round: "save the model as one file (onnx.save without save_as_external_data)".into(),
            });
        }
        let dims: Option<Vec<usize>> = tensor.dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
        let shape =
            dims.ok_or_else(|| EdgeError::malformed(what(), format!("negative shape {:?}", tensor.dims)))?;
        let count = elements_of(&shape, &what())?;
        let elements = elements(tensor).ok_or_else(|| EdgeError::Unsupported {
            node: tensor.name.clone(),
            operator: "initializer".into(),
            reason: format!("expected numbers, got data type {}", tensor.data_type),
            way_round: "export the model with float32 weights".into(),
        })?;
        let constant = Self { shape, elements };
        if constant.len() != count {
            let fault =
                format!("expected {count} values of shape {:?}, got {}", constant.shape, constant.len());
            return Err(EdgeError::malformed(what(), fault));
        }
        Ok(constant)
    }
}

/// The product of a shape, refused when it is beyond the limits.
pub(crate) fn elements_of(shape: &[usize], what: &str) -> Result<usize> {
    if shape.len() > RANK_MAX {
        let fault = format!("expected at most {RANK_MAX} axes, got {}", shape.len());
        return Err(EdgeError::malformed(what, fault));
    }
    let product = shape.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim));
    match product {
        Some(count) if count <= ELEMENTS_MAX => Ok(count),
        _ => Err(EdgeError::TooLarge {
            what: format!("elements of {what}"),
            limit: ELEMENTS_MAX as u64,
            got: product.unwrap_or(usize::MAX) as u64,
        }),
    }
}

fn elements(tensor: &TensorProto) -> Option<Elements> {
    let raw = &tensor.raw_data;
    let is_raw = !raw.is_empty();
    let small = || tensor.int32_data.iter().map(|value| i64::from(*value));
    Some(match tensor.data_type {
        1 if is_raw => Elements::Float(chunks(raw, |bytes: [u8; 4]| f32::from_le_bytes(bytes))),
        1 => Elements::Float(tensor.float_data.clone()),
        #[expect(clippy::cast_possible_truncation, reason = "the graph computes in float32")]
        11 if is_raw => Elements::Float(chunks(raw, |bytes: [u8; 8]| f64::from_le_bytes(bytes) as f32)),
        #[expect(clippy::cast_possible_truncation, reason = "the graph computes in float32")]
        11 => Elements::Float(tensor.double_data.iter().map(|value| *value as f32).collect()),
        10 if is_raw => Elements::Float(chunks(raw, |bytes: [u8; 2]| half(u16::from_le_bytes(bytes)))),
        10 => Elements::Float(small().map(|bits| half((bits & 0xffff) as u16)).collect()),
        2 | 9 if is_raw => Elements::Int(raw.iter().map(|byte| i64::from(*byte)).collect()),
        3 if is_raw => Elements::Int(chunks(raw, |bytes: [u8; 1]| i64::from(i8::from_le_bytes(bytes)))),
        4 if is_raw => Elements::Int(chunks(raw, |bytes: [u8; 2]| i64::from(u16::from_le_bytes(bytes)))),
        5 if is_raw => Elements::Int(chunks(raw, |bytes: [u8; 2]| i64::from(i16::from_le_bytes(bytes)))),
        6 if is_raw => Elements::Int(chunks(raw, |bytes: [u8; 4]| i64::from(i32::from_le_bytes(bytes)))),
        7 if is_raw => Elements::Int(chunks(raw, i64::from_le_bytes)),
        2..=6 | 9 => Elements::Int(small().collect()),
        7 => Elements::Int(tensor.int64_data.clone()),
        _ => return None,
    })
}

/// Whole chunks of raw bytes; a rest that is cut off shows as a wrong count.
fn chunks<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let extra = raw.len() % N;
    let whole = &raw[..raw.len() - extra];
    whole.chunks_exact(N).map(|chunk| read(chunk.try_into().expect("a chunk of N bytes"))).collect()
}

/// IEEE half precision.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0f32 } else { -1.0 };
    let exponent = i32::from((bits >> 10) & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_checked_against_their_shape() {
        let check =
            |tensor: TensorProto, expected: Result<&[f32], &str>| match (Constant::decode(&tensor), expected)
            {
                (Ok(constant), Ok(values)) => assert_eq!(constant.to_floats(), values),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, expected) => panic!("expected {expected:?}, got {got:?}"),
            };
        let of = |data_type, dims: &[i64], raw: &[u8]| TensorProto {
            data_type,
            dims: dims.to_vec(),
            raw_data: raw.to_vec(),
            ..TensorProto::default()
        };
        check(of(1, &[1], &1.5f32.to_le_bytes()), Ok(&[1.5]));
        check(of(3, &[2], &[0xff, 1]), Ok(&[-1.0, 1.0]));
        check(of(10, &[3], &[0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00]), Ok(&[1.0, -2.0, 5.960_464_5e-8]));
        check(of(1, &[2], &1.5f32.to_le_bytes()), Err("expected 2 values"));
        check(of(1, &[1], &[0, 0, 0]), Err("expected 1 values"));
        check(of(1, &[-1], &[]), Err("negative shape"));
        check(of(1, &[i64::MAX, i64::MAX], &[]), Err("expected at most"));
        check(of(8, &[1], &[1]), Err("data type 8"));
    }
}
