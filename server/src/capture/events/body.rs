//! The bodies of events: a request and its answer as the protocol's JSON, with what may leave of them. Pure. Must not know
//! how they are sent.

use bytes::Bytes;
use gannet_capture::{Column, Redacted, Row, Rows, Values};
use gannet_models::{DType, redaction::Side};
use gannet_runtime::{Tensor, tensor::push_byte_element};

use crate::http::json::write;

/// Both bodies. A masked tensor has a shape and no data, a hashed one texts, and a parameter says so; a dropped one is
/// not there. Half-wide types, which have no form in JSON, are told of as FP32, as in the table.
///
/// # Errors
/// A text for values that have no form in JSON.
pub(super) fn of(rows: &Rows, row: &Row, model: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for (column, values) in rows.redacted(row) {
        let side = if column.side == Side::Input { &mut inputs } else { &mut outputs };
        if !side.is_empty() {
            side.push(b',');
        }
        tensor(side, column, &values)?;
    }
    let mut request = b"{\"id\":".to_vec();
    write::text(&mut request, &row.id);
    close(&mut request, ",\"inputs\":[", &inputs);
    let mut response = b"{\"model_name\":".to_vec();
    write::text(&mut response, model);
    response.extend_from_slice(b",\"model_version\":");
    write::text(&mut response, &row.version);
    response.extend_from_slice(b",\"id\":");
    write::text(&mut response, &row.id);
    close(&mut response, ",\"outputs\":[", &outputs);
    Ok((request, response))
}

fn close(body: &mut Vec<u8>, name: &str, tensors: &[u8]) {
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(tensors);
    body.extend_from_slice(b"]}");
}

fn tensor(out: &mut Vec<u8>, column: &Column, values: &Redacted<'_>) -> Result<(), String> {
    let mut head = |dtype: DType, shape: &[usize]| {
        out.extend_from_slice(b"{\"name\":");
        write::text(out, &column.tensor);
        out.extend_from_slice(b",\"datatype\":\"");
        out.extend_from_slice(dtype.name().as_bytes());
        out.extend_from_slice(b"\",\"shape\":");
        write::shape(out, shape);
    };
    match values {
        Redacted::Plain(values) => {
            let tensor = wide(column.dtype, values);
            head(tensor.dtype, &tensor.shape);
            data(out, &tensor)?;
        }
        Redacted::Masked(shape) => {
            head(column.dtype, shape);
            out.extend_from_slice(b",\"parameters\":{\"redacted\":\"mask\"}");
        }
        Redacted::Hashed(shape, hashes) => {
            head(DType::Bytes, shape);
            out.extend_from_slice(b",\"parameters\":{\"redacted\":\"hash\"}");
            let mut texts = Vec::new();
            hashes.iter().for_each(|hash| push_byte_element(&mut texts, hash.as_bytes()));
            let shape = shape.iter().copied().collect();
            data(out, &Tensor { dtype: DType::Bytes, shape, data: Bytes::from(texts) })?;
        }
    }
    out.push(b'}');
    Ok(())
}

fn data(out: &mut Vec<u8>, tensor: &Tensor) -> Result<(), String> {
    out.extend_from_slice(b",\"data\":");
    write::elements(out, tensor)
}

/// The values in a type that JSON has a form for.
fn wide(dtype: DType, values: &Values) -> Tensor {
    let shape = values.shape.iter().copied().collect();
    let halves = values.data.as_chunks::<2>().0.iter();
    let data: Vec<u8> = match dtype {
        DType::Fp16 => {
            halves.flat_map(|half| half::f16::from_le_bytes(*half).to_f32().to_le_bytes()).collect()
        }
        DType::Bf16 => {
            halves.flat_map(|half| half::bf16::from_le_bytes(*half).to_f32().to_le_bytes()).collect()
        }
        dtype => return Tensor { dtype, shape, data: values.data.clone() },
    };
    Tensor { dtype: DType::Fp32, shape, data: Bytes::from(data) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gannet_capture::{Latency, Layout};
    use gannet_models::{Dim, Redaction, RedactionKey, Redactor, Signature, TensorSpec, redaction::Method};
    use serde_json::{Value, json};
    use smallvec::smallvec;

    use super::*;

    fn row(inputs: [(DType, &[u8]); 5]) -> (Signature, Row) {
        let spec = |(name, dtype): (&str, DType)| TensorSpec {
            name: name.into(),
            dtype,
            shape: vec![Dim::Dynamic(None)],
            labels: None,
        };
        let names = ["plain", "half", "masked", "hashed", "dropped"];
        let signature = Signature {
            inputs: names.into_iter().zip(inputs).map(|(name, (dtype, _))| spec((name, dtype))).collect(),
            outputs: vec![spec(("y", DType::Fp32))],
            batched: true,
        };
        let values = |data: &[u8]| Values { shape: smallvec![2], data: Bytes::copy_from_slice(data) };
        let row = Row {
            id: "a\"1".into(),
            time_us: 0,
            version: "2".into(),
            arm: None,
            sequence: 0,
            probability: 1.0,
            rows: 2,
            latency: Latency::default(),
            inputs: inputs.iter().map(|(_, data)| values(data)).collect(),
            outputs: smallvec![values(&[0.5f32, f32::NAN].map(f32::to_le_bytes).concat())],
        };
        (signature, row)
    }

    fn bodies(signature: &Signature, row: &Row) -> Result<(Value, Value), String> {
        let methods = [("masked", Method::Mask), ("hashed", Method::Hash), ("dropped", Method::Drop)];
        let inputs = methods.map(|(name, method)| (name.to_owned(), method)).into();
        let redaction = Redaction { inputs, ..Redaction::default() };
        let key = RedactionKey::new(b"0123456789abcdef").unwrap();
        let redactor = Redactor::new(redaction, Some(key));
        let layout = Arc::new(Layout::new(signature, &redactor));
        let rows = Rows::new(layout, signature, redactor, ("m", "here"));
        let (request, response) = of(&rows, row, "m")?;
        Ok((serde_json::from_slice(&request).unwrap(), serde_json::from_slice(&response).unwrap()))
    }

    #[test]
    fn bodies_are_the_protocols_with_what_may_leave() {
        let halves = [1.5f32, -2.0].map(|value| half::f16::from_f32(value).to_le_bytes()).concat();
        let hashed = [42u8, 42];
        let (signature, row) = row([
            (DType::Bytes, b"\x02\0\0\0\xc3\xbc\0\0\0\0"),
            (DType::Fp16, &halves),
            (DType::Uint8, &[77, 78]),
            (DType::Uint8, &hashed),
            (DType::Uint8, &[79, 80]),
        ]);
        let (request, response) = bodies(&signature, &row).unwrap();
        // printf 42 | openssl dgst -sha256 -hmac 0123456789abcdef
        let hash = "8d24a2a526d5f556469db8b6280e3a7b877a41155ca536be3a1f2a9d2be0eacd";
        let expected = json!({ "id": "a\"1", "inputs": [
            { "name": "plain", "datatype": "BYTES", "shape": [2], "data": ["ü", ""] },
            { "name": "half", "datatype": "FP32", "shape": [2], "data": [1.5, -2.0] },
            { "name": "masked", "datatype": "UINT8", "shape": [2], "parameters": { "redacted": "mask" } },
            { "name": "hashed", "datatype": "BYTES", "shape": [2], "parameters": { "redacted": "hash" },
              "data": [hash, hash] },
        ]});
        assert_eq!(request, expected);
        let expected = json!({ "model_name": "m", "model_version": "2", "id": "a\"1", "outputs": [
            { "name": "y", "datatype": "FP32", "shape": [2], "data": [0.5, null] },
        ]});
        assert_eq!(response, expected);
    }

    #[test]
    fn texts_that_are_none_are_refused() {
        let none: (DType, &[u8]) = (DType::Uint8, &[1, 2]);
        let (signature, row) = row([(DType::Bytes, b"\x01\0\0\0\xff\0\0\0\0"), none, none, none, none]);
        assert!(bodies(&signature, &row).unwrap_err().contains("UTF-8"));
    }
}
