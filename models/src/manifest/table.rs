//! One table of a TOML document, read key by key; what does not fit, and what nobody asked for, becomes a fault.
//! Must not know which keys there are.

use std::{cell::RefCell, ops::Range};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use crate::faults::Faults;

/// Characters of a value that a message shows.
const SHOWN_CHARS_MAX: usize = 60;

/// Where lines begin, to turn offsets into line numbers.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let starts = text.match_indices('\n').map(|(index, _)| index + 1).collect();
        Self { text, starts }
    }

    /// The line of an offset, counted from 1.
    pub(super) fn at(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset) + 1
    }

    /// The text of a value, cut short.
    fn shown(&self, span: Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or_default();
        match text.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text.to_owned(),
        }
    }
}

/// A table being read.
pub(super) struct Table<'a> {
    table: &'a DeTable<'a>,
    prefix: String,
    lines: &'a Lines<'a>,
    faults: &'a RefCell<Faults>,
    asked: Vec<String>,
}

impl<'a> Table<'a> {
    pub(super) fn root(table: &'a DeTable<'a>, lines: &'a Lines<'a>, faults: &'a RefCell<Faults>) -> Self {
        Self { table, prefix: String::new(), lines, faults, asked: Vec::new() }
    }

    fn inner(&self, field: &str, table: &'a DeTable<'a>) -> Self {
        let prefix = format!("{}{field}.", self.prefix);
        Self { table, prefix, lines: self.lines, faults: self.faults, asked: Vec::new() }
    }

    fn find(&mut self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.push(key.to_owned());
        let (found, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        self.faults.borrow_mut().place(&format!("{}{key}", self.prefix), self.lines.at(found.span().start));
        Some(value)
    }

    /// Every key there is.
    pub(super) fn keys(&self) -> Vec<String> {
        self.table.keys().map(|key| key.get_ref().to_string()).collect()
    }

    /// Notes a fault of one key.
    pub(super) fn fault(&self, key: &str, expected: &str, got: &str) {
        self.faults.borrow_mut().add(format!("{}{key}", self.prefix), expected, got);
    }

    /// The value of a key, turned into something; `None` when absent, or not `expected` (which is a fault).
    pub(super) fn value<T>(
        &mut self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<T> {
        let value = self.find(key)?;
        let converted = convert(value.get_ref());
        if converted.is_none() {
            self.fault(key, expected, &self.lines.shown(value.span()));
        }
        converted
    }

    pub(super) fn string(&mut self, key: &str) -> Option<String> {
        self.value(key, "a text that is not empty", |value| {
            value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
        })
    }

    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        self.value(key, "true or false", DeValue::as_bool)
    }

    pub(super) fn number(&mut self, key: &str) -> Option<f64> {
        self.value(key, "a number", |value| match value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            value => integer(value).map(|number| number as f64),
        })
    }

    pub(super) fn integer(&mut self, key: &str, min: u64, max: u64) -> Option<u64> {
        self.value(key, &format!("an integer from {min} to {max}"), |value| {
            integer(value)
                .and_then(|number| number.try_into().ok())
                .filter(|number| (min..=max).contains(number))
        })
    }

    pub(super) fn integers(&mut self, key: &str, min: i64, max: i64) -> Option<Vec<i64>> {
        let expected = match max {
            i64::MAX => format!("a list of integers of {min} and more"),
            max => format!("a list of integers from {min} to {max}"),
        };
        self.value(key, &expected, |value| {
            let in_range = |number: &i64| (min..=max).contains(number);
            value.as_array()?.iter().map(|item| integer(item.get_ref()).filter(in_range)).collect()
        })
    }

    /// A key that must be there: read by `read`, or else a fault where the table begins.
    pub(super) fn required<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if !self.keys().iter().any(|name| name == key) {
            let at = self.prefix.trim_end_matches('.').to_owned();
            self.faults.borrow_mut().add(at, format!("the key '{key}'"), "none");
        }
        read(self)
    }

    pub(super) fn table(&mut self, key: &str) -> Option<Self> {
        let table = self.value(key, &format!("a table, [{key}]"), DeValue::as_table)?;
        Some(self.inner(key, table))
    }

    pub(super) fn tables(&mut self, key: &str) -> Vec<Self> {
        let all_tables = |list: &&DeArray<'_>| list.iter().all(|item| item.get_ref().is_table());
        let list =
            self.value(key, &format!("tables, [[{key}]]"), |value| value.as_array().filter(all_tables));
        let items = list.into_iter().flat_map(|list| list.iter()).enumerate();
        let tables = items.filter_map(|(index, item)| {
            let field = format!("{key}[{index}]");
            self.faults.borrow_mut().place(&field, self.lines.at(item.span().start));
            item.get_ref().as_table().map(|table| self.inner(&field, table))
        });
        tables.collect()
    }

    /// Ends the reading: every key that was not asked for is a fault.
    pub(super) fn finish(self) {
        let known: Vec<&str> = self.asked.iter().map(String::as_str).collect();
        for (key, _) in self.table {
            let name = key.get_ref();
            if !known.contains(&&**name) {
                let field = format!("{}{name}", self.prefix);
                let mut faults = self.faults.borrow_mut();
                faults.place(&field, self.lines.at(key.span().start));
                faults.add(
                    field,
                    format!("one of the keys {}", known.join(", ")),
                    format!("the unknown key '{name}'"),
                );
            }
        }
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}
