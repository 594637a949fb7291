//! The server under test: in this process on free ports, or as a process of its own. Must not know what is tested.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use gannet_server::{
    app::{Addresses, App, Listeners},
    config::{Config, address::Address},
};

use super::wait;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the repository").to_owned()
}

/// The models that ship with the server.
pub(crate) fn zoo() -> PathBuf {
    root().join("models/zoo")
}

/// One of the tiny models under `tests/fixtures/models`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/models").join(name)
}

/// A server in this process. Its state goes with it.
pub(crate) struct Server {
    app: Option<App>,
    pub(crate) addresses: Addresses,
    _state: tempfile::TempDir,
}

impl Server {
    /// Starts a server over `repository` on free ports; `adjust` changes its configuration before.
    pub(crate) fn start(repository: &Path, adjust: impl FnOnce(&mut Config)) -> Self {
        let server = Self::start_unready(repository, adjust);
        wait::until("the server is ready", || server.app().state().is_ready());
        server
    }

    /// As [`Server::start`], without waiting for the models.
    pub(crate) fn start_unready(repository: &Path, adjust: impl FnOnce(&mut Config)) -> Self {
        let state = tempfile::tempdir().expect("a folder for the state");
        let mut config = Config::new(state.path().to_owned());
        let any = || Some(Address::loopback(0));
        config.listen.http = any();
        config.listen.grpc = any();
        config.listen.metrics = any();
        config.listen.admin = any();
        config.repository.paths = vec![repository.to_owned()];
        config.repository.scan = Duration::from_millis(20);
        config.repository.settle = Duration::from_millis(40);
        // loads step back until nobody else wants the core, and other tests want it all the time
        config.runtime.loader_nice = 0;
        adjust(&mut config);
        let listeners = Listeners::bind(&config).expect("free ports");
        let app = App::start(config, listeners).expect("the server starts");
        let addresses = app.addresses();
        Self { app: Some(app), addresses, _state: state }
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().expect("it runs until it is dropped")
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.addresses.http.expect("it listens")
    }

    pub(crate) fn grpc(&self) -> SocketAddr {
        self.addresses.grpc.expect("it listens")
    }

    pub(crate) fn metrics(&self) -> SocketAddr {
        self.addresses.metrics.expect("it listens")
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.addresses.admin.expect("it listens")
    }

    /// Ends it the polite way, with no lame duck; whether nothing was lost.
    pub(crate) fn drain(mut self, grace: Duration) -> bool {
        self.app.take().is_some_and(|app| app.drain(Duration::ZERO, grace))
    }
}

/// A server as a process of its own. Killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// What it printed until it said how to try it.
    pub(crate) banner: String,
    pub(crate) http: String,
    pub(crate) grpc: String,
}

impl Process {
    /// Starts `gannet` with `arguments` on free ports and waits for its banner.
    pub(crate) fn start(state: &Path, arguments: &[&str]) -> Self {
        let mut command = command();
        command.args([
            "--set",
            "log.level=error",
            "--set",
            "runtime.loader_nice=0",
            "--http",
            "127.0.0.1:0",
            "--grpc",
            "127.0.0.1:0",
            "--metrics",
            "127.0.0.1:0",
        ]);
        command.args(["--admin", "127.0.0.1:0", "--state"]).arg(state).args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the server starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut banner = String::new();
        while let Some(Ok(line)) = lines.next() {
            banner.push_str(&line);
            banner.push('\n');
            if line.contains("curl http") {
                break;
            }
        }
        let address = |scheme: &str| {
            let start =
                banner.find(scheme).unwrap_or_else(|| panic!("no {scheme} in {banner}")) + scheme.len();
            banner[start..].split(['/', '\n']).next().unwrap_or_default().to_owned()
        };
        let (http, grpc) = (address("http://"), address("grpc://"));
        Self { child, banner, http, grpc }
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        resident_bytes(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `gannet` command, without the environment's own settings.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gannet-under-test"));
    command.current_dir(root());
    // the kernel joins and splits huge pages when it likes, 2 MB at a time: that is no growth of ours
    command.env("MIMALLOC_ALLOW_THP", "0");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GANNET_") && name != "GANNET_CACHE" {
            command.env_remove(name);
        }
    }
    command
}

/// Resident memory of a process in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("every process has memory");
    let kilobytes = line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
    kilobytes.expect("a number of kB") * 1024
}
