//! Samples: for calibration and for the parity report. Must not know graphs beyond the size of a row.

use std::path::Path;

use crate::{
    error::{EdgeError, Result},
    graph::{Axis, Port},
    lower::view,
};

/// Rows of one input, as the source has them.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Row after row.
    pub values: Vec<f32>,
    /// Values of a row.
    pub row: usize,
}

impl Samples {
    /// Rows of `row` values.
    ///
    /// # Errors
    /// [`EdgeError::Data`] when they are not whole rows of finite numbers.
    pub fn new(values: Vec<f32>, row: usize, what: &str) -> Result<Self> {
        let bad =
            |fault: String, way: &str| EdgeError::Data { what: what.into(), fault, way_round: way.into() };
        if row == 0 || values.is_empty() || !values.len().is_multiple_of(row) {
            let fault = format!("expected rows of {row} values, got {} values", values.len());
            return Err(bad(fault, "give one row for each sample, of the model's input shape"));
        }
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            let fault = format!("expected numbers, got {} in row {}", values[place], place / row);
            return Err(bad(fault, "leave such rows out"));
        }
        Ok(Self { values, row })
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.row
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// One row.
    #[must_use]
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.row..(index + 1) * self.row]
    }

    /// Reads NPY, CSV, Parquet or raw little-endian floats (`.f32`), by the ending of the name.
    ///
    /// # Errors
    /// [`EdgeError::Data`] when the file does not hold rows of `row` values.
    pub fn read(path: &Path, row: usize) -> Result<Self> {
        let what = path.display().to_string();
        let bad = |gannet_data::DataError { what, fault, advice }| EdgeError::Data {
            what,
            fault,
            way_round: advice,
        };
        let numbers = gannet_data::read(path).and_then(|data| data.numbers(&what)).map_err(bad)?;
        #[expect(clippy::cast_possible_truncation, reason = "the model computes in float32")]
        let values = numbers.into_iter().map(|number| number as f32).collect();
        Self::new(values, row, &what)
    }
}

/// A row of the source in the order in which a port stores it.
#[must_use]
pub fn stored(port: &Port, row: &[f32]) -> Vec<f32> {
    view::source_order(&port.axes).into_iter().map(|place| row[place]).collect()
}

/// A stored row in the order of the source.
#[must_use]
pub fn sourced<T: Copy + Default>(axes: &[Axis], row: &[T]) -> Vec<T> {
    let mut out = vec![T::default(); row.len()];
    view::source_order(axes).into_iter().zip(row).for_each(|(place, value)| out[place] = *value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_whole_rows_of_numbers() {
        assert!(Samples::new(vec![1.0, f32::NAN], 2, "x").is_err());
        assert!(Samples::new(vec![1.0; 3], 2, "x").is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        std::fs::write(&path, "a,b\n1, 2\n\n3,4\n").unwrap();
        assert_eq!(Samples::read(&path, 2).unwrap().values, [1.0, 2.0, 3.0, 4.0]);
        std::fs::write(&path, "1,2\n3,x\n").unwrap();
        assert!(Samples::read(&path, 2).unwrap_err().to_string().contains("text"));
    }
}
