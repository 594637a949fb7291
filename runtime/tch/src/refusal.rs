//! What the library says when it refuses, made short, and whose fault it is. Must not know how it was called.

use gannet_runtime::backend::BackendError;

/// Characters of a message that are passed on.
const SHOWN_CHARS_MAX: usize = 400;

/// Parts of messages that only the request's own values, or the lengths of its variable axes, can cause.
const INPUT_FAULTS: [&str; 9] = [
    "index out of range",
    "out of bounds",
    "shapes cannot be multiplied",
    "must match the size of tensor",
    "Sizes of tensors must match",
    "size mismatch",
    "can't be greater than actual input size",
    "is invalid for input of size",
    "Expected more than 1 value per channel",
];

/// The refusal of a run.
pub(crate) fn of_run(error: &tch::TchError) -> BackendError {
    let message = brief(&error.to_string());
    if INPUT_FAULTS.iter().any(|part| message.contains(part)) {
        return BackendError::Input(message);
    }
    BackendError::Execution(message)
}

/// The sentence that tells what is wrong, without the stacks of C++ and of TorchScript around it.
pub(crate) fn brief(message: &str) -> String {
    let message = message.split("Exception raised from").next().unwrap_or(message);
    let lines = || message.lines().map(str::trim).filter(|line| !line.is_empty());
    let raised = |line: &&str| line.split_once("Error: ").is_some_and(|(kind, _)| !kind.contains(' '));
    let text = if message.contains("Traceback of TorchScript") {
        lines().rfind(raised).unwrap_or(message).to_owned()
    } else {
        lines().collect::<Vec<_>>().join(" ")
    };
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stacks_around_a_sentence_are_left_out() {
        let check = |message: &str, expected: &str| assert_eq!(brief(message), expected);
        check(
            "The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript (most recent \
             call last):\n  File \"m.py\", line 3, in forward\n    return x\n    ~~~ <--- HERE\nRuntimeError: mat1 and \
             mat2 shapes cannot be multiplied (1x5 and 4x16)\n",
            "RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x5 and 4x16)",
        );
        check(
            "index 99 is out of bounds\nException raised from f at g.cpp:3 (most recent call first):\nframe #0",
            "index 99 is out of bounds",
        );
        assert_eq!(brief(&"x".repeat(1000)).len(), SHOWN_CHARS_MAX + 3);
    }
}
