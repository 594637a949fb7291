//! How the server ends: politely on one signal, at once on the second, and what a kill leaves behind.

use std::{io, os::unix::process::ExitStatusExt as _, thread::JoinHandle, time::Duration};

use gannet_runtime::clock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::{
    call::{Answer, add, get, index, try_call},
    folder::{Folder, model_bytes},
    server::{Process, Server},
    wait,
};

/// `m` is `add_one`; `slow` takes some 20 to 50 ms a row.
fn slow_and_fast() -> Folder {
    let folder = Folder::with_add_one();
    folder.put("slow/1", "slow");
    folder
}

fn start(folder: &Folder, state: &tempfile::TempDir, lame_duck_ms: u32) -> Process {
    let lame_duck = format!("shutdown.lame_duck_ms={lame_duck_ms}");
    let path = folder.path().display().to_string();
    Process::start(state.path(), &["--set", &lame_duck, "--set", "shutdown.grace_ms=60000", &path])
}

fn signal(process: &Process, signal: Signal) {
    let pid = Pid::from_child(&process.child);
    kill_process(pid, signal).unwrap();
}

/// Sends a request that takes a while.
fn ask_slowly(process: &Process) -> JoinHandle<io::Result<Answer>> {
    let address = process.http.clone();
    let body =
        json!({ "inputs": [{ "name": "x", "shape": [32, 1], "datatype": "FP32", "data": vec![1; 32] }] });
    let ask = move || try_call(address, "POST /v2/models/slow/infer", &[], body.to_string().as_bytes());
    std::thread::Builder::new().name("slow-client".into()).spawn(ask).unwrap()
}

fn inflight(process: &Process) -> u64 {
    let admin = process.banner.lines().find(|line| line.trim_start().starts_with("admin")).unwrap();
    let admin = admin.split("http://").nth(1).unwrap().split('/').next().unwrap();
    get(admin, "/admin/v1/models/slow/versions/1").ok()["serving"]["inflight"].as_u64().unwrap()
}

fn wait_for_end(process: &mut Process) -> std::process::ExitStatus {
    let mut status = None;
    wait::until("the process ends", || {
        status = process.child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

#[test]
fn a_signal_drains_without_losing_a_request() {
    let (folder, state) = (slow_and_fast(), tempfile::tempdir().unwrap());
    let mut process = start(&folder, &state, 1500);
    assert_eq!(get(&process.http, "/v2/health/ready").status, 200);
    let before = ask_slowly(&process);
    wait::until("a request is in flight", || inflight(&process) > 0);
    signal(&process, Signal::TERM);
    let signalled = clock::now();
    wait::until("it is not ready any more", || get(&process.http, "/v2/health/ready").status == 503);
    assert!(
        clock::now() - signalled < Duration::from_millis(1000),
        "at once, long before the listeners close"
    );
    assert_eq!(get(&process.http, "/v2/health/live").status, 200);
    assert_eq!(add(&process.http, "m"), Ok(2.0));
    let during = ask_slowly(&process);
    for answer in [before, during] {
        assert_eq!(answer.join().unwrap().unwrap().status, 200);
    }
    let status = wait_for_end(&mut process);
    assert_eq!(status.code(), Some(0));
    assert!(clock::now() - signalled >= Duration::from_millis(1500), "the lame duck was waited for");
}

#[test]
fn what_is_in_flight_when_the_listeners_close_is_answered() {
    let (folder, state) = (slow_and_fast(), tempfile::tempdir().unwrap());
    let mut process = start(&folder, &state, 0);
    let requests: Vec<_> = (0..4).map(|_| ask_slowly(&process)).collect();
    wait::until("all requests are in flight", || inflight(&process) == 4);
    signal(&process, Signal::INT);
    for request in requests {
        assert_eq!(request.join().unwrap().unwrap().status, 200);
    }
    assert_eq!(wait_for_end(&mut process).code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let (folder, state) = (slow_and_fast(), tempfile::tempdir().unwrap());
    let mut process = start(&folder, &state, 80_000);
    signal(&process, Signal::TERM);
    wait::until("it is not ready any more", || get(&process.http, "/v2/health/ready").status == 503);
    signal(&process, Signal::TERM);
    let signalled = clock::now();
    assert_eq!(wait_for_end(&mut process).code(), Some(1));
    assert!(clock::now() - signalled < Duration::from_secs(10));
}

#[test]
fn a_kill_leaves_a_state_that_serves_again() {
    let (folder, state) = (slow_and_fast(), tempfile::tempdir().unwrap());
    for round in 0..3 {
        let mut process = start(&folder, &state, 0);
        let request = ask_slowly(&process);
        wait::until("a request is in flight", || inflight(&process) > 0);
        assert_eq!(add(&process.http, "m"), Ok(2.0), "round {round}");
        signal(&process, Signal::KILL);
        assert_eq!(wait_for_end(&mut process).signal(), Some(9));
        assert!(request.join().unwrap().is_err());
    }
    let process = start(&folder, &state, 0);
    assert_eq!(add(&process.http, "m"), Ok(2.0));
    let staging =
        std::fs::read_dir(state.path().join("store/staging")).unwrap().map(|item| item.unwrap().path());
    assert_eq!(staging.filter(|path| path.is_dir()).count(), 1, "what the kills left is swept");
}

#[test]
fn loading_another_model_never_clears_ready() {
    let folder = Folder::with_add_one();
    let server = Server::start(&folder.path(), |_| {});
    folder.write("slow/model.toml", "[instances]\ncount = 2\n");
    folder.write("slow/1/model.onnx", model_bytes("slow"));
    let mut loading = false;
    wait::until("the slow model serves", || {
        assert_eq!(get(server.http(), "/v2/health/ready").status, 200);
        let lines = index(server.http(), "slow");
        loading |= lines.iter().any(|line| line.1 == "LOADING");
        lines.iter().any(|line| line.1 == "READY")
    });
    assert!(loading, "it was seen loading");
    folder.put("m/2", "slow");
    wait::until("its new version serves", || {
        assert_eq!(get(server.http(), "/v2/health/ready").status, 200);
        index(server.http(), "m").iter().any(|line| line.0 == "2" && line.1 == "READY")
    });
}
