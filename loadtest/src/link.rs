//! One connection's protocol state, without its socket: HTTP/1.1 (with pipelining) or HTTP/2.
//!
//! Requests go in by their index in the prebuilt payloads, answers come out by callback with the
//! tag they were sent with. Must not know about time, sockets' readiness or measurement.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use crate::grpc;
use crate::http::{self, HttpError, Parsed};
use crate::http2::call::{CallHead, Reply};
use crate::http2::client::{Client, Http2Error, Outcome};

/// Requests gathered into one system call.
const WRITE_SLICES_MAX: usize = 64;
/// Bytes of an error's text that are kept.
const DETAIL_BYTES_MAX: usize = 400;

/// What every connection to one target shares.
#[derive(Debug)]
pub(crate) enum Calls {
    /// Whole requests; up to `depth` of them on a connection.
    Http { requests: Vec<Vec<u8>>, depth: usize },
    /// Framed messages; up to `streams` of them on a connection.
    Grpc { head: CallHead, messages: Vec<Vec<u8>>, streams: usize },
}

impl Calls {
    /// The prebuilt requests or messages.
    pub(crate) fn payloads(&self) -> &[Vec<u8>] {
        match self {
            Self::Http { requests, .. } => requests,
            Self::Grpc { messages, .. } => messages,
        }
    }

    /// State of a new connection.
    pub(crate) fn link(&self) -> Link {
        match self {
            Self::Http { depth, .. } => Link::Http(HttpLink::new(*depth)),
            Self::Grpc { head, streams, .. } => Link::Grpc(Box::new(Client::new(head.clone(), *streams))),
        }
    }
}

/// How the server answered one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// HTTP status of an HTTP call, or of a gRPC call refused below gRPC.
    Http(u16),
    /// gRPC status code.
    Grpc(u16),
    /// The HTTP/2 stream was reset with this code.
    Reset(u32),
    /// The answer itself is malformed.
    Malformed,
}

impl Status {
    /// The server says that it did what it was asked.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Http(200..=299) | Self::Grpc(0))
    }
}

/// One answer, as it leaves the connection.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub tag: u64,
    pub status: Status,
    /// HTTP body, or the gRPC message without its prefix.
    pub body: &'a [u8],
    /// The server's words about an error.
    pub detail: &'a str,
}

/// Why a connection is lost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("server sent an answer that no request asked for")]
    Unasked,
    #[error(transparent)]
    Http2(#[from] Http2Error),
}

/// State of one connection.
#[derive(Debug)]
pub(crate) enum Link {
    Http(HttpLink),
    Grpc(Box<Client>),
}

/// HTTP/1.1: requests in a line, answers in the same order.
#[derive(Debug)]
pub(crate) struct HttpLink {
    depth: usize,
    /// Requests not yet written, the first of them up to `written`.
    outbox: VecDeque<u32>,
    written: usize,
    /// Tags of the requests not yet answered, oldest first.
    waiting: VecDeque<u64>,
    pending: Vec<u8>,
    need_bytes: usize,
    scratch: Vec<u8>,
    closing: bool,
}

impl HttpLink {
    fn new(depth: usize) -> Self {
        Self {
            depth,
            outbox: VecDeque::new(),
            written: 0,
            waiting: VecDeque::new(),
            pending: Vec::new(),
            need_bytes: 0,
            scratch: Vec::new(),
            closing: false,
        }
    }

    fn flush(&mut self, mut socket: impl Write, requests: &[Vec<u8>]) -> io::Result<bool> {
        while let Some(&first) = self.outbox.front() {
            let head = &requests[first as usize][self.written..];
            let written = if self.outbox.len() == 1 {
                socket.write(head)
            } else {
                let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
                slices[0] = IoSlice::new(head);
                let rest = self.outbox.iter().skip(1);
                for (slice, index) in slices[1..].iter_mut().zip(rest) {
                    *slice = IoSlice::new(&requests[*index as usize]);
                }
                let filled = self.outbox.len().min(WRITE_SLICES_MAX);
                socket.write_vectored(&slices[..filled])
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.advance(bytes, requests),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, mut bytes: usize, requests: &[Vec<u8>]) {
        while let Some(&first) = self.outbox.front() {
            let left = requests[first as usize].len() - self.written;
            if bytes < left {
                self.written += bytes;
                return;
            }
            bytes -= left;
            self.written = 0;
            self.outbox.pop_front();
        }
    }

    fn receive(&mut self, input: &[u8], done: &mut dyn FnMut(Answer<'_>)) -> Result<(), LinkError> {
        if self.pending.is_empty() {
            let consumed = self.answers(input, done)?;
            self.pending.extend_from_slice(&input[consumed..]);
            return Ok(());
        }
        self.pending.extend_from_slice(input);
        if self.pending.len() < self.need_bytes {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        let consumed = self.answers(&pending, done)?;
        pending.drain(..consumed);
        self.pending = pending;
        Ok(())
    }

    fn answers(&mut self, input: &[u8], done: &mut dyn FnMut(Answer<'_>)) -> Result<usize, LinkError> {
        let mut at = 0;
        while at < input.len() {
            let response = match http::parse(&input[at..], &mut self.scratch)? {
                Parsed::Complete(response) => response,
                Parsed::Incomplete { need_bytes } => {
                    self.need_bytes = need_bytes;
                    break;
                }
            };
            at += response.consumed;
            if response.status < 200 {
                continue;
            }
            let tag = self.waiting.pop_front().ok_or(LinkError::Unasked)?;
            self.closing |= response.close;
            let status = Status::Http(response.status);
            let detail = match status.is_success() {
                true => "",
                false => text(response.body),
            };
            done(Answer { tag, status, body: response.body, detail });
        }
        Ok(at)
    }
}

impl Link {
    /// Ready to carry calls: HTTP/2 waits for the server's settings.
    pub(crate) fn ready(&self) -> bool {
        match self {
            Self::Http(_) => true,
            Self::Grpc(client) => client.settled(),
        }
    }

    /// Requests that may be sent now.
    pub(crate) fn room(&self) -> usize {
        match self {
            Self::Http(link) if link.closing => 0,
            Self::Http(link) => link.depth - link.waiting.len(),
            Self::Grpc(client) => client.room(),
        }
    }

    /// The connection answered all it will; it must be replaced.
    pub(crate) fn exhausted(&self) -> bool {
        match self {
            Self::Http(link) => link.closing,
            Self::Grpc(client) => client.exhausted(),
        }
    }

    /// Takes a request; `flush` writes it.
    pub(crate) fn send(&mut self, tag: u64, payload: u32, calls: &Calls) {
        match self {
            Self::Http(link) => {
                link.outbox.push_back(payload);
                link.waiting.push_back(tag);
            }
            Self::Grpc(client) => client.call(tag, payload, calls.payloads()),
        }
    }

    /// Writes what waits; false when the socket would block.
    pub(crate) fn flush(&mut self, mut socket: impl Write, calls: &Calls) -> io::Result<bool> {
        match self {
            Self::Http(link) => link.flush(socket, calls.payloads()),
            Self::Grpc(client) => {
                let output = client.output_mut();
                let mut at = 0;
                let done = loop {
                    if at == output.len() {
                        break true;
                    }
                    match socket.write(&output[at..]) {
                        Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(bytes) => at += bytes,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                };
                output.drain(..at);
                Ok(done)
            }
        }
    }

    /// Takes what the server sent.
    pub(crate) fn receive(
        &mut self,
        input: &[u8],
        calls: &Calls,
        done: &mut dyn FnMut(Answer<'_>),
    ) -> Result<(), LinkError> {
        match self {
            Self::Http(link) => link.receive(input, done),
            Self::Grpc(client) => {
                Ok(client.receive(input, calls.payloads(), &mut |tag, end| grpc_answer(tag, end, done))?)
            }
        }
    }

    /// Calls `lost` with the tag of every request that has no answer.
    pub(crate) fn for_each_open(&self, lost: &mut dyn FnMut(u64)) {
        match self {
            Self::Http(link) => link.waiting.iter().for_each(|tag| lost(*tag)),
            Self::Grpc(client) => client.open_tags().for_each(lost),
        }
    }
}

fn grpc_answer(tag: u64, outcome: Outcome<'_>, done: &mut dyn FnMut(Answer<'_>)) {
    let (reply, data) = match outcome {
        Outcome::Ended { reply, data } => (reply, data),
        Outcome::Reset(code) => {
            return done(Answer {
                tag,
                status: Status::Reset(code),
                body: &[],
                detail: "HTTP/2 stream was reset",
            });
        }
    };
    let (status, body, detail) = match &reply {
        Reply { grpc_code: Some(0), .. } => match grpc::unframe(data) {
            Ok(message) => (Status::Grpc(0), message, ""),
            Err(detail) => (Status::Malformed, data, detail),
        },
        Reply { grpc_code: Some(code), message, .. } => {
            (Status::Grpc(*code), data, message.as_deref().unwrap_or(""))
        }
        Reply { http_status: Some(status), .. } if *status != 200 => {
            (Status::Http(*status), data, text(data))
        }
        _ => (Status::Malformed, data, "answer has no grpc-status"),
    };
    done(Answer { tag, status, body, detail });
}

/// The readable beginning of a body.
pub(crate) fn text(body: &[u8]) -> &str {
    let body = &body[..body.len().min(DETAIL_BYTES_MAX)];
    match str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&body[..error.valid_up_to()]).unwrap_or(""),
    }
}
