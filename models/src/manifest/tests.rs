//! Tests of `model.toml`. Must not reach into anything but the text and what comes of it.

use super::*;
use crate::{error::SettingsError, settings::WarmUp};

fn parsed(text: &str) -> ModelSettings {
    parse(text, Path::new("model.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn faults(text: &str) -> SettingsError {
    match parse(text, Path::new("model.toml")) {
        Err(ModelError::Settings(error)) => error,
        other => panic!("expected faults, got {other:?}"),
    }
}

/// The example of the module's documentation, without the label file.
pub(crate) fn complete() -> String {
    let source = include_str!("../manifest.rs");
    let block = source.lines().skip_while(|line| *line != "//! ```toml").skip(1);
    let lines = block.take_while(|line| *line != "//! ```").map(|line| line.trim_start_matches("//!"));
    lines.filter(|line| !line.contains("label_file")).collect::<Vec<_>>().join("\n")
}

#[test]
fn everything_can_be_said() {
    let settings = parsed(&complete());
    let expected = ModelSettings {
        backend: Some("onnxruntime".into()),
        batching: Batching::Stated(32),
        queue_delay_us_max: 500,
        preferred_batch_rows: vec![8, 32],
        priority_levels: 2,
        priority_default: 2,
        queue_requests_max: 256,
        timeout_us_default: 50_000,
        timeout_override: true,
        instances: Some(2),
        threads: 1,
        device: Device::Cpu,
        version_policy: VersionPolicy::Latest(2),
        labels: [("stable".to_owned(), Version::new("1").unwrap())].into(),
        warm_up: WarmUp { enabled: true, ms_max: 2000 },
        padding: vec![Padding { axis: "sequence".into(), buckets: vec![32, 64, 128], value: 0.0 }],
        inputs: vec![],
        outputs: vec![TensorDeclaration {
            name: "probabilities".into(),
            dtype: Some(DType::Fp32),
            dims: Some(vec![3]),
            labels: None,
        }],
        parameters: [].into(),
        allow_torchscript: true,
        drift_rate: Some(0.05),
        memory_bytes: Some(100_000_000),
    };
    assert_eq!(settings, expected);
}

#[test]
fn nothing_need_be_said() {
    assert_eq!(parsed(""), ModelSettings::default());
    assert_eq!(parsed("max_batch_size = 0").batching, Batching::Off);
    assert_eq!(parsed("[priority]\nlevels = 3").priority_default, 3);
    assert_eq!(parsed("versions = [1, \"v2\"]").version_policy, {
        VersionPolicy::Specific(vec![Version::new("1").unwrap(), Version::new("v2").unwrap()])
    });
    assert_eq!(parsed("[instances]\ndevice = \"cuda:1\"").device, Device::Cuda(1));
}

#[test]
fn all_faults_are_reported_with_their_lines() {
    let error = faults(
        "max_batch_size = -1\nbakend = \"x\"\nversions = \"newest\"\n[instances]\ncount = \"two\"\ndevice = \"tpu\"\n\
         [priority]\nlevels = 2\ndefault = 5\n[[outputs]]\ndtype = \"FLOAT\"\ndims = [0]\n",
    );
    let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
    let expected = [
        "model.toml:1: max_batch_size: expected an integer from 0 to 1048576, got -1",
        "model.toml:2: bakend: expected one of the keys backend, max_batch_size, versions, allow_torchscript, batching, priority, \
         limits, instances, warm_up, labels, drift, padding, inputs, outputs, got the unknown key 'bakend'",
        "model.toml:3: versions: expected \"latest:2\", \"all\" or a list such as [\"1\", \"3\"], got \"newest\"",
        "model.toml:5: instances.count: expected an integer from 1 to 256, got \"two\"",
        "model.toml:6: instances.device: expected \"cpu\" or \"cuda:0\", got \"tpu\"",
        "model.toml:9: priority.default: expected a level from 1 to 2 (priority.levels), got 5",
        "model.toml:10: outputs[0]: expected the key 'name', got none",
        "model.toml:11: outputs[0].dtype: expected an element type, such as \"FP32\", got \"FLOAT\"",
        "model.toml:12: outputs[0].dims: expected sizes of 1 and more, or -1 for a variable axis, got 0",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn faults_between_fields_are_reported() {
    let check = |text: &str, expected: &str| {
        let message = faults(text).to_string();
        assert!(message.contains(expected), "{text}: {message}");
    };
    check(
        "max_batch_size = 4\n[batching]\npreferred_batch_sizes = [2, 8]",
        "sizes from 1 to 4 (max_batch_size), got 8",
    );
    check("max_batch_size = 0\n[batching]\npreferred_batch_sizes = [2]", "no sizes, as max_batch_size is 0");
    check("[priority]\ndefault = 1", "priority.default: expected 0, or priority.levels above 0, got 1");
    check("[[inputs]]\nname = \"a\"\n[[inputs]]\nname = \"a\"", "each name once, got 'a' twice");
    check("[[inputs]]\nname = \"a\"\nlabel_file = \"x\"", "unknown key 'label_file'");
    check("[[outputs]]\nname = \"a\"\nlabel_file = \"../x\"", "leaves the model's folder");
    check("a = \nb = [", "expected valid TOML");
    check("batching = 3", "expected a table, [batching], got 3");
    check("inputs = [1]", "expected tables, [[inputs]], got [1]");
}

#[test]
fn damaged_texts_are_refused_without_panic() {
    crate::faults::mutations(&complete(), |text| {
        let _ = parse(text, Path::new("model.toml"));
    });
}
