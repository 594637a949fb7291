//! Requests over HTTP that are wrong: what they are told. Must not know gRPC.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use super::{is_unharmed, names, repository};
use crate::support::{
    http::{Connection, exchange, request},
    server::Server,
};

/// Sends each body to `path` with `headers`; each must be refused with its status and words.
fn check(server: &Server, path: &str, headers: &str, cases: &[(&[u8], u16, &[&str])]) {
    for (body, status, words) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]);
        let case = format!("POST {path} {headers:?} {shown}");
        let reply = exchange(server.http(), &request("POST", path, headers, body));
        assert_eq!(reply.status, *status, "{case}: {}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/json"), "{case}");
        let message = reply.json()["error"].as_str().expect("a message").to_owned();
        names(&message, words, &case);
        is_unharmed(server, &case);
    }
}

/// An inference of these inputs, each the fields of an object.
fn inputs(inputs: &[&str]) -> Vec<u8> {
    let objects: Vec<String> = inputs.iter().map(|input| format!("{{{input}}}")).collect();
    format!("{{\"inputs\":[{}]}}", objects.join(",")).into_bytes()
}

const A: &str = r#""name":"a","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]"#;
const B: &str = r#""name":"b","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]"#;

fn a_with(fields: &str) -> Vec<u8> {
    inputs(&[&format!(r#""name":"a",{fields}"#), B])
}

#[test]
fn text_that_is_no_json_or_not_the_json_expected() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let no_json = "failed to parse the request JSON";
    let lists = [b"{\"more\":".to_vec(), b"[".repeat(100_000)].concat();
    let closed = [b"{\"more\":".to_vec(), b"[".repeat(5000), b"]".repeat(5000), b"}".to_vec()].concat();
    let objects = b"{\"a\":".repeat(100_000);
    let data = format!(r#""shape":[1,4],"datatype":"FP32","data":{}1{}"#, "[".repeat(3000), "]".repeat(3000));
    check(
        &server,
        "/v2/models/add_sub/infer",
        "",
        &[
            (b"", 400, &[no_json, "the text ends", "an object"]),
            (b"{", 400, &[no_json, "byte 1"]),
            (b"nonsense", 400, &[no_json, "expected an object"]),
            (b"[]", 400, &[no_json, "expected an object"]),
            (b"{}}", 400, &[no_json, "expected the end of the text"]),
            (b"{\"inputs\":null}", 400, &[no_json, "expected a list"]),
            (b"{\"inputs\":{}}", 400, &[no_json, "expected a list"]),
            (b"{\"inputs\":[7]}", 400, &[no_json, "expected an object"]),
            (b"{\"inputs\":[{\"name\":7}]}", 400, &[no_json, "expected a string"]),
            (b"{\"id\":\"\xff\xfe\"}", 400, &[no_json, "utf-8"]),
            (b"{\"id\":\"\\ud800\"}", 400, &[no_json]),
            (b"{\"id\":\"\x01\"}", 400, &[no_json, "control character"]),
            (b"{\"id\":\"cut", 400, &[no_json, "inside a string"]),
            (b"{\"parameters\":[]}", 400, &[no_json, "expected an object"]),
            (&lists, 400, &[no_json, "inside each other"]),
            (&closed, 400, &[no_json, "inside each other"]),
            (&objects, 400, &[no_json, "inside each other"]),
            (&a_with(&data), 400, &["input 'a'"]),
        ],
    );
    check(
        &server,
        "/v2/repository/index",
        "",
        &[
            (&b"[".repeat(100_000), 400, &[no_json]),
            (&b"{\"parameters\":".repeat(100_000), 400, &[no_json]),
            (b"{\"ready\":1}", 400, &[no_json, "boolean"]),
        ],
    );
}

#[test]
fn inputs_and_outputs_that_do_not_fit_the_model() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let two_rows = r#""name":"b","shape":[2,4],"datatype":"FP32","data":[1,2,3,4,5,6,7,8]"#;
    let z = r#""name":"z","shape":[1],"datatype":"FP32","data":[1]"#;
    let asking =
        |outputs: &str| format!(r#"{{"inputs":[{{{A}}},{{{B}}}],"outputs":[{outputs}]}}"#).into_bytes();
    check(
        &server,
        "/v2/models/add_sub/infer",
        "",
        &[
            (b"{}", 400, &["expected 2 inputs but got 0", "'add_sub'", "'a' is missing"]),
            (b"{\"inputs\":[]}", 400, &["expected 2 inputs but got 0", "'a' FP32 [-1,4]"]),
            (&inputs(&[A]), 400, &["expected 2 inputs but got 1", "'b' is missing"]),
            (&inputs(&[A, A]), 400, &["input 'a' already exists in request"]),
            (&inputs(&[A, B, A]), 400, &["input 'a' already exists in request"]),
            (&inputs(&[A, B, z]), 400, &["unexpected inference input 'z'", "'a' FP32 [-1,4], 'b'"]),
            (&inputs(&[A, two_rows]), 400, &["input 'b' batch size is 2", "input 'a' batch size is 1"]),
            (
                &a_with(r#""shape":[1,4],"datatype":"FP64","data":[1,2,3,4]"#),
                400,
                &["'a' data-type is 'FP64'", "expects 'FP32'"],
            ),
            (
                &a_with(r#""shape":[1,4],"datatype":"FLOAT","data":[1,2,3,4]"#),
                400,
                &["'a' has the datatype 'FLOAT'", "BOOL", "BF16"],
            ),
            (
                &a_with(r#""shape":[1,5],"datatype":"FP32","data":[1,2,3,4,5]"#),
                400,
                &["unexpected shape for input 'a' for model 'add_sub'", "Expected [-1,4], got [1,5]"],
            ),
            (
                &a_with(r#""shape":[4],"datatype":"FP32","data":[1,2,3,4]"#),
                400,
                &["Expected [-1,4], got [4]"],
            ),
            (&a_with(r#""shape":[],"datatype":"FP32","data":[1]"#), 400, &["Expected [-1,4], got []"]),
            (&asking(r#"{"name":"sum"},{"name":"sum"}"#), 400, &["output 'sum' already exists in request"]),
            (&asking(r#"{"name":"none"}"#), 400, &["unexpected inference output 'none'", "sum, diff"]),
            (&asking("{}"), 400, &["'outputs' has no 'name'"]),
        ],
    );
}

#[test]
fn values_and_sizes_that_cannot_be() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let fp32 =
        |shape: &str, data: &str| a_with(&format!(r#""shape":{shape},"datatype":"FP32","data":{data}"#));
    let four = |data: &str| fp32("[1,4]", data);
    check(
        &server,
        "/v2/models/add_sub/infer",
        "",
        &[
            (&fp32("[-1,4]", "[1,2,3,4]"), 400, &["input 'a'", "the shape holds -1"]),
            (&fp32("[1.5,4]", "[1,2,3,4]"), 400, &["input 'a'", "the shape holds 1.5"]),
            (&fp32("[\"1\",4]", "[1,2,3,4]"), 400, &["input 'a'", "whole numbers, 0 or more"]),
            (&fp32("[1e99,4]", "[1]"), 400, &["input 'a'", "the shape holds 1e99"]),
            (&fp32("[99999999999999999999999,4]", "[1]"), 400, &["input 'a'", "the shape holds 9999"]),
            (&fp32("[9223372036854775807,4]", "[1]"), 400, &["input 'a'", "overflows"]),
            (&fp32("[4611686018427387903,4]", "[1]"), 400, &["input 'a'"]),
            (&fp32("[1000000000,4]", "[1]"), 400, &["'a'", "takes 4000000000 values, got 1"]),
            (&fp32(&format!("[{}1]", "1,".repeat(40)), "[1]"), 400, &["'a'", "more than 32 axes"]),
            (&four("[1,2,3]"), 400, &["input 'a' of shape [1,4] takes 4 values, got 3"]),
            (&four("[1,2,3,4,5]"), 400, &["input 'a'", "more values than the shape"]),
            (&four("[]"), 400, &["input 'a' of shape [1,4] takes 4 values, got 0"]),
            (&four("[1,2,3,NaN]"), 400, &["input 'a' FP32"]),
            (&four("[1,2,3,Infinity]"), 400, &["input 'a' FP32"]),
            (&four("[1,2,3,null]"), 400, &["input 'a' FP32", "byte"]),
            (&four("[1,2,3,\"4\"]"), 400, &["input 'a' FP32", "byte"]),
            (&four("[1,2,3,true]"), 400, &["input 'a' FP32", "byte"]),
            (&four("\"1234\""), 400, &["input 'a' FP32"]),
        ],
    );
    let x = |model: &str, datatype: &str, shape: &str, data: &str| {
        let body = inputs(&[&format!(r#""name":"x","shape":{shape},"datatype":"{datatype}","data":{data}"#)]);
        (format!("/v2/models/{model}/infer"), body)
    };
    for (model, datatype, data) in [
        ("identity_uint8", "UINT8", "[256]"),
        ("identity_uint8", "UINT8", "[-1]"),
        ("identity_uint8", "UINT8", "[1.5]"),
        ("identity_int64", "INT64", "[9223372036854775808]"),
        ("identity_string", "BYTES", "[1]"),
    ] {
        let (path, body) = x(model, datatype, "[1,1]", data);
        check(&server, &path, "", &[(&body, 400, &["input 'x'", datatype])]);
    }
    let over = "more than 1024 rows without a value";
    for (shape, words) in [
        ("[0,18446744073709551615]", "the shape holds 18446744073709551615"),
        ("[0,9223372036854775808]", "the shape holds 9223372036854775808"),
        ("[1025,0]", over),
        ("[9223372036854775807,0]", over),
    ] {
        let (path, body) = x("identity_fp32", "FP32", shape, "[]");
        check(&server, &path, "", &[(&body, 400, &["input 'x'", words])]);
    }
}

#[test]
fn binary_data_that_does_not_add_up() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let path = "/v2/models/identity_fp32/infer";
    let json = |fields: &str| inputs(&[&format!(r#""name":"x","shape":[1,2],"datatype":"FP32",{fields}"#)]);
    let sized = |size: &str| json(&format!(r#""parameters":{{"binary_data_size":{size}}}"#));
    let send = |json: Vec<u8>, blob: usize, words: &[&str]| {
        let headers = format!("inference-header-content-length: {}\r\n", json.len());
        check(&server, path, &headers, &[(&[json, vec![0; blob]].concat(), 400, words)]);
    };
    send(sized("8"), 7, &["input 'x' states 8 bytes", "only 7 are left"]);
    send(sized("8"), 9, &["unexpected additional input data: 1 bytes"]);
    send(sized("4"), 4, &["input 'x' of shape [1,2] and type FP32 takes 8 bytes, got 4"]);
    send(sized("-1"), 8, &["input 'x'", "binary_data_size"]);
    send(sized("1.5"), 8, &["input 'x'", "binary_data_size"]);
    send(sized("\"8\""), 8, &["input 'x'", "binary_data_size"]);
    send(sized("18446744073709551615"), 8, &["input 'x'"]);
    send(sized("9223372036854775807"), 8, &["input 'x' states 9223372036854775807 bytes"]);
    send(json(r#""data":[1,2],"parameters":{"binary_data_size":8}"#), 8, &["input 'x' has both"]);
    send(json(r#""data":[1,2]"#), 8, &["unexpected additional input data: 8 bytes"]);
    let whole = [sized("8"), vec![0; 8]].concat();
    let length = whole.len();
    for (value, words) in [
        ("abc", &["Unable to parse Inference-Header-Content-Length, got: abc"][..]),
        ("", &["Unable to parse Inference-Header-Content-Length"]),
        ("1.5", &["Unable to parse Inference-Header-Content-Length, got: 1.5"]),
        ("99999999999999999999", &["got: 99999999999999999999", "value is out of range"]),
        ("4294967296", &["Unable to parse", "got: 4294967296", "out of range"]),
        ("-1", &["inference header size should be in range (0, ", "got: -1"]),
        ("1", &["failed to parse the request JSON"]),
    ] {
        let headers = format!("inference-header-content-length: {value}\r\n");
        check(&server, path, &headers, &[(&whole, 400, words)]);
    }
    let headers = format!("inference-header-content-length: {}\r\n", length + 1);
    check(&server, path, &headers, &[(&whole, 400, &[&format!("(0, {length}), got: {}", length + 1)])]);
    let text =
        inputs(&[r#""name":"x","shape":[1,1],"datatype":"BYTES","parameters":{"binary_data_size":6}"#]);
    let headers = format!("inference-header-content-length: {}\r\n", text.len());
    for (blob, words) in [
        (b"\x03\0\0\0ab", &["input 'x'", "at byte 0 states 3 bytes, only 2 are left"][..]),
        (b"\xff\xff\xff\xffab", &["input 'x'", "states 4294967295 bytes, only 2 are left"]),
        (b"\x01\0\0\0ab", &["input 'x'", "cut short"]),
    ] {
        let body = [&text[..], blob].concat();
        check(&server, "/v2/models/identity_string/infer", &headers, &[(&body, 400, words)]);
    }
}

#[test]
fn raw_bodies_that_do_not_fit() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let raw = "inference-header-content-length: 0\r\n";
    let to = |model: &str| format!("/v2/models/{model}/infer");
    check(&server, &to("add_sub"), raw, &[(&[0; 16], 400, &["one input", "'add_sub' has 2"])]);
    check(
        &server,
        &to("identity_fp32"),
        raw,
        &[(&[0; 7], 400, &["input 'x'", "multiple of 4 bytes, got 7"])],
    );
    check(&server, &to("iris"), raw, &[(&[0; 12], 400, &["input 'input'", "takes 16 bytes, got 12"])]);
    check(&server, &to("none"), raw, &[(&[0; 12], 404, &["unknown model: 'none'"])]);
}

#[test]
fn models_versions_paths_and_verbs_that_are_not() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let unknown = "Request for unknown model: 'none' is not found";
    let version = "Request for unknown model: 'iris' version '9' is not found; served are";
    for (verb, path, status, words) in [
        ("POST", "/v2/models/none/infer", 404, unknown),
        ("GET", "/v2/models/none", 404, unknown),
        ("GET", "/v2/models/none/config", 404, unknown),
        ("GET", "/v2/models/none/stats", 404, unknown),
        ("GET", "/v2/models/none/ready", 404, unknown),
        ("POST", "/v2/models/iris/versions/9/infer", 404, version),
        ("GET", "/v2/models/iris/versions/9", 404, version),
        ("GET", "/v2/models/iris/versions/9/ready", 404, version),
        ("GET", "/v2/models/iris/versions/9/config", 404, version),
        ("GET", "/v2/models/iris/versions/9/stats", 404, version),
        ("POST", "/v2/models/iris/versions/canary/infer", 404, "version 'canary'"),
        ("GET", "/v2/models/%ff/config", 400, "UTF-8"),
        ("GET", "/v2/models/iris/infer", 405, "Method Not Allowed"),
        ("DELETE", "/v2/models/iris/infer", 405, "Method Not Allowed"),
        ("POST", "/v2/models/iris", 405, "Method Not Allowed"),
        ("POST", "/v2/health/live", 405, "Method Not Allowed"),
        ("GET", "/v2/repository/index", 405, "Method Not Allowed"),
        ("GET", "/", 404, "Not Found"),
        ("GET", "/v2/models", 404, "Not Found"),
        ("GET", "/v1/models/iris", 404, "Not Found"),
        ("POST", "/v2/models/iris/versions/1/infer/more", 404, "Not Found"),
        ("GET", "/v2/systemsharedmemory/status", 501, "systemsharedmemory"),
        ("POST", "/v2/models/iris/generate", 501, "use 'infer'"),
        ("POST", "/v2/repository/other/models/iris/load", 501, "'repository_name'"),
        ("POST", "/v2/repository/models/iris/unload", 403, "--model-control explicit"),
    ] {
        let case = format!("{verb} {path}");
        let body: &[u8] = if path.ends_with("/infer") { b"{\"inputs\":[]}" } else { b"" };
        let reply = exchange(server.http(), &request(verb, path, "", body));
        assert_eq!(reply.status, status, "{case}: {}", reply.text());
        names(reply.json()["error"].as_str().expect("a message"), &[words], &case);
        is_unharmed(&server, &case);
    }
}

#[test]
fn parameters_and_codings_that_are_not_offered() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let path = "/v2/models/add_sub/infer";
    let with = |parameters: &str| {
        format!(r#"{{"inputs":[{{{A}}},{{{B}}}],"parameters":{{{parameters}}}}}"#).into_bytes()
    };
    let shared = a_with(r#""shape":[1,4],"datatype":"FP32","parameters":{"shared_memory_region":"r"}"#);
    check(
        &server,
        path,
        "",
        &[
            (&with(r#""priority":-1"#), 400, &["parameter 'priority'", "got -1"]),
            (&with(r#""priority":4294967296"#), 400, &["parameter 'priority'", "got 4294967296"]),
            (&with(r#""timeout":"soon""#), 400, &["parameter 'timeout'", "microseconds", "soon"]),
            (&with(r#""timeout":1.5"#), 400, &["parameter 'timeout'", "1.5"]),
            (&with(r#""binary_data_output":1"#), 400, &["parameter 'binary_data_output'", "true or false"]),
            (&with(r#""sequence_id":5"#), 400, &["parameter 'sequence_id'", "not offered"]),
            (&with(r#""own":[1]"#), 400, &["parameter 'own'", "a string, a number or a boolean"]),
            (&shared, 501, &["input 'a'", "shared memory is not offered"]),
        ],
    );
    let body = inputs(&[A, B]);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&body).unwrap();
    let packed = encoder.finish().unwrap();
    let reply = exchange(server.http(), &request("POST", path, "content-encoding: gzip\r\n", &packed));
    assert_eq!(reply.output("sum"), (vec![1, 4], vec![2.0, 4.0, 6.0, 8.0]));
    let mut damaged = packed.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    check(
        &server,
        path,
        "content-encoding: br\r\n",
        &[(&body, 415, &["Content-Encoding 'br'", "gzip, deflate"])],
    );
    check(
        &server,
        path,
        "content-encoding: gzip\r\n",
        &[
            (&damaged, 400, &["the body is damaged"]),
            (&packed[..packed.len() - 9], 400, &["the body is damaged"]),
            (&body, 400, &["the body is damaged"]),
            (b"", 400, &["the body is damaged"]),
        ],
    );
    check(&server, path, "content-encoding: deflate\r\n", &[(&packed, 400, &["the body is damaged"])]);
}

#[test]
fn bytes_that_are_no_http() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let long = format!("GET /v2 HTTP/1.1\r\nhost: localhost\r\nlong: {}\r\n\r\n", "x".repeat(1 << 20));
    for (bytes, status) in [
        (&b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 a handshake of TLS"[..], Some(400)),
        (b"GET\r\n\r\n", Some(400)),
        (b"GET /v2 HTTP/1.1\r\nhost localhost\r\n\r\n", Some(400)),
        (b"POST /v2/models/iris/infer HTTP/1.1\r\ncontent-length: -5\r\n\r\n", Some(400)),
        (b"POST /v2/models/iris/infer HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", Some(400)),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense that is no frame at all", None),
        (long.as_bytes(), Some(431)),
    ] {
        let case = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let mut connection = Connection::open(server.http());
        connection.send(bytes);
        if let Some(status) = status {
            // a connection that is reset over unread bytes may lose the answer
            assert!(connection.read().is_none_or(|reply| reply.status == status), "{case}");
        }
        is_unharmed(&server, &case);
    }
}
