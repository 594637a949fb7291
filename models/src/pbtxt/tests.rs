//! Tests of `config.pbtxt`. Must not reach into anything but texts, settings and JSON.

use std::{fs, sync::Arc};

use serde_json::json;

use super::*;
use crate::{
    DType, Dim, Signature, TensorSpec, Version,
    error::SettingsError,
    settings::{Batching, Device, QUEUE_REQUESTS_MAX, VersionPolicy},
};

const COMPLETE: &str = r#"
name: "iris"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] format: FORMAT_NONE } ]
output [ { name: "label" data_type: TYPE_STRING dims: [ -1 ] }, { name: "p" data_type: TYPE_FP32 dims: 3 } ]
instance_group [ { count: 2 kind: KIND_CPU }, { count: 1 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 8, 4 ]
  max_queue_delay_microseconds: 100
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy {
    timeout_action: REJECT
    default_timeout_microseconds: 5000
    allow_timeout_override: true
    max_queue_size: 64
  }
}
version_policy: { specific: { versions: [ 1, 3 ] } }
parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
parameters [ { key: "team" value: { string_value: "a" } } ]
default_model_filename: "model.onnx"
optimization { input_pinned_memory { enable: true } eager_batching: true }
model_warmup [ { name: "w" batch_size: 1 inputs { key: "x" value: { data_type: TYPE_FP32 dims: 4 zero_data: true } } } ]
"#;

fn path() -> &'static Path {
    Path::new("/models/iris/config.pbtxt")
}

fn parsed(text: &str) -> ModelSettings {
    parse(text, path()).unwrap_or_else(|error| panic!("{error}"))
}

fn faults(text: &str) -> SettingsError {
    match parse(text, path()) {
        Err(ModelError::Settings(error)) => error,
        other => panic!("expected faults, got {other:?}"),
    }
}

#[test]
fn what_is_supported_is_read() {
    let settings = parsed(COMPLETE);
    assert_eq!(settings.backend.as_deref(), Some("onnxruntime"));
    assert_eq!(settings.batching, Batching::Stated(8));
    assert_eq!((settings.instances, settings.device, settings.threads), (Some(3), Device::Cpu, 2));
    assert_eq!(settings.preferred_batch_rows, [4, 8]);
    assert_eq!((settings.queue_delay_us_max, settings.timeout_us_default), (100, 5000));
    assert_eq!((settings.priority_levels, settings.priority_default), (3, 2));
    assert_eq!((settings.queue_requests_max, settings.timeout_override), (64, true));
    let versions = ["1", "3"].map(|text| Version::new(text).unwrap());
    assert_eq!(settings.version_policy, VersionPolicy::Specific(versions.into()));
    assert_eq!(settings.parameters["team"], "a");
    assert_eq!(settings.inputs[0].dims.as_deref(), Some(&[4][..]));
    assert_eq!(settings.outputs[0].dtype, Some(DType::Bytes));
    assert_eq!(settings.outputs[1].dims.as_deref(), Some(&[3][..]));
}

#[test]
fn what_is_left_out_means_what_it_means_in_triton() {
    assert_eq!(parsed("").batching, Batching::Inferred);
    assert_eq!(parsed("input { name: \"x\" data_type: TYPE_FP32 dims: 4 }").batching, Batching::Off);
    assert_eq!(parsed("backend: \"onnxruntime\" max_batch_size: 4").batching, Batching::Stated(4));
    assert_eq!(parsed("version_policy { latest { } }").version_policy, VersionPolicy::Latest(1));
    assert_eq!(parsed("version_policy { all { } }").version_policy, VersionPolicy::All);
    let settings = parsed("max_batch_size: 4 dynamic_batching { default_queue_policy { } }");
    assert_eq!((settings.queue_requests_max, settings.timeout_override), (QUEUE_REQUESTS_MAX, false));
    assert_eq!(parsed("instance_group { kind: KIND_GPU gpus: [ 1 ] }").device, Device::Cuda(1));
    assert_eq!(parsed("instance_group { kind: KIND_GPU }").device, Device::Cuda(0));
    assert_eq!(
        parsed("input { name: \"x\" dims: [1, 4] reshape { shape: [1, 4] } }").batching,
        Batching::Off
    );
}

#[test]
fn what_is_not_supported_is_named_all_at_once() {
    let error = faults(
        "name: \"other\"\nbackend: \"python\"\nmax_batch_size: -2\nresponse_cache {\n  enable: true\n}\n\
         sequence_batching { }\nmodel_transaction_policy { decoupled: true }\n\
         input { name: \"x\" dims: 4 is_shape_tensor: true allow_ragged_batch: true reshape { } }\n\
         optimization { execution_accelerators { gpu_execution_accelerator { name: \"tensorrt\" } } }\n\
         instance_group { host_policy: \"p\" rate_limiter { priority: 1 } secondary_devices { } gpus: [0, 1] }\n\
         batch_input { } model_warmup { inputs { key: \"x\" value { input_data_file: \"f\" } } }\n\
         cc_model_filenames { key: \"7.0\" value: \"f\" } default_model_filename: \"m.onnx\"\n",
    );
    let text = error.to_string();
    for expected in [
        "config.pbtxt:1: name: expected 'iris', the folder's name, got 'other'",
        "config.pbtxt:2: backend: expected backend \"onnxruntime\"",
        "config.pbtxt:3: max_batch_size: expected a number of rows",
        "config.pbtxt:5: response_cache.enable: expected nothing (Gannet does not support it), got true; remove it",
        ": sequence_batching: ",
        ": model_transaction_policy.decoupled: ",
        ": input[0].is_shape_tensor: ",
        ": input[0].allow_ragged_batch: ",
        ": input[0].reshape: ",
        ": optimization.execution_accelerators: ",
        ": instance_group[0].host_policy: ",
        ": instance_group[0].rate_limiter: ",
        ": instance_group[0].secondary_devices: ",
        ": instance_group[0].gpus: expected one GPU",
        ": batch_input: ",
        "input_data_file: ",
        ": cc_model_filenames: ",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    let message = faults(
        "max_batch_size: 2 dynamic_batching { preserve_ordering: true \
        default_queue_policy { timeout_action: DELAY } priority_queue_policy { key: 1 value { } } }",
    );
    assert_eq!(message.faults.len(), 3, "{message}");
}

#[test]
fn harmless_settings_are_accepted() {
    parsed("response_cache { enable: false } model_transaction_policy { decoupled: false }");
    parsed("optimization { priority: PRIORITY_MAX gather_kernel_buffer_threshold: 1 }");
    parsed("instance_group { name: \"a\" count: 1 } metric_tags [ ]");
}

#[test]
fn syntax_errors_have_a_line() {
    let text = faults("max_batch_size: 1\nmax_batch: 2\n").to_string();
    assert!(text.starts_with("/models/iris/config.pbtxt:2: expected a model configuration"), "{text}");
    assert!(text.contains("field 'max_batch' not found"), "{text}");
}

#[test]
fn labels_are_read_from_the_models_folder() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("iris");
    fs::create_dir_all(&model).unwrap();
    fs::write(model.join("labels.txt"), "setosa\nversicolor\n").unwrap();
    let text = "output { name: \"p\" label_filename: \"labels.txt\" }";
    let settings = parse(text, &model.join("config.pbtxt")).unwrap();
    let labels: Arc<[String]> = ["setosa".to_owned(), "versicolor".to_owned()].into();
    assert_eq!(settings.outputs[0].labels, Some(labels));
    assert!(parse(text, &dir.path().join("wine/config.pbtxt")).is_err());
}

fn signature() -> Signature {
    let spec = |name: &str, dtype, shape: &[Dim]| TensorSpec {
        name: name.into(),
        dtype,
        shape: shape.to_vec(),
        labels: None,
    };
    let rows = Dim::Dynamic(None);
    Signature {
        inputs: vec![spec("x", DType::Fp32, &[rows.clone(), Dim::Fixed(4)])],
        outputs: vec![spec("p", DType::Bf16, &[rows, Dim::Fixed(3)])],
        batched: true,
    }
}

fn config_json(settings: &ModelSettings) -> serde_json::Value {
    to_json(&to_model_config(&ModelConfigParts {
        name: "iris",
        settings,
        signature: &signature(),
        platform: "onnxruntime_onnx",
        backend: "onnxruntime",
        model_file: "model.onnx",
    }))
}

#[test]
fn the_configuration_is_printed_as_clients_know_it() {
    let json = config_json(&ModelSettings { queue_delay_us_max: 100, ..ModelSettings::default() });
    assert_eq!(json["max_batch_size"], 64);
    assert_eq!(json["platform"], "onnxruntime_onnx");
    assert_eq!(json["version_policy"], json!({"latest": {"num_versions": 1}}));
    assert_eq!(json["dynamic_batching"]["max_queue_delay_microseconds"], 100);
    assert_eq!(json["cc_model_filenames"], json!({}));
    assert_eq!(json["model_warmup"], json!([]));
    let input = json!({
        "name": "x", "data_type": "TYPE_FP32", "format": "FORMAT_NONE", "dims": [4], "is_shape_tensor": false,
        "allow_ragged_batch": false, "optional": false, "is_non_linear_format_io": false
    });
    assert_eq!(json["input"][0], input);
    assert_eq!(json["instance_group"][0]["kind"], "KIND_CPU");
    assert!(json.get("sequence_batching").is_none());
}

#[test]
fn what_is_printed_can_be_loaded_again() {
    let origin = Origin { path: Path::new("load request"), name: Some("iris"), model_dir: Path::new("") };
    let settings = parsed(COMPLETE);
    let again = from_json(&config_json(&settings).to_string(), &origin).unwrap();
    let expected = ModelSettings { inputs: again.inputs.clone(), outputs: again.outputs.clone(), ..settings };
    assert_eq!(again, expected);
    assert_eq!(again.inputs[0].dims.as_deref(), Some(&[4][..]));

    let camel_case = from_json(r#"{"maxBatchSize": 3, "parameters": {"a": {"stringValue": "b"}}}"#, &origin);
    assert_eq!(camel_case.unwrap().batching, Batching::Stated(3));
    for bad in ["", "[]", "{\"max_batch_siz\": 1}", "{} x", "{\"max_batch_size\": \"many\"}"] {
        let text = from_json(bad, &origin).unwrap_err().to_string();
        assert!(text.starts_with("load request"), "{bad}: {text}");
    }
}

#[test]
fn damaged_texts_are_refused_without_panic() {
    crate::faults::mutations(COMPLETE, |text| {
        let _ = parse(text, path());
    });
    let json = config_json(&parsed(COMPLETE)).to_string();
    let origin = Origin { path: Path::new("load request"), name: None, model_dir: Path::new("") };
    crate::faults::mutations(&json, |text| {
        let _ = from_json(text, &origin);
    });
}
