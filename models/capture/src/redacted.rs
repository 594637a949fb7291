//! What may be known of a row's values, by its table's columns. Whatever keeps rows or tells of them asks here. Pure. Must
//! not know where values go.

use gannet_models::{DType, Redactor};

use crate::{
    Column, Form, Values,
    row::{chunks, elements},
};

/// What may be known of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redacted<'a> {
    /// All of it.
    Plain(&'a Values),
    /// Its shape.
    Masked(&'a [usize]),
    /// Its shape, and a hash of each value's text.
    Hashed(&'a [usize], Vec<String>),
}

/// What may be known of a column's values.
pub(crate) fn redact<'a>(column: &Column, values: &'a Values, redactor: &Redactor) -> Redacted<'a> {
    match column.form {
        Form::Values => Redacted::Plain(values),
        Form::Masked => Redacted::Masked(&values.shape),
        Form::Hashed => Redacted::Hashed(&values.shape, hashes(column.dtype, &values.data, redactor)),
    }
}

fn hashes(dtype: DType, data: &[u8], redactor: &Redactor) -> Vec<String> {
    if dtype == DType::Bytes {
        return elements(data).map(|element| redactor.hash(element)).collect();
    }
    texts(dtype, data).iter().map(|text| redactor.hash(text.as_bytes())).collect()
}

/// Each number as JSON writes it.
fn texts(dtype: DType, data: &[u8]) -> Vec<String> {
    match dtype {
        DType::Bool => data.iter().map(|flag| (*flag != 0).to_string()).collect(),
        DType::Uint8 => data.iter().map(u8::to_string).collect(),
        DType::Int8 => chunks(data).map(|chunk| i8::from_le_bytes(chunk).to_string()).collect(),
        DType::Uint16 => chunks(data).map(|chunk| u16::from_le_bytes(chunk).to_string()).collect(),
        DType::Int16 => chunks(data).map(|chunk| i16::from_le_bytes(chunk).to_string()).collect(),
        DType::Uint32 => chunks(data).map(|chunk| u32::from_le_bytes(chunk).to_string()).collect(),
        DType::Int32 => chunks(data).map(|chunk| i32::from_le_bytes(chunk).to_string()).collect(),
        DType::Uint64 => chunks(data).map(|chunk| u64::from_le_bytes(chunk).to_string()).collect(),
        DType::Int64 => chunks(data).map(|chunk| i64::from_le_bytes(chunk).to_string()).collect(),
        DType::Fp16 => {
            chunks(data).map(|chunk| half::f16::from_le_bytes(chunk).to_f32().to_string()).collect()
        }
        DType::Bf16 => {
            chunks(data).map(|chunk| half::bf16::from_le_bytes(chunk).to_f32().to_string()).collect()
        }
        DType::Fp32 => chunks(data).map(|chunk| f32::from_le_bytes(chunk).to_string()).collect(),
        DType::Fp64 => chunks(data).map(|chunk| f64::from_le_bytes(chunk).to_string()).collect(),
        DType::Bytes => Vec::new(),
    }
}
