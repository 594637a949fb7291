//! The text format as Triton's parser takes it, and where things stand in it. Must not know any field.

use std::{borrow::Cow, collections::HashMap};

/// Puts a colon between a field's name and the list after it (`input [ ... ]`), which the reference parser lets
/// people leave out and ours wants. Lines stay what they are.
pub(super) fn with_list_colons(text: &str) -> Cow<'_, str> {
    let mut normal = String::new();
    let mut copied = 0;
    let mut state = State::Between;
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        state = match (state, c) {
            (State::Quoted(_), '\\') => {
                chars.next();
                state
            }
            (State::Quoted(quote), c) if c == quote => State::Between,
            (State::Quoted(_), _) => state,
            (State::Comment { .. }, c) if c != '\n' => state,
            (State::Comment { after_name }, _) => {
                if after_name {
                    State::AfterName
                } else {
                    State::Between
                }
            }
            (_, '"' | '\'') => State::Quoted(c),
            (_, '#') => State::Comment { after_name: state == State::AfterName },
            (_, c) if c.is_ascii_alphanumeric() || c == '_' => State::AfterName,
            (_, c) if c.is_whitespace() => state,
            (State::AfterName, '[') => {
                normal.push_str(&text[copied..index]);
                normal.push(':');
                copied = index;
                State::Between
            }
            _ => State::Between,
        };
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    normal.push_str(&text[copied..]);
    Cow::Owned(normal)
}

/// Where the reader of [`with_list_colons`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    /// Behind a name (or a number, which no list may follow), blanks included.
    AfterName,
    Quoted(char),
    Comment {
        after_name: bool,
    },
}

/// Finds the lines of fields, for a parser that keeps no positions.
pub(super) struct Places<'a> {
    text: &'a str,
    /// The line of each word that stands in the text exactly once.
    words: HashMap<&'a str, Option<usize>>,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

impl<'a> Places<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let mut words = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            for word in line.split(|c: char| !is_word(c)).filter(|word| !word.is_empty()) {
                words.entry(word).and_modify(|line| *line = None).or_insert(Some(index + 1));
            }
        }
        Self { text, words }
    }

    /// The line of a field such as `name` or `input[0].dims`, where it can be told.
    pub(super) fn line(&self, field: &str) -> Option<usize> {
        let last = field.rsplit('.').next()?.split('[').next()?;
        let unique = self.words.get(last).copied().flatten();
        let heads_line = |line: &str| line.strip_prefix(last).is_some_and(|rest| !rest.starts_with(is_word));
        let top = || (last == field).then(|| self.text.lines().position(heads_line)).flatten();
        unique.or_else(|| top().map(|index| index + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_come_before_lists_only() {
        let check = |text: &str, expected: &str| assert_eq!(with_list_colons(text), expected);
        check("input [ { dims: [ 1 ] } ]", "input :[ { dims: [ 1 ] } ]");
        check("input[{a[1]}]", "input:[{a:[1]}]");
        check("input # [\n [ ]", "input # [\n :[ ]");
        check("a: \"x [\" b: 'y\\' [' # c [", "a: \"x [\" b: 'y\\' [' # c [");
        check("é [", "é [");
    }
}
