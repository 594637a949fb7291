//! The `MLmodel` file: flavours, signature, example. Must not know where it came from.

use std::{collections::BTreeMap, fs, path::Path};

use gannet_models::{DType, ModelSettings, settings::TensorDeclaration};
use serde::Deserialize;
use serde_json::Value;

use crate::RemoteError;

/// What is read of an `MLmodel` file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MlModel {
    pub(super) flavors: BTreeMap<String, Value>,
    signature: Option<SignatureText>,
    saved_input_example_info: Option<ExampleInfo>,
}

/// Lists of tensors, as JSON inside of YAML.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SignatureText {
    inputs: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ExampleInfo {
    serving_input_path: Option<String>,
}

impl MlModel {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, RemoteError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| RemoteError::Unusable("MLmodel: expected text in UTF-8".to_owned()))?;
        serde_saphyr::from_str(text).map_err(|error| {
            RemoteError::Unusable(format!("MLmodel: expected YAML as MLflow writes it: {error}"))
        })
    }

    /// The inputs that the signature names, with their types. Columns of a table are no tensors and are left out, and
    /// so are tensors without a name.
    fn inputs(&self) -> Vec<TensorDeclaration> {
        let text = self.signature.as_ref().and_then(|signature| signature.inputs.as_deref()).unwrap_or("[]");
        let items: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
        let declared = |item: &Value| {
            let spec = item.get("tensor-spec")?;
            let name = item.get("name")?.as_str().filter(|name| !name.is_empty())?.to_owned();
            let dtype = numpy_type(spec.get("dtype")?.as_str()?)?;
            Some(TensorDeclaration { name, dtype: Some(dtype), dims: None, labels: None })
        };
        items.iter().filter_map(declared).collect()
    }
}

fn numpy_type(name: &str) -> Option<DType> {
    Some(match name {
        "bool" => DType::Bool,
        "uint8" => DType::Uint8,
        "uint16" => DType::Uint16,
        "uint32" => DType::Uint32,
        "uint64" => DType::Uint64,
        "int8" => DType::Int8,
        "int16" => DType::Int16,
        "int32" => DType::Int32,
        "int64" => DType::Int64,
        "float16" => DType::Fp16,
        "float32" => DType::Fp32,
        "float64" => DType::Fp64,
        "str" | "object" => DType::Bytes,
        _ => return None,
    })
}

/// How a package of MLflow's is served: `None` where `dir` holds none. Names and types of an ONNX model's inputs are
/// compared with the model's own, which says the shapes; of TorchScript, the engine reads the signature itself.
#[must_use]
pub fn settings_of(dir: &Path) -> Option<ModelSettings> {
    let bytes = fs::read(dir.join("MLmodel")).ok()?;
    let model = MlModel::parse(&bytes).ok()?;
    let inputs = if model.flavors.contains_key("onnx") { model.inputs() } else { Vec::new() };
    Some(ModelSettings { inputs, ..ModelSettings::default() })
}

/// The example request that MLflow stored with a package (`serving_input_example.json`), by its path inside.
#[must_use]
pub fn example_file(dir: &Path) -> Option<String> {
    let bytes = fs::read(dir.join("MLmodel")).ok()?;
    let info = MlModel::parse(&bytes).ok()?.saved_input_example_info?;
    let path = info.serving_input_path.unwrap_or_else(|| "serving_input_example.json".to_owned());
    crate::package::check_path(&path).ok()?;
    dir.join(&path).is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As MLflow 3.17 wrote it.
    const RECORDED: &str = r#"artifact_path: mlflow-artifacts:/1/models/m-fd2abde4856e457ea90e9e3d602dcccb/artifacts
flavors:
  onnx:
    code: null
    data: model.onnx
    onnx_session_options: null
    onnx_version: 1.23.2
    providers:
    - CUDAExecutionProvider
    - CPUExecutionProvider
  python_function:
    data: model.onnx
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.onnx
    python_version: 3.11.7
is_signature_from_type_hint: false
mlflow_version: 3.17.2
prompts: null
saved_input_example_info:
  artifact_path: input_example.json
  serving_input_path: serving_input_example.json
  type: ndarray
signature:
  inputs: '[{"name": "X", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}]'
  outputs: '[{"name": "label", "type": "tensor", "tensor-spec": {"dtype": "int64",
    "shape": [-1]}}, {"name": "probabilities", "type": "tensor", "tensor-spec": {"dtype":
    "float32", "shape": [-1, 3]}}]'
  params: null
utc_time_created: '2026-11-21 22:34:51.002064'
"#;

    #[test]
    fn a_file_of_mlflow_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        assert!(settings_of(dir.path()).is_none());
        fs::write(dir.path().join("MLmodel"), RECORDED).unwrap();
        let settings = settings_of(dir.path()).unwrap();
        assert_eq!(settings.inputs.len(), 1);
        assert_eq!((settings.inputs[0].name.as_str(), settings.inputs[0].dtype), ("X", Some(DType::Fp32)));
        assert_eq!(example_file(dir.path()), None);
        fs::write(dir.path().join("serving_input_example.json"), "{}").unwrap();
        assert_eq!(example_file(dir.path()).as_deref(), Some("serving_input_example.json"));
        // a signature without shapes would be half of what LibTorch needs
        fs::write(dir.path().join("MLmodel"), RECORDED.replace("onnx:", "pytorch:")).unwrap();
        assert!(settings_of(dir.path()).unwrap().inputs.is_empty());
    }

    #[test]
    fn columns_and_nonsense_declare_nothing() {
        let column = "signature:\n  inputs: '[{\"type\": \"float\", \"name\": \"sepal length (cm)\"}]'\n";
        assert!(MlModel::parse(column.as_bytes()).unwrap().inputs().is_empty());
        let unnamed =
            "signature:\n  inputs: '[{\"tensor-spec\": {\"dtype\": \"float32\", \"shape\": [-1]}}]'\n";
        assert!(MlModel::parse(unnamed.as_bytes()).unwrap().inputs().is_empty());
        for bad in [&b"\xff"[..], b"flavors: [1", b"- a\n- b"] {
            assert!(matches!(MlModel::parse(bad), Err(RemoteError::Unusable(_))), "{bad:?}");
        }
    }
}
