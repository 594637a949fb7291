//! The example request that MLflow stores with a model, read as a request without an answer. It shows that the model
//! runs, and no more. Must not know where it is stored.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use gannet_models::Signature;
use gannet_runtime::{
    InferRequest, clock,
    request::{Contract, GoldenCase},
};
use serde_json::{Value, json};

use super::FILE_BYTES_MAX;
use crate::http::codec;

/// Axes of one tensor.
const AXES_MAX: usize = 16;

/// Reads an example; `None` where it is one of columns, which name no tensors.
pub(super) fn read(
    path: &Path,
    name: &str,
    model: &str,
    signature: &Signature,
) -> Result<Option<GoldenCase>, String> {
    let fault = |what: &dyn std::fmt::Display| format!("{name}: {what}");
    let size = fs::metadata(path).map_err(|error| fault(&error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(fault(&format_args!("has {size} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    let text = fs::read_to_string(path).map_err(|error| fault(&error))?;
    let example: Value = serde_json::from_str(&text).map_err(|error| fault(&error))?;
    let Some(body) = request(&example, signature) else { return Ok(None) };
    let body = body.to_string();
    let length = body.len();
    let ask =
        codec::decode(&Bytes::from(body), length, clock::now()).map_err(|refusal| fault(&refusal.message))?;
    let contract = Contract { model, signature, rows_max: None };
    let checked = contract.check(ask.inputs).map_err(|error| fault(&error))?;
    let request = InferRequest {
        inputs: checked.inputs,
        rows: checked.rows,
        priority: 0,
        deadline: None,
        arrived: clock::now(),
    };
    Ok(Some(GoldenCase { name: Arc::from(name), request, expected: Vec::new(), rtol: 0.0, atol: 0.0 }))
}

/// The example as a request of the protocol, where it names tensors or is the only one.
fn request(example: &Value, signature: &Signature) -> Option<Value> {
    let inputs = example.get("inputs")?;
    let named: Vec<(&str, &Value)> = match inputs {
        Value::Object(map) => map.iter().map(|(name, value)| (name.as_str(), value)).collect(),
        value => match &signature.inputs[..] {
            [only] => vec![(only.name.as_str(), value)],
            _ => return None,
        },
    };
    let mut tensors = Vec::new();
    for (name, value) in named {
        let spec = &signature.inputs[signature.input(name)?];
        let (mut shape, mut data) = (Vec::new(), Vec::new());
        let mut level = value;
        while let Value::Array(items) = level {
            shape.push(items.len());
            level = items.first().filter(|_| shape.len() < AXES_MAX)?;
        }
        flatten(value, &mut data);
        tensors.push(json!({ "name": name, "shape": shape, "datatype": spec.dtype.name(), "data": data }));
    }
    Some(json!({ "inputs": tensors }))
}

fn flatten<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        value => into.push(value),
    }
}

#[cfg(test)]
mod tests {
    use gannet_models::{DType, Dim, TensorSpec};

    use super::*;

    #[test]
    fn examples_of_tensors_become_requests() {
        let spec = |name: &str| TensorSpec {
            name: name.into(),
            dtype: DType::Fp32,
            shape: vec![Dim::Dynamic(None), Dim::Fixed(2)],
            labels: None,
        };
        let one = Signature { inputs: vec![spec("X")], ..Signature::default() };
        let expected =
            json!({ "inputs": [{ "name": "X", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4] }] });
        let tensor = json!([[1, 2], [3, 4]]);
        assert_eq!(request(&json!({ "inputs": tensor }), &one), Some(expected.clone()));
        assert_eq!(request(&json!({ "inputs": { "X": tensor } }), &one), Some(expected));
        assert_eq!(request(&json!({ "inputs": { "sepal length": [1] } }), &one), None);
        assert_eq!(request(&json!({ "dataframe_split": {} }), &one), None);
        let two = Signature { inputs: vec![spec("a"), spec("b")], ..Signature::default() };
        assert_eq!(request(&json!({ "inputs": tensor }), &two), None);
    }
}
