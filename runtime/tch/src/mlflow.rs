//! The signature in MLflow's `MLmodel`. Must not know TorchScript.

use std::{fs, path::Path};

use gannet_models::{DType, Dim, TensorSpec};
use serde::Deserialize;

use crate::signature::{self, BATCH};

const FILE: &str = "MLmodel";
/// A file larger than this is none.
const BYTES_MAX: u64 = 1 << 20;

/// NumPy's names, which MLflow writes.
const DTYPES: [(&str, DType); 10] = [
    ("bool", DType::Bool),
    ("uint8", DType::Uint8),
    ("int8", DType::Int8),
    ("int16", DType::Int16),
    ("int32", DType::Int32),
    ("int64", DType::Int64),
    ("float16", DType::Fp16),
    ("bfloat16", DType::Bf16),
    ("float32", DType::Fp32),
    ("float64", DType::Fp64),
];

#[derive(Deserialize)]
struct MlModel {
    signature: Option<Sides>,
}

/// Each side is JSON in a text.
#[derive(Deserialize)]
struct Sides {
    inputs: Option<String>,
    outputs: Option<String>,
}

#[derive(Deserialize)]
struct Column {
    name: Option<String>,
    #[serde(rename = "tensor-spec")]
    tensor: Option<TensorColumn>,
}

#[derive(Deserialize)]
struct TensorColumn {
    dtype: String,
    shape: Vec<i64>,
}

/// Inputs and outputs.
pub(crate) type Found = (Vec<TensorSpec>, Vec<TensorSpec>);

/// The signature of the model whose folder `dir` is; `None` without `MLmodel`, or when it has no signature.
///
/// # Errors
/// A text: what is wrong with it, and what to do.
pub(crate) fn read(dir: &Path) -> Result<Option<Found>, String> {
    let path = dir.join(FILE);
    let Ok(metadata) = fs::metadata(&path) else { return Ok(None) };
    if metadata.len() > BYTES_MAX {
        return Err(format!("{FILE}: expected at most {BYTES_MAX} bytes, got {}", metadata.len()));
    }
    let text = fs::read_to_string(&path).map_err(|error| format!("{FILE}: {error}"))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Option<Found>, String> {
    let model: MlModel = serde_saphyr::from_str(text).map_err(|error| format!("{FILE}: {error}"))?;
    let Some(Sides { inputs: Some(inputs), outputs }) = model.signature else { return Ok(None) };
    let outputs = outputs.map_or(Ok(Vec::new()), |outputs| side("outputs", &outputs))?;
    Ok(Some((side("inputs", &inputs)?, outputs)))
}

fn side(side: &str, json: &str) -> Result<Vec<TensorSpec>, String> {
    let columns: Vec<Column> =
        serde_json::from_str(json).map_err(|error| format!("{FILE}: signature.{side}: {error}"))?;
    let spec = |(index, column): (usize, &Column)| {
        let fault = |what: String| format!("{FILE}: signature.{side}[{index}]: {what}");
        let Some(tensor) = &column.tensor else {
            return Err(fault(
                "expected a tensor, got a column of a table; log the model with a signature of tensors, or state \
                 inputs and outputs in model.toml"
                    .to_owned(),
            ));
        };
        let known = DTYPES.iter().find(|(name, _)| *name == tensor.dtype);
        let Some((_, dtype)) = known else {
            let names: Vec<&str> = DTYPES.iter().map(|(name, _)| *name).collect();
            return Err(fault(format!("dtype: expected one of {}, got {}", names.join(", "), tensor.dtype)));
        };
        let dim = |(axis, length): (usize, &i64)| match usize::try_from(*length) {
            Ok(length) => Dim::Fixed(length),
            Err(_) => Dim::Dynamic((axis == 0).then(|| BATCH.into())),
        };
        let shape = tensor.shape.iter().enumerate().map(dim).collect();
        let name = column.name.clone().unwrap_or_else(|| signature::unnamed(side == "inputs", index));
        Ok(TensorSpec { name, dtype: *dtype, shape, labels: None })
    };
    columns.iter().enumerate().map(spec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As MLflow writes it: long texts are folded.
    const TEXT: &str = r#"
flavors:
  pytorch:
    model_data: data
    pytorch_version: 2.13.0
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]},
    "name": "x"}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]'
  params: null
"#;

    #[test]
    fn the_signature_of_tensors_is_read() {
        let (inputs, outputs) = parse(TEXT).unwrap().unwrap();
        let shown = |spec: &TensorSpec| format!("{} {}{}", spec.name, spec.dtype, spec.shape_text());
        assert_eq!(
            (shown(&inputs[0]), shown(&outputs[0])),
            ("x FP32[-1,4]".into(), "OUTPUT__0 INT64[-1]".into())
        );
        assert_eq!(parse("flavors: {}").unwrap(), None);
        let check = |json: &str, expected: &str| {
            let text = format!("signature:\n  inputs: '{json}'\n");
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(r#"[{"type": "double", "name": "age"}]"#, "got a column of a table");
        check(r#"[{"type": "tensor", "tensor-spec": {"dtype": "str", "shape": [-1]}}]"#, "got str");
        check("no", "signature.inputs");
    }
}
