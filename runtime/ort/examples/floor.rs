//! What does one run of a tiny model cost through this crate, against the `ort` crate's own `Session::run`?
//! Watches the price of the instance: checks, cached values, outputs shown in place. Both sides alternate in one
//! process; read the ratio. Expected before measuring: 1 us less than `Session::run` at every batch size, because
//! the names, the input's value and the output vector are not made anew.
//!
//! `cargo run --release -p gannet-ort --example floor`

#![allow(missing_docs, clippy::unwrap_used, reason = "an example")]

#[path = "../tests/models/onnx.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod onnx;

use std::path::Path;

use gannet_models::DType;
use gannet_ort::{OrtBackend, OrtOptions};
use gannet_runtime::{
    TensorView,
    backend::{Backend, OpenOptions},
    clock,
};
use ort::{
    session::{Session, builder::GraphOptimizationLevel},
    value::TensorRef,
};

const ROUNDS: usize = 200;
const RUNS_A_ROUND: u64 = 100;

fn main() {
    let backend = OrtBackend::start(&OrtOptions { pool_threads: 1, ..OrtOptions::default() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, onnx::mlp()).unwrap();
    let mut instance = backend.open(&OpenOptions::new(&path)).unwrap();
    let mut plain = plain_session(backend, &path);
    println!("rows  this crate us  Session::run us  ratio   (medians of {ROUNDS} rounds)");
    for rows in [1usize, 8, 32, 256] {
        let values: Vec<f32> = (0..rows * 4).map(|i| i as f32 / 7.0).collect();
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut total = 0usize;
        let mut through_instance = || {
            let view = TensorView { dtype: DType::Fp32, shape: &[rows, 4], data: &data };
            instance.run(&[view], &mut |_, output| total += output.data.len()).unwrap();
        };
        let mut through_session = || run_plain(&mut plain, rows, &values);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(time(&mut through_instance));
            theirs.push(time(&mut through_session));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{rows:4}  {ours:13.2}  {theirs:15.2}  {:5.2}", ours / theirs);
    }
}

/// With the options that the backend gives its own.
fn plain_session(backend: OrtBackend, path: &Path) -> Session {
    let builder = Session::builder(backend.environment()).unwrap();
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All).unwrap();
    let builder = builder.with_independent_thread_pool().unwrap();
    builder.with_intra_threads(1).unwrap().commit_from_file(path).unwrap()
}

fn run_plain(session: &mut Session, rows: usize, values: &[f32]) {
    let input = TensorRef::from_array_view(([rows, 4], values)).unwrap();
    let outputs = session.run(ort::inputs![input]).unwrap();
    let (_, data) = outputs[0].try_extract_tensor::<f32>().unwrap();
    assert_eq!(data.len(), rows * 3);
}

/// Microseconds a run.
fn time(run: &mut dyn FnMut()) -> f64 {
    let start = clock::now();
    (0..RUNS_A_ROUND).for_each(|_| run());
    clock::now().ns_since(start) as f64 / RUNS_A_ROUND as f64 / 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
