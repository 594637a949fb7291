//! Names: of a model, of a version. Must not know where either comes from.

use std::{borrow::Borrow, cmp::Ordering, fmt, str::FromStr, sync::Arc};

/// Longest model name or version accepted, in bytes. It bounds label values and path segments.
pub const NAME_BYTES_MAX: usize = 255;

/// Why a text is no model name or version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("the name is empty; give at least one character")]
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    #[error("the name has {0} bytes; at most {NAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// A character that could leave a path segment or garble a log line.
    #[error("'{name}' holds {found:?}; allowed are letters, digits and any of . _ - + @ = and space")]
    Character {
        /// The offending name.
        name: String,
        /// The first character that is not allowed.
        found: char,
    },
    /// `.`, `..`, or a leading dot.
    #[error("'{0}' begins with a dot, which is reserved for hidden files; rename it")]
    Dot(String),
}

fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(text.len()));
    }
    if text.starts_with('.') {
        return Err(NameError::Dot(text.to_owned()));
    }
    let allowed = |c: char| c.is_alphanumeric() || ".-_+@= ".contains(c);
    match text.chars().find(|&c| !allowed(c)) {
        Some(found) => Err(NameError::Character { name: text.to_owned(), found }),
        None => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and wraps it.
            ///
            /// # Errors
            /// [`NameError`] when the text is empty, too long, or could not be a path segment.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check_name(text).map(|()| Self(Arc::from(text)))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type! {
    /// The logical name that requests use.
    ModelName
}

name_type! {
    /// One version of a model: any text, ordered numerically when it is a number.
    Version
}

impl Ord for ModelName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for ModelName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Version {
    /// The digits without leading zeros, when the version is a number of any length.
    fn digits(&self) -> Option<&str> {
        let text = self.as_str();
        text.bytes().all(|b| b.is_ascii_digit()).then(|| text.trim_start_matches('0'))
    }
}

/// Numbers first, by value; then texts, by their bytes. `007` and `7` are distinct but adjacent.
impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.digits(), other.digits()) {
            (Some(a), Some(b)) => {
                a.len().cmp(&b.len()).then_with(|| a.cmp(b)).then_with(|| self.0.cmp(&other.0))
            }
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.0.cmp(&other.0),
        }
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_numerically_when_numeric() {
        let mut versions: Vec<Version> =
            ["v2", "10", "9", "v10", "007", "7", "123456789012345678901234567890"]
                .iter()
                .map(|text| Version::new(text).unwrap())
                .collect();
        versions.sort();
        let texts: Vec<&str> = versions.iter().map(Version::as_str).collect();
        assert_eq!(texts, ["007", "7", "9", "10", "123456789012345678901234567890", "v10", "v2"]);
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for bad in ["", ".", "..", ".swp", "a/b", "a\\b", "a\0b", "a\nb", &"x".repeat(256)] {
            assert!(ModelName::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["iris", "a.b-c_d", "modèle", "with space", "v1+cpu@x=y"] {
            assert!(ModelName::new(good).is_ok(), "{good:?} was refused");
        }
    }
}
