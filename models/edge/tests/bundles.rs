//! Bundles: what they hold, what refuses them, and whether compilers and other people's tools take their files. Must
//! not judge numbers.

use std::{fs, path::Path, process::Command};

use gannet_edge::{
    EdgeError,
    bundle::{Bundle, BundleInfo, MANIFEST, verify},
    compile::{CompileOptions, Compiled, Data, compile},
    data::Samples,
    lite,
    mcuboot::{ImageVersion, image},
    sign::{PrivateKey, PublicKey},
};

use crate::support::{
    cross,
    environment::{program, run, scripts},
    nets,
};

/// A key made for these tests (`openssl genpkey -algorithm ed25519`), and another one.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";
const OTHER_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIB8eHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgEA\n-----END PRIVATE KEY-----\n";

pub(crate) fn compiled(name: &str) -> Compiled {
    let row = nets::input_shape(name).iter().product();
    let samples = Samples::new(nets::samples(name, 20, 1), row, name).unwrap();
    let data = Data { calibrate: vec![samples], compare: None };
    compile(&nets::onnx(name), &data, &CompileOptions::default(), &mut |_| true).unwrap()
}

fn bundle(name: &str) -> Bundle {
    let class_names = vec!["yes".into(), "\"no\"?".into(), "\\ü".into()];
    let info = BundleInfo { model: name.into(), version: "2".into(), sequence: 7, class_names };
    Bundle::new(&compiled(name), &info)
}

#[test]
fn a_bundle_is_refused_once_anything_changes() {
    let mut good = bundle("kws1d");
    let (key, other) = (PrivateKey::of_pem(KEY).unwrap(), PrivateKey::of_pem(OTHER_KEY).unwrap());
    good.sign(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    good.write(folder.path()).unwrap();
    let read = Bundle::read(folder.path()).unwrap();
    assert_eq!(read, good);
    let verified = verify(&read, Some(&key.public())).unwrap();
    assert!(verified.signed && verified.golden_rows == 8, "{verified:?}");
    assert_eq!(verified.manifest.sequence, 7);
    assert!(verify(&read, Some(&other.public())).unwrap_err().to_string().contains("manifest.sig"));
    for path in good.files.keys().filter(|path| *path != "manifest.sig") {
        let mut bad = good.clone();
        let bytes = bad.files.get_mut(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        assert!(verify(&bad, Some(&key.public())).is_err(), "{path} was changed and nobody saw it");
    }
    assert!(matches!(good.clone().renumbered(7), Err(EdgeError::Untrusted { .. })));
    let newer = good.renumbered(8).unwrap();
    assert!(verify(&newer, Some(&key.public())).is_err(), "the signature must not outlive the manifest");
    assert_eq!(verify(&newer, None).unwrap().manifest.sequence, 8);
}

#[test]
fn the_same_input_makes_the_same_bundle() {
    assert_eq!(bundle("kws1d"), bundle("kws1d"));
}

#[test]
fn a_manifest_cannot_lead_out_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let good = bundle("kws1d");
    good.write(folder.path()).unwrap();
    let text = String::from_utf8(good.files[MANIFEST].clone()).unwrap();
    fs::write(folder.path().join(MANIFEST), text.replace("\"golden.json\"", "\"../golden.json\"")).unwrap();
    let refused = Bundle::read(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("path inside of the bundle"), "{refused}");
}

/// Compiles every generated source with one compiler; C and C++ apart.
fn compile_sources(compiler: &Path, folder: &Path, name: &str, more: &[&str]) {
    let stubs = scripts().with_file_name("stubs");
    let strict = ["-Wall", "-Wextra", "-Werror", "-Wconversion", "-ffreestanding", "-O2", "-c"];
    for (source, standard) in [
        (format!("src/{name}_model.c"), "-std=c99"),
        (format!("src/{name}_prepost.c"), "-std=c99"),
        (format!("src/{name}_golden.c"), "-std=c99"),
        (format!("src/{name}.cpp"), "-std=c++17"),
    ] {
        let mut command = Command::new(compiler);
        command
            .args(strict)
            .arg(standard)
            .args(more)
            .arg("-I")
            .arg(&stubs)
            .arg("-o")
            .arg(folder.join("out.o"));
        if source.ends_with(".c") {
            command.arg("-pedantic");
        } else {
            command.args(["-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"]);
        }
        run(command.arg(folder.join(&source)), &source);
    }
}

#[test]
fn generated_sources_compile_without_a_warning() {
    for name in ["kws1d", "resnet8"] {
        let folder = tempfile::tempdir().unwrap();
        bundle(name).write(folder.path()).unwrap();
        compile_sources(Path::new("gcc"), folder.path(), name, &[]);
        compile_sources(Path::new("gcc"), folder.path(), name, &["-DCMSIS_NN"]);
        let core = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-DCMSIS_NN"];
        compile_sources(&cross::compiler(), folder.path(), name, &core);
    }
}

#[test]
fn the_resolver_has_exactly_the_operators_that_are_used() {
    let compiled = compiled("resnet8");
    let info = BundleInfo { model: "r".into(), version: "1".into(), sequence: 1, class_names: Vec::new() };
    let bundle = Bundle::new(&compiled, &info);
    let source = String::from_utf8(bundle.files["src/r.cpp"].clone()).unwrap();
    let mut added: Vec<String> = source
        .lines()
        .filter_map(|line| line.split("resolver.Add").nth(1))
        .map(|rest| rest.split('(').next().unwrap_or_default().to_lowercase())
        .collect();
    added.sort();
    added.dedup();
    let mut used: Vec<String> = bundle
        .manifest()
        .unwrap()
        .abi
        .operators
        .iter()
        .map(|operator| operator.replace('_', "").to_lowercase())
        .collect();
    used.sort();
    assert_eq!(added, used);
    assert!(source.contains(&format!("kOperators = {};", used.len())), "{source}");
}

#[test]
fn values_become_codes_in_c_as_in_the_compiler() {
    let folder = tempfile::tempdir().unwrap();
    let compiled = compiled("kws1d");
    bundle("kws1d").write(folder.path()).unwrap();
    let (scale, zero) = compiled.model.tensors[compiled.model.inputs[0]].scale();
    let mut random = nets::Random::new(5);
    let mut values: Vec<f32> = (0..2000).map(|_| random.normal() * 4.0).collect();
    values.extend([f32::MAX, f32::MIN, 1e9, -1e9, 0.0, scale / 2.0, -scale / 2.0]);
    let expected: Vec<String> =
        values.iter().map(|value| gannet_edge::integer::quantised(*value, scale, zero).to_string()).collect();
    let list: Vec<String> = values.iter().map(|value| format!("{value:e}f")).collect();
    let program = format!(
        "#include <stdio.h>\n#include \"kws1d_prepost.h\"\nstatic const float values[] = {{ {} }};\nint main(void) {{ \
         int8_t code; for (size_t i = 0; i < sizeof values / sizeof *values; ++i) {{ kws1d_quantize(&values[i], &code, 1); \
         printf(\"%d\\n\", code); }} printf(\"%s|%s|%s\\n\", kws1d_class_name(1), kws1d_class_name(2), kws1d_class_name(9)); \
         return kws1d_largest((const int8_t[]){{1, 5, 5}}, 3) == 1 ? 0 : 1; }}\n",
        list.join(",")
    );
    fs::write(folder.path().join("main.c"), program).unwrap();
    let mut build = Command::new("gcc");
    build.args(["-std=c99", "-Wall", "-Werror", "main.c", "src/kws1d_prepost.c", "-Iinclude", "-o", "main"]);
    run(build.current_dir(folder.path()), "the program");
    let printed = run(&mut Command::new(folder.path().join("main")), "main");
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[..expected.len()], expected);
    assert_eq!(lines[expected.len()], "\"no\"?|\\ü|");
}

#[test]
fn mcuboots_own_tool_takes_the_image_and_refuses_what_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("key.pem"), KEY).unwrap();
    fs::write(path("other.pem"), OTHER_KEY).unwrap();
    let key = PrivateKey::read(&path("key.pem")).unwrap();
    assert_eq!(PublicKey::read(&path("key.pem")).unwrap(), key.public());
    let version = ImageVersion { major: 1, minor: 2, revision: 3, build: 7 };
    let good = image(&compiled("kws1d").tflite, version, &key);
    let mut bad = good.clone();
    bad[100] ^= 1;
    fs::write(path("good.bin"), &good).unwrap();
    fs::write(path("bad.bin"), &bad).unwrap();
    let verifies = |file: &str, key: &str| {
        let mut imgtool = program("imgtool.main");
        imgtool.arg("verify").arg("-k").arg(path(key)).arg(path(file));
        let output = imgtool.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (accepted, said) = verifies("good.bin", "key.pem");
    assert!(accepted && said.contains("1.2.3+7"), "{said}");
    assert!(!verifies("good.bin", "other.pem").0);
    assert!(!verifies("bad.bin", "key.pem").0);
}

#[test]
fn metadata_are_those_of_the_package_managers() {
    let bundle = bundle("kws1d");
    let text = |path: &str| String::from_utf8(bundle.files[path].clone()).unwrap();
    let properties = text("library.properties");
    for key in [
        "name",
        "version",
        "author",
        "maintainer",
        "sentence",
        "paragraph",
        "category",
        "url",
        "architectures",
        "includes",
    ] {
        let lines: Vec<&str> =
            properties.lines().filter(|line| line.starts_with(&format!("{key}="))).collect();
        assert!(lines.len() == 1 && lines[0].len() > key.len() + 1, "{key} in\n{properties}");
    }
    assert!(properties.contains("version=2.0.0\n"), "{properties}");
    assert!(
        bundle.files.contains_key("src/kws1d_inferencing.h")
            && bundle.files.contains_key("examples/kws1d_demo/kws1d_demo.ino")
    );
    assert!(text("idf_component.yml").contains("espressif/esp-tflite-micro"));
    let page = text("parity.html");
    assert!(
        !page.contains("http://") && !page.contains("https://") && !page.contains("<script"),
        "the page needs nothing else"
    );
}

/// The same but for the last digits of scales, which a text does not hold.
fn same(got: &lite::Model, expected: &lite::Model, what: &str) {
    assert_eq!(format!("{:?}", got.nodes), format!("{:?}", expected.nodes), "{what}");
    assert_eq!((&got.inputs, &got.outputs), (&expected.inputs, &expected.outputs), "{what}");
    assert_eq!(got.tensors.len(), expected.tensors.len(), "{what}");
    for (got, expected) in got.tensors.iter().zip(&expected.tensors) {
        let of = |tensor: &lite::Tensor| {
            (tensor.shape.clone(), tensor.kind, tensor.data.clone(), tensor.scale().1)
        };
        assert_eq!(of(got), of(expected), "{what}: {}", expected.name);
        let (a, b) = (got.scale().0, expected.scale().0);
        // it prints six decimals
        assert!((a - b).abs() <= 1e-6, "{what}: {}: {a} {b}", expected.name);
    }
}

#[test]
fn debians_flatc_takes_every_file_by_the_schema() {
    let (flatc, schema) = (cross::flatc(), scripts().join("tflite.fbs"));
    for name in nets::NAMES.into_iter().chain(nets::TRAINED) {
        let compiled = compiled(name);
        for (kind, bytes) in [("int8", &compiled.tflite), ("float", &compiled.tflite_float)] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("model.tflite"), bytes).unwrap();
            let flatc = |option: &str, files: &[&str]| {
                let mut command = Command::new(&flatc);
                command.current_dir(folder.path()).args([option, "--strict-json"]).arg(&schema).args(files);
                run(&mut command, &format!("{name} {kind}: {option}"));
            };
            // read without --raw-binary: the file identifier must be there
            flatc("-t", &["--", "model.tflite"]);
            let text: serde_json::Value =
                serde_json::from_slice(&fs::read(folder.path().join("model.json")).unwrap()).unwrap();
            let graph = &text["subgraphs"][0];
            let count = |list: &serde_json::Value| list.as_array().map_or(0, Vec::len);
            assert_eq!(count(&graph["operators"]), lite::read(bytes).unwrap().nodes.len(), "{name} {kind}");
            // what it writes of that is the same model to our reader
            fs::remove_file(folder.path().join("model.tflite")).unwrap();
            flatc("-b", &["model.json"]);
            let again = fs::read(folder.path().join("model.tflite")).unwrap();
            assert_ne!(again, *bytes, "flatc lays a file out in its own way");
            same(&lite::read(&again).unwrap(), &lite::read(bytes).unwrap(), &format!("{name} {kind}"));
        }
    }
}
