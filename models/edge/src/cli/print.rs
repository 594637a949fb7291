//! Tables, bars and progress on a terminal. Must not know what they show.

use std::{
    fmt,
    io::{IsTerminal as _, Write as _},
};

use crate::compile::Progress;

/// Prints a line. That nobody reads it any more is no reason to fail.
pub(super) fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Columns, as wide as their widest cell; the first row is the heading.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A bar of eighths of a block.
#[expect(clippy::cast_possible_truncation, reason = "a few columns")]
#[expect(clippy::cast_sign_loss, reason = "clamped")]
pub(super) fn bar(share: f64, columns: usize) -> String {
    const BLOCKS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths =
        (share.clamp(0.0, 1.0) * 8.0 * f64::from(u32::try_from(columns).unwrap_or(0))).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(BLOCKS[eighths % 8]);
    }
    bar
}

/// Shows progress on a terminal's error stream; silent elsewhere.
pub(super) struct Meter {
    shown: bool,
    last: Option<(&'static str, usize)>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { shown: std::io::stderr().is_terminal(), last: None }
    }

    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub(super) fn show(&mut self, progress: Progress) {
        let percent = progress.done * 100 / progress.of.max(1);
        if !self.shown || self.last == Some((progress.step, percent)) {
            return;
        }
        self.last = Some((progress.step, percent));
        let share = progress.done as f64 / progress.of.max(1) as f64;
        let _ =
            write!(std::io::stderr(), "\r\x1b[2K{:<12} {:<24} {percent:>3} %", progress.step, bar(share, 24));
    }

    pub(super) fn end(&self) {
        if self.shown && self.last.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_tables() {
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(0.0, 4), "");
        assert_eq!(bar(2.0, 2), "██");
        assert_eq!(bar(0.1, 1), "▏");
        assert_eq!(
            table(&[vec!["a".into(), "b".into()], vec!["long".into(), "c".into()]]),
            "a     b\nlong  c"
        );
    }
}
