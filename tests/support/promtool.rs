//! Prometheus' own checker, out of Debian's package, fetched once into the cache. Must not know any metric.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use super::debian::program;

const LOCK: &str = include_str!("promtool.lock");

/// Panics with what `promtool check metrics` has against a page.
#[track_caller]
pub(crate) fn check(page: &str) {
    let mut command = Command::new(program(LOCK, "promtool"));
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool starts");
    child.stdin.take().expect("piped").write_all(page.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

/// Panics with what `promtool test rules` finds.
#[track_caller]
pub(crate) fn test_rules(file: &Path) {
    let mut command = Command::new(program(LOCK, "promtool"));
    let output = command.args(["test", "rules"]).arg(file).output().expect("promtool runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
