//! `gannet edge` without the server: `cargo run --release -p gannet-edge --example edge -- compile ...`. Must not add
//! anything to it.

use clap::Parser;

/// Compiles a model for a microcontroller.
#[derive(Debug, Parser)]
struct Edge {
    #[command(flatten)]
    args: gannet_edge::cli::EdgeArgs,
}

fn main() -> std::process::ExitCode {
    gannet_edge::cli::run(&Edge::parse().args).into()
}
