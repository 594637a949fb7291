//! CSV files (RFC 4180): one line a row, columns given to the model's inputs.
//!
//! With a header that names every input (`x`, or `x.0 x.1 ...` for an input of several elements)
//! columns go by name and others are ignored; without, by position. Must not know about requests.

use super::Column;
use crate::signature::InputSpec;
use crate::tensor::{DataType, Number, put_bytes};

/// Reads the columns of every input. `row_shapes` are the inputs' shapes without the rows.
pub(crate) fn parse(
    text: &str,
    inputs: &[InputSpec],
    row_shapes: &[Vec<usize>],
) -> Result<Vec<Column>, String> {
    let mut lines = records(text)?;
    if lines.is_empty() {
        return Err("expected at least one line, got none".into());
    }
    let widths: Vec<usize> = row_shapes.iter().map(|shape| shape.iter().product()).collect();
    let header = lines[0].1.clone();
    let places = match by_name(&header, inputs, &widths) {
        Some(places) => {
            lines.remove(0);
            places
        }
        None => {
            let numeric = inputs.iter().all(|input| input.datatype != DataType::Bytes);
            if numeric && header.iter().any(|field| Number::parse(field.trim()).is_none()) {
                // A header with other names: columns go by position.
                lines.remove(0);
            }
            by_position(header.len(), inputs, &widths)?
        }
    };
    let mut columns = Vec::new();
    for ((input, shape), place) in inputs.iter().zip(row_shapes).zip(&places) {
        let mut rows = Vec::with_capacity(lines.len());
        for (number, fields) in &lines {
            rows.push(row(input, place, fields).map_err(|fault| format!("line {number}: {fault}"))?);
        }
        columns.push(Column { input: input.clone(), row_shape: shape.clone(), rows });
    }
    Ok(columns)
}

fn by_name(header: &[String], inputs: &[InputSpec], widths: &[usize]) -> Option<Vec<Vec<usize>>> {
    let find = |name: &str| header.iter().position(|field| field.trim() == name);
    let place = |(input, width): (&InputSpec, &usize)| match width {
        1 => find(&input.name).or_else(|| find(&format!("{}.0", input.name))).map(|i| vec![i]),
        _ => (0..*width).map(|i| find(&format!("{}.{i}", input.name))).collect(),
    };
    inputs.iter().zip(widths).map(place).collect()
}

fn by_position(found: usize, inputs: &[InputSpec], widths: &[usize]) -> Result<Vec<Vec<usize>>, String> {
    let expected: usize = widths.iter().sum();
    if expected != found {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        return Err(format!(
            "expected {expected} columns (inputs {names:?} have {widths:?} elements), got {found}; \
             or name them in a header: {}, {}.0, ...",
            names.join(", "),
            names.first().unwrap_or(&"x")
        ));
    }
    let mut next = 0;
    let mut take = |width: &usize| {
        next += width;
        (next - width..next).collect()
    };
    Ok(widths.iter().map(&mut take).collect())
}

fn row(input: &InputSpec, place: &[usize], fields: &[String]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for column in place {
        let Some(field) = fields.get(*column) else {
            return Err(format!("expected a column {}, got {} columns", column + 1, fields.len()));
        };
        if input.datatype == DataType::Bytes {
            put_bytes(&mut bytes, field.as_bytes());
            continue;
        }
        let fits =
            Number::parse(field.trim()).is_some_and(|number| input.datatype.put_number(&mut bytes, number));
        if !fits {
            return Err(format!(
                "column {}: expected a {} for input {}, got {field:?}",
                column + 1,
                input.datatype.name(),
                input.name
            ));
        }
    }
    Ok(bytes)
}

/// Records with the number of the line each begins on; empty lines are skipped.
fn records(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let mut records = Vec::new();
    let mut fields = Vec::new();
    let mut field = String::new();
    let (mut line, mut start, mut quoted) = (1, 1, false);
    let mut letters = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    while let Some(letter) = letters.next() {
        line += usize::from(letter == '\n');
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            '\r' if !quoted && letters.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                if !(fields.is_empty() && field.is_empty()) {
                    fields.push(std::mem::take(&mut field));
                    records.push((start, std::mem::take(&mut fields)));
                }
                start = line;
            }
            _ => field.push(letter),
        }
    }
    if quoted {
        return Err(format!("line {start}: a quoted field is not closed"));
    }
    if !(fields.is_empty() && field.is_empty()) {
        fields.push(field);
        records.push((start, fields));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> (Vec<InputSpec>, Vec<Vec<usize>>) {
        let input = |name: &str, datatype, shape: &[i64]| InputSpec {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
        };
        let inputs = vec![input("a", DataType::Uint8, &[-1, 2]), input("b", DataType::Bytes, &[-1, 1])];
        (inputs, vec![vec![2], vec![1]])
    }

    fn check(text: &str, expected: Result<[&[u8]; 2], &str>) {
        let (inputs, shapes) = inputs();
        match (parse(text, &inputs, &shapes), expected) {
            (Ok(columns), Ok(rows)) => {
                assert_eq!([&columns[0].rows[0][..], &columns[1].rows[0][..]], rows, "{text}");
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (got, _) => panic!("{text:?}: {got:?}"),
        }
    }

    #[test]
    fn columns_go_by_position_or_name() {
        check("1,2,hi\n3,4,ho\n", Ok([&[1, 2], b"\x02\0\0\0hi"]));
        check("b,x,a.1,a.0\nhi,9,1,2", Ok([&[2, 1], b"\x02\0\0\0hi"]));
        check("1,2,\"a,\"\"b\"\n", Ok([&[1, 2], b"\x04\0\0\0a,\"b"]));
        check("1,2\n", Err("expected 3 columns"));
        check("1,300,x\n", Err("line 1: column 2: expected a UINT8"));
        check("1,2,\"x\n", Err("not closed"));
        check("", Err("at least one line"));
    }

    #[test]
    fn a_header_with_other_names_is_skipped_for_numbers() {
        let (inputs, shapes) = inputs();
        let columns = parse("u,v\r\n1,2\r\n", &inputs[..1], &shapes[..1]).unwrap();
        assert_eq!(columns[0].rows, [[1, 2]]);
    }
}
