//! Parquet into rows. Must not know where files lie.

use arrow_array::{
    Array, ArrayRef, ListArray, RecordBatch,
    cast::AsArray,
    types::{
        Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        TimestampMicrosecondType,
    },
};
use bytes::Bytes;
use gannet_models::DType;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use crate::{CaptureError, Captured, Column, Form, Latency, Layout, Values};

/// Rows that are read at a time.
const BATCH_ROWS: usize = 256;

/// The batches of a file; only some columns, if they are named.
pub(crate) fn batches(
    key: &str,
    file: Bytes,
    columns: Option<&[&str]>,
) -> Result<impl Iterator<Item = Result<RecordBatch, CaptureError>> + use<>, CaptureError> {
    let key = key.to_owned();
    let damaged = |error: &dyn std::fmt::Display| CaptureError::damaged(&key, error);
    let mut builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| damaged(&error))?;
    if let Some(names) = columns {
        let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
        builder = builder.with_projection(mask);
    }
    let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|error| damaged(&error))?;
    Ok(reader.map(move |batch| batch.map_err(|error| CaptureError::damaged(&key, error))))
}

/// The rows of a batch.
pub(crate) fn rows(batch: &RecordBatch, layout: &Layout) -> Result<Vec<Captured>, CaptureError> {
    let column = |name: &str| {
        batch
            .column_by_name(name)
            .ok_or_else(|| CaptureError::Damaged(format!("the column '{name}' is missing")))
    };
    let wrong = |name: &str| CaptureError::Damaged(format!("the column '{name}' is of another type"));
    let text = |name: &str, row: usize| -> Result<Option<String>, CaptureError> {
        let array = column(name)?.as_string_opt::<i32>().ok_or_else(|| wrong(name))?;
        Ok((!array.is_null(row)).then(|| array.value(row).to_owned()))
    };
    let number = |name: &str, row: usize| -> Result<u64, CaptureError> {
        let array = column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong(name))?;
        Ok(u64::try_from(array.value(row)).unwrap_or(0))
    };
    let times =
        column("time")?.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| wrong("time"))?;
    let probabilities =
        column("probability")?.as_primitive_opt::<Float64Type>().ok_or_else(|| wrong("probability"))?;
    let lists: Vec<(&ListArray, &ListArray)> = layout
        .columns
        .iter()
        .map(|spec| {
            let list = |name: &str| column(name)?.as_list_opt::<i32>().ok_or_else(|| wrong(name));
            Ok((list(&spec.values)?, list(&spec.shape)?))
        })
        .collect::<Result<_, CaptureError>>()?;
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let read = |(spec, (values, shape)): (&Column, &(&ListArray, &ListArray))| {
            if spec.form != Form::Values || values.is_null(row) || shape.is_null(row) {
                return Ok(None);
            }
            let data = bytes(spec.dtype, &values.value(row)).ok_or_else(|| wrong(&spec.values))?;
            let shape = shape.value(row);
            let axes = shape.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong(&spec.shape))?;
            let shape = axes.values().iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect();
            Ok(Some(Values { shape, data: Bytes::from(data) }))
        };
        rows.push(Captured {
            id: text("request_id", row)?.unwrap_or_default(),
            time_us: times.value(row),
            version: text("version", row)?.unwrap_or_default(),
            arm: text("arm", row)?,
            instance: text("instance", row)?.unwrap_or_default(),
            sequence: number("sequence", row)?,
            probability: probabilities.value(row),
            rows: number("rows", row)?,
            latency: Latency {
                queue_ns: number("queue_ns", row)?,
                assemble_ns: number("assemble_ns", row)?,
                compute_ns: number("compute_ns", row)?,
                scatter_ns: number("scatter_ns", row)?,
                total_ns: number("total_ns", row)?,
                batch_rows: number("batch_rows", row)?,
            },
            values: layout.columns.iter().zip(&lists).map(read).collect::<Result<_, CaptureError>>()?,
        });
    }
    Ok(rows)
}

/// Stored elements as the runtime has them; `None` when they are of another type.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "back into what they were stored from"
)]
fn bytes(dtype: DType, array: &ArrayRef) -> Option<Vec<u8>> {
    fn flat<const N: usize>(values: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
        values.flatten().collect()
    }
    macro_rules! primitive {
        ($kind:ty, |$value:ident| $bytes:expr) => {
            flat(array.as_primitive_opt::<$kind>()?.values().iter().map(|&$value| $bytes))
        };
    }
    Some(match dtype {
        DType::Bool => array.as_boolean_opt()?.values().iter().map(u8::from).collect(),
        DType::Int8 => primitive!(Int8Type, |v| v.to_le_bytes()),
        DType::Int16 => primitive!(Int16Type, |v| v.to_le_bytes()),
        DType::Int32 => primitive!(Int32Type, |v| v.to_le_bytes()),
        DType::Int64 => primitive!(Int64Type, |v| v.to_le_bytes()),
        DType::Uint8 => primitive!(Int16Type, |v| (v as u8).to_le_bytes()),
        DType::Uint16 => primitive!(Int32Type, |v| (v as u16).to_le_bytes()),
        DType::Uint32 => primitive!(Int64Type, |v| (v as u32).to_le_bytes()),
        DType::Uint64 => primitive!(Decimal128Type, |v| (v as u64).to_le_bytes()),
        DType::Fp16 => primitive!(Float32Type, |v| half::f16::from_f32(v).to_le_bytes()),
        DType::Bf16 => primitive!(Float32Type, |v| half::bf16::from_f32(v).to_le_bytes()),
        DType::Fp32 => primitive!(Float32Type, |v| v.to_le_bytes()),
        DType::Fp64 => primitive!(Float64Type, |v| v.to_le_bytes()),
        DType::Bytes => {
            let mut data = Vec::new();
            for text in array.as_string_opt::<i32>()?.iter() {
                let text = text.unwrap_or_default();
                data.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
                data.extend(text.as_bytes());
            }
            data
        }
    })
}
