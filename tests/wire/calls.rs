//! Calls over gRPC that are wrong: codes and messages. Must not know HTTP's own forms.

use bytes::Bytes;

use super::{is_unharmed, names, repository};
use crate::support::{
    grpc::{Client, Contents, Ended, InferParameter, MODEL_INFER, ModelInferRequest, Tensor, frame, raw},
    server::Server,
};

const INVALID: i32 = 3;
const NOT_FOUND: i32 = 5;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;

const VALUES: [f32; 4] = [1.0, 2.0, 3.0, 4.0];

fn a() -> Tensor {
    Tensor::typed("a", &[1, 4], &VALUES)
}

fn b() -> Tensor {
    Tensor::typed("b", &[1, 4], &VALUES)
}

fn asking(inputs: Vec<Tensor>) -> ModelInferRequest {
    ModelInferRequest { model_name: "add_sub".into(), inputs, ..ModelInferRequest::default() }
}

#[track_caller]
fn check(server: &Server, ended: &Ended, code: i32, words: &[&str], case: &str) {
    assert_eq!(ended.code, code, "{case}: {}", ended.message);
    names(&ended.message, words, case);
    is_unharmed(server, case);
}

#[test]
fn tensors_that_do_not_fit() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let client = Client::open(server.grpc());
    let empty = |shape: &[i64], datatype: &str| Tensor::empty("a", datatype, shape);
    let refuse = |inputs: Vec<Tensor>, words: &[&str]| {
        let case = format!("{inputs:?}");
        check(&server, &client.infer(&asking(inputs)), INVALID, words, &case);
    };
    refuse(vec![], &["expected 2 inputs but got 0", "'a' is missing"]);
    refuse(vec![a()], &["expected 2 inputs but got 1", "'b' is missing"]);
    refuse(vec![a(), a()], &["input 'a' already exists in request"]);
    refuse(vec![a(), b(), Tensor::typed("z", &[1], &[1.0])], &["unexpected inference input 'z'"]);
    refuse(vec![Tensor::typed("a", &[1, 5], &[0.0; 5]), b()], &["Expected [-1,4], got [1,5]"]);
    refuse(vec![Tensor::typed("a", &[2, 4], &[0.0; 8]), b()], &["batch size is 1", "batch size is 2"]);
    refuse(vec![Tensor::typed("a", &[1, 4], &[0.0; 3]), b()], &["input 'a'", "4", "3"]);
    refuse(vec![Tensor::typed("a", &[1, 4], &[0.0; 5]), b()], &["input 'a'", "4", "5"]);
    refuse(vec![empty(&[1, 4], "FP32"), b()], &["input 'a'"]);
    refuse(vec![empty(&[1, 4], "FLOAT"), b()], &["input 'a'", "'FLOAT'", "FP32"]);
    refuse(vec![empty(&[-1, 4], "FP32"), b()], &["input 'a'", "[-1, 4]"]);
    refuse(vec![empty(&[i64::MAX, 4], "FP32"), b()], &["input 'a'", "overflows"]);
    refuse(vec![empty(&[i64::MAX / 4, 4], "FP32"), b()], &["input 'a'", "overflows"]);
    let fields = Contents { int64_contents: vec![1, 2, 3, 4], ..Contents::default() };
    let wrong = Tensor { contents: Some(fields), ..empty(&[1, 4], "FP32") };
    refuse(vec![wrong, b()], &["input 'a'", "int64_contents"]);
    let integers = Contents { int64_contents: vec![1, 2, 3, 4], ..Contents::default() };
    refuse(
        vec![Tensor { contents: Some(integers), ..empty(&[1, 4], "INT64") }, b()],
        &["'a' data-type is 'INT64'", "expects 'FP32'"],
    );
}

#[test]
fn raw_contents_that_do_not_fit() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let client = Client::open(server.grpc());
    let tensor = |name: &str| Tensor::empty(name, "FP32", &[1, 4]);
    let refuse = |inputs: [Tensor; 2], raws: &[&[u8]], words: &[&str]| {
        let raw_input_contents = raws.iter().map(|raw| Bytes::copy_from_slice(raw)).collect();
        let request = ModelInferRequest { raw_input_contents, ..asking(inputs.to_vec()) };
        check(&server, &client.infer(&request), INVALID, words, &format!("{words:?}"));
    };
    let whole = &raw(&VALUES)[..];
    refuse([a(), b()], &[whole, whole], &["input 'a' has 'contents'", "'raw_input_contents'"]);
    refuse([tensor("a"), b()], &[whole, whole], &["input 'b' has 'contents'"]);
    refuse([tensor("a"), b()], &[whole], &["'raw_input_contents'", "expected 2, got 1"]);
    refuse([tensor("a"), tensor("b")], &[whole], &["'raw_input_contents'", "expected 2, got 1"]);
    refuse([tensor("a"), tensor("b")], &[whole, whole, whole], &["expected 2, got 3"]);
    refuse([tensor("a"), tensor("b")], &[whole, &whole[..15]], &["input 'b'", "takes 16 bytes, got 15"]);
    refuse([tensor("a"), tensor("b")], &[&[0; 17], whole], &["input 'a'", "takes 16 bytes, got 17"]);
    refuse([tensor("a"), tensor("b")], &[b"", whole], &["input 'a'", "takes 16 bytes, got 0"]);
}

#[test]
fn models_versions_and_calls_that_are_not() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let client = Client::open(server.grpc());
    let whole = || asking(vec![a(), b()]);
    let none = ModelInferRequest { model_name: "none".into(), ..whole() };
    check(&server, &client.infer(&none), NOT_FOUND, &["unknown model: 'none' is not found"], "a model");
    let nine = ModelInferRequest { model_version: "9".into(), ..whole() };
    check(&server, &client.infer(&nine), NOT_FOUND, &["'add_sub' version '9' is not found"], "a version");
    let unnamed = ModelInferRequest { model_name: String::new(), ..whole() };
    check(&server, &client.infer(&unnamed), NOT_FOUND, &["unknown model: ''"], "no name");
    for path in ["/inference.GRPCInferenceService/None", "/none.None/None", "/"] {
        let ended = client.call(path, &[], frame(&whole()));
        check(&server, &ended, UNIMPLEMENTED, &["unknown call", path], path);
    }
    let parameter = |name: &str, value: i64| {
        let parameters =
            [(name.to_owned(), InferParameter { int64_param: Some(value), ..InferParameter::default() })]
                .into();
        ModelInferRequest { parameters, ..whole() }
    };
    check(&server, &client.infer(&parameter("priority", -1)), INVALID, &["'priority'", "got -1"], "priority");
    check(&server, &client.infer(&parameter("sequence_id", 5)), INVALID, &["'sequence_id'"], "sequence");
    let ended = client.call(MODEL_INFER, &[("content-type", "application/json")], frame(&whole()));
    assert_eq!(ended.status, 415);
    is_unharmed(&server, "another content type");
    let ended = client.call(MODEL_INFER, &[("grpc-timeout", "soon")], frame(&whole()));
    check(&server, &ended, INVALID, &["'grpc-timeout'", "soon"], "a timeout");
    let ended = client.call(MODEL_INFER, &[("grpc-encoding", "br")], frame(&whole()));
    check(&server, &ended, UNIMPLEMENTED, &["br"], "an encoding");
}

#[test]
fn frames_that_are_damaged() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let client = Client::open(server.grpc());
    let whole = frame(&asking(vec![a(), b()]));
    let length = whole.len();
    let refuse = |body: Bytes, code: i32, words: &[&str]| {
        let ended = client.call(MODEL_INFER, &[], body);
        check(&server, &ended, code, words, &format!("{words:?}"));
    };
    refuse(whole.slice(..length - 1), INTERNAL, &[&format!("ends after {} bytes", length - 1)]);
    refuse(whole.slice(..5), INTERNAL, &["ends after 5 bytes", &format!("{} bytes", length - 5)]);
    refuse(whole.slice(..3), INTERNAL, &["ends after 3 bytes", "5-byte prefix"]);
    refuse(Bytes::new(), UNIMPLEMENTED, &["empty", "exactly one message"]);
    refuse([&whole[..], &whole[..]].concat().into(), UNIMPLEMENTED, &["exactly one message"]);
    refuse([&[1], &whole[1..]].concat().into(), INTERNAL, &["compressed", "'grpc-encoding'"]);
    refuse([&[9], &whole[1..]].concat().into(), INTERNAL, &["expected 0 or 1, got 9"]);
    refuse(
        Bytes::from_static(b"\0\0\0\0\x04\xff\xff\xff\xff"),
        INTERNAL,
        &["no inference.ModelInferRequest"],
    );
    refuse(Bytes::from_static(b"\0\0\0\0\x02\x0a\xff"), INTERNAL, &["no inference.ModelInferRequest"]);
    refuse(Bytes::from_static(b"\0\0\0\0\x03\x0a\x01\xff"), INTERNAL, &["no inference.ModelInferRequest"]);
    // the empty message is a request that names nothing
    refuse(Bytes::from_static(b"\0\0\0\0\0"), NOT_FOUND, &["unknown model: ''"]);
    for path in ["/inference.GRPCInferenceService/ModelReady", "/grpc.health.v1.Health/Check"] {
        let ended = client.call(path, &[], Bytes::from_static(b"\0\0\0\0\x04\xff\xff\xff\xff"));
        assert!(ended.code == INTERNAL, "{path}: {} {}", ended.code, ended.message);
        is_unharmed(&server, path);
    }
}

#[test]
fn what_fits_is_answered_as_it_was_asked() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let client = Client::open(server.grpc());
    let request = ModelInferRequest { id: "7".into(), ..asking(vec![a(), b()]) };
    let response = client.infer(&request).response();
    assert_eq!((response.id.as_str(), response.model_version.as_str()), ("7", "1"));
    assert!(response.raw_output_contents.is_empty());
    let contents = response.outputs[0].contents.clone().unwrap();
    assert_eq!(
        (response.outputs[0].name.as_str(), contents.fp32_contents),
        ("sum", vec![2.0, 4.0, 6.0, 8.0])
    );
    let tensor = |name: &str| Tensor::empty(name, "FP32", &[1, 4]);
    let request = ModelInferRequest {
        raw_input_contents: vec![raw(&VALUES), raw(&VALUES)],
        ..asking(vec![tensor("b"), tensor("a")])
    };
    let response = client.infer(&request).response();
    assert!(!response.id.is_empty());
    assert_eq!(response.raw_output_contents, [raw(&[2.0, 4.0, 6.0, 8.0]), raw(&[0.0; 4])]);
    let integers = Contents { int64_contents: vec![7], ..Contents::default() };
    let x = Tensor { contents: Some(integers), ..Tensor::empty("x", "INT64", &[1, 1]) };
    let request = ModelInferRequest {
        model_name: "identity_int64".into(),
        model_version: "stable".into(),
        inputs: vec![x],
        ..ModelInferRequest::default()
    };
    let response = client.infer(&request).response();
    assert_eq!((response.model_name.as_str(), response.model_version.as_str()), ("identity_int64", "1"));
    is_unharmed(&server, "calls that fit");
}
