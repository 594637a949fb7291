//! What the server answers to a request, kept for the echo servers to say. Must not know who compares them.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use bytes::Bytes;
use gannet_server::grpc::pb::{ModelInferResponse, model_infer_response::InferOutputTensor};
use prost::Message as _;
use tempfile::TempDir;

use super::{Process, Wire};

/// Asks the server once and writes its answer, for [`super::Role::Echo`], into a new folder.
///
/// # Panics
/// When the server does not answer with success.
#[must_use]
pub fn capture(server: &Process, wire: Wire, model: &str, request: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder for answers");
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("it is written");
    let (_, json) = post(server, model, request);
    let binary = format!("{{\"parameters\":{{\"binary_data_output\":true}},{}", &request[1..]);
    let (head, body) = post(server, model, &binary);
    let json_length =
        header(&head, "inference-header-content-length").expect("the answer has binary tensors");
    put("message", &message(&body, json_length));
    match wire {
        Wire::Json | Wire::Grpc => put("body", &json),
        Wire::Binary => {
            put("body", &body);
            put("json_length", json_length.to_string().as_bytes());
        }
    }
    folder
}

/// The same answer as a message, its values raw.
fn message(body: &[u8], json_length: usize) -> Vec<u8> {
    let (json, values) = body.split_at(json_length);
    let json: serde_json::Value = serde_json::from_slice(json).expect("the answer is JSON");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut at = 0;
    let mut answer = ModelInferResponse {
        model_name: text(&json["model_name"]),
        model_version: text(&json["model_version"]),
        id: text(&json["id"]),
        ..ModelInferResponse::default()
    };
    for output in json["outputs"].as_array().into_iter().flatten() {
        let bytes = output["parameters"]["binary_data_size"].as_u64().expect("a size") as usize;
        answer.raw_output_contents.push(Bytes::copy_from_slice(&values[at..at + bytes]));
        at += bytes;
        answer.outputs.push(InferOutputTensor {
            name: text(&output["name"]),
            datatype: text(&output["datatype"]),
            shape: output["shape"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(serde_json::Value::as_i64)
                .collect(),
            ..InferOutputTensor::default()
        });
    }
    answer.encode_to_vec()
}

/// (head, body) of the answer.
fn post(server: &Process, model: &str, request: &str) -> (String, Vec<u8>) {
    exchange(server.http, "POST", &format!("/v2/models/{model}/infer"), request)
}

/// Asks the server's admin API and gives the body of the answer.
///
/// # Panics
/// When the server does not answer with success.
pub fn admin(server: &Process, method: &str, path: &str, body: &str) -> String {
    let (_, body) = exchange(server.admin.expect("a server"), method, path, body);
    String::from_utf8(body).expect("the answer is a text")
}

fn exchange(address: SocketAddr, method: &str, path: &str, request: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        request.len()
    );
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(request.as_bytes()))
        .expect("it is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it is answered");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let body = answer.split_off(end);
    assert!(head.starts_with("http/1.1 200"), "{head}{}", String::from_utf8_lossy(&body));
    (head, body)
}

/// Whether a GET of `path` succeeds.
#[must_use]
pub fn is_ok(server: &Process, path: &str) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(server.http)?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", server.http)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok::<_, std::io::Error>(answer.starts_with(b"HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

fn header(head: &str, name: &str) -> Option<usize> {
    head.lines().find_map(|line| line.strip_prefix(name)?.trim_start_matches(':').trim().parse().ok())
}
