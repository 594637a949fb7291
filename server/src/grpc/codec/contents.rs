//! The typed fields of a tensor's values, to little-endian bytes and back. Must not know requests.

use bytes::Bytes;
use gannet_models::DType;
use gannet_runtime::{
    request::shape_text,
    tensor::{elements, push_byte_element},
};

use crate::{grpc::pb::InferTensorContents, respond::Refusal};

/// The tensor that values are for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Its name.
    pub(super) input: &'a str,
    /// Its type.
    pub(super) dtype: DType,
    /// Its shape.
    pub(super) shape: &'a [usize],
}

/// The first field that has values, and how many.
pub(super) fn field(contents: &InferTensorContents) -> Option<(&'static str, usize)> {
    fields(contents).into_iter().find(|(_, count)| *count > 0)
}

fn fields(contents: &InferTensorContents) -> [(&'static str, usize); 8] {
    [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ]
}

/// The field for values of that type.
fn field_of(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::Bool => "bool_contents",
        DType::Int8 | DType::Int16 | DType::Int32 => "int_contents",
        DType::Int64 => "int64_contents",
        DType::Uint8 | DType::Uint16 | DType::Uint32 => "uint_contents",
        DType::Uint64 => "uint64_contents",
        DType::Fp32 => "fp32_contents",
        DType::Fp64 => "fp64_contents",
        DType::Bytes => "bytes_contents",
        DType::Fp16 | DType::Bf16 => return None,
    })
}

/// The values as a tensor holds them.
///
/// # Errors
/// When they stand in another type's field, are too many or too few, or do not fit their type.
pub(super) fn to_bytes(place: Place<'_>, contents: &InferTensorContents) -> Result<Bytes, Refusal> {
    let Place { input, dtype, shape } = place;
    let Some(expected_field) = field_of(dtype) else {
        return Err(Refusal::invalid(format!(
            "input '{input}': {dtype} has no field in 'contents'; send raw: use 'raw_input_contents'"
        )));
    };
    let all = fields(contents);
    if let Some((got, count)) = all.iter().find(|(field, count)| *count > 0 && *field != expected_field) {
        return Err(Refusal::invalid(format!(
            "input '{input}': values of {dtype} belong into '{expected_field}', got {count} in '{got}'"
        )));
    }
    let count = all.iter().map(|(_, count)| count).sum::<usize>();
    if elements(shape) != Some(count) {
        return Err(Refusal::invalid(format!(
            "input '{input}' of shape {} takes {} elements in '{expected_field}', got {count}",
            shape_text(shape),
            elements(shape).unwrap_or(usize::MAX)
        )));
    }
    let data = match dtype {
        DType::Bool => contents.bool_contents.iter().map(|&value| u8::from(value)).collect(),
        DType::Int8 => narrow::<i32, i8, 1>(place, &contents.int_contents, i8::to_le_bytes)?,
        DType::Int16 => narrow::<i32, i16, 2>(place, &contents.int_contents, i16::to_le_bytes)?,
        DType::Int32 => flatten(&contents.int_contents, |value| value.to_le_bytes()),
        DType::Int64 => flatten(&contents.int64_contents, |value| value.to_le_bytes()),
        DType::Uint8 => narrow::<u32, u8, 1>(place, &contents.uint_contents, u8::to_le_bytes)?,
        DType::Uint16 => narrow::<u32, u16, 2>(place, &contents.uint_contents, u16::to_le_bytes)?,
        DType::Uint32 => flatten(&contents.uint_contents, |value| value.to_le_bytes()),
        DType::Uint64 => flatten(&contents.uint64_contents, |value| value.to_le_bytes()),
        DType::Fp32 => flatten(&contents.fp32_contents, |value| value.to_le_bytes()),
        DType::Fp64 => flatten(&contents.fp64_contents, |value| value.to_le_bytes()),
        DType::Bytes | DType::Fp16 | DType::Bf16 => {
            let bytes = contents.bytes_contents.iter().map(|element| 4 + element.len()).sum();
            let mut data = Vec::with_capacity(bytes);
            for element in &contents.bytes_contents {
                push_byte_element(&mut data, element);
            }
            data
        }
    };
    Ok(Bytes::from(data))
}

/// Whether values of that type are answered in their typed field. BYTES has one, but clients of this protocol read
/// answers of BYTES raw.
pub(super) fn answered_typed(dtype: DType) -> bool {
    dtype != DType::Bytes && field_of(dtype).is_some()
}

/// The values in their typed field, for types that are [`answered_typed`].
pub(super) fn from_bytes(dtype: DType, data: &[u8]) -> Option<InferTensorContents> {
    let mut contents = InferTensorContents::default();
    match dtype {
        DType::Bool => contents.bool_contents = data.iter().map(|&byte| byte != 0).collect(),
        DType::Int8 => contents.int_contents = split(data, |value| i8::from_le_bytes(value).into()),
        DType::Int16 => contents.int_contents = split(data, |value| i16::from_le_bytes(value).into()),
        DType::Int32 => contents.int_contents = split(data, i32::from_le_bytes),
        DType::Int64 => contents.int64_contents = split(data, i64::from_le_bytes),
        DType::Uint8 => contents.uint_contents = split(data, |value| u8::from_le_bytes(value).into()),
        DType::Uint16 => contents.uint_contents = split(data, |value| u16::from_le_bytes(value).into()),
        DType::Uint32 => contents.uint_contents = split(data, u32::from_le_bytes),
        DType::Uint64 => contents.uint64_contents = split(data, u64::from_le_bytes),
        DType::Fp32 => contents.fp32_contents = split(data, f32::from_le_bytes),
        DType::Fp64 => contents.fp64_contents = split(data, f64::from_le_bytes),
        DType::Bytes | DType::Fp16 | DType::Bf16 => return None,
    }
    Some(contents)
}

fn flatten<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut data = Vec::with_capacity(values.len() * N);
    for &value in values {
        data.extend_from_slice(&bytes(value));
    }
    data
}

/// Values that travel in a wider type than their own.
fn narrow<W, T, const N: usize>(
    place: Place<'_>,
    values: &[W],
    bytes: impl Fn(T) -> [u8; N],
) -> Result<Vec<u8>, Refusal>
where
    W: Copy + std::fmt::Display,
    T: TryFrom<W>,
{
    let mut data = Vec::with_capacity(values.len() * N);
    for (index, &value) in values.iter().enumerate() {
        let Ok(narrowed) = T::try_from(value) else {
            return Err(Refusal::invalid(format!(
                "input '{}': expected elements that {} can hold, got {value} at index {index}",
                place.input, place.dtype
            )));
        };
        data.extend_from_slice(&bytes(narrowed));
    }
    Ok(data)
}

fn split<T, const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>().0.iter().map(|chunk| value(*chunk)).collect()
}
