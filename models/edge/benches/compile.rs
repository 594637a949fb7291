//! What a compilation costs: each net of the proof in a process of its own, 100 samples, release build. It watches the time
//! (3 s) and the peak of resident memory (150 MB) that a compilation may take; expected before measuring: about a second
//! for the largest, MobileNet. Fails above either bar. Read: net, seconds, MB.

#![expect(clippy::unwrap_used, reason = "a bench ends where its world is not as it must be")]

#[path = "../tests/support/nets.rs"]
#[expect(dead_code, unreachable_pub, reason = "the tests use more of it")]
mod nets;

use std::{path::Path, process::Command};

use gannet_edge::{
    bundle::{Bundle, BundleInfo},
    compile::{CompileOptions, Data, compile},
    data::Samples,
};

const SAMPLES: usize = 100;
const SECONDS_MAX: f64 = 3.0;
const MEGABYTES_MAX: f64 = 150.0;
const ZOO: [&str; 2] = ["digits/1", "digits/2"];

/// Compiles one net and says what that took.
#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn one(name: &str) {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zoo").join(name).join("model.onnx");
    let (onnx, row, values) = if ZOO.contains(&name) {
        (std::fs::read(zoo).unwrap(), 64, nets::Random::new(1).normals(SAMPLES * 64))
    } else {
        let row = nets::input_shape(name).iter().product();
        (nets::onnx(name), row, nets::samples(name, SAMPLES, 1))
    };
    let samples = Samples::new(values, row, name).unwrap();
    let begin = std::time::Instant::now();
    let data = Data { calibrate: vec![samples], compare: None };
    let compiled = compile(&onnx, &data, &CompileOptions::default(), &mut |_| true).unwrap();
    let info = BundleInfo { model: "net".into(), version: "1".into(), sequence: 1, class_names: Vec::new() };
    let bundle = Bundle::new(&compiled, &info);
    let seconds = begin.elapsed().as_secs_f64();
    assert!(!bundle.files.is_empty());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kilobytes: f64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("{name} {seconds:.2} {:.0}", kilobytes / 1024.0);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    if let Some(name) = arguments.next().filter(|first| first == "one").and_then(|_| arguments.next()) {
        return one(&name);
    }
    let mut missed = false;
    for name in ZOO.iter().chain(nets::NAMES.iter()) {
        let output = Command::new(std::env::current_exe().unwrap()).args(["one", name]).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let numbers: Vec<f64> =
            text.split_whitespace().skip(1).map(|number| number.parse().unwrap()).collect();
        println!(
            "{name}: {:.2} s (at most {SECONDS_MAX}), {:.0} MB (at most {MEGABYTES_MAX})",
            numbers[0], numbers[1]
        );
        missed |= numbers[0] >= SECONDS_MAX || numbers[1] >= MEGABYTES_MAX;
    }
    assert!(!missed, "a compilation takes more than it may");
}
