//! One client connection of HTTP/2 that sends unary gRPC calls of one method, without a socket.
//!
//! Bytes in, bytes out, answers by callback: the caller owns the socket and the time. The header
//! block of a call is prebuilt; the first call fills the server's dynamic table, the following
//! ones are indices. Must not know what a call means or how long it took.

use super::call::{CallHead, Reply, read_reply};
use super::frame::{self, Head};
use super::hpack::{HpackError, Memo};

/// Largest answer accepted; a larger one ends the connection.
const RESPONSE_BYTES_MAX: usize = 256 << 20;
/// Largest header block of one answer.
const HEADER_BLOCK_BYTES_MAX: usize = 64 << 10;
/// Spare answer buffers kept.
const SPARE_BUFFERS_MAX: usize = 256;
/// Spare buffers larger than this are given back.
const SPARE_BUFFER_BYTES_MAX: usize = 64 << 10;
/// The last stream id we use; a connection past it is replaced.
const STREAM_ID_MAX: u32 = 0x7fff_ff00;

/// Why a connection is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Http2Error {
    #[error("peer does not speak HTTP/2 (its first frame is no SETTINGS)")]
    NotHttp2,
    #[error("malformed {0} frame")]
    Frame(&'static str),
    #[error("frame of {0} bytes, at most {max} were agreed", max = frame::PAYLOAD_BYTES_MAX)]
    FrameTooLarge(usize),
    #[error("answer is longer than {RESPONSE_BYTES_MAX} bytes")]
    AnswerTooLarge,
    #[error(transparent)]
    Hpack(#[from] HpackError),
    #[error("server went away with HTTP/2 error {code}: {text}")]
    GoAway { code: u32, text: String },
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    /// The stream ended; `data` is all its DATA.
    Ended { reply: Reply, data: &'a [u8] },
    /// The server reset the stream with this HTTP/2 error code.
    Reset(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeadUse {
    First,
    Repeated,
    /// The server shrank its table: say so once, then use no table.
    Shrink,
    Plain,
}

#[derive(Debug)]
struct Stream {
    id: u32,
    tag: u64,
    window: i64,
    reply: Reply,
    data: Vec<u8>,
    /// Payload and how much of it is sent; `None` once all is.
    unsent: Option<(u32, usize)>,
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Client {
    head: CallHead,
    head_use: HeadUse,
    stream_next: u32,
    streams: Vec<Stream>,
    unsent_streams: usize,
    window: i64,
    stream_window: i64,
    frame_bytes_max: usize,
    /// What we want, and what of it the server allows.
    streams_wanted: usize,
    streams_max: usize,
    /// Received and not yet given back to the server's connection window.
    unacknowledged: u32,
    replies: Memo<Reply>,
    fragment: Option<(Head, Vec<u8>)>,
    pending: Vec<u8>,
    settled: bool,
    gone: bool,
    spare: Vec<Vec<u8>>,
    output: Vec<u8>,
}

impl Client {
    /// A connection whose first bytes are ready in its output.
    pub(crate) fn new(head: CallHead, streams_max: usize) -> Self {
        let mut output = frame::PREFACE.to_vec();
        frame::put_opening(&mut output);
        Self {
            head,
            head_use: HeadUse::First,
            stream_next: 1,
            streams: Vec::new(),
            unsent_streams: 0,
            window: frame::WINDOW_BYTES_DEFAULT,
            stream_window: frame::WINDOW_BYTES_DEFAULT,
            frame_bytes_max: frame::PAYLOAD_BYTES_MAX,
            streams_wanted: streams_max,
            streams_max,
            unacknowledged: 0,
            replies: Memo::default(),
            fragment: None,
            pending: Vec::new(),
            settled: false,
            gone: false,
            spare: Vec::new(),
            output,
        }
    }

    /// The server's settings have come.
    pub(crate) fn settled(&self) -> bool {
        self.settled
    }

    /// Calls that may be started now.
    pub(crate) fn room(&self) -> usize {
        if self.finished() || self.gone {
            return 0;
        }
        self.streams_max.saturating_sub(self.streams.len())
    }

    /// No call will ever be started here again, and none is open.
    pub(crate) fn exhausted(&self) -> bool {
        self.streams.is_empty() && (self.gone || self.finished())
    }

    fn finished(&self) -> bool {
        self.stream_next > STREAM_ID_MAX
    }

    /// Bytes to write; the caller takes what it has written.
    pub(crate) fn output_mut(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Tags of the calls that are open; they are lost with the connection.
    pub(crate) fn open_tags(&self) -> impl Iterator<Item = u64> {
        self.streams.iter().map(|stream| stream.tag)
    }

    /// Starts a call with a framed message; `payload` is its index in `payloads`.
    pub(crate) fn call(&mut self, tag: u64, payload: u32, payloads: &[Vec<u8>]) {
        let id = self.stream_next;
        self.stream_next += 2;
        self.put_head(id);
        let data = self.spare.pop().unwrap_or_default();
        let mut stream =
            Stream { id, tag, window: self.stream_window, reply: Reply::default(), data, unsent: None };
        let message = &payloads[payload as usize];
        let bytes = message.len() as i64;
        if message.len() <= self.frame_bytes_max
            && bytes <= self.window
            && bytes <= stream.window
            && self.unsent_streams == 0
        {
            self.window -= bytes;
            stream.window -= bytes;
            frame::put(&mut self.output, frame::DATA, frame::END_STREAM, id, message);
            self.streams.push(stream);
        } else {
            stream.unsent = Some((payload, 0));
            self.unsent_streams += 1;
            self.streams.push(stream);
            self.send_data(payloads);
        }
    }

    fn put_head(&mut self, stream: u32) {
        let (block, next) = match self.head_use {
            HeadUse::First => (&self.head.first, HeadUse::Repeated),
            HeadUse::Repeated => (&self.head.repeated, HeadUse::Repeated),
            HeadUse::Shrink | HeadUse::Plain => (&self.head.plain, HeadUse::Plain),
        };
        let shrink = self.head_use == HeadUse::Shrink;
        Head {
            length: block.len() + usize::from(shrink),
            kind: frame::HEADERS,
            flags: frame::END_HEADERS,
            stream,
        }
        .put(&mut self.output);
        if shrink {
            self.output.push(0x20);
        }
        self.output.extend_from_slice(block);
        self.head_use = next;
    }

    /// Sends as much of the waiting messages as the windows let through.
    fn send_data(&mut self, payloads: &[Vec<u8>]) {
        for stream in &mut self.streams {
            let Some((payload, mut at)) = stream.unsent else {
                continue;
            };
            let message = &payloads[payload as usize];
            while at < message.len() {
                let room = self.window.min(stream.window).max(0) as usize;
                let length = (message.len() - at).min(self.frame_bytes_max).min(room);
                if length == 0 {
                    break;
                }
                let last = at + length == message.len();
                let flags = if last { frame::END_STREAM } else { 0 };
                let part = &message[at..at + length];
                frame::put(&mut self.output, frame::DATA, flags, stream.id, part);
                self.window -= length as i64;
                stream.window -= length as i64;
                at += length;
            }
            stream.unsent = Some((payload, at));
            if at == message.len() {
                stream.unsent = None;
                self.unsent_streams -= 1;
            }
        }
    }

    /// Takes what the server sent; each finished call goes to `done` with its tag.
    pub(crate) fn receive(
        &mut self,
        input: &[u8],
        payloads: &[Vec<u8>],
        done: &mut dyn FnMut(u64, Outcome<'_>),
    ) -> Result<(), Http2Error> {
        if self.pending.is_empty() {
            let consumed = self.frames(input, done)?;
            self.pending.extend_from_slice(&input[consumed..]);
        } else {
            let mut pending = std::mem::take(&mut self.pending);
            pending.extend_from_slice(input);
            let consumed = self.frames(&pending, done)?;
            pending.drain(..consumed);
            self.pending = pending;
        }
        if self.unacknowledged > frame::WINDOW_BYTES_OFFERED / 2 {
            let grow = self.unacknowledged.to_be_bytes();
            frame::put(&mut self.output, frame::WINDOW_UPDATE, 0, 0, &grow);
            self.unacknowledged = 0;
        }
        if self.unsent_streams > 0 {
            self.send_data(payloads);
        }
        Ok(())
    }

    fn frames(&mut self, input: &[u8], done: &mut dyn FnMut(u64, Outcome<'_>)) -> Result<usize, Http2Error> {
        let mut at = 0;
        while let Some(head) = Head::parse(&input[at..]) {
            if !self.settled && head.kind != frame::SETTINGS {
                return Err(Http2Error::NotHttp2);
            }
            if head.length > frame::PAYLOAD_BYTES_MAX {
                return Err(Http2Error::FrameTooLarge(head.length));
            }
            let start = at + frame::HEAD_BYTES;
            let Some(payload) = input.get(start..start + head.length) else {
                break;
            };
            at = start + head.length;
            self.frame(head, payload, done)?;
        }
        Ok(at)
    }

    fn frame(
        &mut self,
        head: Head,
        payload: &[u8],
        done: &mut dyn FnMut(u64, Outcome<'_>),
    ) -> Result<(), Http2Error> {
        match head.kind {
            frame::DATA => self.data(head, payload, done),
            frame::HEADERS => {
                let block = frame::content(&head, payload).ok_or(Http2Error::Frame("HEADERS"))?;
                if head.flags & frame::END_HEADERS != 0 {
                    return self.headers(head, block, done);
                }
                self.fragment = Some((head, block.to_vec()));
                Ok(())
            }
            frame::CONTINUATION => {
                let malformed = Http2Error::Frame("CONTINUATION");
                let Some((first, mut block)) = self.fragment.take() else {
                    return Err(malformed);
                };
                block.extend_from_slice(payload);
                if first.stream != head.stream || block.len() > HEADER_BLOCK_BYTES_MAX {
                    return Err(malformed);
                }
                if head.flags & frame::END_HEADERS != 0 {
                    return self.headers(first, &block, done);
                }
                self.fragment = Some((first, block));
                Ok(())
            }
            frame::RST_STREAM => {
                let code = word(payload).ok_or(Http2Error::Frame("RST_STREAM"))?;
                if let Some(index) = self.position(head.stream) {
                    let stream = self.remove(index);
                    done(stream.tag, Outcome::Reset(code));
                    self.recycle(stream.data);
                }
                Ok(())
            }
            frame::SETTINGS => self.settings(head, payload),
            frame::PING if head.flags & frame::ACK == 0 => {
                frame::put(&mut self.output, frame::PING, frame::ACK, 0, payload);
                Ok(())
            }
            frame::GOAWAY => self.go_away(payload, done),
            frame::WINDOW_UPDATE => {
                let grow = word(payload).ok_or(Http2Error::Frame("WINDOW_UPDATE"))?;
                let grow = i64::from(grow & 0x7fff_ffff);
                if head.stream == 0 {
                    self.window += grow;
                } else if let Some(index) = self.position(head.stream) {
                    self.streams[index].window += grow;
                }
                Ok(())
            }
            frame::PUSH_PROMISE => Err(Http2Error::Frame("PUSH_PROMISE")),
            _ => Ok(()),
        }
    }

    fn data(
        &mut self,
        head: Head,
        payload: &[u8],
        done: &mut dyn FnMut(u64, Outcome<'_>),
    ) -> Result<(), Http2Error> {
        // Padding counts for flow control.
        self.unacknowledged += head.length as u32;
        let content = frame::content(&head, payload).ok_or(Http2Error::Frame("DATA"))?;
        let Some(index) = self.position(head.stream) else {
            return Ok(());
        };
        let data = &mut self.streams[index].data;
        if data.len() + content.len() > RESPONSE_BYTES_MAX {
            return Err(Http2Error::AnswerTooLarge);
        }
        data.extend_from_slice(content);
        if head.flags & frame::END_STREAM != 0 {
            self.end(index, done);
        }
        Ok(())
    }

    fn headers(
        &mut self,
        head: Head,
        block: &[u8],
        done: &mut dyn FnMut(u64, Outcome<'_>),
    ) -> Result<(), Http2Error> {
        // Decoded even for an unknown stream: the block may change the table.
        let reply = self.replies.decode(block, read_reply)?;
        let Some(index) = self.position(head.stream) else {
            return Ok(());
        };
        let known = &mut self.streams[index].reply;
        known.http_status = reply.http_status.or(known.http_status);
        known.grpc_code = reply.grpc_code.or(known.grpc_code);
        known.message = reply.message.or(known.message.take());
        if head.flags & frame::END_STREAM != 0 {
            self.end(index, done);
        }
        Ok(())
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Http2Error> {
        if head.flags & frame::ACK != 0 {
            return Ok(());
        }
        let settings = frame::Settings::parse(payload).ok_or(Http2Error::Frame("SETTINGS"))?;
        if let Some(window) = settings.window_bytes {
            let change = i64::from(window) - self.stream_window;
            self.stream_window += change;
            for stream in &mut self.streams {
                stream.window += change;
            }
        }
        if let Some(streams) = settings.concurrent_streams_max {
            self.streams_max = self.streams_wanted.min(streams as usize);
        }
        if let Some(bytes) = settings.frame_bytes_max {
            self.frame_bytes_max = bytes as usize;
        }
        if settings.header_table_bytes.is_some_and(|bytes| bytes < 4096) {
            self.head_use = HeadUse::Shrink;
        }
        self.settled = true;
        frame::put(&mut self.output, frame::SETTINGS, frame::ACK, 0, &[]);
        Ok(())
    }

    fn go_away(&mut self, payload: &[u8], done: &mut dyn FnMut(u64, Outcome<'_>)) -> Result<(), Http2Error> {
        let (last, code) = match (word(payload), payload.get(4..).and_then(word)) {
            (Some(last), Some(code)) => (last & 0x7fff_ffff, code),
            _ => return Err(Http2Error::Frame("GOAWAY")),
        };
        if code != 0 {
            let text = String::from_utf8_lossy(&payload[8..]).into_owned();
            return Err(Http2Error::GoAway { code, text });
        }
        self.gone = true;
        // Streams above `last` were not looked at; REFUSED_STREAM is their code.
        while let Some(index) = self.streams.iter().position(|s| s.id > last) {
            let stream = self.remove(index);
            done(stream.tag, Outcome::Reset(7));
        }
        Ok(())
    }

    fn end(&mut self, index: usize, done: &mut dyn FnMut(u64, Outcome<'_>)) {
        let stream = self.remove(index);
        let (reply, data) = (stream.reply, stream.data);
        done(stream.tag, Outcome::Ended { reply, data: &data });
        self.recycle(data);
    }

    fn remove(&mut self, index: usize) -> Stream {
        let stream = self.streams.remove(index);
        self.unsent_streams -= usize::from(stream.unsent.is_some());
        stream
    }

    fn recycle(&mut self, mut data: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX && data.capacity() <= SPARE_BUFFER_BYTES_MAX {
            data.clear();
            self.spare.push(data);
        }
    }

    /// Answers come about in the order of the calls, so the search ends early.
    fn position(&self, id: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.id == id)
    }
}

fn word(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        let mut client = Client::new(CallHead::new("h", "/p", &[]), 4);
        client.output_mut().clear();
        client
    }

    fn receive(client: &mut Client, kind: u8, stream: u32, payload: &[u8]) -> Vec<(u64, u32)> {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, kind, frame::END_HEADERS, stream, payload);
        let mut resets = Vec::new();
        client
            .receive(&bytes, &[vec![0; 10]], &mut |tag, outcome| match outcome {
                Outcome::Reset(code) => resets.push((tag, code)),
                Outcome::Ended { .. } => panic!("no answer was sent"),
            })
            .unwrap();
        resets
    }

    /// The header block of the call that is now the only output.
    fn block_of_call(client: &mut Client) -> Vec<u8> {
        client.output_mut().clear();
        client.call(0, 0, &[vec![0; 10]]);
        let output = client.output_mut();
        let head = Head::parse(output).unwrap();
        assert_eq!(head.kind, frame::HEADERS);
        output[frame::HEAD_BYTES..][..head.length].to_vec()
    }

    #[test]
    fn repeated_calls_are_indices_until_the_server_shrinks_its_table() {
        let mut client = client();
        receive(&mut client, frame::SETTINGS, 0, &[]);
        let (first, second) = (block_of_call(&mut client), block_of_call(&mut client));
        assert!(second.len() < first.len());
        assert!(second.iter().all(|byte| byte & 0x80 != 0), "{second:x?}");
        receive(&mut client, frame::SETTINGS, 0, &[0, 1, 0, 0, 0, 0]);
        let (third, fourth) = (block_of_call(&mut client), block_of_call(&mut client));
        assert_eq!(third[0], 0x20, "table size update to 0 comes first");
        assert_eq!(third[1..], fourth);
        assert!(hpack_fields(&fourth).contains(&(b":path".to_vec(), b"/p".to_vec())));
    }

    fn hpack_fields(block: &[u8]) -> Vec<super::super::hpack::Field> {
        super::super::hpack::Decoder::default().decode(block).unwrap().0
    }

    #[test]
    fn going_away_gives_back_what_was_not_looked_at() {
        let mut client = client();
        receive(&mut client, frame::SETTINGS, 0, &[0, 3, 0, 0, 0, 2]);
        assert_eq!(client.room(), 2);
        client.call(11, 0, &[vec![0; 10]]);
        client.call(12, 0, &[vec![0; 10]]);
        assert_eq!(client.room(), 0);
        let resets = receive(&mut client, frame::GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(resets, [(12, 7)]);
        assert!(!client.exhausted());
        let resets = receive(&mut client, frame::RST_STREAM, 1, &[0, 0, 0, 8]);
        assert_eq!(resets, [(11, 8)]);
        assert!(client.exhausted() && client.room() == 0);
    }

    #[test]
    fn data_waits_for_the_windows() {
        let payloads = [vec![0; 40_000]];
        let mut client = client();
        // Streams begin with 10,000 bytes.
        receive(&mut client, frame::SETTINGS, 0, &[0, 4, 0, 0, 0x27, 0x10]);
        client.output_mut().clear();
        client.call(1, 0, &payloads);
        let data_bytes = |client: &mut Client| {
            let output = std::mem::take(client.output_mut());
            let (mut at, mut sum) = (0, 0);
            while let Some(head) = Head::parse(&output[at..]) {
                at += frame::HEAD_BYTES + head.length;
                sum += if head.kind == frame::DATA { head.length } else { 0 };
            }
            sum
        };
        assert_eq!(data_bytes(&mut client), 10_000);
        let mut update = Vec::new();
        frame::put(&mut update, frame::WINDOW_UPDATE, 0, 1, &30_000u32.to_be_bytes());
        client.receive(&update, &payloads, &mut |_, _| {}).unwrap();
        assert_eq!(data_bytes(&mut client), 30_000);
        assert_eq!(client.unsent_streams, 0);
    }
}
