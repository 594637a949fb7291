//! One model whose versions are for two engines: swapped to and fro under load, over HTTP and gRPC at once.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::super::{script, settings};
use crate::support::{call::post, folder::Folder, load::Clients, proof::scaled, server::Process, wait};

#[test]
fn an_onnx_and_a_torchscript_version_swap_under_load_and_nothing_fails() {
    let swaps = scaled(10, 400);
    let folder = Folder::new();
    folder.put("swapped/1", "add_one");
    folder.write("swapped/2/model.pt", script("add_two.pt"));
    folder.write("swapped/model.toml", settings(false));
    let repository = folder.path().display().to_string();
    let process = Process::start(
        &folder.beside("state"),
        &[
            "--repository",
            &repository,
            "--model-control",
            "explicit",
            "--set",
            "repository.allow_torchscript=true",
            // at idle priority a load waits for a machine that these clients keep full
            "--set",
            "runtime.loader_nice=0",
        ],
    );
    let swap_to = |version: u64| {
        let tensor = |name: &str| json!([{ "name": name, "data_type": "TYPE_FP32", "dims": [3] }]);
        let config = json!({
            "max_batch_size": 64,
            "input": tensor("x"),
            "output": tensor("y"),
            "version_policy": { "specific": { "versions": [version] } },
        });
        let body = json!({ "parameters": { "config": config.to_string() } });
        let answer = post(&process.http, "/v2/repository/models/swapped/load", &body);
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    swap_to(1);
    let (http, grpc) = (process.http.parse().unwrap(), process.grpc.parse().unwrap());
    let clients = Clients::start(http, 16, grpc, 16);
    for swap in 1..=swaps {
        let before = clients.seen.answers.load(Ordering::Relaxed);
        swap_to(1 + swap % 2);
        // the new version answers before the next swap
        wait::until("answers after a swap", || clients.seen.answers.load(Ordering::Relaxed) >= before + 64);
    }
    let seen = clients.stop();
    let failures = seen.failures.lock().unwrap();
    assert!(failures.is_empty(), "{failures:#?}");
    let versions = [0, 1].map(|index| seen.versions[index].load(Ordering::Relaxed));
    assert!(versions.iter().all(|&count| count > swaps), "both versions answered: {versions:?}");
    let answers = seen.answers.load(Ordering::Relaxed);
    println!("{swaps} swaps between engines under {answers} answers, versions {versions:?}, 0 failed");
}
