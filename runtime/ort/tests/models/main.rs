//! Models of every type through the backend, and files that are no models.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "shared with the benchmarks")]
mod onnx;

use std::{
    fs,
    path::{Path, PathBuf},
};

use gannet_models::{DType, Dim, settings::Device};
use gannet_ort::{OrtBackend, OrtOptions};
use gannet_runtime::{
    Tensor, TensorView,
    backend::{Backend, BackendError, Instance, OpenOptions},
    tensor::{self, Shape},
};
use tempfile::TempDir;

const DYNAMIC: [&str; 2] = ["rows", "2"];

fn backend() -> OrtBackend {
    OrtBackend::start(&OrtOptions { pool_threads: 2, ..OrtOptions::default() }).unwrap()
}

fn saved(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn open_at(path: &Path) -> Result<Box<dyn Instance>, BackendError> {
    backend().open(&OpenOptions::new(path))
}

fn open(bytes: &[u8]) -> Result<Box<dyn Instance>, BackendError> {
    open_at(&saved(bytes).1)
}

fn refused(bytes: &[u8]) -> BackendError {
    open(bytes).err().expect("the model is refused")
}

fn run(instance: &mut dyn Instance, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>, BackendError> {
    let mut outputs = vec![None; instance.signature().outputs.len()];
    instance.run(inputs, &mut |index, view| {
        let (shape, data) = (Shape::from_slice(view.shape), view.data.to_vec().into());
        outputs[index] = Some(Tensor { dtype: view.dtype, shape, data });
    })?;
    Ok(outputs.into_iter().map(Option::unwrap).collect())
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn view<'a>(dtype: DType, shape: &'a [usize], data: &'a [u8]) -> TensorView<'a> {
    TensorView { dtype, shape, data }
}

fn strings(elements: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    elements.iter().for_each(|element| tensor::push_byte_element(&mut data, element));
    data
}

#[test]
fn every_type_goes_through_unchanged_at_every_size_and_alignment() {
    for dtype in DType::all().filter(|&dtype| dtype != DType::Bytes) {
        let mut instance = open(&onnx::identity(dtype, &DYNAMIC)).unwrap();
        let signature = instance.signature().clone();
        assert_eq!(signature.inputs[0].dtype, dtype);
        assert_eq!(signature.inputs[0].shape, [Dim::Dynamic(Some("rows".into())), Dim::Fixed(2)]);
        for rows in [3usize, 0, 1, 5, 3, 4000] {
            let bytes = rows * 2 * dtype.size_bytes().unwrap();
            let fill = |i: usize| if dtype == DType::Bool { (i % 2) as u8 } else { (i * 37 + rows) as u8 };
            // One byte more in front: the same data, unaligned.
            let memory: Vec<u8> = [0].into_iter().chain((0..bytes).map(fill)).collect();
            let aligned = memory[1..].to_vec();
            for data in [&memory[1..], &aligned] {
                let output = run(&mut *instance, &[view(dtype, &[rows, 2], data)]).unwrap();
                assert_eq!(output[0].shape[..], [rows, 2], "{dtype}");
                assert_eq!(&output[0].data[..], data, "{dtype}");
            }
        }
    }
}

#[test]
fn strings_of_any_bytes_go_through_unchanged() {
    let mut instance = open(&onnx::identity(DType::Bytes, &["rows"])).unwrap();
    let elements: [&[u8]; 5] = [b"plain", b"", b"nul\0inside\0", b"\xff\xfe not text", "\u{20ac}".as_bytes()];
    for count in [5, 0, 1, 3] {
        let data = strings(&elements[..count]);
        let output = run(&mut *instance, &[view(DType::Bytes, &[count], &data)]).unwrap();
        assert_eq!(output[0].shape[..], [count]);
        assert_eq!(output[0].data, data);
    }
    for (shape, data) in [(2usize, strings(&[b"one"])), (1, vec![9, 0, 0, 0, 1])] {
        let error = run(&mut *instance, &[view(DType::Bytes, &[shape], &data)]).unwrap_err();
        assert!(matches!(error, BackendError::Input(_)), "{error}");
    }
}

#[test]
fn truth_values_beyond_one_become_one() {
    let mut instance = open(&onnx::identity(DType::Bool, &DYNAMIC)).unwrap();
    let output = run(&mut *instance, &[view(DType::Bool, &[1, 2], &[0, 200])]).unwrap();
    assert_eq!(output[0].data[..], [0, 1]);
}

#[test]
fn scalars_and_several_inputs_and_outputs() {
    let (scalar, any) = (onnx::tensor(1, &[]), onnx::tensor(1, &["a", "b"]));
    let nodes = [onnx::node("Add", &["x", "y"], &["sum"], &[]), onnx::node("Neg", &["x"], &["minus"], &[])];
    let inputs = [onnx::value("x", &scalar), onnx::value("y", &any)];
    let outputs = [onnx::value("minus", &scalar), onnx::value("sum", &any)];
    let mut instance = open(&onnx::model(&nodes, &[], &inputs, &outputs)).unwrap();
    let (x, y) = (floats(&[1.5]), floats(&[1.0, 2.0]));
    let output = run(&mut *instance, &[view(DType::Fp32, &[], &x), view(DType::Fp32, &[2, 1], &y)]).unwrap();
    assert!(output[0].shape.is_empty());
    assert_eq!(output[0].data, floats(&[-1.5]));
    assert_eq!(output[1].data, floats(&[2.5, 3.5]));
}

#[test]
fn external_data_beside_the_model_is_read() {
    let nodes = [onnx::node("MatMul", &["x", "w"], &["y"], &[])];
    let (x, y) = (onnx::tensor(1, &["rows", "2"]), onnx::tensor(1, &["rows", "2"]));
    let weights = [onnx::external_weights("w", &[2, 2], "weights.bin")];
    let bytes = onnx::model(&nodes, &weights, &[onnx::value("x", &x)], &[onnx::value("y", &y)]);
    let (folder, path) = saved(&bytes);
    let error = open_at(&path).err().unwrap();
    assert!(matches!(&error, BackendError::Model(text) if text.contains("weights.bin")), "{error}");
    fs::write(folder.path().join("weights.bin"), floats(&[1.0, 2.0, 3.0, 4.0])).unwrap();
    let mut instance = open_at(&path).unwrap();
    let output = run(&mut *instance, &[view(DType::Fp32, &[1, 2], &floats(&[1.0, 1.0]))]).unwrap();
    assert_eq!(output[0].data, floats(&[4.0, 6.0]));
}

#[test]
fn shapes_may_depend_on_values() {
    let nodes = [onnx::node("NonZero", &["x"], &["y"], &[])];
    let (x, y) = (onnx::tensor(1, &["n"]), onnx::tensor(7, &["1", "found"]));
    let mut instance =
        open(&onnx::model(&nodes, &[], &[onnx::value("x", &x)], &[onnx::value("y", &y)])).unwrap();
    for values in [[0.0f32, 1.0, 2.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]] {
        let expected: Vec<i64> = (0..3).filter(|&i| values[i as usize] != 0.0).collect();
        let output = run(&mut *instance, &[view(DType::Fp32, &[3], &floats(&values))]).unwrap();
        assert_eq!(output[0].shape[..], [1, expected.len()]);
        assert_eq!(output[0].data, expected.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<_>>());
    }
}

/// Repeated shapes are where outputs are reused: none may keep the values of the run before.
#[test]
fn repeated_runs_give_their_own_values_whatever_the_outputs_are() {
    let (fixed, free) = (onnx::tensor(1, &["1", "2"]), onnx::tensor(1, &["n", "2"]));
    let check = |nodes: &[onnx::Message], outputs: &[&str], expected: &dyn Fn(f32) -> Vec<Vec<f32>>| {
        let constants = [onnx::weights("constant", &[1, 2], &[7.0, 8.0])];
        for kind in [&fixed, &free] {
            let values: Vec<_> = outputs.iter().map(|name| onnx::value(name, kind)).collect();
            let model = onnx::model(nodes, &constants, &[onnx::value("x", kind)], &values);
            let mut instance = open(&model).unwrap();
            for round in [1.0, 2.0, 3.0, 4.0, -5.0, 6.0f32] {
                let data = floats(&[round, -round]);
                let got = run(&mut *instance, &[view(DType::Fp32, &[1, 2], &data)]).unwrap();
                let got: Vec<&[u8]> = got.iter().map(|output| &output.data[..]).collect();
                let expected: Vec<Vec<u8>> = expected(round).iter().map(|values| floats(values)).collect();
                assert_eq!(got, expected, "{outputs:?} in round {round}");
            }
        }
    };
    let minus = onnx::node("Neg", &["x"], &["minus"], &[]);
    let same = onnx::node("Identity", &["x"], &["same"], &[]);
    let copy = onnx::node("Identity", &["minus"], &["copy"], &[]);
    check(&[same], &["same"], &|v| vec![vec![v, -v]]);
    check(std::slice::from_ref(&minus), &["minus", "x"], &|v| vec![vec![-v, v], vec![v, -v]]);
    check(&[minus.clone(), copy], &["copy", "minus"], &|v| vec![vec![-v, v]; 2]);
    check(&[minus], &["minus", "constant"], &|v| vec![vec![-v, v], vec![7.0, 8.0]]);
}

#[test]
fn rows_that_depend_on_values_are_noticed_after_steady_ones() {
    let nodes =
        [onnx::node("NonZero", &["x"], &["found"], &[]), onnx::node("Transpose", &["found"], &["y"], &[])];
    let (x, y) = (onnx::tensor(1, &["n"]), onnx::tensor(7, &["n", "1"]));
    let mut instance =
        open(&onnx::model(&nodes, &[], &[onnx::value("x", &x)], &[onnx::value("y", &y)])).unwrap();
    for values in [[0.0f32, 1.0], [1.0, 0.0], [0.0, 3.0], [4.0, 0.0], [1.0, 2.0], [0.0, 0.0], [0.0, 1.0]] {
        let expected: Vec<i64> = (0..2).filter(|&i| values[i as usize] != 0.0).collect();
        let output = run(&mut *instance, &[view(DType::Fp32, &[2], &floats(&values))]).unwrap();
        assert_eq!(output[0].shape[..], [expected.len(), 1]);
        assert_eq!(output[0].data, expected.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<_>>());
    }
}

/// Scores by class of two classes, as scikit-learn's converter writes them.
fn zip_map(labels: onnx::Message, key: i64) -> Vec<u8> {
    let x = onnx::tensor(1, &["rows", "3"]);
    let y = onnx::sequence(&onnx::map(key, &onnx::tensor(1, &[])));
    let nodes = [onnx::node("ZipMap", &["x"], &["y"], &[labels])];
    onnx::model(&nodes, &[], &[onnx::value("x", &x)], &[onnx::value("y", &y)])
}

#[test]
fn maps_by_class_become_columns_in_the_order_of_the_classes() {
    let check = |labels, key, expected: [&str; 3], order: [usize; 3]| {
        let mut instance = open(&zip_map(labels, key)).unwrap();
        let spec = instance.signature().outputs[0].clone();
        assert_eq!(spec.dtype, DType::Fp32);
        assert_eq!(spec.shape, [Dim::Dynamic(Some("rows".into())), Dim::Fixed(3)]);
        assert_eq!(spec.labels.as_deref().unwrap(), expected);
        let scores = [[0.1f32, 0.2, 0.3], [0.4, 0.5, 0.6]];
        let data = floats(scores.as_flattened());
        let output = run(&mut *instance, &[view(DType::Fp32, &[2, 3], &data)]).unwrap();
        assert_eq!(output[0].shape[..], [2, 3]);
        let sorted: Vec<f32> = scores.iter().flat_map(|row| order.map(|column| row[column])).collect();
        assert_eq!(output[0].data, floats(&sorted));
        let none = run(&mut *instance, &[view(DType::Fp32, &[0, 3], &[])]).unwrap();
        assert_eq!(none[0].shape[..], [0, 3]);
    };
    let numbers = onnx::attribute_ints("classlabels_int64s", &[10, -2, 9]);
    check(numbers, 7, ["-2", "9", "10"], [1, 2, 0]);
    let names = onnx::attribute_strings("classlabels_strings", &["b", "a", "B"]);
    check(names, 8, ["B", "a", "b"], [2, 1, 0]);
}

#[test]
fn types_that_cannot_be_served_are_named_with_a_way_round() {
    let check = |nodes: &[onnx::Message], y: onnx::Message, parts: &[&str]| {
        let x = onnx::value("x", &onnx::tensor(1, &["n"]));
        let error = refused(&onnx::model(nodes, &[], &[x], &[onnx::value("y", &y)]));
        assert!(matches!(error, BackendError::Model(_)), "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "{part} in {error}");
        }
    };
    let tensor = onnx::tensor(1, &["n"]);
    let nodes = [onnx::node("SequenceConstruct", &["x", "x"], &["y"], &[])];
    check(&nodes, onnx::sequence(&tensor), &["output 'y'", "ConcatFromSequence"]);
    let nodes = [onnx::node("Optional", &["x"], &["y"], &[])];
    check(&nodes, onnx::optional(&tensor), &["output 'y'", "OptionalGetElement"]);
}

#[test]
fn files_that_are_no_models_are_refused() {
    let whole = onnx::mlp();
    let cases: [(&str, &[u8]); 5] = [
        ("empty", b""),
        ("text", b"this is no model"),
        ("truncated", &whole[..whole.len() / 2]),
        ("zeros", &[0; 4096]),
        ("ones", &[0xff; 4096]),
    ];
    for (name, bytes) in cases {
        let error = refused(bytes);
        assert!(
            matches!(&error, BackendError::Model(text) if text.contains("model.onnx")),
            "{name}: {error}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_path_buf(), folder.path().join("missing.onnx"), "nul\0.onnx".into()] {
        let error = open_at(&path).err().unwrap();
        assert!(matches!(error, BackendError::Model(_)), "{error}");
    }
    // The whole model still loads after all of them.
    assert!(open(&whole).is_ok());
}

/// Bytes changed at random: a clean refusal or a model that runs or refuses its input, never a crash.
#[test]
fn damaged_models_are_refused_or_run() {
    // xorshift64, seeded: the same cases every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let numbers = onnx::attribute_ints("classlabels_int64s", &[1, 2, 3]);
    let seeds = [onnx::mlp(), zip_map(numbers, 7), onnx::identity(DType::Bytes, &DYNAMIC)];
    let mut loaded = 0;
    for case in 0..600 {
        let mut bytes = seeds[case % seeds.len()].clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        let Ok(mut instance) = open(&bytes) else { continue };
        loaded += 1;
        let data = floats(&[0.5; 4]);
        let inputs = vec![view(DType::Fp32, &[1, 4], &data); instance.signature().inputs.len()];
        let _ = instance.run(&inputs, &mut |_, _| {});
    }
    assert!(loaded > 0, "no case got as far as a run");
}

#[test]
fn an_instance_stays_usable_after_every_error() {
    let nodes = [onnx::node("Gather", &["table", "i"], &["y"], &[])];
    let weights = [onnx::weights("table", &[3], &[10.0, 20.0, 30.0])];
    let (i, y) = (onnx::tensor(7, &["n"]), onnx::tensor(1, &["n"]));
    let mut instance =
        open(&onnx::model(&nodes, &weights, &[onnx::value("i", &i)], &[onnx::value("y", &y)])).unwrap();
    let index = |value: i64| value.to_le_bytes();
    let (good, bad) = (index(1), index(99));
    let wrong: [&[TensorView<'_>]; 6] = [
        &[view(DType::Int64, &[1], &bad)],
        &[view(DType::Int64, &[1, 1], &good)],
        &[view(DType::Int32, &[2], &good)],
        &[view(DType::Int64, &[2], &good)],
        &[view(DType::Int64, &[usize::MAX, 8], &good)],
        &[],
    ];
    for (case, inputs) in wrong.into_iter().enumerate() {
        let error = run(&mut *instance, inputs).unwrap_err();
        assert_eq!(matches!(error, BackendError::Input(_)), !inputs.is_empty(), "case {case}: {error}");
        let output = run(&mut *instance, &[view(DType::Int64, &[1], &good)]).unwrap();
        assert_eq!(output[0].data, floats(&[20.0]), "after case {case}");
    }
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = instance.run(&[view(DType::Int64, &[1], &good)], &mut |_, _| panic!("the sink fails"));
    }));
    assert!(panics.is_err());
    assert_eq!(run(&mut *instance, &[view(DType::Int64, &[1], &good)]).unwrap()[0].data, floats(&[20.0]));
}

#[test]
fn instances_run_side_by_side_on_their_own_threads_and_on_the_pool() {
    let (_folder, path) = saved(&onnx::mlp());
    let data = floats(&(0..64 * 4).map(|i| i as f32 / 99.0).collect::<Vec<_>>());
    let input = view(DType::Fp32, &[64, 4], &data);
    let expected = run(&mut *open_at(&path).unwrap(), &[input]).unwrap();
    std::thread::scope(|scope| {
        for threads in [1, 1, 2, 4] {
            let (path, expected) = (&path, &expected);
            scope.spawn(move || {
                let options = OpenOptions { threads, ..OpenOptions::new(path) };
                let mut instance = backend().open(&options).unwrap();
                for _ in 0..500 {
                    assert_eq!(run(&mut *instance, &[input]).unwrap(), *expected);
                }
            });
        }
    });
    backend().release_memory();
}

#[test]
fn a_missing_device_is_an_error_and_never_the_processor() {
    let (_folder, path) = saved(&onnx::mlp());
    let options = OpenOptions { device: Device::Cuda(0), ..OpenOptions::new(&path) };
    let error = backend().open(&options).err().unwrap();
    assert!(matches!(&error, BackendError::Unavailable(text) if text.contains("CUDA device 0")), "{error}");
}

#[test]
fn a_second_start_gives_the_same_backend() {
    let bad = OrtOptions { dylib: Some("/nowhere/libonnxruntime.so".into()), ..OrtOptions::default() };
    let first = backend();
    assert_eq!(OrtBackend::start(&bad).unwrap().library_path(), first.library_path());
    assert_eq!(
        (first.name(), first.platform(), first.model_files()),
        ("onnxruntime", "onnxruntime_onnx", &["model.onnx"][..])
    );
}
