//! Rows into Parquet, redacted while they are taken in. Must not know where files lie.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array,
    Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray, builder::StringBuilder,
};
use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field};
use bytes::Bytes;
use gannet_models::{DType, Redactor, Signature, redaction::Side};
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    file::properties::{WriterProperties, WriterVersion},
};

use crate::{
    CaptureError, Column, Form, Layout, Redacted, Row, Values,
    layout::{fixed, list_of},
    redacted::redact,
    row::{chunks, elements},
};

/// Bytes that a row takes beside its tensors and texts.
const ROW_BYTES: usize = 128;

/// Rows that wait to be written, column by column.
#[derive(Debug)]
pub struct Rows {
    layout: Arc<Layout>,
    redactor: Redactor,
    model: String,
    instance: String,
    /// By column: its place among the signature's inputs or outputs.
    places: Vec<usize>,
    fixed: Vec<Row>,
    columns: Vec<Tensors>,
    bytes: usize,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It waits.
    Taken,
    /// It holds texts that are not UTF-8, which a table of texts cannot keep.
    NotText,
}

/// The lists of one input or output.
#[derive(Debug)]
struct Tensors {
    values: MutableBuffer,
    /// Where each text ends, for texts and hashes.
    ends: Vec<i32>,
    /// Elements up to and with each row.
    offsets: Vec<i32>,
    shapes: Vec<i64>,
    shape_offsets: Vec<i32>,
}

impl Tensors {
    fn new() -> Self {
        Self {
            values: MutableBuffer::new(0),
            ends: vec![0],
            offsets: vec![0],
            shapes: Vec::new(),
            shape_offsets: vec![0],
        }
    }

    fn bytes(&self) -> usize {
        self.values.len() + 4 * (self.ends.len() + self.offsets.len()) + 8 * self.shapes.len()
    }
}

/// The values of a column.
fn pick<'a>(
    column: &Column,
    place: usize,
    (inputs, outputs): (&'a [Values], &'a [Values]),
) -> Option<&'a Values> {
    match column.side {
        Side::Input => inputs.get(place),
        Side::Output => outputs.get(place),
    }
}

fn int32(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl Rows {
    /// No rows yet, of a model with this signature.
    #[must_use]
    pub fn new(
        layout: Arc<Layout>,
        signature: &Signature,
        redactor: Redactor,
        (model, instance): (&str, &str),
    ) -> Self {
        let place = |column: &Column| match column.side {
            Side::Input => signature.input(&column.tensor),
            Side::Output => signature.output(&column.tensor),
        };
        let places = layout.columns.iter().map(|column| place(column).unwrap_or(usize::MAX)).collect();
        let columns = layout.columns.iter().map(|_| Tensors::new()).collect();
        let (model, instance) = (model.to_owned(), instance.to_owned());
        Self { layout, redactor, model, instance, places, fixed: Vec::new(), columns, bytes: 0 }
    }

    /// The server that captures them.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fixed.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fixed.is_empty()
    }

    /// Memory that they take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What may be known of a row that is of this table: its inputs and outputs as far as they have columns.
    pub fn redacted<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = (&'a Column, Redacted<'a>)> {
        self.layout.columns.iter().zip(&self.places).filter_map(|(column, &place)| {
            Some((column, redact(column, pick(column, place, (&row.inputs, &row.outputs))?, &self.redactor)))
        })
    }

    /// Takes a row in. Nothing of what is redacted is kept in memory from here on.
    pub fn append(&mut self, mut row: Row) -> Appended {
        let (inputs, outputs) = (std::mem::take(&mut row.inputs), std::mem::take(&mut row.outputs));
        let pick = |column: &Column, place: usize| pick(column, place, (&inputs, &outputs));
        let is_text = |(column, place): (&Column, &usize)| {
            column.dtype != DType::Bytes
                || column.form != Form::Values
                || pick(column, *place).is_none_or(all_text)
        };
        if !self.layout.columns.iter().zip(&self.places).all(is_text) {
            return Appended::NotText;
        }
        self.bytes = self.fixed.len() * ROW_BYTES + ROW_BYTES;
        for ((column, place), tensors) in self.layout.columns.iter().zip(&self.places).zip(&mut self.columns)
        {
            if let Some(values) = pick(column, *place) {
                tensors
                    .shapes
                    .extend(values.shape.iter().map(|&axis| i64::try_from(axis).unwrap_or(i64::MAX)));
                match redact(column, values, &self.redactor) {
                    Redacted::Plain(values) => push_values(column.dtype, &values.data, tensors),
                    Redacted::Masked(_) => {}
                    Redacted::Hashed(_, hashes) => {
                        hashes.iter().for_each(|hash| push_text(hash.as_bytes(), tensors));
                    }
                }
            }
            tensors.shape_offsets.push(int32(tensors.shapes.len()));
            let elements = match column.element() {
                DataType::Utf8 => tensors.ends.len() - 1,
                other => tensors.values.len() / width(&other),
            };
            tensors.offsets.push(int32(elements));
            self.bytes += tensors.bytes();
        }
        self.fixed.push(row);
        Appended::Taken
    }

    /// All rows as a file, and none wait any more.
    ///
    /// # Errors
    /// [`CaptureError::Unfit`], which no row should cause.
    pub fn take_file(&mut self) -> Result<Bytes, CaptureError> {
        let fixed = std::mem::take(&mut self.fixed);
        let columns: Vec<Tensors> =
            self.columns.iter_mut().map(|tensors| std::mem::replace(tensors, Tensors::new())).collect();
        self.bytes = 0;
        let mut arrays = self.fixed_arrays(&fixed);
        for (column, tensors) in self.layout.columns.iter().zip(columns) {
            arrays.extend(lists(column, tensors, fixed.len())?);
        }
        let unfit =
            |error: &dyn std::fmt::Display| CaptureError::Unfit(format!("rows that fit no table: {error}"));
        let batch = RecordBatch::try_new(self.layout.schema(), arrays).map_err(|error| unfit(&error))?;
        write(&[batch], &self.layout)
    }

    fn fixed_arrays(&self, rows: &[Row]) -> Vec<ArrayRef> {
        let texts = |read: fn(&Row) -> Option<&str>| -> ArrayRef {
            let mut builder = StringBuilder::new();
            rows.iter().for_each(|row| builder.append_option(read(row)));
            Arc::new(builder.finish())
        };
        let numbers = |read: fn(&Row) -> u64| -> ArrayRef {
            let values = rows.iter().map(|row| i64::try_from(read(row)).unwrap_or(i64::MAX));
            Arc::new(Int64Array::from_iter_values(values))
        };
        let same =
            |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(|_| text))) };
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.time_us));
        let probabilities = Float64Array::from_iter_values(rows.iter().map(|row| row.probability));
        let arrays: Vec<ArrayRef> = vec![
            texts(|row| Some(&row.id)),
            Arc::new(times.with_timezone("UTC")),
            same(&self.model),
            texts(|row| Some(&row.version)),
            texts(|row| row.arm.as_deref()),
            same(&self.instance),
            numbers(|row| row.sequence),
            Arc::new(probabilities),
            numbers(|row| row.rows),
            numbers(|row| row.latency.batch_rows),
            numbers(|row| row.latency.queue_ns),
            numbers(|row| row.latency.assemble_ns),
            numbers(|row| row.latency.compute_ns),
            numbers(|row| row.latency.scatter_ns),
            numbers(|row| row.latency.total_ns),
        ];
        debug_assert_eq!(arrays.len(), fixed().len(), "a column each");
        arrays
    }
}

/// A file of these batches.
pub(crate) fn write(batches: &[RecordBatch], layout: &Layout) -> Result<Bytes, CaptureError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by("gannet".into())
        .build();
    let unfit =
        |error: parquet::errors::ParquetError| CaptureError::Unfit(format!("rows that fit no file: {error}"));
    let mut writer = ArrowWriter::try_new(Vec::new(), layout.schema(), Some(properties)).map_err(unfit)?;
    for batch in batches {
        writer.write(batch).map_err(unfit)?;
    }
    writer.into_inner().map(Bytes::from).map_err(unfit)
}

/// Bytes of a stored element that is no text.
fn width(element: &DataType) -> usize {
    match element {
        // packed only when the array is made
        DataType::Boolean => 1,
        other => other.primitive_width().unwrap_or(1),
    }
}

fn all_text(values: &Values) -> bool {
    elements(&values.data).all(|element| std::str::from_utf8(element).is_ok())
}

fn push_text(text: &[u8], tensors: &mut Tensors) {
    tensors.values.extend_from_slice(text);
    tensors.ends.push(int32(tensors.values.len()));
}

fn push_values(dtype: DType, data: &[u8], tensors: &mut Tensors) {
    let values = &mut tensors.values;
    match dtype {
        DType::Bytes => elements(data).for_each(|element| push_text(element, tensors)),
        // stored as they are
        DType::Bool
        | DType::Int8
        | DType::Int16
        | DType::Int32
        | DType::Int64
        | DType::Fp32
        | DType::Fp64 => {
            values.extend_from_slice(data);
        }
        DType::Uint8 => values.extend(data.iter().map(|value| i16::from(*value))),
        DType::Uint16 => values.extend(chunks(data).map(|chunk| i32::from(u16::from_le_bytes(chunk)))),
        DType::Uint32 => values.extend(chunks(data).map(|chunk| i64::from(u32::from_le_bytes(chunk)))),
        DType::Uint64 => values.extend(chunks(data).map(|chunk| i128::from(u64::from_le_bytes(chunk)))),
        DType::Fp16 => values.extend(chunks(data).map(|chunk| half::f16::from_le_bytes(chunk).to_f32())),
        DType::Bf16 => values.extend(chunks(data).map(|chunk| half::bf16::from_le_bytes(chunk).to_f32())),
    }
}

/// The two columns of an input or output: a list for each row.
fn lists(column: &Column, tensors: Tensors, rows: usize) -> Result<[ArrayRef; 2], CaptureError> {
    let element = column.element();
    let buffer: Buffer = tensors.values.into();
    let flat: ArrayRef = match &element {
        DataType::Boolean => {
            Arc::new(BooleanArray::new(buffer.iter().map(|byte| *byte != 0).collect::<BooleanBuffer>(), None))
        }
        DataType::Int8 => Arc::new(Int8Array::new(ScalarBuffer::from(buffer), None)),
        DataType::Int16 => Arc::new(Int16Array::new(ScalarBuffer::from(buffer), None)),
        DataType::Int32 => Arc::new(Int32Array::new(ScalarBuffer::from(buffer), None)),
        DataType::Int64 => Arc::new(Int64Array::new(ScalarBuffer::from(buffer), None)),
        DataType::Float32 => Arc::new(Float32Array::new(ScalarBuffer::from(buffer), None)),
        DataType::Float64 => Arc::new(Float64Array::new(ScalarBuffer::from(buffer), None)),
        DataType::Decimal128(..) => {
            Arc::new(Decimal128Array::new(ScalarBuffer::from(buffer), None).with_data_type(element.clone()))
        }
        _ => {
            let offsets = OffsetBuffer::new(ScalarBuffer::from(tensors.ends));
            let unfit = |error| CaptureError::Unfit(format!("column '{}': {error}", column.values));
            Arc::new(StringArray::try_new(offsets, buffer, None).map_err(unfit)?)
        }
    };
    // a masked value is none; that there was one is told by its shape
    let nulls = (column.form == Form::Masked).then(|| NullBuffer::new_null(rows));
    let list =
        |data_type: DataType, offsets: Vec<i32>, flat: ArrayRef, nulls: Option<NullBuffer>| -> ArrayRef {
            let field = match data_type {
                DataType::List(field) => field,
                other => Arc::new(Field::new("element", other, true)),
            };
            Arc::new(ListArray::new(field, OffsetBuffer::new(ScalarBuffer::from(offsets)), flat, nulls))
        };
    let shapes: ArrayRef = Arc::new(Int64Array::from(tensors.shapes));
    Ok([
        list(list_of(element), tensors.offsets, flat, nulls),
        list(list_of(DataType::Int64), tensors.shape_offsets, shapes, None),
    ])
}
