//! Nothing is left behind by what fails, nor by what is closed. Alone in its process: it reads the process' size.

#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

#[path = "models/onnx.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod onnx;

use gannet_models::DType;
use gannet_ort::{OrtBackend, OrtOptions};
use gannet_runtime::{
    TensorView,
    backend::{Backend, OpenOptions},
};

/// What the heap may keep for itself. One value of the library left behind a round is 64 bytes at least, so 20,000
/// rounds show it.
const GROWTH_BYTES_MAX: usize = 1 << 20;

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn check(name: &str, backend: OrtBackend, rounds: usize, work: &mut dyn FnMut()) {
    (0..rounds / 4).for_each(|_| work());
    backend.release_memory();
    let before = resident_bytes();
    (0..rounds).for_each(|_| work());
    backend.release_memory();
    let growth = resident_bytes().saturating_sub(before);
    println!("{name}: {growth} bytes more after {rounds} rounds");
    assert!(growth < GROWTH_BYTES_MAX, "{name}: {growth} bytes more after {rounds} rounds");
}

#[test]
fn errors_and_closed_instances_leave_nothing_behind() {
    let backend = OrtBackend::start(&OrtOptions { pool_threads: 2, ..OrtOptions::default() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.onnx"), folder.path().join("bad.onnx"));
    std::fs::write(&good, onnx::mlp()).unwrap();
    // Valid as a file, invalid as a graph: the session is half built when it is refused.
    let y = onnx::value("y", &onnx::tensor(1, &["n"]));
    std::fs::write(&bad, onnx::model(&[onnx::node("NoSuchOperator", &[], &["y"], &[])], &[], &[], &[y]))
        .unwrap();
    let options = |path, threads| OpenOptions { threads, ..OpenOptions::new(path) };
    let data = [0u8; 20];
    check("refused files", backend, 2000, &mut || assert!(backend.open(&options(&bad, 1)).is_err()));
    check("opened, run and closed", backend, 400, &mut || {
        let mut instance = backend.open(&options(&good, 2)).unwrap();
        for _ in 0..4 {
            let view = TensorView { dtype: DType::Fp32, shape: &[1, 4], data: &data[..16] };
            instance.run(&[view], &mut |_, _| {}).unwrap();
        }
    });
    let mut instance = backend.open(&options(&good, 1)).unwrap();
    check("refused inputs", backend, 20_000, &mut || {
        let view = TensorView { dtype: DType::Fp32, shape: &[1, 5], data: &data };
        assert!(instance.run(&[view], &mut |_, _| {}).is_err());
    });
}
