//! What may be chosen and what sources may bring: floats kept, sources that are quantised, exporters' habits, refusals,
//! and the command line. Must not know the nets of the proof.

use std::fs;

use clap::{Args as _, Command, FromArgMatches as _};
use gannet_edge::{
    bundle::{Bundle, verify},
    cli::EdgeArgs,
    compile::{CompileOptions, Compiled, Data, compile},
    data::Samples,
    graph::Op,
    integer::{IntegerExecutor, Values},
};

use crate::support::nets::{self, Net, int, ints};

fn compiled(onnx: &[u8], row: usize, options: &CompileOptions) -> Result<Compiled, String> {
    let samples = Samples::new(nets::Random::new(8).normals(32 * row), row, "samples").unwrap();
    let data = Data { calibrate: vec![samples], compare: None };
    compile(onnx, &data, options, &mut |_| true).map_err(|error| error.to_string())
}

#[test]
fn a_layer_that_stays_float_loses_nothing_and_still_runs() {
    let onnx = nets::onnx("kws1d");
    let all = compiled(&onnx, 490, &CompileOptions::default()).unwrap();
    let mut options = CompileOptions::default();
    options.quantise.keep_float = vec![all.graph.nodes[1].name.clone()];
    let kept = compiled(&onnx, 490, &options).unwrap();
    let names: Vec<String> = kept.model.nodes.iter().map(|node| node.op.name()).collect();
    assert!(names.contains(&"DEQUANTIZE".into()) && names.contains(&"QUANTIZE".into()), "{names:?}");
    assert!(kept.parity.sqnr_db > all.parity.sqnr_db - 1.0, "{} {}", kept.parity.sqnr_db, all.parity.sqnr_db);
    let executor = IntegerExecutor::new(&kept.model).unwrap();
    assert!(executor.run(&[Values::Int8(vec![3; 490])]).is_ok());
    options.quantise.keep_float = vec!["nothing".into()];
    assert!(compiled(&onnx, 490, &options).unwrap_err().contains("name one of"));
}

#[test]
fn a_quantised_source_keeps_its_own_scales() {
    let mut net = Net::new("qdq", &[1, 2, 6, 6], 1);
    let scale = net.tensor("scale", &[], &[0.05]);
    let zero = "zero".to_owned();
    net.graph.initializer.push(gannet_edge::onnx::proto::TensorProto {
        name: zero.clone(),
        data_type: 3,
        raw_data: vec![10],
        ..Default::default()
    });
    net.node("QuantizeLinear", &[scale.clone(), zero.clone()], Vec::new());
    net.node("DequantizeLinear", &[scale, zero], Vec::new());
    net.conv(4, &[3, 3], 1, &[1, 1, 1, 1], 1, true);
    let compiled = compiled(&net.finish(), 72, &CompileOptions::default()).unwrap();
    assert_eq!(compiled.model.tensors[compiled.model.inputs[0]].scale(), (0.05, 10));
    assert_eq!(compiled.model.nodes.len(), 1, "{:?}", compiled.model.nodes);
}

#[test]
fn zeros_of_a_pruned_source_are_kept_and_reported() {
    let mut net = Net::new("pruned", &[1, 32], 4);
    net.gemm(16);
    net.gemm(8);
    let tensor = &mut net.graph.initializer[0];
    assert_eq!(tensor.dims.iter().product::<i64>(), 512, "the first weights");
    // three in four are zero
    let zero = |(place, bytes): (usize, &mut [u8])| {
        if place % 4 != 0 {
            bytes.fill(0)
        }
    };
    tensor.raw_data.chunks_mut(4).enumerate().for_each(zero);
    let options = CompileOptions { equalise: false, ..CompileOptions::default() };
    let compiled = compiled(&net.finish(), 32, &options).unwrap();
    let [sparsity] = &compiled.sparsity[..] else { panic!("{:?}", compiled.sparsity) };
    assert!((sparsity.source - 0.75).abs() < 1e-9 && sparsity.int8 >= 0.75, "{sparsity:?}");
    let info = gannet_edge::bundle::BundleInfo {
        model: "p".into(),
        version: "1".into(),
        sequence: 1,
        class_names: Vec::new(),
    };
    let report = gannet_edge::bundle::report::of(&compiled, &info);
    assert_eq!(report.sparsity, compiled.sparsity);
}

#[test]
fn exporters_habits_cost_nothing() {
    // channels last around channels first, as converters from TensorFlow write it; a flattening by its own shape, as
    // PyTorch traces it; a multiplication that normalises; a matrix product with a separate bias
    let mut net = Net::new("habits", &[1, 8, 8, 3], 2);
    net.node("Transpose", &[], vec![ints("perm", &[0, 3, 1, 2])]);
    net.shape = vec![1, 3, 8, 8];
    net.conv(6, &[3, 3], 2, &[0, 0, 1, 1], 1, true);
    net.relu();
    let image = net.at.clone();
    net.node("Shape", &[], Vec::new());
    let zero = net.int_tensor("zero", &[0]);
    net.node("Gather", &[zero], vec![int("axis", 0)]);
    let rest = net.int_tensor("rest", &[-1]);
    net.node("Concat", &[rest], vec![int("axis", 0)]);
    let target = net.at.clone();
    net.at = image;
    net.node("Reshape", &[target], Vec::new());
    net.shape = vec![1, 96];
    let weights = net.weights(&[96, 5], 96);
    net.node("MatMul", &[weights], Vec::new());
    let bias = net.bias(5);
    net.node("Add", &[bias], Vec::new());
    net.shape = vec![1, 5];
    let compiled = compiled(&net.finish(), 192, &CompileOptions::default()).unwrap();
    let ops: Vec<&Op> = compiled.model.nodes.iter().map(|node| &node.op).collect();
    assert!(matches!(ops[..], [Op::Conv2d(_), Op::FullyConnected(_)]), "{ops:?}");
}

#[test]
fn refusals_name_the_node_the_reason_and_the_way_round() {
    let check = |build: &dyn Fn(&mut Net), parts: &[&str]| {
        let mut net = Net::new("refused", &[1, 4, 6, 6], 3);
        build(&mut net);
        let refused = compiled(&net.finish(), 144, &CompileOptions::default()).unwrap_err();
        for part in parts {
            assert!(refused.contains(part), "'{part}' is missing in: {refused}");
        }
    };
    check(&|net| net.node("Einsum", &[], Vec::new()), &["einsum_0", "Einsum", "not covered", "replace it"]);
    check(&|net| net.conv(4, &[3, 3], 1, &[0; 4], 2, false), &["conv_0", "2 groups", "split it"]);
    check(
        &|net| {
            net.node(
                "MaxPool",
                &[],
                vec![ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), ints("pads", &[1; 4])],
            );
        },
        &["maxpool_0", "padding", "Relu"],
    );
}

#[test]
fn whoever_compiles_may_stop_it() {
    let samples = Samples::new(nets::samples("kws1d", 32, 1), 490, "samples").unwrap();
    let data = Data { calibrate: vec![samples], compare: None };
    let mut steps = Vec::new();
    let stopped = compile(&nets::onnx("kws1d"), &data, &CompileOptions::default(), &mut |progress| {
        steps.push(progress.step);
        progress.done < 10
    });
    assert!(stopped.unwrap_err().to_string().contains("cancelled"));
    assert_eq!(steps.last(), Some(&"calibrating"));
}

#[test]
fn wrong_samples_are_refused() {
    let data =
        |row| Data { calibrate: vec![Samples::new(vec![0.5; 4 * row], row, "x").unwrap()], compare: None };
    let refused = compile(&nets::onnx("kws1d"), &data(489), &CompileOptions::default(), &mut |_| true);
    assert!(refused.unwrap_err().to_string().contains("takes 490 values, got rows of 489"));
}

/// Runs `gannet edge` with arguments.
fn edge(arguments: &[&str]) -> u8 {
    let command = EdgeArgs::augment_args(Command::new("edge"));
    let matches = command
        .try_get_matches_from([&["edge"], arguments].concat())
        .unwrap_or_else(|error| panic!("{error}"));
    gannet_edge::cli::run(&EdgeArgs::from_arg_matches(&matches).unwrap())
}

#[test]
fn the_command_line_from_the_zoo_to_a_signed_bundle() {
    EdgeArgs::augment_args(Command::new("edge")).debug_assert();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let zoo = format!("{}/../zoo", env!("CARGO_MANIFEST_DIR"));
    let out = path("bundle");
    assert_eq!(
        edge(&["compile", "--model", "digits@2", "--repository", &zoo, "--out", &out, "--sequence", "3"]),
        0
    );
    assert_eq!(edge(&["verify", &out]), 0);
    let key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";
    fs::write(path("key.pem"), key).unwrap();
    assert_eq!(edge(&["verify", &out, "--key", &path("key.pem")]), 1, "it is not signed yet");
    assert_eq!(edge(&["sign", &out, "--key", &path("key.pem"), "--mcuboot", &path("image.bin")]), 0);
    assert_eq!(edge(&["verify", &out, "--key", &path("key.pem")]), 0);
    assert_eq!(edge(&["sign", &out, "--key", &path("key.pem"), "--sequence", "3"]), 1, "it must grow");
    let bundle = Bundle::read(std::path::Path::new(&out)).unwrap();
    let manifest = verify(&bundle, None).unwrap().manifest;
    assert_eq!((manifest.model.as_str(), manifest.version.as_str(), manifest.sequence), ("digits", "2", 3));
    for what in [path("bundle"), path("bundle/model.tflite"), format!("{zoo}/digits/2/model.onnx")] {
        assert_eq!(edge(&["inspect", &what]), 0);
        assert_eq!(edge(&["inspect", &what, "--json"]), 0);
    }
    for stage in ["graph", "passes", "plan"] {
        assert_eq!(edge(&["compile", "--model", "digits", "--repository", &zoo, "--emit", stage]), 0);
    }
    fs::write(path("bundle/model.tflite"), b"nothing").unwrap();
    assert_eq!(edge(&["verify", &out]), 1);
    assert_eq!(edge(&["inspect", &out]), 1);
    assert_eq!(edge(&["compile", &path("missing.onnx"), "--out", &out]), 1);
}
