//! Bare runs of a model, without any server: what the runtime itself does. Must not know who compares it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
};

use gannet_models::DType;
use gannet_ort::{OrtBackend, OrtOptions};
use gannet_runtime::{
    TensorView,
    backend::{Backend, OpenOptions},
    clock,
};

use super::{Role, command};
use crate::models::{Input, Net, Random};

/// One size of batch.
#[derive(Debug, Clone, Copy)]
pub struct RawRun {
    /// Rows in a run.
    pub rows: usize,
    /// Median time of a run, in microseconds.
    pub us: f64,
    /// Rows a second over the whole measured time.
    pub rows_per_second: f64,
}

/// Measures bare runs of `net` in a process of its own on `cpu`, one thread, for each number of rows.
///
/// # Panics
/// When the process fails.
#[must_use]
pub fn raw_runs(net: Net, repository: &Path, cpu: usize, rows: &[usize], seconds: f64) -> Vec<RawRun> {
    let file = repository.join(net.name()).join("1/model.onnx");
    let rows: Vec<String> = rows.iter().map(usize::to_string).collect();
    let mut command = command(&[], Role::Raw, &[cpu], &file);
    command.arg(net.name()).arg(seconds.to_string()).args(rows);
    let mut child = command.spawn().expect("this program starts again");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let runs = lines.map_while(Result::ok).map(|line| {
        let fields: Vec<f64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        RawRun { rows: fields[0] as usize, us: fields[1], rows_per_second: fields[2] }
    });
    let runs: Vec<RawRun> = runs.collect();
    assert!(child.wait().is_ok_and(|status| status.success()), "the bare runs failed");
    runs
}

/// The role: arguments are the net, seconds for each size, and the sizes.
pub(super) fn serve(file: &Path, arguments: &[String]) {
    let nets = [Net::Mlp, Net::Mlp30, Net::Digits, Net::Trees, Net::Encoder, Net::Resnet50];
    let net = nets.into_iter().find(|net| net.name() == arguments[0]).expect("a known net");
    let seconds: f64 = arguments[1].parse().expect("seconds");
    let backend =
        OrtBackend::start(&OrtOptions { pool_threads: 1, ..OrtOptions::default() }).expect("a runtime");
    let options = OpenOptions::new(file);
    let mut instance = backend.open(&options).expect("the model loads");
    for rows in arguments[2..].iter().filter_map(|rows| rows.parse::<usize>().ok()) {
        let inputs: Vec<(DType, Vec<usize>, Vec<u8>)> =
            net.inputs().iter().map(|input| values(input, rows)).collect();
        let views: Vec<TensorView<'_>> =
            inputs.iter().map(|(dtype, shape, data)| TensorView { dtype: *dtype, shape, data }).collect();
        let mut run = || instance.run(&views, &mut |_, _| {}).expect("it runs");
        for _ in 0..3 {
            run();
        }
        let (start, mut times) = (clock::now(), Vec::new());
        while (clock::now().ns_since(start) as f64) < seconds * 1e9 {
            let begin = clock::now();
            run();
            times.push(clock::now().ns_since(begin) as f64 / 1e3);
        }
        let total = clock::now().ns_since(start) as f64 / 1e9;
        let rate = (times.len() * rows) as f64 / total;
        println!("{rows} {} {rate}", super::median(&times));
    }
}

fn values(input: &Input, rows: usize) -> (DType, Vec<usize>, Vec<u8>) {
    let mut random = Random::new(1);
    let count = rows * input.values();
    let shape = std::iter::once(rows).chain(input.shape.iter().copied()).collect();
    if input.datatype == "INT64" {
        let value = |random: &mut Random| ((random.unit() * input.below) as i64).to_le_bytes();
        return (DType::Int64, shape, (0..count).flat_map(|_| value(&mut random)).collect());
    }
    let value = |random: &mut Random| (random.unit() * input.below).to_le_bytes();
    (DType::Fp32, shape, (0..count).flat_map(|_| value(&mut random)).collect())
}
