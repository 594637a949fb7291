//! Data sets as people have them, read into columns: CSV, NPY, raw floats, Parquet, and a table of captured traffic.
//! Must not know models, graphs or statistics.

mod csv;
mod npy;
mod parquet;
mod table;

use std::{fs, path::Path};

/// Rows that are read of one data set; further ones are left out and counted.
pub const ROWS_MAX: usize = 1_000_000;
/// Values that are held of one data set.
pub const VALUES_MAX: usize = 200_000_000;
/// Columns of one data set.
pub const COLUMNS_MAX: usize = 10_000;

/// What is wrong with a data set.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {fault}; {advice}")]
pub struct DataError {
    /// The file, and the line where there is one.
    pub what: String,
    /// Expected and got.
    pub fault: String,
    /// What to do.
    pub advice: String,
}

impl DataError {
    fn new(what: impl Into<String>, fault: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), fault: fault.into(), advice: advice.into() }
    }
}

/// One value of a data set.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// There is none.
    Missing,
    /// A number, finite or not; flags are 0 and 1.
    Number(f64),
    /// A text.
    Text(String),
    /// A row of a tensor, flat.
    List(Vec<Cell>),
}

/// A named column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name; empty where the format has none.
    pub name: String,
    /// Row after row.
    pub cells: Vec<Cell>,
}

/// A data set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Dataset {
    /// In the file's order; all of the same length.
    pub columns: Vec<Column>,
    /// Rows that were left out, because there are more than [`ROWS_MAX`].
    pub left_out: usize,
}

impl Dataset {
    /// Rows that were read.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |column| column.cells.len())
    }

    /// The column of that name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Every value in the order of rows, lists flat.
    ///
    /// # Errors
    /// [`DataError`] for a text or a missing value, with its row.
    pub fn numbers(&self, what: &str) -> Result<Vec<f64>, DataError> {
        fn push(cell: &Cell, into: &mut Vec<f64>) -> Result<(), String> {
            match cell {
                Cell::Number(number) => into.push(*number),
                Cell::List(cells) => cells.iter().try_for_each(|cell| push(cell, into))?,
                Cell::Text(text) => return Err(format!("the text {text:?}")),
                Cell::Missing => return Err("nothing".into()),
            }
            Ok(())
        }
        let mut numbers = Vec::new();
        for row in 0..self.rows() {
            for column in &self.columns {
                push(&column.cells[row], &mut numbers).map_err(|got| {
                    let fault = format!("expected numbers, got {got} in row {row}, column '{}'", column.name);
                    DataError::new(what, fault, "leave labels and texts out")
                })?;
            }
        }
        Ok(numbers)
    }
}

/// Reads a data set, by the ending of its name: `.csv`, `.npy`, `.f32` (raw little-endian floats, one column),
/// `.parquet`, or a folder: a Delta table, or Parquet files.
///
/// # Errors
/// [`DataError`], naming the file, what was expected and what to do.
pub fn read(path: &Path) -> Result<Dataset, DataError> {
    let what = path.display().to_string();
    if path.is_dir() {
        return table::read(path);
    }
    let bytes = || {
        fs::read(path).map_err(|error| {
            DataError::new(&what, format!("cannot be read: {error}"), "check the path and its rights")
        })
    };
    match path.extension().and_then(|end| end.to_str()) {
        Some("npy") => npy::read(&bytes()?, &what),
        Some("csv") => csv::read(&String::from_utf8_lossy(&bytes()?), &what),
        Some("f32") => {
            let bytes = bytes()?;
            let cells = bytes.as_chunks().0.iter().map(|b| Cell::Number(f64::from(f32::from_le_bytes(*b))));
            Ok(Dataset { columns: vec![Column { name: String::new(), cells: cells.collect() }], left_out: 0 })
        }
        Some("parquet") => parquet::read(path),
        other => Err(DataError::new(
            &what,
            format!("expected a folder, or a name that ends in .csv, .npy, .f32 or .parquet, got {other:?}"),
            "save the data as one of those",
        )),
    }
}

/// Keeps within the limits, or says which one is passed.
fn check_size(columns: usize, rows: usize, what: &str) -> Result<(), DataError> {
    if columns > COLUMNS_MAX || columns.saturating_mul(rows) > VALUES_MAX {
        let fault = format!(
            "expected at most {COLUMNS_MAX} columns and {VALUES_MAX} values, got {columns} columns of {rows} rows"
        );
        return Err(DataError::new(what, fault, "take fewer columns, or a sample of the rows"));
    }
    Ok(())
}
