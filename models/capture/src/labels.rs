//! What became of requests, read from a table that somebody else wrote (CSV or Parquet): an id, a label, and the row of
//! the request where it has several. Must not know captured requests.

use std::{collections::HashMap, fs::File, path::Path};

use arrow_array::{
    Array, ArrayRef, RecordBatch,
    cast::AsArray as _,
    types::{Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::CaptureError;

/// Labels of one file.
pub const LABELS_MAX: usize = 50_000_000;

/// The columns' names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Of the request's id.
    pub id: String,
    /// Of the label: a number, or a class's name.
    pub label: String,
    /// Of the row within the request, from 0 on; a table without it has one label a request.
    pub row: String,
}

impl Default for Names {
    fn default() -> Self {
        Self { id: "request_id".into(), label: "label".into(), row: "row".into() }
    }
}

/// One label.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// A number: the class's, or the value that was to be predicted.
    Number(f64),
    /// A class's name.
    Name(String),
}

/// Labels by request and row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Labels {
    by_id: HashMap<String, Vec<(u64, Label)>>,
    count: usize,
}

impl Label {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "true" | "True" => Self::Number(1.0),
            "false" | "False" => Self::Number(0.0),
            text => text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Number),
        }
    }
}

impl Labels {
    /// Reads a file; its name's end says what it is.
    ///
    /// # Errors
    /// [`CaptureError::Invalid`] with the file, the line and what was expected.
    pub fn read(path: &Path, names: &Names) -> Result<Self, CaptureError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let mut labels = Self::default();
        let read = match extension.to_ascii_lowercase().as_str() {
            "csv" => labels.read_csv(path, names),
            "parquet" => labels.read_parquet(path, names),
            _ => Err("expected a file that ends in .csv or .parquet".to_owned()),
        };
        read.map_err(|why| CaptureError::Invalid(format!("{}: {why}", path.display())))?;
        Ok(labels)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Those of a request, by row.
    #[must_use]
    pub fn of(&self, id: &str) -> &[(u64, Label)] {
        self.by_id.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Adds one; of two for the same row the later one counts.
    pub fn add(&mut self, id: &str, row: u64, label: Label) {
        let known = self.by_id.entry(id.to_owned()).or_default();
        match known.iter_mut().find(|(other, _)| *other == row) {
            Some((_, before)) => *before = label,
            None => {
                known.push((row, label));
                self.count += 1;
            }
        }
    }

    fn read_csv(&mut self, path: &Path, names: &Names) -> Result<(), String> {
        let mut reader = csv::Reader::from_path(path).map_err(|error| error.to_string())?;
        let headers = reader.headers().map_err(|error| error.to_string())?.clone();
        let place = |name: &str| headers.iter().position(|header| header.trim() == name);
        let known = || headers.iter().collect::<Vec<_>>().join(", ");
        let wanted =
            |name: &str| place(name).ok_or_else(|| format!("expected a column '{name}', got: {}", known()));
        let (id, label, row) = (wanted(&names.id)?, wanted(&names.label)?, place(&names.row));
        for record in reader.records() {
            let record = record.map_err(|error| error.to_string())?;
            let line = record.position().map_or(0, csv::Position::line);
            let text = |place: usize| record.get(place).unwrap_or_default();
            let row = match row.map(text) {
                None => 0,
                Some(text) => text.trim().parse().map_err(|_| {
                    format!("line {line}: column '{}': expected a whole number, got {text:?}", names.row)
                })?,
            };
            if !text(label).trim().is_empty() {
                self.add(text(id), row, Label::parse(text(label)));
            }
            self.bounded()?;
        }
        Ok(())
    }

    fn read_parquet(&mut self, path: &Path, names: &Names) -> Result<(), String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
        for batch in reader.map_err(|error| error.to_string())? {
            let batch = batch.map_err(|error| error.to_string())?;
            let (ids, labels) = (column(&batch, &names.id)?, column(&batch, &names.label)?);
            let rows = column(&batch, &names.row).ok();
            for place in 0..batch.num_rows() {
                let id = match cell(ids, place, &names.id)? {
                    Some(Label::Name(id)) => id,
                    Some(Label::Number(number)) => number.to_string(),
                    None => continue,
                };
                let row = match rows.map(|rows| cell(rows, place, &names.row)).transpose()?.flatten() {
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
                    Some(Label::Number(number)) if number >= 0.0 && number.fract() == 0.0 => number as u64,
                    None => 0,
                    Some(other) => {
                        return Err(format!("column '{}': expected whole numbers, got {other:?}", names.row));
                    }
                };
                if let Some(label) = cell(labels, place, &names.label)? {
                    self.add(&id, row, label);
                }
            }
            self.bounded()?;
        }
        Ok(())
    }

    fn bounded(&self) -> Result<(), String> {
        if self.count > LABELS_MAX {
            return Err(format!("expected at most {LABELS_MAX} labels; split the file"));
        }
        Ok(())
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, String> {
    batch.column_by_name(name).ok_or_else(|| {
        let schema = batch.schema();
        let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        format!("expected a column '{name}', got: {}", known.join(", "))
    })
}

/// One value; `None` where there is none.
fn cell(array: &ArrayRef, place: usize, name: &str) -> Result<Option<Label>, String> {
    use arrow_schema::DataType as D;
    if array.is_null(place) {
        return Ok(None);
    }
    let number = match array.data_type() {
        D::Utf8 => return Ok(Some(Label::Name(array.as_string::<i32>().value(place).to_owned()))),
        D::LargeUtf8 => return Ok(Some(Label::Name(array.as_string::<i64>().value(place).to_owned()))),
        D::Boolean => f64::from(u8::from(array.as_boolean().value(place))),
        D::Int8 => f64::from(array.as_primitive::<Int8Type>().value(place)),
        D::Int16 => f64::from(array.as_primitive::<Int16Type>().value(place)),
        D::Int32 => f64::from(array.as_primitive::<Int32Type>().value(place)),
        D::Int64 => array.as_primitive::<Int64Type>().value(place) as f64,
        D::Float32 => f64::from(array.as_primitive::<Float32Type>().value(place)),
        D::Float64 => array.as_primitive::<Float64Type>().value(place),
        other => return Err(format!("column '{name}': expected numbers, flags or texts, got {other}")),
    };
    Ok(Some(Label::Number(number)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray};
    use arrow_schema::{DataType, Field, Schema};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn csv(text: &str) -> Result<Labels, String> {
        let file = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Labels::read(file.path(), &Names::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn labels_are_read_from_csv() {
        let labels = csv("request_id,label,row\na,1,0\na,2,1\n\"b,c\",yes,0\nd,,0\na,3,1\n").unwrap();
        assert_eq!(labels.len(), 3);
        assert_eq!(labels.of("a"), [(0, Label::Number(1.0)), (1, Label::Number(3.0))]);
        assert_eq!(labels.of("b,c"), [(0, Label::Name("yes".into()))]);
        assert!(labels.of("d").is_empty());
        let check = |text: &str, part: &str| {
            let why = csv(text).unwrap_err();
            assert!(why.contains(part), "{why}");
        };
        check("id,label\na,1\n", "expected a column 'request_id', got: id, label");
        check("request_id,label,row\na,1,x\n", "line 2: column 'row': expected a whole number, got \"x\"");
        check("request_id,label\na,1,2\n", "line: 2");
    }

    #[test]
    fn labels_are_read_from_parquet() {
        let file = tempfile::Builder::new().suffix(".parquet").tempfile().unwrap();
        let fields =
            vec![Field::new("request_id", DataType::Utf8, true), Field::new("label", DataType::Int64, true)];
        let schema = Arc::new(Schema::new(fields));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["a", "b"])),
            Arc::new(Int64Array::from(vec![Some(2), None])),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(file.path()).unwrap(), schema, None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let labels = Labels::read(file.path(), &Names::default()).unwrap();
        assert_eq!((labels.len(), labels.of("a")), (1, &[(0, Label::Number(2.0))][..]));
        let names = Names { label: "y".into(), ..Names::default() };
        assert!(
            Labels::read(file.path(), &names).unwrap_err().to_string().contains("got: request_id, label")
        );
        let other = Labels::read(Path::new("labels.json"), &names).unwrap_err();
        assert!(other.to_string().contains(".csv or .parquet"), "{other}");
    }
}
