//! Raw binary requests: the body is one input's data and nothing else (`Inference-Header-Content-Length: 0`).
//! Must not know JSON.

use bytes::Bytes;
use gannet_models::{DType, Dim};
use gannet_runtime::{
    Tensor, Time,
    servable::Servable,
    tensor::{Shape, push_byte_element, size_bytes},
};

use crate::{
    ask::{Ask, Parameters},
    respond::Refusal,
};

/// The request that `body` stands for: one row of the model's one input. The answer is all binary.
///
/// # Errors
/// When the model has several inputs, several variable axes, or the size does not fit.
pub fn decode(servable: &Servable, body: Bytes, arrived: Time) -> Result<Ask, Refusal> {
    let model = &servable.model;
    let [spec] = &servable.signature.inputs[..] else {
        return Err(Refusal::invalid(format!(
            "a raw binary request takes a model with one input, '{model}' has {}",
            servable.signature.inputs.len()
        )));
    };
    let name = &spec.name;
    let mut shape = Shape::new();
    let mut variable = None;
    for (axis, dim) in spec.shape.iter().enumerate() {
        match dim {
            Dim::Fixed(size) => shape.push(*size),
            Dim::Dynamic(_) if axis == 0 && servable.signature.batched => shape.push(1),
            Dim::Dynamic(_) if variable.is_none() => {
                variable = Some(axis);
                shape.push(1);
            }
            Dim::Dynamic(_) => {
                return Err(Refusal::invalid(format!(
                    "a raw binary request allows one variable axis, input '{name}' of '{model}' has {}",
                    spec.shape_text()
                )));
            }
        }
    }
    let data = match size_bytes(spec.dtype, &shape) {
        None => {
            if spec.dtype != DType::Bytes || shape.iter().any(|&axis| axis != 1) {
                let got = spec.shape_text();
                return Err(Refusal::invalid(format!(
                    "a raw binary BYTES request takes the shape [1], got {got}"
                )));
            }
            // the whole body is the one element, without a length before it
            let mut data = Vec::with_capacity(body.len() + 4);
            push_byte_element(&mut data, &body);
            Bytes::from(data)
        }
        Some(unit) => {
            if let Some(axis) = variable {
                if !body.len().is_multiple_of(unit) {
                    return Err(Refusal::invalid(format!(
                        "input '{name}' takes a multiple of {unit} bytes, got {}",
                        body.len()
                    )));
                }
                shape[axis] = body.len() / unit;
            }
            body
        }
    };
    let tensor = Tensor { dtype: spec.dtype, shape, data };
    let parameters = Parameters { binary_outputs: true, ..Parameters::default() };
    Ok(Ask { inputs: vec![(name.clone(), tensor)], parameters, arrived, ..Ask::default() })
}
