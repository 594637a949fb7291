//! The `gannet` command once more, built beside the tests so that they can start it as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    gannet_server::cli::run(std::env::args_os())
}
