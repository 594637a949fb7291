//! Texts in columns. Must not know what they say.

use std::fmt::Write as _;

/// Rows under a heading, each column as wide as its widest text; the last one is not padded.
pub(super) fn render(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let texts = rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count());
        texts.chain([heading[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut page = String::new();
    let mut line = |texts: &[&str]| {
        let mut line = String::new();
        for (text, width) in texts.iter().zip(&widths) {
            let _ = write!(line, "{text:width$}  ");
        }
        let _ = writeln!(page, "{}", line.trim_end());
    };
    line(heading);
    for row in rows {
        line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["iris".to_owned(), "1".to_owned(), "READY".to_owned()],
            vec!["a".into(), "10".into(), String::new()],
        ];
        assert_eq!(
            render(&["model", "version", "state"], &rows),
            "model  version  state\niris   1        READY\na      10\n"
        );
    }
}
