//! Running the tester and the echo server inside a test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use clap::Parser as _;
use gannet_loadtest::echo::Echo;
use gannet_loadtest::flags::CommandLine;
use gannet_loadtest::plan::Plan;
use gannet_loadtest::progress;
use gannet_loadtest::report::{Report, RunReport};
use gannet_loadtest::session::{SessionError, carry_out};

/// Runs the tester with these options.
pub(crate) fn try_run(line: &str) -> Result<Report, SessionError> {
    let words = std::iter::once("gannet-loadtest").chain(line.split_whitespace());
    let flags = CommandLine::try_parse_from(words).unwrap().flags;
    let plan = Plan::new(&flags).unwrap();
    let (events, printer) = progress::start(false).unwrap();
    let report = carry_out(&plan, &events);
    drop(events);
    printer.join().unwrap();
    report
}

/// A run without warm-up against `url`.
pub(crate) fn run(url: &str, line: &str) -> RunReport {
    let line = format!("--url {url} --model m --warmup 0s --idle sleep {line}");
    try_run(&line).unwrap().run.unwrap()
}

/// An echo server that ends when dropped.
pub(crate) struct EchoThread {
    pub http: String,
    pub grpc: String,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoThread {
    pub(crate) fn start() -> Self {
        let mut echo = Echo::bind(Some(0), Some(0)).unwrap();
        let url = |scheme: &str, address: Option<SocketAddr>| format!("{scheme}://{}", address.unwrap());
        let ended = Arc::new(AtomicBool::new(false));
        let seen = ended.clone();
        Self {
            http: url("http", echo.http_address()),
            grpc: url("grpc", echo.grpc_address()),
            ended,
            thread: Some(std::thread::spawn(move || {
                echo.serve(|| seen.load(Ordering::Relaxed)).unwrap();
            })),
        }
    }
}

impl Drop for EchoThread {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A file in the test's own directory.
pub(crate) fn file(name: &str, content: &[u8]) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, content).unwrap();
    path
}
