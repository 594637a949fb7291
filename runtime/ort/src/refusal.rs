//! What the library says when it refuses, and whose fault it is. Must not know how it was called.

use gannet_runtime::backend::BackendError;

/// A status of the library as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Its code, such as 2 for an invalid argument.
    pub(crate) code: i32,
    /// Its words.
    pub(crate) message: String,
}

/// Parts of messages that only the request's own values or shapes can cause. The codes tell nothing: a kernel that
/// lacks memory and one that met a bad index both answer "fail".
const INPUT_FAULTS: [&str; 7] = [
    "Got invalid dimensions for input",
    "Invalid rank for input",
    "Unexpected input data type",
    "out of data bounds",
    "indices element out of",
    "index out of range",
    "out of range of dict size",
];

impl Refusal {
    /// The refusal of a run.
    pub(crate) fn of_run(self) -> BackendError {
        // Some messages go over several lines.
        let message = self.message.split_whitespace().collect::<Vec<_>>().join(" ");
        if INPUT_FAULTS.iter().any(|part| message.contains(part)) {
            return BackendError::Input(message);
        }
        BackendError::Execution(message)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_about_values_blame_the_request() {
        let check = |message: &str, input: bool| {
            let error = Refusal { code: 1, message: message.into() }.of_run();
            assert_eq!(matches!(error, BackendError::Input(_)), input, "{message}");
        };
        check(
            "Got invalid dimensions for input: x for the following indices index: 1 Got: 5 Expected: 4",
            true,
        );
        check("running Gather node: indices element out of data bounds, idx=99 must be within [-3,2]", true);
        check("Failed to allocate memory for requested buffer of size 1099511627776", false);
        check("Exiting due to terminate flag being set to true.", false);
    }
}
