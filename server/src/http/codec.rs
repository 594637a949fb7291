//! The inference body: JSON, with tensors in it or as bytes behind it, to and from [`Ask`] and [`Answer`].
//! Must not know models: what a request must fit is checked elsewhere.

pub mod answer;

use bytes::Bytes;
use gannet_models::DType;
use gannet_runtime::{
    Tensor, Time,
    request::shape_text,
    tensor::{Shape, elements, push_byte_element},
};

use super::json::{JsonError, Kind, Reader, number, write};
use crate::{
    ask::{Answer, Ask, OutputAsk, Parameter},
    respond::Refusal,
};

/// Axes that a tensor may have.
const RANK_MAX: usize = 32;
/// Inputs and outputs that one request may name.
const TENSORS_MAX: usize = 4096;

impl From<JsonError> for Refusal {
    fn from(error: JsonError) -> Self {
        Self::invalid(format!("failed to parse the request JSON: {error}"))
    }
}

/// One input as it is read, before its bytes are known.
#[derive(Default)]
struct Input {
    name: String,
    shape: Option<Shape>,
    dtype: Option<DType>,
    binary_bytes: Option<usize>,
    /// Where `data` begins, when it came before shape and type.
    data_at: Option<usize>,
    data: Option<Bytes>,
}

/// Reads a request whose first `json_length` bytes are JSON and whose rest are binary tensors.
///
/// # Errors
/// A refusal naming the field, what was expected and what came.
pub fn decode(body: &Bytes, json_length: usize, arrived: Time) -> Result<Ask, Refusal> {
    let mut ask = Ask { arrived, inputs: Vec::with_capacity(1), ..Ask::default() };
    // where the next binary tensor begins
    let mut at = json_length;
    let mut reader = Reader::new(&body[..json_length])?;
    reader.object::<Refusal>(|reader, key| {
        match key {
            "id" => ask.id = reader.text()?.into_owned(),
            "parameters" => parameters(reader, |name, value| ask.set_parameter(name, value))?,
            "inputs" => tensors(reader, (&mut ask.inputs, "inputs"), body, &mut at)?,
            "outputs" => reader.list::<Refusal>(|reader| {
                bounded(ask.outputs.len(), "outputs")?;
                ask.outputs.push(output(reader)?);
                Ok(())
            })?,
            // the protocol allows more fields, and clients send them
            _ => drop(reader.skip()?),
        }
        Ok(())
    })?;
    reader.end()?;
    if at != body.len() {
        return Err(Refusal::invalid(format!(
            "unexpected additional input data: {} bytes follow the last binary tensor",
            body.len() - at
        )));
    }
    Ok(ask)
}

/// Reads a list of tensors behind those that are known; `at` is where the next binary one begins.
fn tensors(
    reader: &mut Reader<'_>,
    (list, what): (&mut Vec<(String, Tensor)>, &str),
    body: &Bytes,
    at: &mut usize,
) -> Result<(), Refusal> {
    reader.list::<Refusal>(|reader| {
        bounded(list.len(), what)?;
        list.push(finish(input(reader)?, body, at)?);
        Ok(())
    })
}

fn bounded(count: usize, what: &str) -> Result<(), Refusal> {
    if count < TENSORS_MAX {
        return Ok(());
    }
    Err(Refusal::invalid(format!("more than {TENSORS_MAX} {what}")))
}

fn input(reader: &mut Reader<'_>) -> Result<Input, Refusal> {
    let mut input = Input::default();
    reader.object::<Refusal>(|reader, key| {
        match key {
            "name" => input.name = reader.text()?.into_owned(),
            "shape" => input.shape = Some(shape(reader, &input.name)?),
            "datatype" => {
                let text = reader.text()?;
                let unknown = || {
                    let known: Vec<&str> = DType::all().map(DType::name).collect();
                    Refusal::invalid(format!(
                        "input '{}' has the datatype '{text}'; expected one of {}",
                        input.name,
                        known.join(", ")
                    ))
                };
                input.dtype = Some(DType::parse(&text).filter(|d| d.name() == text).ok_or_else(unknown)?);
            }
            "parameters" => parameters(reader, |name, value| input_parameter(&mut input, name, &value))?,
            "data" => match (&input.shape, input.dtype) {
                (Some(shape), Some(dtype)) => input.data = Some(data(reader, &input.name, dtype, shape)?),
                _ => {
                    input.data_at = Some(reader.offset());
                    reader.skip()?;
                }
            },
            _ => drop(reader.skip()?),
        }
        Ok(())
    })?;
    if let (Some(at), Some(shape), Some(dtype)) = (input.data_at, &input.shape, input.dtype) {
        let mut again = reader.clone();
        again.rewind(at);
        input.data = Some(data(&mut again, &input.name, dtype, shape)?);
    }
    Ok(input)
}

fn input_parameter(input: &mut Input, name: &str, value: &Parameter) -> Result<(), Refusal> {
    if name == "binary_data_size" {
        let size = match value {
            Parameter::Int(size) => usize::try_from(*size).ok(),
            _ => None,
        };
        let wrong = || {
            let input = &input.name;
            Refusal::invalid(format!(
                "input '{input}': 'binary_data_size' must be a whole number of bytes, 0 or more"
            ))
        };
        input.binary_bytes = Some(size.ok_or_else(wrong)?);
    } else if name.starts_with("shared_memory_") {
        let input = &input.name;
        let message = format!("input '{input}': shared memory is not offered; send the data in the request");
        return Err(Refusal::new(crate::respond::Kind::Unsupported, message));
    }
    Ok(())
}

/// Reads an object of parameters; values are texts, numbers or booleans.
fn parameters(
    reader: &mut Reader<'_>,
    mut set: impl FnMut(&str, Parameter) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    reader.object::<Refusal>(|reader, name| {
        let wrong =
            || Refusal::invalid(format!("parameter '{name}' must be a string, a number or a boolean"));
        let value = match reader.kind()? {
            Kind::Text => Parameter::Text(reader.text()?.into_owned()),
            Kind::Bool => Parameter::Bool(reader.boolean()?),
            Kind::Number => {
                let value = reader.value()?;
                match value.as_i64() {
                    Some(value) => Parameter::Int(value),
                    None => Parameter::Double(value.as_f64().ok_or_else(wrong)?),
                }
            }
            Kind::Object | Kind::List | Kind::Null => return Err(wrong()),
        };
        set(name, value)
    })
}

fn shape(reader: &mut Reader<'_>, input: &str) -> Result<Shape, Refusal> {
    let mut shape = Shape::new();
    reader.list::<Refusal>(|reader| {
        // engines and answers count axes with a sign
        let axis = match number::small(reader) {
            Some(axis) => axis,
            None => {
                let text = std::str::from_utf8(reader.skip()?).unwrap_or("?");
                text.parse::<usize>().ok().filter(|&axis| i64::try_from(axis).is_ok()).ok_or_else(|| {
                    Refusal::invalid(format!(
                        "input '{input}': the shape holds {text}; expected whole numbers, 0 or more"
                    ))
                })?
            }
        };
        if shape.len() == RANK_MAX {
            return Err(Refusal::invalid(format!(
                "input '{input}': the shape has more than {RANK_MAX} axes"
            )));
        }
        shape.push(axis);
        Ok(())
    })?;
    Ok(shape)
}

/// Reads `data`, flat or nested, into little-endian bytes.
fn data(reader: &mut Reader<'_>, input: &str, dtype: DType, shape: &Shape) -> Result<Bytes, Refusal> {
    let name_it = |error: JsonError| Refusal::invalid(format!("input '{input}' {dtype}: {error}"));
    let Some(expected) = elements(shape) else {
        return Err(Refusal::invalid(format!("input '{input}': the shape {} overflows", shape_text(shape))));
    };
    // a number and its comma take two bytes of text at least, so this bounds what a lying shape can cost
    let bytes = expected.saturating_mul(dtype.size_bytes().unwrap_or(4));
    let mut out = Vec::with_capacity(bytes.min(reader.remaining().saturating_mul(4)));
    let count = match dtype {
        DType::Bool => number::elements(reader, &mut out, expected, &mut |reader, out| {
            out.push(u8::from(reader.boolean()?));
            Ok(())
        }),
        DType::Uint8 => number::numbers::<u8>(reader, &mut out, expected),
        DType::Uint16 => number::numbers::<u16>(reader, &mut out, expected),
        DType::Uint32 => number::numbers::<u32>(reader, &mut out, expected),
        DType::Uint64 => number::numbers::<u64>(reader, &mut out, expected),
        DType::Int8 => number::numbers::<i8>(reader, &mut out, expected),
        DType::Int16 => number::numbers::<i16>(reader, &mut out, expected),
        DType::Int32 => number::numbers::<i32>(reader, &mut out, expected),
        DType::Int64 => number::numbers::<i64>(reader, &mut out, expected),
        DType::Fp32 => number::numbers::<f32>(reader, &mut out, expected),
        DType::Fp64 => number::numbers::<f64>(reader, &mut out, expected),
        DType::Bytes => number::elements(reader, &mut out, expected, &mut |reader, out| {
            push_byte_element(out, reader.text()?.as_bytes());
            Ok(())
        }),
        DType::Fp16 | DType::Bf16 => {
            return Err(Refusal::invalid(format!(
                "input '{input}': {dtype} has no JSON form; send it as binary data (parameter 'binary_data_size')"
            )));
        }
    };
    let count = count.map_err(name_it)?;
    if count != expected {
        return Err(Refusal::invalid(format!(
            "input '{input}' of shape {} takes {expected} values, got {count}",
            shape_text(shape)
        )));
    }
    Ok(Bytes::from(out))
}

fn output(reader: &mut Reader<'_>) -> Result<OutputAsk, Refusal> {
    let mut output = OutputAsk::default();
    reader.object::<Refusal>(|reader, key| {
        match key {
            "name" => output.name = reader.text()?.into_owned(),
            "parameters" => parameters(reader, |name, value| output_parameter(&mut output, name, &value))?,
            _ => drop(reader.skip()?),
        }
        Ok(())
    })?;
    if output.name.is_empty() {
        return Err(Refusal::invalid("an element of 'outputs' has no 'name'"));
    }
    Ok(output)
}

fn output_parameter(output: &mut OutputAsk, name: &str, value: &Parameter) -> Result<(), Refusal> {
    match (name, value) {
        ("binary_data", Parameter::Bool(binary)) => output.binary = Some(*binary),
        ("classification", Parameter::Int(classes)) if *classes >= 0 => {
            output.classes = usize::try_from(*classes).unwrap_or(usize::MAX);
        }
        ("binary_data" | "classification", _) => {
            let output = &output.name;
            return Err(Refusal::invalid(format!(
                "output '{output}': parameter '{name}' has a value of a wrong type"
            )));
        }
        (name, _) if name.starts_with("shared_memory_") => {
            let output = &output.name;
            let message =
                format!("output '{output}': shared memory is not offered; read the data from the answer");
            return Err(Refusal::new(crate::respond::Kind::Unsupported, message));
        }
        _ => {}
    }
    Ok(())
}

/// Gives the input its bytes, from the JSON or from behind it.
fn finish(input: Input, body: &Bytes, at: &mut usize) -> Result<(String, Tensor), Refusal> {
    let name = &input.name;
    if name.is_empty() {
        return Err(Refusal::invalid("an element of 'inputs' has no 'name'"));
    }
    let missing = |field: &str| Refusal::invalid(format!("input '{name}' has no '{field}'"));
    let dtype = input.dtype.ok_or_else(|| missing("datatype"))?;
    let shape = input.shape.ok_or_else(|| missing("shape"))?;
    let data = match (input.data, input.binary_bytes) {
        (Some(_), Some(_)) => {
            return Err(Refusal::invalid(format!(
                "input '{name}' has both 'data' and 'binary_data_size'; give one"
            )));
        }
        (Some(data), None) => data,
        (None, None) => return Err(missing("data")),
        (None, Some(bytes)) => {
            let left = body.len() - *at;
            if bytes > left {
                return Err(Refusal::invalid(format!(
                    "input '{name}' states {bytes} bytes of binary data, only {left} are left in the body"
                )));
            }
            let data = body.slice(*at..*at + bytes);
            *at += bytes;
            data
        }
    };
    Ok((input.name, Tensor { dtype, shape, data }))
}

/// A body to be sent.
#[derive(Debug)]
pub struct Encoded {
    /// JSON, and binary tensors behind it.
    pub body: Vec<u8>,
    /// The length of the JSON, when binary tensors follow.
    pub json_length: Option<usize>,
}

/// Writes an answer.
///
/// # Errors
/// A text when an output has no JSON form and was not asked for as binary data.
pub fn encode(answer: &Answer) -> Result<Encoded, String> {
    let values: usize = answer.outputs.iter().map(|output| answer.tensor(output).data.len()).sum();
    let mut out = Vec::with_capacity(256 + values * 3);
    out.extend_from_slice(b"{\"model_name\":");
    write::text(&mut out, answer.servable.model.as_str());
    out.extend_from_slice(b",\"model_version\":");
    write::text(&mut out, answer.servable.version.as_str());
    out.extend_from_slice(b",\"id\":");
    write::text(&mut out, &answer.id);
    if let Some(arm) = &answer.arm {
        out.extend_from_slice(b",\"parameters\":{\"gannet_arm\":");
        write::text(&mut out, arm.version().as_str());
        out.push(b'}');
    }
    out.extend_from_slice(b",\"outputs\":");
    let mut fault = None;
    write::list(&mut out, answer.outputs.iter(), |out, output| {
        let name = &answer.servable.signature.outputs[output.index].name;
        let tensor = answer.tensor(output);
        out.extend_from_slice(b"{\"name\":");
        write::text(out, name);
        out.extend_from_slice(b",\"datatype\":\"");
        out.extend_from_slice(tensor.dtype.name().as_bytes());
        out.extend_from_slice(b"\",\"shape\":");
        write::shape(out, &tensor.shape);
        if output.binary {
            out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            write::integer(out, tensor.data.len());
            out.push(b'}');
        } else {
            out.extend_from_slice(b",\"data\":");
            if let Err(message) = write::elements(out, tensor) {
                fault.get_or_insert_with(|| format!("output '{name}': {message} (parameter 'binary_data')"));
            }
        }
        out.push(b'}');
    });
    out.push(b'}');
    if let Some(fault) = fault {
        return Err(fault);
    }
    let json_length = answer.outputs.iter().any(|output| output.binary).then_some(out.len());
    for output in answer.outputs.iter().filter(|output| output.binary) {
        out.extend_from_slice(&answer.tensor(output).data);
    }
    Ok(Encoded { body: out, json_length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, blob: &[u8], expected: &str) {
        let body = Bytes::from([json.as_bytes(), blob].concat());
        let text = match decode(&body, json.len(), Time::default()) {
            Ok(ask) => {
                let inputs = ask
                    .inputs
                    .iter()
                    .map(|(n, t)| format!("{n} {} {:?} {:?}", t.dtype, t.shape, &t.data[..]));
                format!(
                    "{:?} {:?} {:?} {:?}",
                    ask.id,
                    inputs.collect::<Vec<_>>(),
                    ask.outputs,
                    ask.parameters
                )
            }
            Err(refusal) => refusal.message.into_owned(),
        };
        assert!(text.contains(expected), "expected {expected}\n     got {text}\n     for {json}");
    }

    fn input(fields: &str) -> String {
        format!("{{\"inputs\":[{{{fields}}}]}}")
    }

    #[test]
    fn requests_are_read_in_any_order_of_fields() {
        let tensor = r#"["x UINT8 [2, 2] [1, 2, 3, 4]"]"#;
        check(&input(r#""name":"x","shape":[2,2],"datatype":"UINT8","data":[1,2,3,4]"#), b"", tensor);
        check(&input(r#""data":[[1,2],[3,4]],"name":"x","datatype":"UINT8","shape":[2,2]"#), b"", tensor);
        let binary =
            input(r#""name":"x","shape":[2,2],"datatype":"UINT8","parameters":{"binary_data_size":4}"#);
        check(&binary, &[1, 2, 3, 4], tensor);
        check(
            &input(r#""name":"s","shape":[2],"datatype":"BYTES","data":["a\n",""]"#),
            b"",
            "[2, 0, 0, 0, 97, 10, 0, 0, 0, 0]",
        );
        check(r#"{"id":"7","model_name":"m","more":{"a":[null]}}"#, b"", r#""7" [] []"#);
        check(
            r#"{"parameters":{"priority":2,"timeout":500,"binary_data_output":true,"own":1.5}}"#,
            b"",
            "priority: 2, timeout_us: 500, binary_outputs: true",
        );
        check(
            r#"{"outputs":[{"name":"y","parameters":{"classification":3,"binary_data":false}}]}"#,
            b"",
            r#"OutputAsk { name: "y", binary: Some(false), classes: 3 }"#,
        );
    }

    #[test]
    fn every_fault_is_named() {
        check("{", b"", "failed to parse the request JSON: the text ends");
        check("[]", b"", "expected an object");
        check(r#"{"inputs":[1]}"#, b"", "expected an object");
        check(&input(r#""shape":[1],"datatype":"FP32","data":[1]"#), b"", "has no 'name'");
        check(&input(r#""name":"x","datatype":"FP32","data":[1]"#), b"", "input 'x' has no 'shape'");
        check(&input(r#""name":"x","shape":[1],"data":[1]"#), b"", "input 'x' has no 'datatype'");
        check(&input(r#""name":"x","shape":[1],"datatype":"FP32""#), b"", "input 'x' has no 'data'");
        check(&input(r#""name":"x","shape":[-1],"datatype":"FP32","data":[1]"#), b"", "the shape holds -1");
        check(&input(r#""name":"x","shape":[1.5],"datatype":"FP32","data":[1]"#), b"", "the shape holds 1.5");
        let beyond = r#""name":"x","shape":[0,9223372036854775808],"datatype":"FP32","data":[]"#;
        check(&input(beyond), b"", "the shape holds 9223372036854775808");
        check(
            &input(r#""name":"x","shape":[1],"datatype":"TYPE_FP32","data":[1]"#),
            b"",
            "datatype 'TYPE_FP32'",
        );
        check(&input(r#""name":"x","shape":[2],"datatype":"FP32","data":[1]"#), b"", "takes 2 values, got 1");
        check(
            &input(r#""name":"x","shape":[1],"datatype":"FP32","data":[1,2]"#),
            b"",
            "more values than the shape",
        );
        check(
            &input(r#""name":"x","shape":[1],"datatype":"FP32","data":["1"]"#),
            b"",
            "input 'x' FP32: expected a digit",
        );
        check(&input(r#""name":"x","shape":[1],"datatype":"FP32","data":[NaN]"#), b"", "expected a digit");
        check(
            &input(r#""name":"x","shape":[1],"datatype":"BOOL","data":[1]"#),
            b"",
            "expected true or false",
        );
        check(&input(r#""name":"x","shape":[1],"datatype":"FP16","data":[1]"#), b"", "FP16 has no JSON form");
        let huge =
            r#""name":"x","shape":[9223372036854775807,9223372036854775807],"datatype":"FP32","data":[1]"#;
        check(&input(huge), b"", "overflows");
        let binary = |size: &str| {
            input(&format!(
                r#""name":"x","shape":[4],"datatype":"UINT8","parameters":{{"binary_data_size":{size}}}"#
            ))
        };
        check(&binary("5"), &[1, 2, 3, 4], "states 5 bytes of binary data, only 4 are left");
        check(&binary("3"), &[1, 2, 3, 4], "unexpected additional input data: 1 bytes");
        check(&binary("-1"), &[1], "must be a whole number of bytes");
        check(r#"{"parameters":{"a":[1]}}"#, b"", "parameter 'a' must be a string, a number or a boolean");
        check(r#"{"parameters":{"priority":-1}}"#, b"", "parameter 'priority' must be");
        check(r#"{"outputs":[{}]}"#, b"", "an element of 'outputs' has no 'name'");
    }
}
