//! Checkpoints: all actions that still count, as one Parquet file. Must not know who reads them.

use std::sync::Arc;

use arrow_json::{LineDelimitedWriter, ReaderBuilder};
use arrow_schema::{DataType, Field, Fields, Schema};
use bytes::Bytes;
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};

use super::action::{self, Action};
use crate::CaptureError;

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn required(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn texts_by_text(name: &str) -> Field {
    let entries = Fields::from(vec![required("key", DataType::Utf8), field("value", DataType::Utf8)]);
    field(name, DataType::Map(Arc::new(required("key_value", DataType::Struct(entries))), false))
}

fn group(name: &str, fields: Vec<Field>) -> Field {
    field(name, DataType::Struct(Fields::from(fields)))
}

fn schema() -> Arc<Schema> {
    let protocol =
        vec![required("minReaderVersion", DataType::Int32), required("minWriterVersion", DataType::Int32)];
    let format = vec![required("provider", DataType::Utf8), texts_by_text("options")];
    let texts = DataType::List(Arc::new(field("element", DataType::Utf8)));
    let metadata = vec![
        required("id", DataType::Utf8),
        field("name", DataType::Utf8),
        group("format", format),
        required("schemaString", DataType::Utf8),
        field("partitionColumns", texts),
        texts_by_text("configuration"),
        field("createdTime", DataType::Int64),
    ];
    let add = vec![
        required("path", DataType::Utf8),
        texts_by_text("partitionValues"),
        required("size", DataType::Int64),
        required("modificationTime", DataType::Int64),
        required("dataChange", DataType::Boolean),
        field("stats", DataType::Utf8),
    ];
    let remove = vec![
        required("path", DataType::Utf8),
        field("deletionTimestamp", DataType::Int64),
        required("dataChange", DataType::Boolean),
        texts_by_text("partitionValues"),
        field("size", DataType::Int64),
    ];
    Arc::new(Schema::new(vec![
        group("protocol", protocol),
        group("metaData", metadata),
        group("add", add),
        group("remove", remove),
    ]))
}

pub(super) fn write(actions: &[Action]) -> Result<Bytes, CaptureError> {
    let unfit = |error: &dyn std::fmt::Display| {
        CaptureError::Unfit(format!("a checkpoint that fits no file: {error}"))
    };
    let mut decoder = ReaderBuilder::new(schema())
        .with_batch_size(actions.len().max(1))
        .build_decoder()
        .map_err(|error| unfit(&error))?;
    decoder.serialize(actions).map_err(|error| unfit(&error))?;
    let batch = decoder.flush().map_err(|error| unfit(&error))?;
    let mut writer = ArrowWriter::try_new(Vec::new(), schema(), None).map_err(|error| unfit(&error))?;
    if let Some(batch) = batch {
        writer.write(&batch).map_err(|error| unfit(&error))?;
    }
    writer.into_inner().map(Bytes::from).map_err(|error| unfit(&error))
}

pub(super) fn read(key: &str, file: Bytes) -> Result<Vec<Action>, CaptureError> {
    let damaged = |error: &dyn std::fmt::Display| CaptureError::damaged(key, error);
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
    let mut writer = LineDelimitedWriter::new(Vec::new());
    for batch in reader.map_err(|error| damaged(&error))? {
        let batch = batch.map_err(|error| damaged(&error))?;
        writer.write(&batch).map_err(|error| damaged(&error))?;
    }
    writer.finish().map_err(|error| damaged(&error))?;
    action::read(key, &writer.into_inner())
}
