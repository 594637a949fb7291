//! A Python script that goes on for as long as it is wanted, and says what it sees as lines of JSON. Must not know what it
//! sees.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{environment::Environment, server::root, wait};

/// Time for the interpreter and its packages to be there.
const START_BOUND: Duration = Duration::from_secs(120);

/// The script. It ends with the value.
pub(crate) struct Printer {
    child: Child,
    printed: tempfile::NamedTempFile,
}

impl Printer {
    /// Starts a script of `tests/peers`, whose first line names the port that it listens on.
    pub(crate) fn start(environment: Environment, script: &str, arguments: &[&str]) -> Self {
        let printed = tempfile::NamedTempFile::new().expect("a file");
        let mut python = Command::new(environment.python());
        python.arg(root().join("tests/peers").join(script)).args(arguments);
        python.env("PYTHONDONTWRITEBYTECODE", "1");
        let output = File::create(printed.path()).expect("it was made");
        let child = python.stdout(Stdio::from(output)).stdin(Stdio::null()).spawn().expect("it starts");
        let printer = Self { child, printed };
        assert!(wait::holds_within(START_BOUND, || !printer.all().is_empty()), "it names its port");
        printer
    }

    /// What it printed: whole lines.
    fn all(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.printed.path()).expect("it was made");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.all()[0]["port"])
    }

    /// What it has seen.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.all().split_off(1)
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
