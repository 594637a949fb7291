//! Checks over the files.
