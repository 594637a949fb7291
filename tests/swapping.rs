//! Hot swap under load, and memory over many loads: through the real server as a process of its own, with ONNX
//! Runtime, over HTTP and gRPC at once.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::atomic::Ordering,
};

use crate::support::{
    load::Clients,
    proof::scaled,
    server::{Process, fixture},
    wait,
};

/// One request over a connection of its own: status and body.
fn ask(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

fn copy(fixture_name: &str, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    std::fs::copy(fixture(fixture_name).join("model.onnx"), to.join("model.onnx")).expect("a model");
}

/// Asks the server to serve exactly `version` of the model.
fn swap_to(http: &str, version: u64) {
    let config = format!(r#"{{\"version_policy\":{{\"specific\":{{\"versions\":[{version}]}}}}}}"#);
    let body = format!(r#"{{"parameters":{{"config":"{config}"}}}}"#);
    let (status, answer) = ask(http, "POST", "/v2/repository/models/swapped/load", &body);
    assert_eq!(status, 200, "{answer}");
}

/// The sum of a counter's series on the metrics page.
fn counter(metrics: &str, series: &str) -> u64 {
    let (_, page) = ask(metrics, "GET", "/metrics", "");
    let lines = page.lines().filter(|line| line.starts_with(series));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn metrics_address(process: &Process) -> String {
    let line = process.banner.lines().find(|line| line.contains("/metrics")).expect("the banner names it");
    line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address").to_owned()
}

/// What the memory may grow by with each swap or cycle.
const BYTES_A_STEP_MAX: f64 = 1024.0;

/// Bytes gained a step, by least squares.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let n = samples.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| samples.iter().map(pick).sum::<f64>() / n;
    let (x, y) = (mean(|s| s.0), mean(|s| s.1));
    let covariance: f64 = samples.iter().map(|s| (s.0 - x) * (s.1 - y)).sum();
    let variance: f64 = samples.iter().map(|s| (s.0 - x) * (s.0 - x)).sum();
    covariance / variance
}

#[test]
fn two_versions_swap_under_load_and_nothing_fails() {
    let swaps = scaled(40, 2000);
    let folder = tempfile::tempdir().expect("a folder");
    let repository = folder.path().join("repository");
    copy("add_one", &repository.join("swapped/1"));
    copy("add_two", &repository.join("swapped/2"));
    let state = folder.path().join("state");
    let repository = repository.display().to_string();
    let process = Process::start(&state, &["--repository", &repository, "--model-control", "explicit"]);
    swap_to(&process.http, 1);
    let metrics = metrics_address(&process);
    let loads_before = counter(&metrics, "gannet_loads_total");

    let (http, grpc) = (process.http.parse().expect("an address"), process.grpc.parse().expect("an address"));
    let clients = Clients::start(http, 32, grpc, 32);
    let mut memory = Vec::new();
    for swap in 1..=swaps {
        let before = clients.seen.answers.load(Ordering::Relaxed);
        swap_to(&process.http, 1 + swap % 2);
        // the new version answers before the next swap
        wait::until("answers after a swap", || clients.seen.answers.load(Ordering::Relaxed) >= before + 64);
        if swap >= 100 && swap % 20 == 0 {
            memory.push((swap as f64, process.resident_bytes() as f64));
        }
    }
    let seen = clients.stop();

    let failures = seen.failures.lock().expect("no client panicked");
    assert!(failures.is_empty(), "{failures:#?}");
    let versions = [0, 1].map(|index| seen.versions[index].load(Ordering::Relaxed));
    assert!(versions.iter().all(|&count| count > swaps), "both versions answered: {versions:?}");
    assert_eq!(counter(&metrics, "gannet_loads_total") - loads_before, swaps, "every swap loaded a session");
    wait::until("what was replaced is destroyed", || counter(&metrics, "gannet_unloads_total") >= swaps);
    println!(
        "{swaps} swaps under {} answers, versions {versions:?}, 0 failed",
        seen.answers.load(Ordering::Relaxed)
    );
    if memory.len() >= 10 {
        let gained = slope(&memory);
        println!(
            "memory after the 100th swap: {gained:.0} bytes a swap, {:?} bytes at the end",
            memory.last()
        );
        assert!(gained <= BYTES_A_STEP_MAX, "memory grows by {gained:.0} bytes a swap");
    }
}

#[test]
fn memory_comes_back_over_many_loads() {
    let cycles = scaled(300, 1000);
    let folder = tempfile::tempdir().expect("a folder");
    let repository = folder.path().join("repository");
    copy("add_one", &repository.join("good/1"));
    std::fs::create_dir_all(repository.join("bad/1")).expect("a folder");
    let whole = std::fs::read(fixture("add_one").join("model.onnx")).expect("a model");
    std::fs::write(repository.join("bad/1/model.onnx"), &whole[..whole.len() / 2]).expect("a damaged model");
    let state = folder.path().join("state");
    let repository = repository.display().to_string();
    let arguments = ["--repository", &repository, "--model-control", "explicit", "--load-model", "good"];
    let process = Process::start(&state, &arguments);
    let metrics = metrics_address(&process);
    let post = |path: &str| ask(&process.http, "POST", path, "");
    let mut memory = Vec::new();
    let unloads_before = counter(&metrics, "gannet_unloads_total");
    for cycle in 1..=cycles {
        assert_eq!(post("/v2/repository/models/good/unload").0, 200);
        assert_eq!(post("/v2/repository/models/good/load").0, 200);
        if cycle % 4 == 0 {
            let (status, answer) = post("/v2/repository/models/bad/load");
            assert_eq!(status, 400, "{answer}");
            assert!(answer.contains("bad/1"), "the path is named: {answer}");
        }
        if cycle > cycles / 5 && cycle % 5 == 0 {
            let destroyed = || counter(&metrics, "gannet_unloads_total") - unloads_before >= cycle;
            wait::until("the copies before are destroyed", destroyed);
            memory.push((cycle as f64, process.resident_bytes() as f64));
        }
    }
    let gained = slope(&memory);
    println!("{cycles} cycles: {gained:.0} bytes a cycle from cycle {} on", cycles / 5);
    assert!(gained <= BYTES_A_STEP_MAX, "memory grows by {gained:.0} bytes a cycle");
}
