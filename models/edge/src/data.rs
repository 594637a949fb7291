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

    /// Reads NPY, CSV or raw little-endian floats (`.f32`), by the ending of the name.
    ///
    /// # Errors
    /// [`EdgeError::Data`] when the file does not hold rows of `row` values.
    pub fn read(path: &Path, row: usize) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(EdgeError::io(path, "read"))?;
        let what = path.display().to_string();
        let values = match path.extension().and_then(|end| end.to_str()) {
            Some("npy") => npy(&bytes, &what)?,
            Some("f32") => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Some("csv") => csv(&String::from_utf8_lossy(&bytes), &what)?,
            other => {
                return Err(EdgeError::Data {
                    what,
                    fault: format!("expected a name that ends in .npy, .csv or .f32, got {other:?}"),
                    way_round: "save the samples with numpy.save".into(),
                });
            }
        };
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

/// The format of numpy, versions 1 and 2, numbers in C order.
fn npy(bytes: &[u8], what: &str) -> Result<Vec<f32>> {
    let bad = |fault: &str| EdgeError::Data {
        what: what.into(),
        fault: fault.into(),
        way_round: "save it with numpy.save(path, array.astype('float32'))".into(),
    };
    if bytes.len() < 12 || &bytes[..6] != b"\x93NUMPY" {
        return Err(bad("expected the format of numpy, got something else"));
    }
    let (length, from): (usize, usize) = match bytes[6] {
        1 => (usize::from(u16::from_le_bytes([bytes[8], bytes[9]])), 10),
        _ => (u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize, 12),
    };
    let header = bytes.get(from..from.saturating_add(length)).ok_or_else(|| bad("its header is cut off"))?;
    let header = String::from_utf8_lossy(header);
    if header.contains("'fortran_order': True") {
        return Err(bad("expected C order, got Fortran order"));
    }
    let kind = header.split("'descr':").nth(1).and_then(|rest| rest.split('\'').nth(1)).unwrap_or("");
    let data = &bytes[from + length..];
    #[expect(clippy::cast_possible_truncation, reason = "the model computes in float32")]
    #[expect(clippy::cast_precision_loss, reason = "the model computes in float32")]
    Ok(match kind {
        "<f4" => data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        "<f8" => data.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
        "<i8" => data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as f32).collect(),
        "<i4" => data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes) as f32).collect(),
        "|u1" => data.iter().map(|byte| f32::from(*byte)).collect(),
        "|i1" => data.iter().map(|byte| f32::from(byte.cast_signed())).collect(),
        _ => return Err(bad("expected numbers of type f4, f8, i4, i8, u1 or i1, got another type")),
    })
}

/// Numbers between commas; a first line of names is left out.
fn csv(text: &str, what: &str) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let numbers: Result<Vec<f32>, _> = line.split(',').map(|cell| cell.trim().parse::<f32>()).collect();
        match numbers {
            Ok(numbers) => values.extend(numbers),
            Err(_) if index == 0 => {}
            Err(error) => {
                return Err(EdgeError::Data {
                    what: format!("{what}, line {}", index + 1),
                    fault: format!("expected numbers between commas, got: {error}"),
                    way_round: "leave labels and texts out".into(),
                });
            }
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(1.5f32.to_le_bytes());
        file.extend((-2f32).to_le_bytes());
        assert_eq!(npy(&file, "x").unwrap(), [1.5, -2.0]);
        assert!(npy(&file[..20], "x").is_err());
        assert_eq!(csv("a,b\n1, 2\n\n3,4\n", "x").unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert!(csv("1,2\n3,x\n", "x").unwrap_err().to_string().contains("line 2"));
        assert!(Samples::new(vec![1.0, f32::NAN], 2, "x").is_err());
        assert!(Samples::new(vec![1.0; 3], 2, "x").is_err());
    }
}
