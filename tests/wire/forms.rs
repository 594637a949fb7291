//! The forms that a request over HTTP may have: raw bodies, ids, labels, pipelines, HTTP/2. Must not know faults.

use bytes::Bytes;
use http::Request;
use serde_json::json;

use super::{is_unharmed, repository};
use crate::support::{
    grpc::{Body, Client},
    http::{Connection, exchange, get, infer, request},
    server::Server,
};

const RAW: &str = "inference-header-content-length: 0\r\n";

#[test]
fn raw_bodies_are_one_row_and_are_answered_in_binary() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let ask = |model: &str, body: &[u8]| {
        let reply =
            exchange(server.http(), &request("POST", &format!("/v2/models/{model}/infer"), RAW, body));
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
        let length: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
        let (json, blob) = reply.body.split_at(length);
        (serde_json::from_slice::<serde_json::Value>(json).unwrap(), blob.to_vec())
    };
    let values: Vec<u8> = [1.5f32, -2.0, f32::NAN].into_iter().flat_map(f32::to_le_bytes).collect();
    let (json, blob) = ask("identity_fp32", &values);
    assert_eq!(json["outputs"][0]["shape"], json!([1, 3]));
    assert_eq!(json["outputs"][0]["parameters"], json!({"binary_data_size": 12}));
    assert_eq!(blob, values, "bit by bit, NaN included");
    let (json, blob) = ask("identity_string", b"427");
    assert_eq!(json["outputs"][0]["shape"], json!([1, 1]));
    assert_eq!(blob, b"\x03\0\0\x00427");
    let (json, blob) = ask("identity_string", b"");
    assert_eq!((&json["outputs"][0]["shape"], &blob[..]), (&json!([1, 1]), &[0; 4][..]));
    let row: Vec<u8> = [5.1f32, 3.5, 1.4, 0.2].into_iter().flat_map(f32::to_le_bytes).collect();
    let (json, blob) = ask("iris", &row);
    assert_eq!(
        json["outputs"][0],
        json!({"name": "label", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": 8}})
    );
    assert_eq!(blob[..8], 0i64.to_le_bytes());
    is_unharmed(&server, "raw bodies");
}

#[test]
fn values_that_json_cannot_carry_are_null_unless_they_go_in_binary() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let path = "/v2/models/identity_fp32/infer";
    let ask = |extra: &str| {
        let json = format!(
            r#"{{"inputs":[{{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{{"binary_data_size":8}}}}]{extra}}}"#
        );
        let headers = format!("inference-header-content-length: {}\r\n", json.len());
        let blob: Vec<u8> = [f32::NAN, f32::NEG_INFINITY].into_iter().flat_map(f32::to_le_bytes).collect();
        (exchange(server.http(), &request("POST", path, &headers, &[json.as_bytes(), &blob].concat())), blob)
    };
    let (reply, _) = ask("");
    assert_eq!(reply.json()["outputs"][0]["data"], json!([null, null]), "{}", reply.text());
    let (reply, blob) = ask(r#","parameters":{"binary_data_output":true}"#);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.body.ends_with(&blob));
}

#[test]
fn ids_are_echoed_or_made() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let ask = |id: &str| {
        let body =
            json!({"id": id, "inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [7]}]});
        infer(server.http(), "identity_int64", &body).json()["id"].as_str().unwrap().to_owned()
    };
    for id in ["7", "a \"quoted\" id", "naïve \u{1f426}", "\\ \n \u{1}", &"long ".repeat(200)] {
        assert_eq!(ask(id), id);
    }
    let (first, second) = (ask(""), ask(""));
    assert!(!first.is_empty() && first != second, "{first} {second}");
}

#[test]
fn labels_are_taken_for_versions() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let body = br#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"INT64","data":[7]}]}"#;
    for version in ["1", "stable"] {
        let path = format!("/v2/models/identity_int64/versions/{version}");
        let reply = exchange(server.http(), &request("POST", &format!("{path}/infer"), "", body));
        assert_eq!((reply.status, &reply.json()["model_version"]), (200, &json!("1")), "{version}");
        assert_eq!(get(server.http(), &format!("{path}/ready")).status, 200, "{version}");
        assert_eq!(get(server.http(), &path).json()["name"], "identity_int64", "{version}");
    }
}

#[test]
fn requests_in_a_pipeline_are_answered_in_their_order() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let mut connection = Connection::open(server.http());
    let ask = |id: usize| {
        let body = json!({"id": id.to_string(), "inputs": [
            {"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [id]}]});
        request("POST", "/v2/models/identity_int64/infer", "", body.to_string().as_bytes())
    };
    let bad = request("POST", "/v2/models/identity_int64/infer", "", b"nonsense");
    let mut bytes = Vec::new();
    for id in 0..20 {
        bytes.extend(ask(id));
        bytes.extend(&bad);
        bytes.extend(request("GET", "/v2/health/live", "", b""));
    }
    connection.send(&bytes);
    for id in 0..20 {
        let reply = connection.read().expect("an answer");
        assert_eq!(reply.json()["id"], id.to_string());
        assert_eq!(reply.output("y"), (vec![1, 1], vec![f64::from(id)]));
        assert_eq!(connection.read().expect("a refusal").status, 400);
        assert_eq!(connection.read().expect("a sign of life").status, 200);
    }
    is_unharmed(&server, "a pipeline");
}

#[test]
fn bodies_in_chunks_and_after_a_question() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let body = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"INT64","data":[7]}]}"#;
    let mut connection = Connection::open(server.http());
    let head = "POST /v2/models/identity_int64/infer HTTP/1.1\r\nhost: localhost\r\n";
    connection.send(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes());
    for byte in body.chars() {
        connection.send(format!("1\r\n{byte}\r\n").as_bytes());
    }
    connection.send(b"0\r\n\r\n");
    assert_eq!(connection.read().expect("an answer").output("y"), (vec![1, 1], vec![7.0]));
    connection
        .send(format!("{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
    assert_eq!(connection.read().expect("leave to go on").status, 100);
    connection.send(body.as_bytes());
    assert_eq!(connection.read().expect("an answer").output("y"), (vec![1, 1], vec![7.0]));
    is_unharmed(&server, "chunks");
}

#[test]
fn the_http_port_speaks_http_2_with_prior_knowledge() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let client = Client::open(server.http());
    let body =
        Bytes::from_static(br#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"INT64","data":[7]}]}"#);
    let ask = |verb: &str, path: &str, body: &Bytes| {
        let request = Request::builder().method(verb).uri(format!("http://localhost{path}"));
        client.http(request.body(Body::whole(body.clone())).unwrap())
    };
    let answer = ask("POST", "/v2/models/identity_int64/infer", &body);
    assert_eq!(answer.status, 200);
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(json["outputs"][0]["data"], json!([7]));
    assert_eq!(ask("GET", "/v2/health/ready", &Bytes::new()).status, 200);
    assert_eq!(ask("GET", "/v2/none", &Bytes::new()).status, 404);
    is_unharmed(&server, "HTTP/2");
}

#[test]
fn a_head_has_no_body() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let mut connection = Connection::open(server.http());
    for (path, status) in [("/v2/health/live", 200), ("/v2/none", 404), ("/v2/models/iris", 200)] {
        connection.send(&request("HEAD", path, "", b""));
        assert_eq!(connection.read_head().expect("an answer").status, status, "{path}");
    }
    connection.send(&request("GET", "/v2/health/live", "", b""));
    assert_eq!(connection.read().expect("an answer").json(), json!({"live": true}));
}
