//! The program: options in, report out, exit status.
//!
//! Must not know how anything is done.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use gannet_loadtest::echo;
use gannet_loadtest::flags::{Command, CommandLine, Flags};
use gannet_loadtest::plan::Plan;
use gannet_loadtest::progress;
use gannet_loadtest::session::{self, SessionError};

/// Options, files or the model's signature are wrong; clap uses the same status.
const EXIT_USAGE: u8 = 2;
/// The server cannot be reached.
const EXIT_UNREACHABLE: u8 = 3;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let result = match line.command {
        Some(Command::Echo(flags)) => echo::run(&flags).map(|()| true),
        None => load_test(line.flags),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gannet-loadtest: {error:#}");
            match error.downcast_ref() {
                Some(SessionError::Unreachable(_)) => ExitCode::from(EXIT_UNREACHABLE),
                _ => ExitCode::from(EXIT_USAGE),
            }
        }
    }
}

/// Whether the objective held.
fn load_test(flags: Flags) -> anyhow::Result<bool> {
    let flags = flags.with_scenario().map_err(anyhow::Error::msg)?;
    let plan = Plan::new(&flags).map_err(|faults| {
        let advice = "see --help for examples";
        anyhow::anyhow!("{} ({advice})", faults.join("\ngannet-loadtest: "))
    })?;
    let (events, printer) = progress::start(plan.progress).context("cannot start a thread")?;
    let report = session::carry_out(&plan, &events);
    drop(events);
    // The printer ends with the sender; a panic of it must not cost the report.
    let _ = printer.join();
    let report = report?;
    print!("{}", report.text());
    let write = |path: &Path, content: String| {
        std::fs::write(path, content)
            .with_context(|| format!("{}: the report cannot be written", path.display()))
    };
    if let Some(path) = &plan.json {
        write(path, report.json())?;
    }
    if let Some(path) = &plan.html {
        write(path, report.html())?;
    }
    Ok(report.held)
}
