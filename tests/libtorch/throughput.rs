//! How much of the engine's own speed is left when it is served: the server on one core, its clients on the other,
//! against bare runs on the first core, alternating. The ratio is printed, and fails nothing: a debug build on a shared
//! machine proves no speed.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use gannet_models::{DType, settings::TensorDeclaration};
use gannet_runtime::{
    TensorView,
    backend::{Backend, Declared, Instance, OpenOptions},
    clock,
};
use gannet_tch::TorchBackend;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::super::script;
use crate::support::{folder::Folder, proof::scaled, server::Process, wait};

/// Rows of a request.
const ROWS: usize = 32;
/// Connections that are kept busy: enough that some wait while others are computed.
const CLIENTS: usize = 12;
/// One side, one round.
const ROUND: Duration = Duration::from_millis(400);
/// What is measured, and the sides of its images.
const NETS: [(&str, usize); 2] = [("convolutions", 16), ("digits", 8)];

/// Lets this thread, and what it starts, run on one core.
fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).unwrap();
}

#[test]
fn the_share_of_bare_speed_that_is_served_is_printed() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        println!("one core: the clients would be measured too");
        return;
    }
    for (net, side) in NETS {
        measure(net, side);
    }
}

fn measure(net: &str, side: usize) {
    let folder = Folder::new();
    folder.write(&format!("{net}/1/model.pt"), script(&format!("{net}.pt")));
    let settings = format!(
        "allow_torchscript = true\n[[inputs]]\nname = \"image\"\ndtype = \"FP32\"\ndims = [1, {side}, {side}]\n"
    );
    folder.write(&format!("{net}/model.toml"), settings);
    pin(0);
    let repository = folder.path().display().to_string();
    let process = Process::start(
        &folder.beside("state"),
        &["--repository", &repository, "--set", "runtime.loader_nice=0"],
    );
    let mut bare = open(&folder, net, side);
    let request = request(net, side);
    wait::until("the model is ready", || {
        exchange(&mut connect(&process.http), &request).starts_with("HTTP/1.1 200")
    });
    // the best size of a run is the engine's choice, as it is the server's
    let sizes = [ROWS, 2 * ROWS, 4 * ROWS].map(|rows| (bare_rate(&mut *bare, rows, side), rows));
    let best = sizes.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).map_or(ROWS, |(_, rows)| rows);
    let mut rounds: Vec<(f64, f64)> = (0..scaled(3, 25))
        .map(|_| {
            pin(0);
            let bare = bare_rate(&mut *bare, best, side);
            pin(1);
            (served_rate(&process.http, &request) / bare, bare)
        })
        .collect();
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let share = |index: usize| 100.0 * rounds[index].0;
    let (middle, last) = (rounds.len() / 2, rounds.len() - 1);
    println!(
        "{net}, {ROWS} rows a request: {:.0} % of {:.0} rows/s bare are served ({:.0} .. {:.0} over {} rounds)",
        share(middle),
        rounds[middle].1,
        share(0),
        share(last),
        rounds.len()
    );
    assert!(rounds[0].0 > 0.0);
}

fn open(folder: &Folder, net: &str, side: usize) -> Box<dyn Instance> {
    let backend = TorchBackend::start(|| ()).unwrap();
    let path = folder.path().join(net).join("1/model.pt");
    let length = i64::try_from(side).unwrap();
    let image = TensorDeclaration {
        name: "image".into(),
        dtype: Some(DType::Fp32),
        dims: Some(vec![1, length, length]),
        labels: None,
    };
    let declared = Declared { inputs: &[image], outputs: &[], batch_axis: true };
    backend.open(&OpenOptions { declared, ..OpenOptions::new(&path) }).unwrap()
}

/// Rows a second.
fn bare_rate(instance: &mut dyn Instance, rows: usize, side: usize) -> f64 {
    let data = vec![0u8; rows * side * side * 4];
    let view = TensorView { dtype: DType::Fp32, shape: &[rows, 1, side, side], data: &data };
    let (start, mut runs) = (clock::now(), 0);
    while clock::now() < start + ROUND {
        instance.run(&[view], &mut |_, _| {}).unwrap();
        runs += 1;
    }
    rate(runs * rows, start)
}

fn served_rate(address: &str, request: &[u8]) -> f64 {
    let (stop, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = clock::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut stream = connect(address);
                while !stop.load(Ordering::Relaxed) {
                    let head = exchange(&mut stream, request);
                    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        wait::until("the round is over", || clock::now() >= start + ROUND);
        stop.store(true, Ordering::Relaxed);
    });
    rate(usize::try_from(answers.load(Ordering::Relaxed)).unwrap() * ROWS, start)
}

fn rate(rows: usize, start: gannet_runtime::Time) -> f64 {
    rows as f64 / (clock::now().ns_since(start) as f64 / 1e9)
}

/// One inference in the binary form.
fn request(net: &str, side: usize) -> Vec<u8> {
    let bytes = ROWS * side * side * 4;
    let json = format!(
        "{{\"inputs\":[{{\"name\":\"image\",\"shape\":[{ROWS},1,{side},{side}],\"datatype\":\"FP32\",\"parameters\":\
         {{\"binary_data_size\":{bytes}}}}}],\"parameters\":{{\"binary_data_output\":true}}}}"
    );
    let mut request = format!(
        "POST /v2/models/{net}/infer HTTP/1.1\r\nhost: localhost\r\ninference-header-content-length: {}\r\n\
         content-length: {}\r\n\r\n{json}",
        json.len(),
        json.len() + bytes
    )
    .into_bytes();
    request.resize(request.len() + bytes, 0);
    request
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends a request and reads its answer; the answer's head.
fn exchange(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the answer broke off");
        bytes.extend_from_slice(&buffer[..read]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length =
            head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
        if bytes.len() >= end + 4 + length.unwrap_or(0) {
            return String::from_utf8_lossy(&bytes[..end]).into_owned();
        }
    }
}
