//! The echo server's gRPC side: fixed answers to unary calls, each stream's id patched in.
//!
//! Answers are small enough for every stream window; the connection's window is kept.
//! Must not know about sockets.

use std::collections::VecDeque;

use prost::Message as _;

use super::Malformed;
use crate::grpc::{
    InferOutputTensor, ModelInferResponse, ModelMetadataResponse, TensorMetadata, frame as message,
};
use crate::http2::frame::{self, Head};
use crate::http2::hpack::{self, Memo};

/// Answers that may wait for the connection's window.
const WAITING_MAX: usize = 1 << 16;
/// Open streams that are not yet whole.
const OPEN_MAX: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Infer,
    Metadata,
    Unknown,
}

/// One client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    preface_left: usize,
    window: i64,
    unacknowledged: u32,
    methods: Memo<Method>,
    /// Streams whose DATA is still coming.
    open: Vec<(u32, Method)>,
    waiting: VecDeque<(u32, Method)>,
    infer: Vec<u8>,
    metadata: Vec<u8>,
    headers: Vec<u8>,
    trailers: Vec<u8>,
    refusal: Vec<u8>,
}

impl Connection {
    pub(super) fn new(output: &mut Vec<u8>) -> Self {
        frame::put_opening(output);
        let literal = |fields: &[(&str, &str)], start: &[u8]| {
            let mut block = start.to_vec();
            fields.iter().for_each(|field| hpack::put_literal(&mut block, *field, false));
            block
        };
        let unimplemented = "the echo server knows ModelInfer and ModelMetadata only";
        Self {
            preface_left: frame::PREFACE.len(),
            window: frame::WINDOW_BYTES_DEFAULT,
            unacknowledged: 0,
            methods: Memo::default(),
            open: Vec::new(),
            waiting: VecDeque::new(),
            infer: message(&infer_answer()),
            metadata: message(&metadata_answer()),
            // :status 200 is 8 in the static table.
            headers: literal(&[("content-type", "application/grpc")], &[0x88]),
            trailers: literal(&[("grpc-status", "0")], &[]),
            refusal: literal(
                &[
                    ("content-type", "application/grpc"),
                    ("grpc-status", "12"),
                    ("grpc-message", unimplemented),
                ],
                &[0x88],
            ),
        }
    }

    /// Answers what is whole in `input`; the bytes that took.
    pub(super) fn serve(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Malformed> {
        let mut at = self.preface_left.min(input.len());
        let expected = &frame::PREFACE[frame::PREFACE.len() - self.preface_left..];
        if !expected.starts_with(&input[..at]) {
            return Err(Malformed);
        }
        self.preface_left -= at;
        while let Some(head) = Head::parse(&input[at..]) {
            if head.length > frame::PAYLOAD_BYTES_MAX {
                return Err(Malformed);
            }
            let start = at + frame::HEAD_BYTES;
            let Some(payload) = input.get(start..start + head.length) else {
                break;
            };
            at = start + head.length;
            self.frame(head, payload, output)?;
        }
        self.answer_waiting(output);
        if self.unacknowledged > frame::WINDOW_BYTES_OFFERED / 2 {
            let grow = self.unacknowledged.to_be_bytes();
            frame::put(output, frame::WINDOW_UPDATE, 0, 0, &grow);
            self.unacknowledged = 0;
        }
        Ok(at)
    }

    fn frame(&mut self, head: Head, payload: &[u8], output: &mut Vec<u8>) -> Result<(), Malformed> {
        match head.kind {
            frame::HEADERS => {
                // A client of one method has no reason to split its headers.
                if head.flags & frame::END_HEADERS == 0 || self.open.len() >= OPEN_MAX {
                    return Err(Malformed);
                }
                let block = frame::content(&head, payload).ok_or(Malformed)?;
                let method = self.methods.decode(block, method_of).map_err(|_| Malformed)?;
                self.open.push((head.stream, method));
            }
            frame::DATA => self.unacknowledged += head.length as u32,
            frame::RST_STREAM => self.open.retain(|(stream, _)| *stream != head.stream),
            frame::SETTINGS if head.flags & frame::ACK == 0 => {
                frame::put(output, frame::SETTINGS, frame::ACK, 0, &[]);
            }
            frame::PING if head.flags & frame::ACK == 0 => {
                frame::put(output, frame::PING, frame::ACK, 0, payload);
            }
            frame::WINDOW_UPDATE if head.stream == 0 => {
                let grow = payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
                self.window += i64::from(grow.ok_or(Malformed)? & 0x7fff_ffff);
            }
            frame::CONTINUATION | frame::PUSH_PROMISE => return Err(Malformed),
            _ => {}
        }
        let ends = matches!(head.kind, frame::HEADERS | frame::DATA) && head.flags & frame::END_STREAM != 0;
        if ends && let Some(index) = self.open.iter().position(|(id, _)| *id == head.stream) {
            if self.waiting.len() >= WAITING_MAX {
                return Err(Malformed);
            }
            self.waiting.push_back(self.open.remove(index));
        }
        Ok(())
    }

    fn answer_waiting(&mut self, output: &mut Vec<u8>) {
        while let Some(&(stream, method)) = self.waiting.front() {
            let ends = frame::END_HEADERS | frame::END_STREAM;
            let data = match method {
                Method::Infer => &self.infer,
                Method::Metadata => &self.metadata,
                Method::Unknown => {
                    frame::put(output, frame::HEADERS, ends, stream, &self.refusal);
                    self.waiting.pop_front();
                    continue;
                }
            };
            if self.window < data.len() as i64 {
                return;
            }
            self.window -= data.len() as i64;
            frame::put(output, frame::HEADERS, frame::END_HEADERS, stream, &self.headers);
            frame::put(output, frame::DATA, 0, stream, data);
            frame::put(output, frame::HEADERS, ends, stream, &self.trailers);
            self.waiting.pop_front();
        }
    }
}

fn method_of(fields: &[hpack::Field]) -> Method {
    let path = fields.iter().find(|(name, _)| name == b":path").map(|(_, path)| &path[..]);
    match path {
        Some(path) if path.ends_with(b"/ModelInfer") => Method::Infer,
        Some(path) if path.ends_with(b"/ModelMetadata") => Method::Metadata,
        _ => Method::Unknown,
    }
}

fn infer_answer() -> Vec<u8> {
    ModelInferResponse {
        model_name: "echo".into(),
        model_version: "1".into(),
        id: String::new(),
        outputs: vec![InferOutputTensor { name: "y".into(), datatype: "FP32".into(), shape: vec![1, 4] }],
        raw_output_contents: vec![[0.25f32; 4].iter().flat_map(|v| v.to_le_bytes()).collect()],
    }
    .encode_to_vec()
}

fn metadata_answer() -> Vec<u8> {
    let tensor =
        |name: &str| TensorMetadata { name: name.into(), datatype: "FP32".into(), shape: vec![-1, 4] };
    ModelMetadataResponse {
        name: "echo".into(),
        versions: vec!["1".into()],
        platform: "echo".into(),
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
    }
    .encode_to_vec()
}
