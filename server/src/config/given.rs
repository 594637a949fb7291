//! A value as it was given, before it is known what it is for. Must not know any key.

use std::fmt;

/// Characters of a value that a message shows.
const SHOWN_CHARS_MAX: usize = 80;

/// A value as it was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// From a flag, the environment, or a text in the file.
    Text(String),
    /// A whole number in the file.
    Integer(i64),
    /// A list in the file, or a flag given several times.
    List(Vec<String>),
    /// Anything else in the file, as it is written there.
    Other(String),
}

impl Given {
    /// A text.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Texts: a list, or one text with commas.
    pub(super) fn list(&self) -> Option<Vec<String>> {
        match self {
            Self::List(list) => Some(list.clone()),
            Self::Text(text) => Some(
                text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            ),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Integer(number) => u64::try_from(*number).ok(),
            Self::Text(text) => digits(text),
            _ => None,
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        match self {
            Self::Text(text) | Self::Other(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Bytes: a number, or one with a unit, such as `64MiB`.
    pub(super) fn bytes(&self) -> Option<u64> {
        let Self::Text(text) = self else { return self.number() };
        const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
        for (unit, shift) in UNITS {
            if let Some(number) = text.strip_suffix(unit) {
                return digits(number.trim())?.checked_mul(1 << shift);
            }
        }
        digits(text)
    }
}

fn digits(text: &str) -> Option<u64> {
    let text = text.replace('_', "");
    text.starts_with(|c: char| c.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Integer(number) => number.to_string(),
            Self::List(list) => format!("{list:?}"),
            Self::Other(text) => text.clone(),
        };
        match whole.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((end, _)) => write!(f, "{}...", &whole[..end]),
            None => f.write_str(&whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let text = |text: &str| Given::Text(text.into());
        for (given, expected) in [
            (text("64MiB"), Some(64 << 20)),
            (text("1 GiB"), Some(1 << 30)),
            (text("1_000"), Some(1000)),
            (Given::Integer(7), Some(7)),
            (Given::Integer(-7), None),
            (text("-7"), None),
            (text("+7"), None),
            (text("_"), None),
            (text("MiB"), None),
            (text("99999999999TiB"), None),
            (Given::Other("1.5".into()), None),
        ] {
            assert_eq!(given.bytes(), expected, "{given}");
        }
        assert_eq!(text("a, b,,c").list(), Some(vec!["a".into(), "b".into(), "c".into()]));
        assert_eq!(Given::List(vec!["a,b".into()]).list(), Some(vec!["a,b".into()]));
    }
}
