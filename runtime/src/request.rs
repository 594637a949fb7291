//! One inference as the runtime sees it: validated, protocol-free. Must not know how it was written on the wire.

use std::sync::Arc;

use gannet_models::{DType, Signature, TensorSpec};
use smallvec::SmallVec;

use crate::{
    InferError, Tensor, Time,
    tensor::{byte_elements, elements, size_bytes},
};

/// Rows of a request whose inputs hold no value at all, at most. Nothing on the wire pays for such rows, so without a
/// bound a few bytes could ask for any number of runs.
const EMPTY_ROWS_MAX: usize = 1024;

/// Tensors of one request, in the signature's order. Room for the usual one: every byte here is moved several times.
pub type Tensors = SmallVec<[Tensor; 1]>;

/// A request that fits its servable's signature: every input present once, in the signature's order.
#[derive(Debug, Clone)]
pub struct InferRequest {
    /// One tensor for each input of the signature.
    pub inputs: Tensors,
    /// Length of the batch axis; 1 for a model without one.
    pub rows: usize,
    /// 1 is first; 0 takes the model's default.
    pub priority: u32,
    /// After this the answer is worthless.
    pub deadline: Option<Time>,
    /// When the request had arrived whole.
    pub arrived: Time,
}

/// The answer: every output of the signature, in its order.
#[derive(Debug, Clone)]
pub struct InferResponse {
    /// One tensor for each output of the signature.
    pub outputs: Tensors,
    /// Where the time went.
    pub timing: Timing,
}

/// Where the time of one request went, in nanoseconds. The parts of a batch are those of the whole batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// From arrival to the start of assembly.
    pub queue_ns: u64,
    /// Gathering the batch.
    pub assemble_ns: u64,
    /// The backend's run.
    pub compute_ns: u64,
    /// Handing the outputs to the requests.
    pub scatter_ns: u64,
    /// Rows that ran together.
    pub batch_rows: usize,
}

/// A request with its expected answer, for refusing a version that does not give it.
#[derive(Debug, Clone)]
pub struct GoldenCase {
    /// Where it was read from, for messages.
    pub name: Arc<str>,
    /// The request.
    pub request: InferRequest,
    /// (output index, expected tensor)
    pub expected: Vec<(usize, Tensor)>,
    /// Allowed relative difference of floating-point values.
    pub rtol: f64,
    /// Allowed absolute difference of floating-point values.
    pub atol: f64,
}

/// What a request must fit: the signature of the model that will run it.
#[derive(Debug, Clone, Copy)]
pub struct Contract<'a> {
    /// The model's name, for messages.
    pub model: &'a str,
    /// Its inputs and outputs.
    pub signature: &'a Signature,
    /// Rows allowed; `None`: any number (a larger request is run in parts).
    pub rows_max: Option<usize>,
}

/// A request's inputs after the check.
#[derive(Debug, Clone)]
pub struct Checked {
    /// In the signature's order.
    pub inputs: Tensors,
    /// Length of the batch axis; 1 without one.
    pub rows: usize,
}

impl Contract<'_> {
    /// The one place where names, presence, types, ranks, fixed axes, sizes and rows are checked.
    ///
    /// # Errors
    /// [`InferError::Invalid`] naming the input, what was expected and what came.
    pub fn check<N: AsRef<str>>(
        &self,
        given: impl IntoIterator<Item = (N, Tensor)>,
    ) -> Result<Checked, InferError> {
        let specs = &self.signature.inputs;
        let mut slots: SmallVec<[Option<Tensor>; 1]> = SmallVec::new();
        slots.resize_with(specs.len(), || None);
        let mut count = 0;
        for (name, tensor) in given {
            let name = name.as_ref();
            let Some(index) = self.signature.input(name) else {
                return invalid(format!(
                    "unexpected inference input '{name}' for model '{}'; it takes: {}",
                    self.model,
                    names(specs)
                ));
            };
            self.check_tensor(&specs[index], &tensor)?;
            if slots[index].replace(tensor).is_some() {
                return invalid(format!("input '{name}' already exists in request; give each input once"));
            }
            count += 1;
        }
        let mut inputs = Tensors::new();
        for (slot, spec) in slots.into_iter().zip(specs) {
            let Some(tensor) = slot else {
                return invalid(format!(
                    "expected {} inputs but got {count} inputs for model '{}': input '{}' is missing; it takes: {}",
                    specs.len(),
                    self.model,
                    spec.name,
                    names(specs)
                ));
            };
            inputs.push(tensor);
        }
        let rows = self.check_rows(&inputs)?;
        Ok(Checked { inputs, rows })
    }

    fn check_tensor(&self, spec: &TensorSpec, tensor: &Tensor) -> Result<(), InferError> {
        let (name, model) = (&spec.name, self.model);
        if tensor.dtype != spec.dtype {
            return invalid(format!(
                "inference input '{name}' data-type is '{}', but model '{model}' expects '{}'",
                tensor.dtype, spec.dtype
            ));
        }
        let fits = tensor.shape.len() == spec.shape.len()
            && tensor.shape.iter().zip(&spec.shape).all(|(&size, dim)| dim.admits(size));
        if !fits {
            return invalid(format!(
                "unexpected shape for input '{name}' for model '{model}'. Expected {}, got {}",
                spec.shape_text(),
                shape_text(&tensor.shape)
            ));
        }
        check_length(name, tensor)
    }

    fn check_rows(&self, inputs: &Tensors) -> Result<usize, InferError> {
        if !self.signature.batched {
            return Ok(1);
        }
        let rows = inputs[0].shape[0];
        for (tensor, spec) in inputs.iter().zip(&self.signature.inputs) {
            if tensor.shape[0] != rows {
                return invalid(format!(
                    "input '{}' batch size is {}, but input '{}' batch size is {rows}; the first axis of every \
                     input counts the same rows",
                    spec.name, tensor.shape[0], self.signature.inputs[0].name
                ));
            }
        }
        if rows > EMPTY_ROWS_MAX && inputs.iter().all(|tensor| tensor.data.is_empty()) {
            return invalid(format!(
                "input '{}' of shape {} asks for more than {EMPTY_ROWS_MAX} rows without a value; send fewer",
                self.signature.inputs[0].name,
                shape_text(&inputs[0].shape)
            ));
        }
        match self.rows_max {
            Some(limit) if rows > limit => invalid(format!(
                "inference request batch-size must be <= {limit} for '{}', got {rows}; split the request",
                self.model
            )),
            _ => Ok(rows),
        }
    }
}

/// Whether the bytes are those of the shape.
fn check_length(name: &str, tensor: &Tensor) -> Result<(), InferError> {
    let shape = || shape_text(&tensor.shape);
    if tensor.dtype == DType::Bytes {
        let mut count = 0;
        for element in byte_elements(&tensor.data) {
            element.or_else(|damage| invalid(format!("input '{name}': {damage}")))?;
            count += 1;
        }
        return match elements(&tensor.shape) {
            Some(expected) if expected == count => Ok(()),
            Some(expected) => invalid(format!(
                "input '{name}' of shape {} takes {expected} BYTES elements, got {count}",
                shape()
            )),
            None => invalid(format!("input '{name}': the shape {} overflows", shape())),
        };
    }
    match size_bytes(tensor.dtype, &tensor.shape) {
        Some(expected) if expected == tensor.data.len() => Ok(()),
        Some(expected) => invalid(format!(
            "input '{name}' of shape {} and type {} takes {expected} bytes, got {}",
            shape(),
            tensor.dtype,
            tensor.data.len()
        )),
        None => invalid(format!("input '{name}': the shape {} overflows", shape())),
    }
}

fn invalid<T>(message: String) -> Result<T, InferError> {
    Err(InferError::Invalid(message))
}

fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<String> =
        specs.iter().map(|s| format!("'{}' {} {}", s.name, s.dtype, s.shape_text())).collect();
    names.join(", ")
}

/// A shape as text, such as `[2,4]`.
#[must_use]
pub fn shape_text(shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("[{}]", dims.join(","))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gannet_models::Dim;

    use super::*;
    use crate::tensor::Shape;

    fn tensor(dtype: DType, shape: &[usize], bytes: usize) -> Tensor {
        Tensor { dtype, shape: Shape::from_slice(shape), data: Bytes::from(vec![0; bytes]) }
    }

    #[test]
    fn every_misfit_is_named() {
        let spec = |name: &str, dtype, shape: &[Dim]| TensorSpec {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
            labels: None,
        };
        let any = Dim::Dynamic(None);
        let signature = Signature {
            inputs: vec![
                spec("x", DType::Fp32, &[any.clone(), Dim::Fixed(2)]),
                spec("s", DType::Bytes, &[any, Dim::Fixed(1)]),
            ],
            outputs: vec![],
            batched: true,
        };
        let x = |rows| ("x", tensor(DType::Fp32, &[rows, 2], rows * 8));
        let s = |rows| ("s", tensor(DType::Bytes, &[rows, 1], rows * 4));
        let check = |given: &[(&str, Tensor)], expected: &str| {
            let contract = Contract { model: "m", signature: &signature, rows_max: Some(8) };
            let message = match contract.check(given.iter().cloned()) {
                Ok(checked) => format!("{} rows", checked.rows),
                Err(error) => error.to_string(),
            };
            assert!(message.contains(expected), "expected {expected:?} in {message:?}");
        };
        check(&[s(3), x(3)], "3 rows");
        check(&[x(0), s(0)], "0 rows");
        check(&[x(1)], "input 's' is missing");
        check(&[x(1), s(1), x(1)], "input 'x' already exists in request");
        check(&[x(1), s(1), ("z", tensor(DType::Fp32, &[1], 4))], "unexpected inference input 'z'");
        check(
            &[("x", tensor(DType::Fp64, &[1, 2], 16)), s(1)],
            "data-type is 'FP64', but model 'm' expects 'FP32'",
        );
        check(&[("x", tensor(DType::Fp32, &[1, 3], 12)), s(1)], "Expected [-1,2], got [1,3]");
        check(&[("x", tensor(DType::Fp32, &[2], 8)), s(1)], "Expected [-1,2], got [2]");
        check(&[("x", tensor(DType::Fp32, &[1, 2], 7)), s(1)], "takes 8 bytes, got 7");
        check(&[x(1), ("s", tensor(DType::Bytes, &[1, 1], 8))], "takes 1 BYTES elements, got 2");
        check(&[x(1), ("s", tensor(DType::Bytes, &[1, 1], 3))], "cut short");
        check(&[x(2), s(1)], "batch size is 1, but input 'x' batch size is 2");
        let empty = |rows| [("e", tensor(DType::Fp32, &[rows, 0], 0))];
        let signature = Signature {
            inputs: vec![spec("e", DType::Fp32, &[Dim::Dynamic(None), Dim::Dynamic(None)])],
            outputs: vec![],
            batched: true,
        };
        let contract = Contract { model: "m", signature: &signature, rows_max: None };
        assert!(contract.check(empty(1024)).is_ok());
        let message = contract.check(empty(1 << 60)).unwrap_err().to_string();
        assert!(message.contains("more than 1024 rows without a value"), "{message}");
        check(&[x(9), s(9)], "batch-size must be <= 8 for 'm', got 9");
        check(&[("x", tensor(DType::Fp32, &[usize::MAX, 2], 8)), s(1)], "overflows");
    }
}
