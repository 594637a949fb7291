//! Small random graphs of all covered operators: the float executor against ONNX Runtime, the integer executor against
//! TFLite-micro. A failure prints its seed. Must not know the nets of the proof.

use std::fs;

use gannet_edge::{
    compile::{CompileOptions, Data, compile},
    data::{Samples, sourced, stored},
    float::FloatExecutor,
    integer::{IntegerExecutor, Values},
};
use serde_json::{Value, json};

use crate::support::{
    environment::{scaled, script},
    nets::{Net, Random, float, int, ints},
};

/// Graphs that are tried.
const GRAPHS: (usize, usize) = (40, 1000);
/// Random rows of codes for each graph.
const ROWS: usize = 3;

/// A graph of a seed.
fn random_net(seed: u64) -> (Vec<u8>, Vec<usize>) {
    let mut draw = Random::new(seed);
    let sequence = draw.below(4) == 0;
    let dense = draw.below(5) == 0;
    let length = |draw: &mut Random| 5 + draw.below(9);
    let shape = if dense {
        vec![1, 4 + draw.below(20)]
    } else if sequence {
        vec![1, 1 + draw.below(6), length(&mut draw)]
    } else {
        vec![1, 1 + draw.below(6), length(&mut draw), length(&mut draw)]
    };
    let mut net = Net::new("random", &shape, seed ^ 0x55);
    // HardSwish came with it
    net.opset = 14;
    let mut steps = 2 + draw.below(5);
    while steps > 0 {
        steps -= 1;
        if net.shape.len() == 2 {
            dense_step(&mut net, &mut draw);
        } else {
            image_step(&mut net, &mut draw);
        }
    }
    if net.shape.len() > 2 && draw.below(2) == 0 {
        net.flatten();
        net.gemm(2 + draw.below(6));
    }
    if net.shape.len() == 2 && draw.below(2) == 0 {
        net.softmax();
    }
    if net.graph.node.is_empty() {
        net.relu();
    }
    (net.finish(), shape)
}

fn dense_step(net: &mut Net, draw: &mut Random) {
    match draw.below(3) {
        0 => unary(net, draw),
        1 => with_constant(net, draw),
        _ => net.gemm(2 + draw.below(12)),
    }
}

fn image_step(net: &mut Net, draw: &mut Random) {
    let spatial = net.shape.len() - 2;
    let least = *net.shape[2..].iter().min().unwrap();
    match draw.below(10) {
        0..=3 if least >= 3 => {
            let kernel: Vec<usize> = (0..spatial).map(|_| 1 + draw.below(3)).collect();
            let pads: Vec<usize> =
                (0..2 * spatial).map(|axis| draw.below(kernel[axis % spatial].min(2) + 1).min(2)).collect();
            let depthwise = draw.below(3) == 0 && net.shape[1] > 1;
            let (group, out) = if depthwise {
                (net.shape[1], net.shape[1] * (1 + draw.below(2)))
            } else {
                (1, 1 + draw.below(8))
            };
            net.conv(out, &kernel, 1 + draw.below(2), &pads, group, draw.below(2) == 0);
            if draw.below(2) == 0 {
                net.batch_norm();
            }
            if draw.below(2) == 0 {
                net.relu();
            }
        }
        4 if least >= 3 => {
            let kernel = vec![2; spatial];
            let operator = if draw.below(2) == 0 { "MaxPool" } else { "AveragePool" };
            net.node(operator, &[], vec![ints("kernel_shape", &kernel), ints("strides", &kernel)]);
            net.shape.iter_mut().skip(2).for_each(|len| *len /= 2);
        }
        5 => {
            // a branch that comes back
            let start = net.at.clone();
            unary(net, draw);
            let operator = ["Add", "Mul", "Sub"][draw.below(3)];
            net.node(operator, &[start], Vec::new());
        }
        6 => {
            let start = net.at.clone();
            unary(net, draw);
            net.node("Concat", &[start], vec![int("axis", 1)]);
            net.shape[1] *= 2;
        }
        7 => with_constant(net, draw),
        8 if draw.below(3) == 0 => {
            net.global_average();
            net.flatten();
        }
        _ => unary(net, draw),
    }
}

fn unary(net: &mut Net, draw: &mut Random) {
    match draw.below(7) {
        0 => net.relu(),
        1 => {
            let (low, high) = (
                net.tensor(&format!("low{}", net.graph.node.len()), &[], &[0.0]),
                net.tensor(&format!("high{}", net.graph.node.len()), &[], &[6.0]),
            );
            net.node("Clip", &[low, high], Vec::new());
        }
        2 => net.node("Sigmoid", &[], Vec::new()),
        3 => net.node("Tanh", &[], Vec::new()),
        4 => net.node("HardSwish", &[], Vec::new()),
        5 => net.node("LeakyRelu", &[], vec![float("alpha", 0.2)]),
        _ => net.relu(),
    }
}

fn with_constant(net: &mut Net, draw: &mut Random) {
    let mut shape = vec![1; net.shape.len()];
    if draw.below(3) > 0 {
        shape[1] = net.shape[1];
    }
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| 0.5 + draw.uniform() as f32).collect();
    let name = format!("constant{}", net.graph.node.len());
    let constant = net.tensor(&name, &shape, &values);
    net.node(["Add", "Mul", "Sub", "Div"][draw.below(4)], &[constant], Vec::new());
}

/// Operators that chance does not draw, each in a small graph of its own.
const FIXED: [&str; 6] = ["Pad", "GlobalMaxPool", "ReduceMean", "Transpose", "MatMul", "Reshape"];

fn fixed_net(operator: &str) -> (Vec<u8>, Vec<usize>) {
    let shape = [1, 3, 6, 6];
    let mut net = Net::new("fixed", &shape, 11);
    net.conv(4, &[3, 3], 1, &[1; 4], 1, true);
    match operator {
        "Pad" => {
            let pads = net.int_tensor("pads", &[0, 0, 1, 2, 0, 0, 0, 1]);
            net.node("Pad", &[pads], Vec::new());
            net.shape = vec![1, 4, 7, 9];
        }
        "GlobalMaxPool" => {
            net.node("GlobalMaxPool", &[], Vec::new());
            net.shape = vec![1, 4, 1, 1];
        }
        "ReduceMean" => {
            net.node("ReduceMean", &[], vec![ints("axes", &[2, 3]), int("keepdims", 0)]);
            net.shape = vec![1, 4];
        }
        "Transpose" => {
            net.node("Transpose", &[], vec![ints("perm", &[0, 1, 3, 2])]);
            net.conv(2, &[3, 1], 1, &[0; 4], 1, true);
        }
        "MatMul" | "Reshape" => {
            let target = net.int_tensor("target", &[1, 144]);
            net.node("Reshape", &[target], Vec::new());
            net.shape = vec![1, 144];
            let weights = net.weights(&[144, 5], 144);
            net.node("MatMul", &[weights], Vec::new());
            net.shape = vec![1, 5];
        }
        other => panic!("no graph for {other}"),
    }
    (net.finish(), shape.to_vec())
}

#[test]
fn random_graphs_are_what_the_references_compute() {
    let folder = tempfile::tempdir().unwrap();
    let mut listed = Vec::new();
    let graphs = scaled(GRAPHS.0, GRAPHS.1) as u64;
    for seed in 0..graphs + FIXED.len() as u64 {
        let fixed = usize::try_from(seed).ok().and_then(|seed| FIXED.get(seed.checked_sub(graphs as usize)?));
        let (onnx, shape) = fixed.map_or_else(|| random_net(seed), |operator| fixed_net(operator));
        let row = shape.iter().product();
        let rows = Samples::new(Random::new(seed + 1).normals(16 * row), row, "random").unwrap();
        let data = Data { calibrate: vec![rows.clone()], compare: None };
        let compiled = match compile(&onnx, &data, &CompileOptions::default(), &mut |_| true) {
            Ok(compiled) => compiled,
            Err(error) => {
                // what is refused must be refused in words that help
                let text = error.to_string();
                assert!(fixed.is_none(), "{fixed:?}: {text}");
                assert!(text.contains("node '") && text.contains(';'), "seed {seed}: {text}");
                continue;
            }
        };
        let name = format!("{seed}");
        let write = |kind: &str, bytes: Vec<u8>| {
            fs::write(folder.path().join(format!("{name}.{kind}")), bytes).unwrap()
        };
        write("onnx", onnx);
        write("tflite", compiled.tflite.clone());
        let input = compiled.graph.inputs[0].clone();
        let executor = IntegerExecutor::new(&compiled.model).unwrap();
        let size = compiled.model.tensors[compiled.model.inputs[0]].len();
        let mut random = Random::new(seed + 2);
        let (mut given, mut made) = (Vec::new(), Vec::new());
        for _ in 0..ROWS {
            let codes: Vec<i8> = (0..size).map(|_| random.bits() as i8).collect();
            given.extend(codes.iter().map(|code| code.cast_unsigned()));
            match executor.run(&[Values::Int8(codes)]).unwrap().remove(0) {
                Values::Int8(codes) => made.extend(codes.iter().map(|code| code.cast_unsigned())),
                Values::Float(_) => panic!("seed {seed}: the output is float"),
            }
        }
        write("in.i8", given);
        write("out.i8", made);
        let float = FloatExecutor::new(&compiled.graph);
        let output = &compiled.graph.outputs[0];
        let mut outputs = Vec::new();
        for row in 0..ROWS {
            let values = float.run(&[&stored(&input, rows.row(row))]).unwrap().swap_remove(output.tensor);
            outputs.extend(sourced(&output.axes, &values).iter().flat_map(|value| value.to_le_bytes()));
        }
        write(
            "float_in.f32",
            rows.values[..ROWS * row].iter().flat_map(|value| value.to_le_bytes()).collect(),
        );
        write("float_out.f32", outputs);
        listed.push(
            json!({ "name": name, "arena": compiled.host64.total, "required": compiled.host64.required }),
        );
    }
    let count = listed.len();
    assert!(count * 10 >= scaled(GRAPHS.0, GRAPHS.1) * 8, "only {count} graphs were compiled");
    fs::write(folder.path().join("graphs.json"), serde_json::to_vec(&listed).unwrap()).unwrap();
    script("judge_graphs.py", &[folder.path()]);
    let verdict: Value =
        serde_json::from_slice(&fs::read(folder.path().join("verdict.json")).unwrap()).unwrap();
    let faults: Vec<String> = verdict.as_array().unwrap().iter().map(Value::to_string).collect();
    assert!(faults.is_empty(), "{} of {count} graphs:\n{}", faults.len(), faults.join("\n"));
}
