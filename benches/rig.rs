//! Servers as processes of their own, pinned to one core, and the loader on the other. A benchmark's binary starts
//! itself again in a role; such a process ends when its standard input does, and so never outlives the benchmark.
//! Must not know what is measured.

mod answers;
mod echo;
mod raw;

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::sync_channel,
    time::Duration,
};

use gannet_loadtest::{flags::Flags, plan::Plan, report::RunReport, session};
use gannet_runtime::capture::ChosenBy;
use gannet_server::{
    app::{App, Listeners},
    config::{Config, Root, address::Address},
};
use rustix::thread::CpuSet;

pub use self::{
    answers::{admin, capture, is_ok},
    raw::{RawRun, raw_runs},
};

/// What a started process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The server, over the repository given.
    Server,
    /// The server, which besides captures one request in a hundred.
    Capturing,
    /// A bare hyper and a bare tonic server that read the request and answer with the bytes given.
    Echo,
    /// The loader's fixed-answer server.
    Fixed,
    /// Bare runs of the model given.
    Raw,
}

const ROLE: &str = "GANNET_BENCH_ROLE";
const CPUS: &str = "GANNET_BENCH_CPUS";

/// The core of the servers.
pub const SERVER_CPU: usize = 0;
/// The core of the loader.
pub const LOADER_CPU: usize = 1;

/// Plays the role that this process was started for, if it was, and ends it. Call it first in `main`.
pub fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let cpus = std::env::var(CPUS).unwrap_or_default();
    let mut set = CpuSet::new();
    cpus.split(',').filter_map(|cpu| cpu.parse().ok()).for_each(|cpu| set.set(cpu));
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        panic!("the cores {cpus} cannot be had: {error}");
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match role.as_str() {
        "Server" => serve(Path::new(&arguments[0]), false),
        "Capturing" => serve(Path::new(&arguments[0]), true),
        "Echo" => echo::serve(Path::new(&arguments[0])),
        "Fixed" => fixed(),
        "Raw" => raw::serve(Path::new(&arguments[0]), &arguments[1..]),
        other => panic!("{ROLE}: unknown role {other}"),
    }
    std::process::exit(0);
}

/// Says where it listens, and blocks until standard input ends.
fn announce(http: SocketAddr, grpc: SocketAddr, admin: Option<SocketAddr>) {
    println!("{http} {grpc} {}", admin.map(|admin| admin.to_string()).unwrap_or_default());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn serve(repository: &Path, captures: bool) {
    let state = tempfile::tempdir().expect("a folder for the state");
    let mut config = Config::new(state.path().to_owned());
    if captures {
        config.capture.root = Some(Root::Folder(state.path().join("captured")));
        config.capture.tap.rate = 0.01;
        config.capture.tap.by = ChosenBy::Chance;
        // often, so that writing is in what is measured
        config.capture.flush = Duration::from_secs(1);
    }
    config.listen.http = Some(Address::loopback(0));
    config.listen.grpc = Some(Address::loopback(0));
    config.listen.metrics = Some(Address::loopback(0));
    config.listen.admin = Some(Address::loopback(0));
    config.repository.paths = vec![repository.to_owned()];
    config.repository.scan = Duration::from_millis(100);
    config.repository.settle = Duration::from_millis(200);
    let listeners = Listeners::bind(&config).expect("free ports");
    let app = App::start(config, listeners).expect("the server starts");
    while !app.state().is_ready() {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let addresses = app.addresses();
    announce(addresses.http.expect("it listens"), addresses.grpc.expect("it listens"), addresses.admin);
    let _ = app.drain(Duration::ZERO, Duration::from_secs(1));
}

fn fixed() {
    let mut echo = gannet_loadtest::echo::Echo::bind(Some(0), Some(0)).expect("free ports");
    let (http, grpc) = (echo.http_address().expect("bound"), echo.grpc_address().expect("bound"));
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let end = std::sync::Arc::clone(&ended);
    let watch = move || {
        announce(http, grpc, None);
        end.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    std::thread::Builder::new().name("announce".into()).spawn(watch).expect("a thread");
    echo.serve(|| ended.load(std::sync::atomic::Ordering::Relaxed)).expect("epoll works");
}

/// A process in a role. Ends when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Where it serves HTTP.
    pub http: SocketAddr,
    /// Where it serves gRPC.
    pub grpc: SocketAddr,
    /// Where its admin API is, if it is the server.
    pub admin: Option<SocketAddr>,
}

fn command(wrapper: &[String], role: Role, cpus: &[usize], argument: &Path) -> Command {
    let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
    let this = std::env::current_exe().expect("this program has a path");
    let mut command = match wrapper {
        [] => Command::new(this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
    };
    command.env(ROLE, format!("{role:?}")).env(CPUS, cpus.join(",")).arg(argument);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

impl Process {
    /// Starts one on `cpus` and waits until it serves.
    ///
    /// # Panics
    /// When it does not start: a benchmark has nothing to do then.
    #[must_use]
    pub fn start(role: Role, cpus: &[usize], argument: &Path) -> Self {
        Self::start_under(&[], role, cpus, argument)
    }

    /// As [`Process::start`], run by another program: its name and options.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn start_under(wrapper: &[String], role: Role, cpus: &[usize], argument: &Path) -> Self {
        let mut child = command(wrapper, role, cpus, argument).spawn().expect("this program starts again");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("it says where it listens");
        let mut addresses = line.split_whitespace().filter_map(|address| address.parse().ok());
        let (Some(http), Some(grpc)) = (addresses.next(), addresses.next()) else {
            panic!("{role:?} did not start: {line:?}");
        };
        let (admin, stdin) = (addresses.next(), child.stdin.take());
        Self { child, stdin, http, grpc, admin }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its URL for a wire.
    #[must_use]
    pub fn url(&self, wire: Wire) -> String {
        match wire {
            Wire::Grpc => format!("grpc://{}", self.grpc),
            Wire::Json | Wire::Binary => format!("http://{}", self.http),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// How requests are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the wires")]
pub enum Wire {
    Json,
    Binary,
    Grpc,
}

impl Wire {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Json, Self::Binary, Self::Grpc];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Binary => "binary",
            Self::Grpc => "grpc",
        }
    }
}

/// The options of a run against `process`, to be completed with its load.
#[must_use]
pub fn flags(process: &Process, wire: Wire, model: &str, body: &Path, seconds: f64) -> Flags {
    Flags {
        url: Some(process.url(wire)),
        model: Some(model.to_owned()),
        wire: (wire != Wire::Grpc).then(|| wire.name().to_owned()),
        body: vec![body.to_owned()],
        duration: Some(format!("{seconds}s")),
        warmup: Some("300ms".to_owned()),
        pin: Some(LOADER_CPU),
        server_pid: Some(process.pid()),
        ..Flags::default()
    }
}

/// Carries one run out on this thread.
///
/// # Panics
/// When it cannot be carried out: a benchmark has nothing to do then.
#[must_use]
pub fn load(flags: &Flags) -> RunReport {
    let plan = Plan::new(flags).unwrap_or_else(|faults| panic!("{}", faults.join("\n")));
    let (events, received) = sync_channel(16);
    std::thread::scope(|scope| {
        scope.spawn(move || received.iter().for_each(drop));
        let report = session::carry_out(&plan, &events).unwrap_or_else(|error| panic!("{error}"));
        drop(events);
        report.run.expect("one server, one run")
    })
}

/// Median of the values.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}
