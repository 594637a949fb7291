//! Writes answers. Must not know what the fields mean.

use std::io::Write as _;

use gannet_models::DType;
use gannet_runtime::{Tensor, tensor::byte_elements};

/// Appends a string with its quotes.
pub fn text(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    if text.as_bytes()[super::plain(text.as_bytes())..].iter().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    // writing into a Vec does not fail
    let _ = serde_json::to_writer(&mut *out, text);
}

/// Appends a whole number.
pub fn integer(out: &mut Vec<u8>, value: usize) {
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(value).as_bytes());
}

/// Appends a list of lengths.
pub fn shape(out: &mut Vec<u8>, shape: &[usize]) {
    list(out, shape.iter(), |out, &axis| integer(out, axis));
}

/// Appends `[a,b,...]`.
pub fn list<T>(out: &mut Vec<u8>, items: impl Iterator<Item = T>, mut item: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (index, value) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        item(out, value);
    }
    out.push(b']');
}

/// Appends a tensor's elements as a flat list. `NaN` and infinities, which JSON cannot carry, are `null`.
///
/// # Errors
/// A text for types that have no JSON form, and for elements that are no text.
pub fn elements(out: &mut Vec<u8>, tensor: &Tensor) -> Result<(), String> {
    macro_rules! integers {
        ($type:ty) => {
            list(out, tensor.data.as_chunks::<{ size_of::<$type>() }>().0.iter(), |out, chunk| {
                let mut buffer = itoa::Buffer::new();
                out.extend_from_slice(buffer.format(<$type>::from_le_bytes(*chunk)).as_bytes());
            })
        };
    }
    macro_rules! floats {
        ($type:ty) => {
            list(out, tensor.data.as_chunks::<{ size_of::<$type>() }>().0.iter(), |out, chunk| {
                let value = <$type>::from_le_bytes(*chunk);
                if value.is_finite() {
                    let mut buffer = zmij::Buffer::new();
                    out.extend_from_slice(buffer.format_finite(value).as_bytes());
                } else {
                    out.extend_from_slice(b"null");
                }
            })
        };
    }
    match tensor.dtype {
        DType::Bool => list(out, tensor.data.iter(), |out, &byte| {
            out.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
        }),
        DType::Uint8 => integers!(u8),
        DType::Uint16 => integers!(u16),
        DType::Uint32 => integers!(u32),
        DType::Uint64 => integers!(u64),
        DType::Int8 => integers!(i8),
        DType::Int16 => integers!(i16),
        DType::Int32 => integers!(i32),
        DType::Int64 => integers!(i64),
        DType::Fp32 => floats!(f32),
        DType::Fp64 => floats!(f64),
        DType::Fp16 | DType::Bf16 => {
            return Err(format!("{} has no JSON form; ask for it as binary data", tensor.dtype));
        }
        DType::Bytes => return texts(out, tensor),
    }
    Ok(())
}

fn texts(out: &mut Vec<u8>, tensor: &Tensor) -> Result<(), String> {
    let start = out.len();
    let mut fault = None;
    list(out, byte_elements(&tensor.data), |out, element| match element.map(std::str::from_utf8) {
        Ok(Ok(element)) => text(out, element),
        _ => fault = Some("it holds bytes that are no UTF-8 text; ask for it as binary data".to_owned()),
    });
    match fault {
        None => Ok(()),
        Some(fault) => {
            out.truncate(start);
            Err(fault)
        }
    }
}

/// `{"error":"..."}`.
#[must_use]
pub fn error(message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    let _ = out.write_all(b"{\"error\":");
    text(&mut out, message);
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gannet_runtime::tensor::Shape;

    use super::*;

    fn check(dtype: DType, data: &[u8], expected: &str) {
        let tensor = Tensor { dtype, shape: Shape::from_slice(&[1]), data: Bytes::copy_from_slice(data) };
        let mut out = Vec::new();
        let result = elements(&mut out, &tensor).map(|()| String::from_utf8(out).unwrap());
        assert_eq!(result.unwrap_or_else(|e| e), expected);
    }

    #[test]
    fn elements_of_every_kind() {
        let f32s = [1.0f32, 0.1, -0.0, f32::NAN, f32::INFINITY, 1e-7].map(f32::to_le_bytes).concat();
        check(DType::Fp32, &f32s, "[1.0,0.1,-0.0,null,null,1e-7]");
        check(DType::Fp64, &0.1f64.to_le_bytes(), "[0.1]");
        check(DType::Int8, &[0xff, 1], "[-1,1]");
        check(DType::Uint64, &u64::MAX.to_le_bytes(), "[18446744073709551615]");
        check(DType::Bool, &[0, 1], "[false,true]");
        check(DType::Bytes, b"\x02\0\0\0a\"\0\0\0\0", r#"["a\"",""]"#);
        check(
            DType::Bytes,
            b"\x01\0\0\0\xff",
            "it holds bytes that are no UTF-8 text; ask for it as binary data",
        );
        check(DType::Fp16, &[0, 0], "FP16 has no JSON form; ask for it as binary data");
        check(DType::Fp32, &[], "[]");
    }
}
