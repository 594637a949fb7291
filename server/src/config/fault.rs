//! What is wrong with a configuration. Must not know any key.

use std::fmt;

/// One thing wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it was given, such as `--http`, `gannet.toml:3` or `GANNET_LISTEN_HTTP`.
    pub source: String,
    /// The key, such as `listen.http`; empty: the source as a whole.
    pub key: String,
    /// What may stand there.
    pub expected: String,
    /// What stands there.
    pub got: String,
    /// What to do, where the two above do not say it.
    pub advice: String,
}

impl Fault {
    /// A fault without advice.
    #[must_use]
    pub fn new(source: &str, key: &str, expected: impl Into<String>, got: impl Into<String>) -> Self {
        let (source, key) = (source.to_owned(), key.to_owned());
        Self { source, key, expected: expected.into(), got: got.into(), advice: String::new() }
    }

    /// With advice.
    #[must_use]
    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "expected {}, got {}", self.expected, self.got)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

/// All faults of one configuration, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} {}:", if count == 1 { "fault" } else { "faults" })?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}
