//! Values between commas, after RFC 4180. A first line that holds a text where every other line holds a number names
//! the columns. Must not know any other format.

use crate::{Cell, Column, DataError, Dataset, ROWS_MAX, check_size};

pub(crate) fn read(text: &str, what: &str) -> Result<Dataset, DataError> {
    let mut records = records(text, what)?;
    let Some((_, first)) = records.first() else {
        return Err(DataError::new(what, "expected lines of values, got none", "give one row a line"));
    };
    let width = first.len();
    if let Some((line, record)) = records.iter().find(|(_, record)| record.len() != width) {
        let fault = format!("expected {width} values as in the first line, got {}", record.len());
        return Err(DataError::new(format!("{what}, line {line}"), fault, "quote commas inside of texts"));
    }
    let is_number = |text: &String| text.is_empty() || text.trim().parse::<f64>().is_ok();
    let named = records[0].1.iter().all(|text| !is_number(text))
        || records.get(1).is_some_and(|(_, second)| {
            records[0].1.iter().zip(second).any(|(name, value)| !is_number(name) && is_number(value))
        });
    let names = if named { records.remove(0).1 } else { vec![String::new(); width] };
    let left_out = records.len().saturating_sub(ROWS_MAX);
    records.truncate(ROWS_MAX);
    check_size(width, records.len(), what)?;
    let mut columns: Vec<Column> = names
        .into_iter()
        .map(|name| Column { name: name.trim().to_owned(), cells: Vec::with_capacity(records.len()) })
        .collect();
    for (_, record) in records {
        for (column, value) in columns.iter_mut().zip(record) {
            let trimmed = value.trim();
            column.cells.push(match trimmed.parse::<f64>() {
                _ if trimmed.is_empty() => Cell::Missing,
                Ok(number) => Cell::Number(number),
                Err(_) => Cell::Text(value),
            });
        }
    }
    columns.iter_mut().for_each(|column| settle(&mut column.cells));
    Ok(Dataset { columns, left_out })
}

/// A column with a text in it is one of texts: then 1 and 01 are two of them.
fn settle(cells: &mut [Cell]) {
    if cells.iter().any(|cell| matches!(cell, Cell::Text(_))) {
        for cell in cells {
            if let Cell::Number(number) = cell {
                *cell = Cell::Text(number.to_string());
            }
        }
    }
}

/// Lines, with their numbers from 1.
fn records(text: &str, what: &str) -> Result<Vec<(usize, Vec<String>)>, DataError> {
    let (mut records, mut record, mut value) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begun, mut quoted) = (1, 1, false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        line += usize::from(character == '\n');
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                value.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if value.trim().is_empty() => {
                value.clear();
                quoted = true;
            }
            ',' if !quoted => record.push(std::mem::take(&mut value)),
            '\r' if !quoted && characters.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                record.push(std::mem::take(&mut value));
                let ended = std::mem::take(&mut record);
                if ended.len() > 1 || !ended[0].trim().is_empty() {
                    records.push((begun, ended));
                }
                begun = line;
            }
            other => value.push(other),
        }
    }
    if quoted {
        let place = format!("{what}, line {begun}");
        return Err(DataError::new(
            place,
            "expected a quote to end, got the end of the file",
            "add the quote",
        ));
    }
    if !record.is_empty() || !value.trim().is_empty() {
        record.push(value);
        records.push((begun, record));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_names_and_quotes() {
        let data = read("a,\"b, c\"\r\n1, 2\n\n3,\n", "x").unwrap();
        let names: Vec<&str> = data.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["a", "b, c"]);
        assert_eq!(data.columns[1].cells, [Cell::Number(2.0), Cell::Missing]);
        let plain = read("1,2\n3,4", "x").unwrap();
        assert_eq!(
            (plain.columns[0].name.as_str(), plain.numbers("x").unwrap()),
            ("", vec![1.0, 2.0, 3.0, 4.0])
        );
        let texts = read("city,n\n\"O\"\"x\",1\n7,2\n", "x").unwrap();
        assert_eq!(texts.columns[0].cells, [Cell::Text("O\"x".into()), Cell::Text("7".into())]);
        assert!(read("1,2\n3\n", "x").unwrap_err().to_string().contains("line 2"));
        assert!(read("1,\"2\n3\n", "x").unwrap_err().to_string().contains("quote"));
        assert!(read("", "x").is_err());
    }
}
