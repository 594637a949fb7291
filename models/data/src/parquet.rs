//! Parquet files, through the library's rows: numbers, flags, texts, and lists of them. Must not know what a folder of
//! such files means.

use std::{fs::File, path::Path};

use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::Field,
};

use crate::{Cell, Column, DataError, Dataset, ROWS_MAX, check_size};

pub(crate) fn read(path: &Path) -> Result<Dataset, DataError> {
    let mut data = Dataset::default();
    append(path, &mut data)?;
    Ok(data)
}

/// Reads a file behind what was read before; a column that either lacks has missing values there.
pub(crate) fn append(path: &Path, data: &mut Dataset) -> Result<(), DataError> {
    let bad = |fault: String| {
        DataError::new(path.display().to_string(), fault, "write it with Snappy compression or none")
    };
    let file = File::open(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
    let reader = SerializedFileReader::new(file).map_err(|error| bad(format!("is no Parquet: {error}")))?;
    let before = data.rows();
    let names: Vec<String> = {
        let schema = reader.metadata().file_metadata().schema();
        schema.get_fields().iter().map(|field| field.name().to_owned()).collect()
    };
    for name in &names {
        if data.column(name).is_none() {
            data.columns.push(Column { name: name.clone(), cells: vec![Cell::Missing; before] });
        }
    }
    let mut rows = before;
    for row in reader.get_row_iter(None).map_err(|error| bad(format!("cannot be read: {error}")))? {
        let row = row.map_err(|error| bad(format!("cannot be read: {error}")))?;
        if rows == ROWS_MAX {
            data.left_out += 1;
            continue;
        }
        for (name, field) in row.get_column_iter() {
            if let Some(column) = data.columns.iter_mut().find(|column| column.name == *name) {
                column.cells.push(cell(field));
            }
        }
        rows += 1;
        check_size(data.columns.len(), rows, &path.display().to_string())?;
    }
    data.columns.iter_mut().for_each(|column| column.cells.resize(rows, Cell::Missing));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "numbers beyond 53 bits are rounded")]
fn cell(field: &Field) -> Cell {
    match field {
        Field::Bool(flag) => Cell::Number(f64::from(u8::from(*flag))),
        Field::Byte(number) => Cell::Number(f64::from(*number)),
        Field::Short(number) => Cell::Number(f64::from(*number)),
        Field::Int(number) => Cell::Number(f64::from(*number)),
        Field::Long(number) => Cell::Number(*number as f64),
        Field::UByte(number) => Cell::Number(f64::from(*number)),
        Field::UShort(number) => Cell::Number(f64::from(*number)),
        Field::UInt(number) => Cell::Number(f64::from(*number)),
        Field::ULong(number) => Cell::Number(*number as f64),
        Field::Float(number) => Cell::Number(f64::from(*number)),
        Field::Double(number) => Cell::Number(*number),
        Field::Str(text) => Cell::Text(text.clone()),
        Field::Bytes(bytes) => Cell::Text(String::from_utf8_lossy(bytes.data()).into_owned()),
        Field::TimestampMillis(ms) => Cell::Number(*ms as f64),
        Field::TimestampMicros(us) => Cell::Number(*us as f64),
        Field::ListInternal(list) => Cell::List(list.elements().iter().map(cell).collect()),
        _ => Cell::Missing,
    }
}
