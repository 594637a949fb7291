//! Seeded mutation of everything that parses outside bytes: no input may panic or hang.
//!
//! A stand-in for fuzzing that runs with the tests; a failure prints its seed.

use crate::data::{csv, npy};
use crate::http;
use crate::http2::call::CallHead;
use crate::http2::client::Client;
use crate::http2::frame;
use crate::http2::hpack::{self, Decoder};
use crate::link::Calls;
use crate::random::Random;
use crate::signature::InputSpec;
use crate::tensor::DataType;
use crate::{arrivals, grpc};

const ROUNDS: u64 = 3000;

/// Flips, cuts, repeats and inserts bytes of a sample.
fn mutated(sample: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..=random.next_below(4) {
        let at = random.next_below(bytes.len() as u64 + 1) as usize;
        match random.next_below(4) {
            0 if at < bytes.len() => bytes[at] = random.next_u64() as u8,
            1 => bytes.truncate(at),
            2 => bytes.extend_from_slice(&sample[at.min(sample.len())..]),
            _ => bytes.insert(at, random.next_u64() as u8),
        }
    }
    bytes
}

fn each(samples: &[&[u8]], mut parse: impl FnMut(&[u8])) {
    for seed in 0..ROUNDS {
        let mut random = Random::new(seed);
        let sample = samples[random.next_below(samples.len() as u64) as usize];
        let input = mutated(sample, &mut random);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| parse(&input)));
        assert!(outcome.is_ok(), "seed {seed}: {input:?}");
    }
}

#[test]
fn http_answers() {
    let samples: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.0 503 x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    ];
    each(&samples, |input| {
        let mut scratch = Vec::new();
        if let Ok(http::Parsed::Incomplete { need_bytes }) = http::parse(input, &mut scratch) {
            assert!(need_bytes > input.len());
        }
    });
}

#[test]
fn http2_answers() {
    let mut headers = vec![0x88];
    hpack::put_literal(&mut headers, ("content-type", "application/grpc"), true);
    let mut trailers = Vec::new();
    hpack::put_literal(&mut trailers, ("grpc-status", "0"), false);
    let mut whole = Vec::new();
    frame::put_opening(&mut whole);
    frame::put(&mut whole, frame::HEADERS, frame::END_HEADERS, 1, &headers);
    frame::put(&mut whole, frame::DATA, 0, 1, &grpc::frame(b"\x12\x011"));
    let ends = frame::END_HEADERS | frame::END_STREAM;
    frame::put(&mut whole, frame::HEADERS, ends, 1, &trailers);
    frame::put(&mut whole, frame::GOAWAY, 0, 0, &[0; 8]);
    let calls = Calls::Grpc { head: CallHead::new("h", "/p", &[]), messages: vec![vec![0; 100]], streams: 2 };
    each(&[&whole], |input| {
        let mut link = calls.link();
        link.send(0, 0, &calls);
        link.send(1, 0, &calls);
        let (first, second) = input.split_at(input.len() / 2);
        let _ =
            link.receive(first, &calls, &mut |_| {}).and_then(|()| link.receive(second, &calls, &mut |_| {}));
    });
    let mut client = Client::new(CallHead::new("h", "/p", &[]), 2);
    assert!(client.receive(&whole, &[], &mut |_, _| {}).is_ok());
    each(&[&headers, b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2"], |input| {
        let _ = Decoder::default().decode(input);
    });
    each(&[b"\x0a\x01m\x12\x012\x1a\x00\x32\x04abcd"], |input| {
        let _ = grpc::model_version(input);
        let _ = grpc::unframe(input);
    });
}

#[test]
fn files() {
    let input = InputSpec { name: "x".into(), datatype: DataType::Int32, shape: vec![-1, 2] };
    let header = "{'descr': '|i1', 'fortran_order': False, 'shape': (2, 2), }\n";
    let mut npy_file = b"\x93NUMPY\x01\x00".to_vec();
    npy_file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    npy_file.extend_from_slice(header.as_bytes());
    npy_file.extend_from_slice(&[1, 2, 3, 4]);
    assert!(npy::parse(&npy_file, &input).is_ok());
    each(&[&npy_file], |bytes| {
        let _ = npy::parse(bytes, &input);
    });
    each(&[b"x.0,x.1\r\n1,\"2\"\r\n3,4\r\n"], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = csv::parse(&text, std::slice::from_ref(&input), &[vec![2]]);
        let _ = arrivals::parse_recorded(&text);
    });
}
