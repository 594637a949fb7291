//! Clients that other people wrote, run against this server: the Python scripts under `tests/peers`, in environments
//! installed from their locks. Must not know what the scripts check.

use std::{process::Command, time::Duration};

use crate::support::{
    environment::{Environment, bounded},
    proof::scaled,
    repository::Repository,
    server::{Server, root, zoo},
};

/// The longest that a script may take: all rows one by one, in a debug build.
const SCRIPT_BOUND: Duration = Duration::from_secs(900);
/// Rows of each model that are compared on every run.
const ROWS: u64 = 100;

#[test]
fn triton_clients_against_the_zoo() {
    let server = Server::start(&zoo(), |_| {});
    run(Environment::Triton, &server, "triton_client.py", &[]);
}

#[test]
fn triton_clients_with_every_datatype() {
    let datatypes = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"];
    let datatypes = datatypes.into_iter().chain(["fp16", "bf16", "fp32", "fp64", "string"]);
    let fixtures: Vec<String> = datatypes.map(|datatype| format!("identity_{datatype}")).collect();
    let repository = Repository::of(&fixtures.iter().map(String::as_str).collect::<Vec<_>>());
    let server = Server::start(repository.path(), |_| {});
    run(Environment::Triton, &server, "triton_datatypes.py", &[]);
}

#[test]
fn kserve_clients_against_the_zoo() {
    let server = Server::start(&zoo(), |_| {});
    run(Environment::Kserve, &server, "kserve_client.py", &[]);
}

#[test]
fn rows_of_the_zoo_are_answered_as_onnx_runtime_in_python_answers_them() {
    let repository = Repository::zoo();
    for model in repository.models() {
        repository.set(&model, "versions = \"all\"");
    }
    let server = Server::start(repository.path(), |_| {});
    let models = repository.path().display().to_string();
    let limit = scaled(ROWS, u64::from(u32::MAX)).to_string();
    run(Environment::Triton, &server, "differential.py", &["--models", &models, "--limit", &limit]);
}

/// Runs a script against the server; all of its checks must pass.
fn run(environment: Environment, server: &Server, script: &str, arguments: &[&str]) {
    let python = environment.python();
    let mut command = Command::new(python);
    command.arg(root().join("tests/peers").join(script));
    command.args(["--http", &server.http().to_string(), "--grpc", &server.grpc().to_string()]);
    command.args(arguments);
    // else they write into the repository
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let (passed, output) = bounded(command, SCRIPT_BOUND);
    assert!(passed && output.contains(", 0 failed"), "{script}:\n{output}");
}
