//! Values: element type, shape and little-endian bytes, owned or borrowed. Must not know any protocol.

use bytes::Bytes;
use gannet_models::DType;
use smallvec::SmallVec;

/// Lengths of the axes, outermost first.
pub type Shape = SmallVec<[usize; 4]>;

/// An owned tensor. Row-major and little-endian without padding; [`DType::Bytes`] elements each have a 4-byte
/// little-endian length before them, as on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Element type.
    pub dtype: DType,
    /// Lengths of the axes.
    pub shape: Shape,
    /// The elements.
    pub data: Bytes,
}

/// A borrowed tensor; the same layout as [`Tensor`].
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Lengths of the axes.
    pub shape: &'a [usize],
    /// The elements.
    pub data: &'a [u8],
}

/// Number of elements of `shape`, or `None` when it overflows.
#[must_use]
pub fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis))
}

/// Bytes that `shape` takes in `dtype`: `None` when it overflows or the elements vary in length.
#[must_use]
pub fn size_bytes(dtype: DType, shape: &[usize]) -> Option<usize> {
    elements(shape)?.checked_mul(dtype.size_bytes()?)
}

/// The elements as numbers; `None` for flags and texts. Whole numbers beyond 53 bits are rounded.
#[must_use]
pub fn values(tensor: &Tensor) -> Option<Vec<f64>> {
    fn read<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f64) -> Option<Vec<f64>> {
        Some(data.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect())
    }
    let data = &tensor.data[..];
    match tensor.dtype {
        DType::Fp32 => read(data, |c| f64::from(f32::from_le_bytes(c))),
        DType::Fp64 => read(data, f64::from_le_bytes),
        DType::Fp16 => read(data, |c| half::f16::from_le_bytes(c).to_f64()),
        DType::Bf16 => read(data, |c| half::bf16::from_le_bytes(c).to_f64()),
        DType::Uint8 => read(data, |[c]: [u8; 1]| f64::from(c)),
        DType::Uint16 => read(data, |c| f64::from(u16::from_le_bytes(c))),
        DType::Uint32 => read(data, |c| f64::from(u32::from_le_bytes(c))),
        DType::Uint64 => read(data, |c| u64::from_le_bytes(c) as f64),
        DType::Int8 => read(data, |c| f64::from(i8::from_le_bytes(c))),
        DType::Int16 => read(data, |c| f64::from(i16::from_le_bytes(c))),
        DType::Int32 => read(data, |c| f64::from(i32::from_le_bytes(c))),
        DType::Int64 => read(data, |c| i64::from_le_bytes(c) as f64),
        DType::Bool | DType::Bytes => None,
    }
}

/// Splits length-prefixed elements; ends with an error text when a prefix points past the end.
pub fn byte_elements(mut data: &[u8]) -> impl Iterator<Item = Result<&[u8], String>> {
    let total = data.len();
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let offset = total - data.len();
        let Some((prefix, rest)) = data.split_first_chunk::<4>() else {
            data = &[];
            return Some(Err(format!("a 4-byte length is cut short at byte {offset} of {total}")));
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > rest.len() {
            data = &[];
            return Some(Err(format!(
                "the element at byte {offset} states {length} bytes, only {} are left",
                rest.len()
            )));
        }
        let (element, rest) = rest.split_at(length);
        data = rest;
        Some(Ok(element))
    })
}

/// Appends one element with its length before it.
pub fn push_byte_element(out: &mut Vec<u8>, element: &[u8]) {
    out.extend_from_slice(&u32::try_from(element.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(element);
}

/// Appends a number in the form of `dtype`, as near as it comes; nothing for texts.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as saturates")]
pub fn push_number(out: &mut Vec<u8>, dtype: DType, number: f64) {
    match dtype {
        DType::Fp32 => out.extend_from_slice(&(number as f32).to_le_bytes()),
        DType::Fp64 => out.extend_from_slice(&number.to_le_bytes()),
        DType::Fp16 => out.extend_from_slice(&half::f16::from_f64(number).to_le_bytes()),
        DType::Bf16 => out.extend_from_slice(&half::bf16::from_f64(number).to_le_bytes()),
        DType::Uint8 => out.push(number as u8),
        DType::Uint16 => out.extend_from_slice(&(number as u16).to_le_bytes()),
        DType::Uint32 => out.extend_from_slice(&(number as u32).to_le_bytes()),
        DType::Uint64 => out.extend_from_slice(&(number as u64).to_le_bytes()),
        DType::Int8 => out.extend_from_slice(&(number as i8).to_le_bytes()),
        DType::Int16 => out.extend_from_slice(&(number as i16).to_le_bytes()),
        DType::Int32 => out.extend_from_slice(&(number as i32).to_le_bytes()),
        DType::Int64 => out.extend_from_slice(&(number as i64).to_le_bytes()),
        DType::Bool => out.push(u8::from(number != 0.0)),
        DType::Bytes => {}
    }
}

impl<'a> TensorView<'a> {
    /// The bytes of rows `from..to` of axis 0.
    #[must_use]
    pub fn row_bytes(&self, from: usize, to: usize) -> &'a [u8] {
        &self.data[row_range(self.dtype, self.shape, self.data, from, to)]
    }
}

/// Where rows `from..to` of axis 0 lie in `data`.
fn row_range(dtype: DType, shape: &[usize], data: &[u8], from: usize, to: usize) -> std::ops::Range<usize> {
    if dtype.size_bytes().is_some() {
        let row_bytes = data.len().checked_div(shape[0]).unwrap_or(0);
        return from * row_bytes..to * row_bytes;
    }
    let row_elements = elements(&shape[1..]).unwrap_or(0);
    let start = byte_offset(data, from * row_elements);
    start..start + byte_offset(&data[start..], (to - from) * row_elements)
}

impl Tensor {
    /// Borrows the whole tensor.
    #[must_use]
    pub fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: &self.shape, data: &self.data }
    }

    /// Rows `from..to` of axis 0 without copying. The tensor must have an axis 0 of at least `to`.
    #[must_use]
    pub fn rows(&self, from: usize, to: usize) -> Self {
        let range = row_range(self.dtype, &self.shape, &self.data, from, to);
        let mut shape = self.shape.clone();
        shape[0] = to - from;
        Self { dtype: self.dtype, shape, data: self.data.slice(range) }
    }
}

/// Where element `index` of length-prefixed, already validated elements begins.
#[must_use]
pub fn byte_offset(data: &[u8], index: usize) -> usize {
    byte_elements(data).take(index).map(|element| 4 + element.map_or(0, <[u8]>::len)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_elements_split_and_report_damage() {
        let mut data = Vec::new();
        for element in [&b"ab"[..], b"", b"c"] {
            push_byte_element(&mut data, element);
        }
        let all: Result<Vec<&[u8]>, String> = byte_elements(&data).collect();
        assert_eq!(all.unwrap(), [&b"ab"[..], b"", b"c"]);
        for cut in [1, 5, 7, data.len() - 1] {
            let all: Result<Vec<&[u8]>, String> = byte_elements(&data[..cut]).collect();
            assert!(all.is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn rows_slice_fixed_and_variable_elements() {
        let tensor = |dtype, shape: &[usize], data: Vec<u8>| Tensor {
            dtype,
            shape: Shape::from_slice(shape),
            data: Bytes::from(data),
        };
        let fixed = tensor(DType::Uint16, &[3, 2], (0..12).collect());
        assert_eq!(&fixed.rows(1, 3).data[..], &[4, 5, 6, 7, 8, 9, 10, 11]);
        let mut data = Vec::new();
        for element in ["a", "bb", "", "dddd", "e", "f"] {
            push_byte_element(&mut data, element.as_bytes());
        }
        let strings = tensor(DType::Bytes, &[3, 2], data);
        let middle = strings.rows(1, 2);
        assert_eq!(middle.shape[..], [1, 2]);
        let elements: Vec<&[u8]> = byte_elements(&middle.data).map(Result::unwrap).collect();
        assert_eq!(elements, [&b""[..], b"dddd"]);
        assert_eq!(tensor(DType::Fp32, &[0, 4], vec![]).rows(0, 0).data.len(), 0);
    }
}
