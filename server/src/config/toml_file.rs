//! `gannet.toml` taken apart into keys and values with their lines. Must not know which keys there are.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Fault, Given};

/// One key of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// With its sections, such as `listen.http`.
    pub(super) key: String,
    /// As it is written.
    pub(super) given: Given,
    /// Counted from 1.
    pub(super) line: usize,
}

/// One table of a list of tables, such as `[[trust]]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TableEntry {
    /// The list, such as `models.source`.
    pub(super) list: String,
    /// Its keys.
    pub(super) entries: Vec<Entry>,
    /// Where it begins, counted from 1.
    pub(super) line: usize,
}

/// Every key of a file, and every table of the lists that `lists` names. A text that is no TOML gives a fault for each error that was found, and no keys.
pub(super) fn read(
    path: &str,
    text: &str,
    lists: &[&str],
    faults: &mut Vec<Fault>,
) -> (Vec<Entry>, Vec<TableEntry>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    let line = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
    for error in &errors {
        let source = match error.span() {
            Some(span) => format!("{path}:{}", line(span.start)),
            None => path.to_owned(),
        };
        faults.push(Fault::new(&source, "", "valid TOML", error.message().replace('\n', ", ")));
    }
    let (mut entries, mut tables) = (Vec::new(), Vec::new());
    if errors.is_empty() {
        let mut found = Found { text, lists, tables: &mut tables };
        found.flatten(root.get_ref(), "", &mut entries);
    }
    let inner = tables.iter_mut().flat_map(|table| &mut table.entries);
    for entry in entries.iter_mut().chain(inner) {
        entry.line = line(entry.line);
    }
    for table in &mut tables {
        table.line = line(table.line);
    }
    (entries, tables)
}

struct Found<'a> {
    text: &'a str,
    lists: &'a [&'a str],
    tables: &'a mut Vec<TableEntry>,
}

impl Found<'_> {
    /// Lines are offsets until the end.
    fn flatten(&mut self, table: &DeTable<'_>, prefix: &str, entries: &mut Vec<Entry>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => self.flatten(inner, &format!("{name}."), entries),
                DeValue::Array(items) if self.lists.contains(&name.as_str()) => {
                    for item in items {
                        let Some(inner) = item.get_ref().as_table() else { continue };
                        let mut own = Vec::new();
                        self.flatten(inner, "", &mut own);
                        self.tables.push(TableEntry {
                            list: name.clone(),
                            entries: own,
                            line: item.span().start,
                        });
                    }
                }
                _ => {
                    entries.push(Entry { key: name, given: given(value, self.text), line: key.span().start })
                }
            }
        }
    }
}

fn given(value: &Spanned<DeValue<'_>>, text: &str) -> Given {
    let other = || Given::Other(text.get(value.span()).unwrap_or_default().to_owned());
    match value.get_ref() {
        DeValue::String(string) => Given::Text(string.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or_else(|_| other(), Given::Integer)
        }
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<Vec<String>>>().map_or_else(other, Given::List)
        }
        _ => other(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_with_their_lines() {
        let text = "[listen]\nhttp = \"off\"\n\n[repository]\npaths = [\"a\", \"b\"]\nscan_ms = 0x10\nbytes_max = 1.5\n";
        let mut faults = Vec::new();
        let (mut entries, _) = read("f", text, &[], &mut faults);
        entries.sort_by_key(|entry| entry.line);
        let shown: Vec<String> =
            entries.iter().map(|e| format!("{} {} {}", e.line, e.key, e.given)).collect();
        let expected = [
            "2 listen.http \"off\"",
            "5 repository.paths [\"a\", \"b\"]",
            "6 repository.scan_ms 16",
            "7 repository.bytes_max 1.5",
        ];
        assert_eq!(shown, expected);
        assert!(faults.is_empty());
        assert!(read("f", "a = 1\nb = = 2\n", &[], &mut faults).0.is_empty());
        assert_eq!(faults[0].source, "f:2");
    }

    #[test]
    fn lists_of_tables_are_read_one_by_one() {
        let text = "[[models.source]]\nname = \"a\"\n\n[[models.source]]\nname = \"b\"\npoll_s = 5\n";
        let mut faults = Vec::new();
        let (entries, tables) = read("f", text, &["models.source"], &mut faults);
        assert!(entries.is_empty() && faults.is_empty());
        assert_eq!(tables.len(), 2);
        assert_eq!((tables[1].entries.len(), tables[1].entries[0].line), (2, 5));
    }
}
