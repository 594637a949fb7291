//! What TorchScript files and TorchServe's archives are to this engine: signatures, kinds of outputs, refusals, and
//! the zoo's models in both formats.

#![cfg(feature = "torch")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use gannet_models::{DType, TensorSpec, settings::TensorDeclaration};
use gannet_ort::{OrtBackend, OrtOptions};
use gannet_runtime::{
    TensorView,
    backend::{Backend, BackendError, Declared, Instance, OpenOptions},
};
use gannet_tch::TorchBackend;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn backend() -> TorchBackend {
    TorchBackend::start(gannet_ort::release_memory).unwrap()
}

/// `name TYPE dims`; a type of `-` and dims of `?` are left unstated.
fn declaration(text: &str) -> TensorDeclaration {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap().to_owned();
    let dtype = words.next().and_then(DType::parse);
    let rest: Vec<&str> = words.collect();
    let dims = (rest != ["?"]).then(|| rest.iter().map(|dim| dim.parse().unwrap()).collect());
    TensorDeclaration { name, dtype, dims, labels: None }
}

fn open_at(path: &Path, inputs: &[&str], outputs: &[&str]) -> Result<Box<dyn Instance>, BackendError> {
    let list = |texts: &[&str]| texts.iter().map(|text| declaration(text)).collect::<Vec<_>>();
    let (inputs, outputs) = (list(inputs), list(outputs));
    let declared = Declared { inputs: &inputs, outputs: &outputs, batch_axis: true };
    backend().open(&OpenOptions { declared, ..OpenOptions::new(path) })
}

fn shown(specs: &[TensorSpec]) -> Vec<String> {
    specs.iter().map(|spec| format!("{} {}{}", spec.name, spec.dtype, spec.shape_text())).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn numbers(data: &[u8]) -> Vec<f32> {
    data.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

fn run(instance: &mut dyn Instance, inputs: &[(&[usize], &[f32])]) -> Result<Vec<Vec<u8>>, BackendError> {
    let data: Vec<Vec<u8>> = inputs.iter().map(|(_, values)| floats(values)).collect();
    let views: Vec<TensorView<'_>> = inputs
        .iter()
        .zip(&data)
        .map(|((shape, _), data)| TensorView { dtype: DType::Fp32, shape, data })
        .collect();
    let mut outputs = vec![Vec::new(); instance.signature().outputs.len()];
    instance.run(&views, &mut |index, view| outputs[index] = view.data.to_vec())?;
    Ok(outputs)
}

#[test]
fn outputs_are_found_out_or_stated() {
    let check = |file: &str, inputs: &[&str], outputs: &[&str], expected: &[&str]| {
        let instance =
            open_at(&fixture(file), inputs, outputs).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(shown(&instance.signature().outputs), expected, "{file} {outputs:?}");
    };
    check("add_one.pt", &["x FP32 3"], &[], &["OUTPUT__0 FP32[-1,3]"]);
    check("add_one_traced.pt", &["x FP32 -1"], &[], &["OUTPUT__0 FP32[-1,-1]"]);
    check("add_one.pt", &["x FP32 3"], &["y - ?"], &["y FP32[-1,3]"]);
    check("add_one.pt", &["x FP32 3"], &["y FP32 3"], &["y FP32[-1,3]"]);
    check("pair.pt", &["a FP32 3", "b FP32 3"], &["p - ?", "q - ?"], &["p FP32[-1,3]", "q FP32[-1,3]"]);
    check("pair_dict.pt", &["a FP32 3", "b FP32 3"], &[], &["q FP32[-1,3]", "p FP32[-1,3]"]);
    check("pair_dict_traced.pt", &["a FP32 3", "b FP32 3"], &["p - ?"], &["p FP32[-1,3]"]);
    check("iris.pt", &["input FP32 4"], &[], &["label INT64[-1]", "probabilities FP32[-1,3]"]);
    check("branches.pt", &["x FP32 2"], &[], &["OUTPUT__0 FP32[-1,2]"]);
}

#[test]
fn outputs_of_a_dictionary_are_served_by_name() {
    let stated: [&[&str]; 2] = [&["p - ?", "q - ?"], &["p FP32 3", "q FP32 3"]];
    for (file, outputs) in
        [("pair_dict.pt", stated[0]), ("pair_dict_traced.pt", stated[0]), ("pair.pt", stated[1])]
    {
        let mut instance = open_at(&fixture(file), &["a FP32 3", "b FP32 3"], outputs).unwrap();
        let given =
            run(&mut *instance, &[(&[1, 3], &[1.0, 2.0, 3.0]), (&[1, 3], &[10.0, 20.0, 30.0])]).unwrap();
        assert_eq!(numbers(&given[0]), [2.0, 3.0, 4.0], "{file}");
        assert_eq!(numbers(&given[1]), [11.0, 21.0, 31.0], "{file}");
    }
}

#[test]
fn control_flow_is_kept_by_scripts() {
    let mut instance = open_at(&fixture("branches.pt"), &["x FP32 2"], &[]).unwrap();
    assert_eq!(numbers(&run(&mut *instance, &[(&[1, 2], &[0.0, 1.0])]).unwrap()[0]), [3.0, 4.0]);
    assert_eq!(numbers(&run(&mut *instance, &[(&[1, 2], &[20.0, 20.0])]).unwrap()[0]), [17.0, 17.0]);
}

#[test]
fn what_cannot_be_served_is_refused_in_plain_words() {
    let check = |file: &str, inputs: &[&str], outputs: &[&str], parts: &[&str]| {
        let error = open_at(&fixture(file), inputs, outputs).err().unwrap_or_else(|| panic!("{file} opens"));
        assert!(matches!(&error, BackendError::Model(text) if text.contains(file)), "{error:?}");
        for part in parts {
            assert!(error.to_string().contains(part), "{file}: '{part}' is not in: {error}");
        }
    };
    check("add_one.pt", &[], &[], &["does not say what it takes", "[[inputs]]"]);
    check("add_one.pt", &["x FP32 ?"], &[], &["input 'x'", "dtype and dims"]);
    check("add_one.pt", &["x BYTES 1"], &[], &["'x' is stated as BYTES"]);
    check("add_one.pt", &["x FP32 3", "y FP32 3"], &[], &["run on zeros", "[[outputs]]"]);
    check("pair.pt", &["a FP32 3", "b FP32 3"], &["p - ?"], &["names 1 outputs, the model gives 2"]);
    check("pair_dict.pt", &["a FP32 3", "b FP32 3"], &["z - ?"], &["output 'z'", "gives: q, p"]);
    check("text.pt", &["x FP32 3"], &[], &["must give a tensor"]);
    check("state_dict.pt", &["x FP32 3"], &[], &["weights alone", "torch.jit.trace"]);
    check("make.py", &["x FP32 3"], &[], &["not TorchScript"]);
    check("handler.mar", &["x FP32 3"], &[], &["handler 'handler.py'", "Python is not run here"]);
    check("image_classifier.mar", &["x FP32 3"], &[], &["handler 'image_classifier'", "base_handler"]);
    check("eager.mar", &["x FP32 3"], &[], &["Python class in 'model.py'", "--model-file"]);
}

#[test]
fn archives_of_torchserve_are_opened() {
    let mut instance = open_at(&fixture("add_one.mar"), &["x FP32 3"], &["y - ?"]).unwrap();
    assert_eq!(numbers(&run(&mut *instance, &[(&[1, 3], &[1.0, 2.0, 3.0])]).unwrap()[0]), [2.0, 3.0, 4.0]);
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(fixture("add_one.mar")).unwrap();
    for (name, bytes) in [("half", &whole[..whole.len() / 2]), ("text", &b"no archive"[..])] {
        let path = folder.path().join(format!("{name}.mar"));
        fs::write(&path, bytes).unwrap();
        let error = open_at(&path, &["x FP32 3"], &[]).err().unwrap();
        assert!(error.to_string().contains("no archive of TorchServe"), "{error}");
    }
}

#[test]
fn mlflow_says_what_a_model_takes() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    let path = folder.path().join("data/model.pth");
    fs::copy(fixture("iris.pt"), &path).unwrap();
    let signature = r#"
signature:
  inputs: '[{"name": "input", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape":
    [-1, 4]}}]'
"#;
    fs::write(folder.path().join("MLmodel"), signature).unwrap();
    let instance = open_at(&path, &[], &[]).unwrap();
    assert_eq!(shown(&instance.signature().inputs), ["input FP32[-1,4]"]);
    assert_eq!(shown(&instance.signature().outputs), ["label INT64[-1]", "probabilities FP32[-1,3]"]);
    fs::write(folder.path().join("MLmodel"), "signature: {inputs: '[{\"type\": \"double\"}]'}").unwrap();
    let error = open_at(&path, &[], &[]).err().unwrap();
    assert!(error.to_string().contains("a column of a table"), "{error}");
}

#[test]
fn a_failed_run_tells_whose_fault_it_is() {
    let mut instance =
        open_at(&fixture("iris.pt"), &["input FP32 -1"], &["label INT64", "probabilities FP32 3"]).unwrap();
    let error = run(&mut *instance, &[(&[1, 5], &[0.0; 5])]).unwrap_err();
    assert!(
        matches!(&error, BackendError::Input(text) if text.contains("cannot be multiplied")),
        "{error:?}"
    );
    assert!(!error.to_string().contains("Traceback"), "{error}");
    assert_eq!(run(&mut *instance, &[(&[1, 4], &[5.1, 2.5, 3.0, 1.1])]).unwrap().len(), 2);
    // the type that was stated is not the one that comes
    let mut instance =
        open_at(&fixture("iris.pt"), &["input FP32 4"], &["label INT32", "probabilities FP32 3"]).unwrap();
    let error = run(&mut *instance, &[(&[1, 4], &[0.0; 4])]).unwrap_err();
    assert!(
        matches!(&error, BackendError::Execution(text) if text.contains("'label' came as INT64")),
        "{error:?}"
    );
}

/// Greatest difference that the two engines may show.
const DIFFERENCE_MAX: f32 = 1e-5;

#[test]
fn the_zoo_answers_alike_in_both_formats() {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
    let ort = OrtBackend::start(&OrtOptions::default()).unwrap();
    for (onnx, script, input, row) in [
        ("digits/2/model.onnx", "digits.pt", "image FP32 1 8 8", &[1usize, 8, 8][..]),
        ("iris/1/model.onnx", "iris.pt", "input FP32 4", &[4]),
    ] {
        let path = zoo.join(onnx);
        let mut one = ort.open(&OpenOptions::new(&path)).unwrap();
        let mut other = open_at(&fixture(script), &[input], &[]).unwrap();
        let names = |instance: &dyn Instance| -> Vec<String> {
            instance.signature().outputs.iter().map(|spec| spec.name.clone()).collect()
        };
        let floating: Vec<bool> =
            one.signature().outputs.iter().map(|spec| spec.dtype == DType::Fp32).collect();
        if script == "iris.pt" {
            assert_eq!(names(&*one), names(&*other));
        }
        let mut worst = 0.0f32;
        // xorshift64, seeded: the same rows every time
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for rows in [1usize, 3, 32, 200] {
            let shape: Vec<usize> = std::iter::once(rows).chain(row.iter().copied()).collect();
            let values: Vec<f32> = (0..shape.iter().product())
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state >> 40) as f32 / (1 << 24) as f32 * 8.0
                })
                .collect();
            let expected = run(&mut *one, &[(&shape, &values)]).unwrap();
            let got = run(&mut *other, &[(&shape, &values)]).unwrap();
            for ((expected, got), floating) in expected.iter().zip(&got).zip(&floating) {
                if !floating {
                    assert_eq!(expected, got, "{script}");
                    continue;
                }
                let (expected, got) = (numbers(expected), numbers(got));
                assert_eq!(expected.len(), got.len());
                let differences = expected.iter().zip(&got).map(|(expected, got)| (expected - got).abs());
                worst = differences.fold(worst, f32::max);
            }
        }
        println!("{script}: the greatest difference is {worst:e}");
        assert!(worst <= DIFFERENCE_MAX, "{script}: {worst:e}");
    }
}
