//! Requests as bytes: v2 JSON, v2 with binary tensors, or a ModelInferRequest.
//!
//! Built once before a run. Must not know about sockets, or where the tensors come from.

use std::collections::HashMap;

use prost::Message as _;
use serde_json::{Map, Value, json};

use crate::grpc::{InferInputTensor, InferParameter, ModelInferRequest, ParameterChoice};
use crate::tensor::{DataType, Number, Tensor, put_bytes};

/// How requests are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// HTTP with JSON.
    Json,
    /// HTTP with the binary tensor extension, answers in binary too.
    Binary,
    /// gRPC with raw contents.
    Grpc,
}

/// What every request of a run says besides its tensors.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestFacts {
    pub model: String,
    pub version: String,
    /// Microseconds, as the v2 parameter `timeout`.
    pub timeout_us: Option<u64>,
}

/// A request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    pub bytes: Vec<u8>,
    /// Length of the JSON before binary data.
    pub json_bytes: Option<usize>,
}

/// Encodes a request.
pub(crate) fn encode(wire: Wire, facts: &RequestFacts, tensors: &[Tensor]) -> Result<Body, String> {
    match wire {
        Wire::Json => encode_json(facts, tensors),
        Wire::Binary => Ok(encode_binary(facts, tensors)),
        Wire::Grpc => Ok(Body { bytes: encode_grpc(facts, tensors), json_bytes: None }),
    }
}

fn parameters(facts: &RequestFacts) -> Map<String, Value> {
    let timeout = facts.timeout_us.map(|us| ("timeout".to_string(), json!(us)));
    timeout.into_iter().collect()
}

fn head(tensor: &Tensor) -> Map<String, Value> {
    let mut head = Map::new();
    head.insert("name".into(), json!(tensor.name));
    head.insert("shape".into(), json!(tensor.shape));
    head.insert("datatype".into(), json!(tensor.datatype.name()));
    head
}

fn envelope(inputs: Vec<Value>, parameters: Map<String, Value>) -> Vec<u8> {
    let mut request = Map::new();
    if !parameters.is_empty() {
        request.insert("parameters".into(), parameters.into());
    }
    request.insert("inputs".into(), inputs.into());
    Value::from(request).to_string().into_bytes()
}

fn encode_json(facts: &RequestFacts, tensors: &[Tensor]) -> Result<Body, String> {
    let inputs = tensors.iter().map(|tensor| {
        let values = tensor.json_values().ok_or_else(|| {
            format!(
                "input {}: {} data cannot be written as JSON; use --wire binary or a grpc:// URL",
                tensor.name,
                tensor.datatype.name()
            )
        })?;
        let mut input = head(tensor);
        input.insert("data".into(), values.into());
        Ok(input.into())
    });
    Ok(Body { bytes: envelope(inputs.collect::<Result<_, String>>()?, parameters(facts)), json_bytes: None })
}

fn encode_binary(facts: &RequestFacts, tensors: &[Tensor]) -> Body {
    let inputs = tensors.iter().map(|tensor| {
        let mut input = head(tensor);
        input.insert("parameters".into(), json!({"binary_data_size": tensor.data.len()}));
        input.into()
    });
    let mut parameters = parameters(facts);
    parameters.insert("binary_data_output".into(), true.into());
    let mut bytes = envelope(inputs.collect(), parameters);
    let json_bytes = Some(bytes.len());
    tensors.iter().for_each(|tensor| bytes.extend_from_slice(&tensor.data));
    Body { bytes, json_bytes }
}

fn encode_grpc(facts: &RequestFacts, tensors: &[Tensor]) -> Vec<u8> {
    let timeout = facts.timeout_us.map(|us| {
        let choice = ParameterChoice::Int64(i64::try_from(us).unwrap_or(i64::MAX));
        let parameter = InferParameter { parameter_choice: Some(choice) };
        ("timeout".to_string(), parameter)
    });
    let inputs = tensors.iter().map(|tensor| InferInputTensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.name().to_string(),
        shape: tensor.shape.iter().map(|d| *d as i64).collect(),
    });
    ModelInferRequest {
        model_name: facts.model.clone(),
        model_version: facts.version.clone(),
        id: String::new(),
        parameters: timeout.into_iter().collect::<HashMap<_, _>>(),
        inputs: inputs.collect(),
        raw_input_contents: tensors.iter().map(|t| t.data.clone()).collect(),
    }
    .encode_to_vec()
}

/// A body from a file. A v2 JSON request is written for the wire in use; anything else, and JSON
/// for the JSON wire without a timeout to add, goes out as it is.
pub(crate) fn from_file(wire: Wire, facts: &RequestFacts, bytes: Vec<u8>) -> Result<Body, String> {
    let is_json = bytes.trim_ascii_start().starts_with(b"{");
    if !is_json {
        if facts.timeout_us.is_some() {
            return Err("--timeout-us: expected a --body in v2 JSON to add it to, got other \
                        bytes; put the parameter into the file"
                .into());
        }
        return Ok(Body { bytes, json_bytes: None });
    }
    if wire == Wire::Json && facts.timeout_us.is_none() {
        return Ok(Body { bytes, json_bytes: None });
    }
    let mut request: Value = serde_json::from_slice(&bytes)
        .map_err(|error| format!("expected a v2 JSON request, got invalid JSON: {error}"))?;
    if wire == Wire::Json {
        if let (Some(us), Some(object)) = (facts.timeout_us, request.as_object_mut()) {
            let parameters = object.entry("parameters").or_insert_with(|| json!({}));
            if let Some(parameters) = parameters.as_object_mut() {
                parameters.insert("timeout".into(), json!(us));
            }
        }
        return Ok(Body { bytes: request.to_string().into_bytes(), json_bytes: None });
    }
    encode(wire, facts, &tensors_of(&request)?)
}

fn tensors_of(request: &Value) -> Result<Vec<Tensor>, String> {
    let inputs = request
        .get("inputs")
        .and_then(Value::as_array)
        .ok_or("expected a v2 request with \"inputs\", got none; correct the file or use --wire json")?;
    inputs.iter().map(tensor_of).collect()
}

fn tensor_of(input: &Value) -> Result<Tensor, String> {
    let text = |key: &str| input.get(key).and_then(Value::as_str).unwrap_or("");
    let name = text("name").to_string();
    let datatype = DataType::parse(text("datatype"))
        .ok_or_else(|| format!("inputs.{name}.datatype: expected a v2 type, got {:?}", text("datatype")))?;
    let shape: Vec<usize> = input
        .get("shape")
        .and_then(|shape| serde_json::from_value(shape.clone()).ok())
        .ok_or_else(|| format!("inputs.{name}.shape: expected an array of sizes"))?;
    let mut data = Vec::new();
    let mut elements = 0;
    let values = input.get("data").ok_or_else(|| format!("inputs.{name}.data is missing"))?;
    put_values(datatype, values, &mut data, &mut elements)
        .map_err(|value| format!("inputs.{name}.data: {value} does not fit {}", text("datatype")))?;
    let expected = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    if expected != Some(elements) {
        return Err(format!(
            "inputs.{name}.data: expected as many values as shape {shape:?} has, got {elements}; \
             correct one of them"
        ));
    }
    Ok(Tensor { name, datatype, shape, data })
}

/// Nested or flat values; the value that does not fit is the error. serde_json bounds the depth.
fn put_values(
    datatype: DataType,
    value: &Value,
    data: &mut Vec<u8>,
    elements: &mut usize,
) -> Result<(), String> {
    if let Value::Array(values) = value {
        return values.iter().try_for_each(|v| put_values(datatype, v, data, elements));
    }
    *elements += 1;
    let fits = match value {
        Value::String(text) if datatype == DataType::Bytes => {
            put_bytes(data, text.as_bytes());
            true
        }
        Value::Number(_) | Value::Bool(_) => {
            Number::parse(&value.to_string()).is_some_and(|number| datatype.put_number(data, number))
        }
        _ => false,
    };
    fits.then_some(()).ok_or_else(|| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(timeout_us: Option<u64>) -> RequestFacts {
        RequestFacts { model: "m".into(), version: "2".into(), timeout_us }
    }

    fn tensor() -> Tensor {
        Tensor {
            name: "x".into(),
            datatype: DataType::Fp32,
            shape: vec![1, 2],
            data: [1.5f32.to_le_bytes(), 0.1f32.to_le_bytes()].concat(),
        }
    }

    const JSON: &str = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1.5,0.1]}]}"#;

    #[test]
    fn json_and_binary() {
        let body = encode(Wire::Json, &facts(None), &[tensor()]).unwrap();
        assert_eq!(str::from_utf8(&body.bytes).unwrap(), JSON);
        let body = encode(Wire::Binary, &facts(Some(9)), &[tensor()]).unwrap();
        let (json, data) = body.bytes.split_at(body.json_bytes.unwrap());
        assert_eq!(data, tensor().data);
        let json: Value = serde_json::from_slice(json).unwrap();
        assert_eq!(json["parameters"], json!({"timeout": 9, "binary_data_output": true}));
        assert_eq!(json["inputs"][0]["parameters"]["binary_data_size"], 8);
        let half = Tensor { datatype: DataType::Fp16, ..tensor() };
        assert!(encode(Wire::Json, &facts(None), &[half]).is_err());
    }

    #[test]
    fn grpc_carries_the_same_tensors() {
        let body = encode(Wire::Grpc, &facts(Some(5)), &[tensor()]).unwrap();
        let request = ModelInferRequest::decode(&body.bytes[..]).unwrap();
        assert_eq!((request.model_name.as_str(), request.model_version.as_str()), ("m", "2"));
        assert_eq!(request.inputs[0].shape, [1, 2]);
        assert_eq!(request.raw_input_contents, [tensor().data]);
        assert!(request.parameters.contains_key("timeout"));
    }

    #[test]
    fn files_are_written_for_the_wire() {
        let file = JSON.as_bytes().to_vec();
        let same = |wire| {
            assert_eq!(
                from_file(wire, &facts(None), file.clone()).unwrap(),
                encode(wire, &facts(None), &[tensor()]).unwrap()
            );
        };
        same(Wire::Json);
        same(Wire::Binary);
        same(Wire::Grpc);
        let timed = from_file(Wire::Json, &facts(Some(7)), file.clone()).unwrap();
        let timed: Value = serde_json::from_slice(&timed.bytes).unwrap();
        assert_eq!(timed["parameters"]["timeout"], 7);
        assert!(from_file(Wire::Json, &facts(Some(7)), b"\x01".to_vec()).is_err());
        assert_eq!(from_file(Wire::Grpc, &facts(None), b"\x01".to_vec()).unwrap().bytes, [1]);
        let short = JSON.replace("1.5,0.1", "1.5");
        let error = from_file(Wire::Binary, &facts(None), short.into()).unwrap_err();
        assert!(error.contains("shape [1, 2] has, got 1"), "{error}");
    }
}
