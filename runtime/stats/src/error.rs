//! What a caller can do wrong. Must not know who calls.

/// A parameter that no statistic can be computed with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StatsError {
    /// A number outside its range.
    #[error("{name}: expected {expected}, got {got}")]
    Range {
        /// The parameter.
        name: &'static str,
        /// Its range, in words.
        expected: &'static str,
        /// What was given.
        got: f64,
    },
    /// Two lists that belong together differ in length, or one is too short.
    #[error("{name}: expected {expected} values, got {got}")]
    Length {
        /// The parameter.
        name: &'static str,
        /// How many are needed.
        expected: usize,
        /// How many were given.
        got: usize,
    },
}

impl StatsError {
    /// `value` when `good`, else the error that says so.
    pub(crate) fn check(
        good: bool,
        name: &'static str,
        expected: &'static str,
        got: f64,
    ) -> Result<(), Self> {
        if good { Ok(()) } else { Err(Self::Range { name, expected, got }) }
    }

    /// An error probability strictly between 0 and 1.
    pub(crate) fn check_alpha(alpha: f64) -> Result<(), Self> {
        Self::check(alpha > 0.0 && alpha < 1.0, "alpha", "a number between 0 and 1, both excluded", alpha)
    }

    /// `got` values when `expected` are needed.
    pub(crate) fn check_length(name: &'static str, expected: usize, got: usize) -> Result<(), Self> {
        if expected == got { Ok(()) } else { Err(Self::Length { name, expected, got }) }
    }
}
