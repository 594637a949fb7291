//! The format of numpy, versions 1 and 2: numbers in C order. A row is what axis 0 counts. Must not know any other
//! format.

use crate::{Cell, Column, DataError, Dataset, ROWS_MAX, check_size};

pub(crate) fn read(bytes: &[u8], what: &str) -> Result<Dataset, DataError> {
    let bad = |fault: &str| {
        DataError::new(what, fault, "save it with numpy.save(path, numpy.ascontiguousarray(array))")
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
    let shape = header.split("'shape':").nth(1).and_then(|rest| rest.split(['(', ')']).nth(1)).unwrap_or("");
    let axes: Option<Vec<usize>> = shape
        .split(',')
        .map(str::trim)
        .filter(|axis| !axis.is_empty())
        .map(|axis| axis.parse().ok())
        .collect();
    let axes = axes.ok_or_else(|| bad("expected a shape of whole numbers"))?;
    let values = values(kind, &bytes[from + length..])
        .ok_or_else(|| bad("expected numbers of type f4, f8, i8, i4, i2, i1, u1 or b1, got another type"))?;
    let width: usize = axes.iter().skip(1).product::<usize>().max(1);
    let expected = axes.first().copied().unwrap_or(1).saturating_mul(width);
    if values.len() != expected {
        return Err(bad(&format!(
            "expected {expected} values for the shape ({shape}), got {}",
            values.len()
        )));
    }
    let rows = expected / width;
    check_size(width, rows.min(ROWS_MAX), what)?;
    let column = |index: usize| {
        let cells = values.iter().skip(index).step_by(width).take(ROWS_MAX).map(|value| Cell::Number(*value));
        Column { name: String::new(), cells: cells.collect() }
    };
    Ok(Dataset { columns: (0..width).map(column).collect(), left_out: rows.saturating_sub(ROWS_MAX) })
}

fn values(kind: &str, data: &[u8]) -> Option<Vec<f64>> {
    fn each<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
    }
    #[expect(clippy::cast_precision_loss, reason = "numbers beyond 53 bits are rounded")]
    Some(match kind {
        "<f4" => each(data, |b| f64::from(f32::from_le_bytes(b))),
        "<f8" => each(data, f64::from_le_bytes),
        "<i8" => each(data, |b| i64::from_le_bytes(b) as f64),
        "<i4" => each(data, |b| f64::from(i32::from_le_bytes(b))),
        "<i2" => each(data, |b| f64::from(i16::from_le_bytes(b))),
        "|i1" => each(data, |[b]: [u8; 1]| f64::from(b.cast_signed())),
        "|u1" | "|b1" => each(data, |[b]: [u8; 1]| f64::from(b)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_what_axis_0_counts() {
        let file = |shape: &str, values: &[f32]| {
            let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
            let mut file = b"\x93NUMPY\x01\x00".to_vec();
            file.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
            file.extend(header.as_bytes());
            values.iter().for_each(|value| file.extend(value.to_le_bytes()));
            file
        };
        let data = read(&file("(2, 1, 2)", &[1.5, -2.0, 3.0, 4.0]), "x").unwrap();
        assert_eq!((data.columns.len(), data.rows()), (2, 2));
        assert_eq!(data.numbers("x").unwrap(), [1.5, -2.0, 3.0, 4.0]);
        assert!(read(&file("(3,)", &[1.0]), "x").unwrap_err().to_string().contains("expected 3 values"));
        assert!(read(&file("(1,)", &[1.0])[..20], "x").is_err());
    }
}
