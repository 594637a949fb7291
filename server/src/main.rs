//! The `gannet` command. Must not know anything but where its arguments go.

use std::process::ExitCode;

fn main() -> ExitCode {
    gannet_server::cli::run(std::env::args_os())
}
