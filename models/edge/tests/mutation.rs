//! Damaged files: whatever bytes the readers get, they answer with an error or with a model, and never end the
//! process. Must not know what the files hold.

use gannet_edge::{
    arena::{Target, arena},
    compile::{CompileOptions, Data, compile, graph_of},
    data::Samples,
    integer::{IntegerExecutor, Values},
    lite::{self, Type},
    passes,
};

use crate::support::{
    environment::scaled,
    nets::{self, Random},
};

/// Damaged files that are tried of each kind.
const TRIES: (usize, usize) = (1500, 100_000);

/// A few bytes of a file changed, cut out, or written twice.
fn damaged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bad = bytes.to_vec();
    // most of a file is weights: the structure is at its ends
    let place = |random: &mut Random, len: usize| {
        let near = 1 + random.below(len.min(3000));
        if random.below(2) == 0 { near - 1 } else { len - near }
    };
    for _ in 0..1 + random.below(4) {
        let at = place(random, bad.len());
        match random.below(6) {
            0 => bad[at] ^= 1 << random.below(8),
            1 => bad[at] = random.bits() as u8,
            2 => bad.truncate(at.max(1)),
            3 => {
                let end = (at + 1 + random.below(16)).min(bad.len());
                bad.drain(at..end);
            }
            4 => {
                let end = (at + 4).min(bad.len());
                bad[at..end].fill(if random.below(2) == 0 { 0xff } else { 0 });
            }
            _ => {
                let end = (at + 1 + random.below(16)).min(bad.len());
                let copy = bad[at..end].to_vec();
                bad.splice(at..at, copy);
            }
        }
        if bad.is_empty() {
            bad.push(0);
        }
    }
    bad
}

#[test]
fn damaged_onnx_files_are_errors() {
    let mut random = Random::new(3);
    for name in ["kws1d", "resnet8"] {
        let good = nets::onnx(name);
        let mut read = 0;
        for _ in 0..scaled(TRIES.0, TRIES.1) {
            if let Ok(graph) = graph_of(&damaged(&good, &mut random)) {
                let _ = passes::optimise(graph, 1);
                read += 1;
            }
        }
        println!("{name}: {read} of the damaged files could still be read");
    }
}

#[test]
fn damaged_tflite_files_are_errors() {
    let row = nets::input_shape("kws1d").iter().product();
    let samples = Samples::new(nets::samples("kws1d", 4, 1), row, "x").unwrap();
    let data = Data { calibrate: vec![samples], compare: None };
    let compiled = compile(&nets::onnx("kws1d"), &data, &CompileOptions::default(), &mut |_| true).unwrap();
    let mut random = Random::new(4);
    let (mut read, mut ran) = (0, 0);
    for _ in 0..scaled(TRIES.0, TRIES.1) {
        let Ok(model) = lite::read(&damaged(&compiled.tflite, &mut random)) else { continue };
        read += 1;
        let _ = arena(&model, Target::CortexM);
        let Ok(executor) = IntegerExecutor::new(&model) else { continue };
        let inputs: Vec<Values> = model
            .inputs
            .iter()
            .filter(|id| model.tensors[**id].kind == Type::Int8 && model.tensors[**id].len() < 1 << 20)
            .map(|id| Values::Int8(vec![1; model.tensors[*id].len()]))
            .collect();
        ran += usize::from(executor.run(&inputs).is_ok());
    }
    println!("{read} of the damaged files could still be read, {ran} run");
}

#[test]
fn what_is_read_is_written_again_bit_by_bit() {
    let row = nets::input_shape("resnet8").iter().product();
    let samples = Samples::new(nets::samples("resnet8", 2, 1), row, "x").unwrap();
    let data = Data { calibrate: vec![samples], compare: None };
    let compiled = compile(&nets::onnx("resnet8"), &data, &CompileOptions::default(), &mut |_| true).unwrap();
    for bytes in [&compiled.tflite, &compiled.tflite_float] {
        assert_eq!(lite::write(&lite::read(bytes).unwrap()), *bytes);
    }
}
