//! Bounds of bodies in bytes and time. Must not know what is in a body.

use std::{io::Write as _, time::Duration};

use bytes::Bytes;
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};

use super::{is_unharmed, names, repository};
use crate::support::{
    grpc,
    http::{Connection, Reply, exchange, request},
    server::Server,
};

const PATH: &str = "/v2/models/identity_fp32/infer";
const BODY_BYTES_MAX: usize = 64 << 10;

fn refused(reply: &Reply, status: u16, words: &[&str], case: &str) {
    assert_eq!(reply.status, status, "{case}: {}", reply.text());
    names(reply.json()["error"].as_str().expect("a message"), words, case);
}

#[test]
fn bodies_over_the_limit_of_bytes() {
    let repository = repository();
    let server = Server::start(repository.path(), |config| config.limits.body_bytes_max = BODY_BYTES_MAX);
    // stated to be too long: refused before any of it is there
    let mut connection = Connection::open(server.http());
    let head =
        format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
    connection.send(head.as_bytes());
    let reply = connection.read().expect("an answer");
    refused(&reply, 413, &["has 65537 bytes", "at most 65536", "limits.body_bytes_max"], "a stated length");
    is_unharmed(&server, "a stated length");
    // not stated
    let mut connection = Connection::open(server.http());
    connection.send(
        format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n").as_bytes(),
    );
    let chunk = [b"1000\r\n".to_vec(), vec![b' '; 0x1000], b"\r\n".to_vec()].concat();
    for _ in 0..=BODY_BYTES_MAX / 0x1000 {
        connection.send(&chunk);
    }
    refused(&connection.read().expect("an answer"), 413, &["grew over its limit", "65536"], "chunks");
    is_unharmed(&server, "chunks");
    // one byte less is read
    let body = vec![b' '; BODY_BYTES_MAX];
    let reply = exchange(server.http(), &request("POST", PATH, "", &body));
    refused(&reply, 400, &["failed to parse the request JSON"], "the limit itself");
}

#[test]
fn bodies_that_grow_when_they_are_unpacked() {
    let repository = repository();
    let server = Server::start(repository.path(), |config| config.limits.body_bytes_max = BODY_BYTES_MAX);
    let zeros = vec![0; 32 << 20];
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&zeros).unwrap();
    let mut deflate = ZlibEncoder::new(Vec::new(), Compression::best());
    deflate.write_all(&zeros).unwrap();
    for (coding, body) in [("gzip", gzip.finish().unwrap()), ("deflate", deflate.finish().unwrap())] {
        assert!(body.len() < BODY_BYTES_MAX, "{} bytes", body.len());
        let headers = format!("content-encoding: {coding}\r\n");
        let reply = exchange(server.http(), &request("POST", PATH, &headers, &body));
        refused(&reply, 413, &["larger when unpacked", "65536"], coding);
        is_unharmed(&server, coding);
    }
    // the same as a message of gRPC
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&zeros).unwrap();
    let packed = gzip.finish().unwrap();
    let length = u32::try_from(packed.len()).unwrap().to_be_bytes();
    let body = Bytes::from([&[1], &length[..], &packed].concat());
    let ended = grpc::Client::open(server.grpc()).call(grpc::MODEL_INFER, &[("grpc-encoding", "gzip")], body);
    assert_eq!(ended.code, 8, "{}", ended.message);
    is_unharmed(&server, "a packed message");
}

#[test]
fn messages_over_the_limit_of_bytes() {
    let repository = repository();
    let server = Server::start(repository.path(), |config| config.limits.body_bytes_max = BODY_BYTES_MAX);
    let client = grpc::Client::open(server.grpc());
    let rows = 20_000;
    let request = grpc::ModelInferRequest {
        model_name: "identity_fp32".into(),
        inputs: vec![grpc::Tensor::empty("x", "FP32", &[rows, 1])],
        raw_input_contents: vec![vec![0; 4 * rows as usize].into()],
        ..grpc::ModelInferRequest::default()
    };
    let ended = client.infer(&request);
    assert_eq!(ended.code, 8, "{}", ended.message);
    names(&ended.message, &["at most 65536", "limits.body_bytes_max"], "a long message");
    is_unharmed(&server, "a long message");
    // a prefix that promises too much is refused before the message is there
    let ended = client.stall(grpc::MODEL_INFER, Bytes::from_static(b"\0\xff\xff\xff\xff1234"));
    assert_eq!(ended.code, 8, "{}", ended.message);
    is_unharmed(&server, "a long prefix");
}

#[test]
fn senders_that_are_too_slow() {
    let repository = repository();
    let server = Server::start(repository.path(), |config| {
        config.limits.body_time_max = Duration::from_millis(150);
        config.limits.head_time_max = Duration::from_millis(150);
    });
    let mut connection = Connection::open(server.http());
    connection
        .send(format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{{").as_bytes());
    let reply = connection.read().expect("an answer");
    refused(&reply, 408, &["did not arrive within 150 ms"], "a slow body");
    assert!(connection.is_closed(), "the connection is freed");
    is_unharmed(&server, "a slow body");
    let mut connection = Connection::open(server.http());
    connection.send(b"GET /v2 HTTP/1.1\r\nhost: loc");
    assert!(connection.read().is_none_or(|reply| reply.status == 408), "a slow head");
    assert!(connection.is_closed(), "the connection is freed");
    is_unharmed(&server, "a slow head");
    let mut connection = Connection::open(server.http());
    connection.send(b"GET /v2 HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(connection.read().map(|reply| reply.status), Some(200), "a quick head");
    connection.send(b"GET /v2 HTTP/1.1\r\nhost: loc");
    assert!(connection.is_closed(), "a slow head after a quick one frees the connection too");
    let ended =
        grpc::Client::open(server.grpc()).stall(grpc::MODEL_INFER, Bytes::from_static(b"\0\0\0\0\x10ab"));
    assert_eq!(ended.code, 4, "{}", ended.message);
    names(&ended.message, &["0.15 s", "limits.body_ms_max"], "a slow message");
    is_unharmed(&server, "a slow message");
    let health = "/grpc.health.v1.Health/Check";
    let ended = grpc::Client::open(server.grpc()).stall(health, Bytes::from_static(b"\0\0\0\0\x10ab"));
    assert_eq!(ended.code, 4, "{}", ended.message);
    is_unharmed(&server, "a slow message to another call");
}

#[test]
fn senders_that_leave_in_the_middle() {
    let repository = repository();
    let server = Server::start(repository.path(), |_| {});
    let state = server.app().state();
    for politely in [true, false] {
        let mut connection = Connection::open(server.http());
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n");
        connection.send(&[head.as_bytes(), &[b' '; 5000]].concat());
        crate::support::wait::until("the first bytes are counted", || state.admission.bytes() >= 5000);
        if politely {
            connection.finish();
            let reply = connection.read();
            assert!(reply.is_none_or(|reply| reply.status == 400), "a body that ends early");
        } else {
            drop(connection);
        }
        is_unharmed(&server, "a body that ends early");
    }
}
