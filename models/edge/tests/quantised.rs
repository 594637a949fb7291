//! Sources that are quantised already keep their own scales, through convolutions, sums, pools and dense layers: code by
//! code as TFLite-micro computes them, and within a few steps of what ONNX Runtime makes of the source. Must not choose
//! scales.

use std::fs;

use gannet_edge::{
    compile::{CompileOptions, Data, compile},
    data::Samples,
    integer::{IntegerExecutor, Values},
    onnx::proto::TensorProto,
};
use serde_json::{Value, json};

use crate::support::{
    environment::{scaled, script},
    nets::{Net, Random, int, ints},
};

/// Random rows of each net.
const ROWS: (usize, usize) = (20, 500);
/// Steps that rounding may add up to over a chain. An average that lies between two codes is rounded away from zero by
/// TFLite-micro and to the even one by ONNX Runtime: a step in a quarter of the places.
const STEPS_MAX: i64 = 2;

/// An initialiser of codes.
fn codes(net: &mut Net, name: &str, shape: &[usize], values: &[i8]) -> String {
    net.graph.initializer.push(TensorProto {
        name: name.into(),
        dims: shape.iter().map(|len| *len as i64).collect(),
        data_type: 3,
        raw_data: values.iter().map(|value| value.cast_unsigned()).collect(),
        ..TensorProto::default()
    });
    name.into()
}

/// A pair on the current value.
fn pair(net: &mut Net, scale: f32, zero: i8) {
    let number = net.graph.node.len();
    let scale = net.tensor(&format!("scale{number}"), &[], &[scale]);
    let zero = codes(net, &format!("zero{number}"), &[], &[zero]);
    net.node("QuantizeLinear", &[scale.clone(), zero.clone()], Vec::new());
    net.node("DequantizeLinear", &[scale, zero], Vec::new());
}

/// Weights as codes, with a scale for each slice of the first axis, or one for all.
fn weights(net: &mut Net, shape: &[usize], per_channel: bool) -> String {
    let (number, at) = (net.graph.node.len(), net.at.clone());
    let values: Vec<i8> = (0..shape.iter().product()).map(|_| (net.random.bits() % 255) as i8).collect();
    let values: Vec<i8> = values.into_iter().map(|value| value.max(-127)).collect();
    let name = codes(net, &format!("codes{number}"), shape, &values);
    let fan_in: usize = shape[1..].iter().product();
    let base = 0.015 / (fan_in as f32).sqrt();
    let scale = if per_channel {
        let scales: Vec<f32> = (0..shape[0]).map(|slice| base * (1.0 + slice as f32 * 0.1)).collect();
        net.tensor(&format!("wscale{number}"), &[shape[0]], &scales)
    } else {
        net.tensor(&format!("wscale{number}"), &[], &[base])
    };
    net.at = name;
    net.node("DequantizeLinear", &[scale], if per_channel { vec![int("axis", 0)] } else { Vec::new() });
    std::mem::replace(&mut net.at, at)
}

fn conv(net: &mut Net, out: usize, group: usize) {
    let within = net.shape[1] / group;
    let (weights, bias) = (weights(net, &[out, within, 3, 3], true), net.bias(out));
    let attributes = vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1; 4]), int("group", group as i64)];
    net.node("Conv", &[weights, bias], attributes);
    net.shape[1] = out;
}

/// A net, its scales in order, and the values of a row.
fn net(kind: &str) -> (Vec<u8>, Vec<(f32, i32)>, usize) {
    let mut net = Net::new("quantised", &[1, 4, 8, 8], 7);
    let mut scales = Vec::new();
    let mut next = |net: &mut Net, scale: f32, zero: i8| {
        pair(net, scale, zero);
        scales.push((scale, i32::from(zero)));
    };
    next(&mut net, 0.04, 3);
    conv(&mut net, 6, 1);
    next(&mut net, 0.05, -10);
    let kept = net.at.clone();
    if kind != "conv" {
        conv(&mut net, 6, 6);
        next(&mut net, 0.03, 5);
        net.node("Add", &[kept], Vec::new());
        next(&mut net, 0.07, 0);
    }
    if kind == "chain" || kind == "average" {
        let pool = if kind == "chain" { "MaxPool" } else { "AveragePool" };
        net.node(pool, &[], vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])]);
        net.shape = vec![1, 6, 4, 4];
        // a pool keeps the scale of what goes in
        next(&mut net, 0.07, 0);
    }
    if kind == "chain" {
        net.flatten();
        let (weights, bias) = (weights(&mut net, &[5, 96], false), net.bias(5));
        net.node("Gemm", &[weights, bias], vec![int("transB", 1)]);
        net.shape = vec![1, 5];
        next(&mut net, 0.02, 7);
    }
    (net.finish(), scales, 256)
}

#[test]
fn quantised_sources_are_what_the_references_compute() {
    let folder = tempfile::tempdir().unwrap();
    let mut submitted = Vec::new();
    for name in ["conv", "depthwise", "chain", "average"] {
        let (onnx, scales, row) = net(name);
        let rows = Samples::new(Random::new(8).normals(32 * row), row, name).unwrap();
        let data = Data { calibrate: vec![rows], compare: None };
        let compiled = compile(&onnx, &data, &CompileOptions::default(), &mut |_| true).unwrap();
        let model = &compiled.model;
        for (scale, zero) in &scales {
            let kept = model.tensors.iter().any(|tensor| tensor.scale() == (*scale, *zero));
            assert!(kept, "{name}: no tensor has the source's scale {scale} and zero {zero}");
        }
        let is_extra =
            |node: &gannet_edge::lite::Node| ["QUANTIZE", "DEQUANTIZE"].contains(&node.op.name().as_str());
        assert!(!model.nodes.iter().any(is_extra), "{name}: pairs are left over");
        let executor = IntegerExecutor::new(model).unwrap();
        let mut random = Random::new(9);
        let (mut given, mut made) = (Vec::new(), Vec::new());
        for _ in 0..scaled(ROWS.0, ROWS.1) {
            let row: Vec<i8> = (0..row).map(|_| random.bits() as i8).collect();
            given.extend(row.iter().map(|code| code.cast_unsigned()));
            let Values::Int8(codes) = executor.run(&[Values::Int8(row)]).unwrap().remove(0) else {
                panic!("int8")
            };
            made.extend(codes.iter().map(|code| code.cast_unsigned()));
        }
        let write = |kind: &str, bytes: &[u8]| {
            fs::write(folder.path().join(format!("{name}.{kind}")), bytes).unwrap()
        };
        write("onnx", &onnx);
        write("tflite", &compiled.tflite);
        write("in.i8", &given);
        write("out.i8", &made);
        let scale = |list: &[usize]| json!(model.tensors[list[0]].scale());
        submitted.push(json!({
            "name": name, "input": scale(&model.inputs), "output": scale(&model.outputs),
        }));
    }
    fs::write(folder.path().join("nets.json"), serde_json::to_vec(&submitted).unwrap()).unwrap();
    script("judge_quantised.py", &[folder.path()]);
    let verdict: Value =
        serde_json::from_slice(&fs::read(folder.path().join("verdict.json")).unwrap()).unwrap();
    for (name, found) in verdict.as_object().unwrap() {
        println!("{name}: {found}");
        assert_eq!(found["mismatches"], 0, "{name}: {found}");
        assert!(found["steps"].as_i64().unwrap() <= STEPS_MAX, "{name}: {found}");
    }
}
