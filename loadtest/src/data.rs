//! Data sets: rows of values per input, drawn in order or shuffled, cut into requests.
//!
//! Must not know about the wire.

pub(crate) mod csv;
pub(crate) mod npy;

use crate::random::Random;
use crate::signature::InputSpec;
use crate::tensor::Tensor;

/// The rows of one input: each row's bytes, row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub input: InputSpec,
    /// Shape of a row.
    pub row_shape: Vec<usize>,
    /// One entry a row; rows of BYTES differ in length.
    pub rows: Vec<Vec<u8>>,
}

/// Cuts columns into requests of `rows` rows; the last one is filled up from the start.
pub(crate) fn requests(
    columns: &[Column],
    rows: usize,
    shuffle_seed: Option<u64>,
) -> Result<Vec<Vec<Tensor>>, String> {
    let total = columns.first().map_or(0, |column| column.rows.len());
    if let Some(other) = columns.iter().find(|column| column.rows.len() != total) {
        return Err(format!(
            "--data: expected the same number of rows for every input, got {total} for {} and {} \
             for {}",
            columns[0].input.name,
            other.rows.len(),
            other.input.name
        ));
    }
    if total == 0 {
        return Err("--data: expected at least one row, got none".into());
    }
    let mut order: Vec<usize> = (0..total).collect();
    if let Some(seed) = shuffle_seed {
        Random::new(seed).shuffle(&mut order);
    }
    let request = |start: usize| {
        let chosen = (start..start + rows).map(|i| order[i % total]);
        let tensor = |column: &Column| {
            let batched = column.input.shape.first() == Some(&-1);
            let mut shape = if batched { vec![rows] } else { Vec::new() };
            shape.extend(&column.row_shape);
            Tensor {
                name: column.input.name.clone(),
                datatype: column.input.datatype,
                shape,
                data: chosen.clone().flat_map(|row| column.rows[row].iter().copied()).collect(),
            }
        };
        columns.iter().map(tensor).collect()
    };
    Ok((0..total).step_by(rows).map(request).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DataType;

    fn column(rows: u8) -> Column {
        Column {
            input: InputSpec { name: "x".into(), datatype: DataType::Uint8, shape: vec![-1, 1] },
            row_shape: vec![1],
            rows: (0..rows).map(|value| vec![value]).collect(),
        }
    }

    fn check(rows: usize, seed: Option<u64>, expected: &[&[u8]]) {
        let requests = requests(&[column(5)], rows, seed).unwrap();
        let data: Vec<&[u8]> = requests.iter().map(|tensors| &tensors[0].data[..]).collect();
        assert_eq!(data, expected);
        assert_eq!(requests[0][0].shape, [rows, 1]);
    }

    #[test]
    fn rows_are_cut_into_requests() {
        check(1, None, &[&[0], &[1], &[2], &[3], &[4]]);
        check(2, None, &[&[0, 1], &[2, 3], &[4, 0]]);
        check(7, None, &[&[0, 1, 2, 3, 4, 0, 1]]);
        let shuffled = requests(&[column(5)], 5, Some(1)).unwrap();
        assert_eq!(shuffled, requests(&[column(5)], 5, Some(1)).unwrap());
        let mut values = shuffled[0][0].data.clone();
        assert_ne!(values, [0, 1, 2, 3, 4]);
        values.sort_unstable();
        assert_eq!(values, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn uneven_and_empty_columns_are_errors() {
        assert!(requests(&[column(2), column(3)], 1, None).is_err());
        assert!(requests(&[column(0)], 1, None).is_err());
    }
}
