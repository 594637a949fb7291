//! Requests that fit, those that do not, and answers both ways.

use bytes::Bytes;

use super::{contents::Place, *};
use crate::grpc::pb::InferTensorContents;

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.into(),
        ..Default::default()
    }
}

fn typed(datatype: &str, shape: &[i64], contents: InferTensorContents) -> InferInputTensor {
    InferInputTensor { contents: Some(contents), ..input("x", datatype, shape) }
}

fn request(inputs: Vec<InferInputTensor>, raw: &[&'static [u8]]) -> pb::ModelInferRequest {
    pb::ModelInferRequest {
        model_name: "m".into(),
        inputs,
        raw_input_contents: raw.iter().map(|bytes| Bytes::from_static(bytes)).collect(),
        ..Default::default()
    }
}

fn read_now(request: pb::ModelInferRequest) -> Result<Question, Refusal> {
    read(request, Time::from_ns(1), None)
}

fn refuses(request: pb::ModelInferRequest, kind: Kind, words: &[&str]) {
    let refusal = read_now(request).unwrap_err();
    assert_eq!(refusal.kind, kind, "{refusal:?}");
    for word in words {
        assert!(refusal.message.contains(word), "expected {word:?} in {:?}", refusal.message);
    }
}

fn value(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

/// One tensor of each type that has a typed field: its shape, its contents, its bytes.
fn samples() -> Vec<(DType, InferTensorContents, Vec<u8>)> {
    let none = InferTensorContents::default;
    let ints = |values: &[i32]| InferTensorContents { int_contents: values.into(), ..none() };
    let uints = |values: &[u32]| InferTensorContents { uint_contents: values.into(), ..none() };
    vec![
        (DType::Bool, InferTensorContents { bool_contents: vec![true, false], ..none() }, vec![1, 0]),
        (DType::Int8, ints(&[-128, 127]), vec![0x80, 0x7f]),
        (DType::Int16, ints(&[-32768, 32767]), vec![0, 0x80, 0xff, 0x7f]),
        (DType::Int32, ints(&[-2, 1]), vec![0xfe, 0xff, 0xff, 0xff, 1, 0, 0, 0]),
        (
            DType::Int64,
            InferTensorContents { int64_contents: vec![-1, 2], ..none() },
            [(-1i64).to_le_bytes(), 2i64.to_le_bytes()].concat(),
        ),
        (DType::Uint8, uints(&[0, 255]), vec![0, 255]),
        (DType::Uint16, uints(&[0, 65535]), vec![0, 0, 0xff, 0xff]),
        (DType::Uint32, uints(&[1, u32::MAX]), vec![1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        (
            DType::Uint64,
            InferTensorContents { uint64_contents: vec![1, u64::MAX], ..none() },
            [1u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat(),
        ),
        (
            DType::Fp32,
            InferTensorContents { fp32_contents: vec![1.5, f32::INFINITY], ..none() },
            [1.5f32.to_le_bytes(), f32::INFINITY.to_le_bytes()].concat(),
        ),
        (
            DType::Fp64,
            InferTensorContents { fp64_contents: vec![1.5, -0.0], ..none() },
            [1.5f64.to_le_bytes(), (-0.0f64).to_le_bytes()].concat(),
        ),
        (
            DType::Bytes,
            InferTensorContents {
                bytes_contents: vec![Bytes::from_static(b"ab"), Bytes::from_static(b"\0")],
                ..none()
            },
            b"\x02\0\0\0ab\x01\0\0\0\0".to_vec(),
        ),
    ]
}

#[test]
fn typed_values_are_read_and_written() {
    for (dtype, contents, bytes) in samples() {
        let question = read_now(request(vec![typed(dtype.name(), &[2], contents.clone())], &[])).unwrap();
        assert!(!question.raw);
        let (name, tensor) = &question.ask.inputs[0];
        assert_eq!((name.as_str(), tensor.dtype, &tensor.shape[..]), ("x", dtype, &[2][..]));
        assert_eq!(tensor.data, bytes, "{dtype}");
        let written = contents::from_bytes(dtype, &tensor.data);
        assert_eq!(written.is_some(), contents::answered_typed(dtype), "{dtype}");
        assert!(written.is_none_or(|written| written == contents), "{dtype}");
    }
}

#[test]
fn values_of_no_elements_need_no_contents() {
    for (dtype, ..) in samples() {
        let question = read_now(request(vec![input("x", dtype.name(), &[0, 3])], &[])).unwrap();
        assert!(question.ask.inputs[0].1.data.is_empty());
    }
}

#[test]
fn raw_values_are_not_copied() {
    static RAW: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
    let inputs = vec![input("a", "FP32", &[2]), input("b", "FP16", &[0])];
    let question = read_now(request(inputs, &[&RAW, b""])).unwrap();
    assert!(question.raw);
    let tensors = &question.ask.inputs;
    assert_eq!(tensors[0].1.data.as_ptr(), RAW.as_ptr());
    assert_eq!((tensors[1].0.as_str(), tensors[1].1.dtype), ("b", DType::Fp16));
    // The SDK that types its values sends the message of their contents even when it is empty.
    let empty = typed("FP32", &[2], InferTensorContents::default());
    assert_eq!(read_now(request(vec![empty], &[&RAW])).unwrap().ask.inputs[0].1.data, &RAW[..]);
}

#[test]
fn misfits_are_named() {
    let none = InferTensorContents::default;
    let fp32 = |values: &[f32]| InferTensorContents { fp32_contents: values.into(), ..none() };
    let check =
        |input: InferInputTensor, words: &[&str]| refuses(request(vec![input], &[]), Kind::Invalid, words);
    check(input("x", "FP8", &[1]), &["input 'x'", "FP32", "got 'FP8'"]);
    check(input("x", "FP32", &[2, -1]), &["input 'x'", "axes of 0 and more", "[2, -1]"]);
    check(input("x", "FP32", &[i64::MAX, 8]), &["input 'x'", "overflows"]);
    check(input("x", "FP64", &[1 << 61, 2]), &["input 'x'", "overflows"]);
    check(typed("FP32", &[2, 2], fp32(&[1.0; 3])), &["input 'x'", "[2,2]", "4 elements", "got 3"]);
    check(typed("FP32", &[], fp32(&[1.0; 2])), &["1 elements", "got 2"]);
    check(typed("FP64", &[1], fp32(&[1.0])), &["FP64", "'fp64_contents'", "got 1 in 'fp32_contents'"]);
    check(typed("FP16", &[1], fp32(&[1.0])), &["FP16", "send raw"]);
    check(typed("BF16", &[1], none()), &["BF16", "send raw"]);
    check(input("x", "FP32", &[1]), &["1 elements in 'fp32_contents'", "got 0"]);
    let ints = |value| InferTensorContents { int_contents: vec![0, value], ..none() };
    check(typed("INT8", &[2], ints(128)), &["INT8", "got 128 at index 1"]);
    check(typed("INT8", &[2], ints(-129)), &["got -129 at index 1"]);
    check(typed("INT16", &[2], ints(32768)), &["INT16", "got 32768"]);
    let uints = |value| InferTensorContents { uint_contents: vec![0, value], ..none() };
    check(typed("UINT8", &[2], uints(256)), &["UINT8", "got 256"]);
    check(typed("UINT16", &[2], uints(65536)), &["UINT16", "got 65536"]);

    let mixed = request(vec![typed("FP32", &[1], fp32(&[1.0]))], &[b"abcd"]);
    refuses(mixed, Kind::Invalid, &["input 'x'", "'contents'", "'raw_input_contents'"]);
    let uneven = request(vec![input("x", "FP32", &[1]), input("y", "FP32", &[1])], &[b"abcd"]);
    refuses(uneven, Kind::Invalid, &["expected 2", "got 1"]);
}

#[test]
fn shared_memory_is_refused_and_other_tensor_parameters_are_not() {
    let with = |name: &str| {
        let parameters = HashMap::from([(name.to_owned(), value(ParameterChoice::Int64Param(4)))]);
        InferInputTensor { parameters, ..input("x", "FP32", &[1]) }
    };
    assert!(read_now(request(vec![with("binary_data_size")], &[b"abcd"])).is_ok());
    let refused = request(vec![with("shared_memory_region")], &[]);
    refuses(refused, Kind::Unsupported, &["input 'x'", "'shared_memory_region'"]);
    let parameters =
        HashMap::from([("shared_memory_byte_size".to_owned(), value(ParameterChoice::Int64Param(4)))]);
    let mut refused = request(vec![], &[]);
    refused.outputs.push(InferRequestedOutputTensor { name: "y".into(), parameters });
    refuses(refused, Kind::Unsupported, &["output 'y'", "'shared_memory_byte_size'"]);
}

#[test]
fn request_parameters_are_taken() {
    let check = |name: &str, choice: ParameterChoice, expected: Option<(u32, u64)>| {
        let mut request = request(vec![], &[]);
        request.parameters.insert(name.into(), value(choice.clone()));
        let got = read_now(request).map(|q| (q.ask.parameters.priority, q.ask.parameters.timeout_us));
        assert_eq!(got.ok(), expected, "{name} {choice:?}");
    };
    check("priority", ParameterChoice::Uint64Param(3), Some((3, 0)));
    check("priority", ParameterChoice::Int64Param(3), Some((3, 0)));
    check("priority", ParameterChoice::Uint64Param(u64::MAX), None);
    check("timeout", ParameterChoice::Int64Param(60_000), Some((0, 60_000)));
    check("timeout", ParameterChoice::Int64Param(-1), None);
    check("timeout", ParameterChoice::StringParam("1".into()), None);
    check("share", ParameterChoice::DoubleParam(0.5), Some((0, 0)));
    check("flag", ParameterChoice::BoolParam(true), Some((0, 0)));
    check("number", ParameterChoice::Uint64Param(u64::MAX), Some((0, 0)));
    check("triton_enable_empty_final_response", ParameterChoice::BoolParam(true), Some((0, 0)));
    let mut request = request(vec![], &[]);
    request.parameters.insert("nothing".into(), InferParameter::default());
    assert!(read_now(request).is_ok());
}

#[test]
fn outputs_version_and_id_are_taken() {
    let check = |choice: ParameterChoice, expected: Option<usize>| {
        let parameters = HashMap::from([("classification".to_owned(), value(choice.clone()))]);
        let mut request = request(vec![], &[]);
        request.outputs.push(InferRequestedOutputTensor { name: "y".into(), parameters });
        let classes = read_now(request).ok().map(|question| question.ask.outputs[0].classes);
        assert_eq!(classes, expected, "{choice:?}");
    };
    check(ParameterChoice::Int64Param(2), Some(2));
    check(ParameterChoice::Uint64Param(2), Some(2));
    check(ParameterChoice::Int64Param(-2), None);
    check(ParameterChoice::BoolParam(true), None);

    let mut request = request(vec![], &[]);
    assert_eq!(read_now(request.clone()).unwrap().version, None);
    request.model_version = "stable".into();
    request.id = "7".into();
    let question = read_now(request).unwrap();
    assert_eq!((question.model.as_str(), question.version.as_deref()), ("m", Some("stable")));
    assert_eq!(question.ask.id, "7");
}

#[test]
fn lengths_that_overflow_do_not_pass_as_counts() {
    let place = Place { input: "x", dtype: DType::Fp32, shape: &[usize::MAX, 2] };
    assert!(contents::to_bytes(place, &InferTensorContents::default()).is_err());
}
