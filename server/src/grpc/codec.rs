//! From a request's message to an [`Ask`], and from an [`Answer`] to its message. Raw values are taken over and given
//! out without copying. Must not know models: whether a tensor fits is decided behind this.

mod contents;

use std::collections::HashMap;

use gannet_models::DType;
use gannet_runtime::{
    Tensor, Time,
    tensor::{Shape, elements},
};

use super::pb::{
    self, InferParameter, infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
    model_infer_request::InferRequestedOutputTensor, model_infer_response::InferOutputTensor,
};
use crate::{
    ask::{Answer, Ask, OutputAsk, Parameter},
    respond::{Kind, Refusal},
};

/// A request that was read.
#[derive(Debug)]
pub(super) struct Question {
    /// The model asked.
    pub(super) model: String,
    /// A version or label, if one is named.
    pub(super) version: Option<String>,
    /// What is asked.
    pub(super) ask: Ask,
    /// Whether values came raw; then they are answered raw.
    pub(super) raw: bool,
}

/// Where a version or label is named by a text that may be empty.
pub(super) fn named(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Reads a request that had `arrived` whole.
///
/// # Errors
/// When the message contradicts itself or asks for what is not offered, naming the input or parameter.
pub(super) fn read(
    request: pb::ModelInferRequest,
    arrived: Time,
    deadline: Option<Time>,
) -> Result<Question, Refusal> {
    let pb::ModelInferRequest {
        model_name,
        model_version,
        id,
        parameters,
        inputs,
        outputs,
        raw_input_contents,
    } = request;
    let mut ask = Ask { id, arrived, deadline, ..Ask::default() };
    for (name, value) in parameters {
        if let Some(value) = parameter(value) {
            ask.set_parameter(&name, value)?;
        }
    }
    let raw = !raw_input_contents.is_empty();
    if raw && raw_input_contents.len() != inputs.len() {
        return Err(Refusal::invalid(format!(
            "'raw_input_contents' has one entry for each input, in their order: expected {}, got {}",
            inputs.len(),
            raw_input_contents.len()
        )));
    }
    ask.inputs.reserve(inputs.len());
    let mut raw_contents = raw_input_contents.into_iter();
    for input in inputs {
        let (dtype, shape) = check_input(&input)?;
        let InferInputTensor { name, contents, .. } = input;
        let data = match (raw_contents.next(), contents) {
            (Some(_), Some(contents)) if contents::field(&contents).is_some() => {
                return Err(Refusal::invalid(format!(
                    "input '{name}' has 'contents', and the request has 'raw_input_contents'; use one of the two for \
                     all inputs"
                )));
            }
            (Some(data), _) => data,
            (None, contents) => {
                let tensor = contents::Place { input: &name, dtype, shape: &shape };
                contents::to_bytes(tensor, &contents.unwrap_or_default())?
            }
        };
        ask.inputs.push((name, Tensor { dtype, shape, data }));
    }
    ask.outputs = outputs.into_iter().map(read_output).collect::<Result<_, _>>()?;
    Ok(Question { model: model_name, version: named(model_version), ask, raw })
}

/// Writes an answer, its values raw if the request's were. Values of types that have no field of their own are always
/// raw, and then so are all.
pub(super) fn write(answer: &Answer, raw: bool) -> pb::ModelInferResponse {
    let mut message = pb::ModelInferResponse {
        model_name: answer.servable.model.to_string(),
        model_version: answer.servable.version.to_string(),
        id: answer.id.clone(),
        ..pb::ModelInferResponse::default()
    };
    if let Some(arm) = &answer.arm {
        let version = ParameterChoice::StringParam(arm.version().to_string());
        let parameter = InferParameter { parameter_choice: Some(version) };
        message.parameters.insert("gannet_arm".to_owned(), parameter);
    }
    let typed = |output| contents::answered_typed(answer.tensor(output).dtype);
    let typed = !raw && answer.outputs.iter().all(typed);
    message.outputs.reserve_exact(answer.outputs.len());
    for output in &answer.outputs {
        let Tensor { dtype, shape, data } = answer.tensor(output);
        message.outputs.push(InferOutputTensor {
            name: answer.servable.signature.outputs[output.index].name.clone(),
            datatype: dtype.name().to_owned(),
            shape: shape.iter().map(|&axis| i64::try_from(axis).unwrap_or(i64::MAX)).collect(),
            parameters: HashMap::new(),
            contents: if typed { contents::from_bytes(*dtype, data) } else { None },
        });
        if !typed {
            message.raw_output_contents.push(data.clone());
        }
    }
    message
}

/// Type and shape of an input, once its parameters ask for nothing that is not offered.
fn check_input(input: &InferInputTensor) -> Result<(DType, Shape), Refusal> {
    let name = &input.name;
    check_parameters("input", name, &input.parameters)?;
    let Some(dtype) = DType::parse(&input.datatype) else {
        let all: Vec<&str> = DType::all().map(DType::name).collect();
        return Err(Refusal::invalid(format!(
            "input '{name}': expected a datatype out of {}, got '{}'",
            all.join(", "),
            input.datatype
        )));
    };
    let mut shape = Shape::with_capacity(input.shape.len());
    for &axis in &input.shape {
        match usize::try_from(axis) {
            Ok(axis) => shape.push(axis),
            Err(_) => {
                return Err(Refusal::invalid(format!(
                    "input '{name}': expected axes of 0 and more, got shape {:?}",
                    input.shape
                )));
            }
        }
    }
    let bytes = elements(&shape).and_then(|count| count.checked_mul(dtype.size_bytes().unwrap_or(1)));
    if bytes.is_none() {
        return Err(Refusal::invalid(format!(
            "input '{name}': shape {:?} of {dtype} overflows the count of its bytes",
            input.shape
        )));
    }
    Ok((dtype, shape))
}

fn read_output(output: InferRequestedOutputTensor) -> Result<OutputAsk, Refusal> {
    let InferRequestedOutputTensor { name, parameters } = output;
    check_parameters("output", &name, &parameters)?;
    let classes = match parameters.get("classification").cloned().and_then(parameter) {
        None => 0,
        Some(Parameter::Int(classes)) if classes >= 0 => usize::try_from(classes).unwrap_or(usize::MAX),
        Some(other) => {
            return Err(Refusal::invalid(format!(
                "output '{name}': parameter 'classification' must be a whole number of classes, 0 or more, got {other:?}"
            )));
        }
    };
    Ok(OutputAsk { name, binary: None, classes })
}

/// Of the parameters of one tensor, those for shared memory cannot be ignored: the values would be missing.
fn check_parameters(
    kind: &str,
    name: &str,
    parameters: &HashMap<String, InferParameter>,
) -> Result<(), Refusal> {
    match parameters.keys().find(|key| key.starts_with("shared_memory_")) {
        None => Ok(()),
        Some(key) => Err(Refusal::new(
            Kind::Unsupported,
            format!(
                "{kind} '{name}': parameter '{key}': shared memory is not offered; send the values themselves"
            ),
        )),
    }
}

/// A parameter's value; `None`: it has none.
fn parameter(value: InferParameter) -> Option<Parameter> {
    Some(match value.parameter_choice? {
        ParameterChoice::BoolParam(value) => Parameter::Bool(value),
        ParameterChoice::Int64Param(value) => Parameter::Int(value),
        ParameterChoice::StringParam(value) => Parameter::Text(value),
        ParameterChoice::DoubleParam(value) => Parameter::Double(value),
        ParameterChoice::Uint64Param(value) => match i64::try_from(value) {
            Ok(value) => Parameter::Int(value),
            // Nothing here takes that much; the name's own check says so, or it is left to the model.
            Err(_) => Parameter::Double(value as f64),
        },
    })
}

#[cfg(test)]
mod tests;
