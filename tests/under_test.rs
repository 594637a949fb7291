//! The `gannet` command once more, built beside the tests so that they can start it as a process. With
//! `FAULT_POINT=name:count` it kills itself when it passes that point for that many times.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::process::{Signal, getpid, kill_process};

fn main() -> ExitCode {
    if let Some((name, count)) =
        std::env::var("FAULT_POINT").ok().as_deref().and_then(|text| text.split_once(':'))
        && let Ok(count) = count.parse::<usize>()
    {
        let (name, passed) = (name.to_owned(), AtomicUsize::new(0));
        gannet_models::fault::install(move |point| {
            if point == name && passed.fetch_add(1, Ordering::SeqCst) + 1 == count {
                let _ = kill_process(getpid(), Signal::KILL);
            }
        });
    }
    gannet_server::cli::run(std::env::args_os())
}
