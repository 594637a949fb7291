//! NPY files (numpy.lib.format, versions 1 to 3): one array, its first axis are the rows.
//!
//! C order and plain little-endian or one-byte types only. Must not know about requests.

use super::Column;
use crate::signature::InputSpec;
use crate::tensor::{DataType, Number};

/// Reads an array as rows of an input, converting numbers when the types differ.
pub(crate) fn parse(bytes: &[u8], input: &InputSpec) -> Result<Column, String> {
    let (header, data) = split(bytes)?;
    let descr = quoted(header, "descr").ok_or("expected a plain dtype, got a structured one")?;
    if header.contains("'fortran_order': True") {
        return Err("expected C order, got Fortran order; save np.ascontiguousarray(a)".into());
    }
    let shape = shape(header).ok_or("expected a shape in the NPY header, got none")?;
    let source = source_type(descr).ok_or_else(|| {
        format!("expected a little-endian number or bool dtype, got {descr:?}; use a.astype('<f4')")
    })?;
    let (&rows, row_shape) = shape.split_first().ok_or("expected an array, got a single number")?;
    check_row_shape(input, row_shape)?;
    let width = source.element_bytes().unwrap_or(1);
    let row_bytes = row_shape.iter().try_fold(width, |bytes, size| bytes.checked_mul(*size));
    let expected = row_bytes.and_then(|row_bytes| row_bytes.checked_mul(rows));
    let row_bytes = match (row_bytes, expected) {
        (Some(row_bytes), Some(expected)) if data.len() == expected => row_bytes,
        _ => {
            return Err(format!(
                "expected the data of shape {shape:?} with {width} bytes an element, got {} bytes; \
                 the file is cut or damaged",
                data.len()
            ));
        }
    };
    // Rows of no bytes cost nothing in the file and could be any number.
    if row_bytes == 0 {
        return Err(format!("expected values, got the empty shape {shape:?}"));
    }
    let row = |index: usize| convert(&data[index * row_bytes..][..row_bytes], source, input);
    Ok(Column {
        input: input.clone(),
        row_shape: row_shape.to_vec(),
        rows: (0..rows).map(row).collect::<Result<_, _>>()?,
    })
}

fn split(bytes: &[u8]) -> Result<(&str, &[u8]), String> {
    let cut = "expected an NPY file, got a shorter one";
    let rest = bytes
        .strip_prefix(b"\x93NUMPY")
        .ok_or("expected an NPY file (first bytes \\x93NUMPY), got something else; use np.save")?;
    let (version, rest) = rest.split_at_checked(2).ok_or(cut)?;
    let (length, rest) = if version[0] == 1 {
        let (length, rest) = rest.split_first_chunk().ok_or(cut)?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = rest.split_first_chunk().ok_or(cut)?;
        (u32::from_le_bytes(*length) as usize, rest)
    };
    let (header, data) = rest.split_at_checked(length).ok_or(cut)?;
    let header = str::from_utf8(header).map_err(|_| "expected text in the NPY header")?;
    Ok((header, data))
}

/// The quoted value of a key of the header's Python dictionary.
fn quoted<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let rest = header.split_once(&format!("'{key}':"))?.1.trim_start();
    rest.strip_prefix('\'')?.split_once('\'').map(|(value, _)| value)
}

fn shape(header: &str) -> Option<Vec<usize>> {
    let rest = header.split_once("'shape':")?.1.trim_start();
    let inside = rest.strip_prefix('(')?.split_once(')')?.0;
    let sizes = inside.split(',').map(str::trim).filter(|part| !part.is_empty());
    sizes.map(|part| part.parse().ok()).collect()
}

fn source_type(descr: &str) -> Option<DataType> {
    Some(match descr {
        "|b1" => DataType::Bool,
        "|u1" => DataType::Uint8,
        "|i1" => DataType::Int8,
        "<u2" => DataType::Uint16,
        "<i2" => DataType::Int16,
        "<u4" => DataType::Uint32,
        "<i4" => DataType::Int32,
        "<u8" => DataType::Uint64,
        "<i8" => DataType::Int64,
        "<f2" => DataType::Fp16,
        "<f4" => DataType::Fp32,
        "<f8" => DataType::Fp64,
        _ => return None,
    })
}

fn check_row_shape(input: &InputSpec, row_shape: &[usize]) -> Result<(), String> {
    let batched = input.shape.first() == Some(&-1);
    let expected = &input.shape[usize::from(batched)..];
    let fits = expected.len() == row_shape.len()
        && expected.iter().zip(row_shape).all(|(e, r)| *e < 0 || *e as usize == *r);
    fits.then_some(()).ok_or_else(|| {
        format!(
            "expected rows of shape {expected:?} for input {} (-1 is any), got {row_shape:?}; the \
             array's first axis are the rows",
            input.name
        )
    })
}

fn convert(row: &[u8], source: DataType, input: &InputSpec) -> Result<Vec<u8>, String> {
    if source == input.datatype {
        return Ok(row.to_vec());
    }
    let width = source.element_bytes().unwrap_or(1);
    let mut output = Vec::with_capacity(row.len());
    for element in row.chunks_exact(width) {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(element);
        let unsigned = u64::from_le_bytes(wide);
        let unused = 64 - 8 * width as u32;
        let signed = (unsigned << unused) as i64 >> unused;
        let number = match source {
            DataType::Fp32 => Number::real(f32::from_bits(unsigned as u32).into()),
            DataType::Fp64 => Number::real(f64::from_bits(unsigned)),
            DataType::Fp16 => {
                return Err(format!(
                    "expected a dtype that converts to {}, got float16; use a.astype('<f4')",
                    input.datatype.name()
                ));
            }
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                Number::integer(signed.into())
            }
            _ => Number::integer(unsigned.into()),
        };
        if !input.datatype.put_number(&mut output, number) {
            return Err(format!(
                "expected numbers that {} can hold for input {}, got {number:?}",
                input.datatype.name(),
                input.name
            ));
        }
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    fn input(datatype: DataType, shape: &[i64]) -> InputSpec {
        InputSpec { name: "x".into(), datatype, shape: shape.to_vec() }
    }

    #[test]
    fn reads_and_converts() {
        let file = file("|i1", "(2, 2)", &[1, 2, 255, 4]);
        let column = parse(&file, &input(DataType::Int16, &[-1, 2])).unwrap();
        assert_eq!(column.row_shape, [2]);
        assert_eq!(column.rows, [vec![1, 0, 2, 0], vec![255, 255, 4, 0]]);
        let column = parse(&file, &input(DataType::Int8, &[-1, -1])).unwrap();
        assert_eq!(column.rows, [vec![1, 2], vec![255, 4]]);
    }

    #[test]
    fn faults_say_what_was_expected() {
        let good = file("<f4", "(1, 1)", &1.5f32.to_le_bytes());
        for (bytes, input, part) in [
            (&good[..], input(DataType::Int8, &[-1, 1]), "INT8 can hold"),
            (&good[..], input(DataType::Fp32, &[-1, 3]), "rows of shape [3]"),
            (&good[..good.len() - 1], input(DataType::Fp32, &[-1, 1]), "cut"),
            (b"PK", input(DataType::Fp32, &[-1, 1]), "np.save"),
            (&file(">f4", "(1,)", &[0; 4])[..], input(DataType::Fp32, &[-1]), "little-endian"),
        ] {
            let error = parse(bytes, &input).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
