//! HTTP/1.1 as a load tester needs it: prebuilt requests and an incremental parser of answers.
//!
//! Answers with Content-Length, chunked answers and bodiless statuses are understood; upgrades and
//! trailers are not. Must not know about sockets, models or measurement.

use memchr::memmem;

/// Largest answer accepted; a larger one ends its connection with an error.
pub(crate) const RESPONSE_BYTES_MAX: usize = 256 << 20;
/// Largest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// One request to build.
#[derive(Debug, Clone)]
pub(crate) struct RequestHead<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub host: &'a str,
    /// Further headers, complete with name and value.
    pub headers: &'a [(String, String)],
}

/// The bytes of a whole request.
pub(crate) fn request(head: &RequestHead<'_>, body: &[u8]) -> Vec<u8> {
    let mut text = format!("{} {} HTTP/1.1\r\nhost: {}\r\n", head.method, head.path, head.host);
    for (name, value) in head.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if head.method != "GET" {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A complete answer at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    pub status: u16,
    /// The body when it stands in one piece; a chunked one is put together in the scratch buffer.
    pub body: &'a [u8],
    /// Bytes of the buffer that the answer took.
    pub consumed: usize,
    /// The server closes the connection after this answer.
    pub close: bool,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    Complete(Response<'a>),
    /// Nothing to do before the buffer holds this many bytes.
    Incomplete {
        need_bytes: usize,
    },
}

/// Why the bytes are no HTTP/1.1 answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("answer does not begin with an HTTP/1.1 status line")]
    StatusLine,
    #[error("answer's head is longer than {HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    #[error("answer is longer than {RESPONSE_BYTES_MAX} bytes")]
    BodyTooLarge,
    #[error("answer's Content-Length is not a number")]
    ContentLength,
    #[error("answer's chunk size is not a hexadecimal number")]
    ChunkSize,
    #[error("answer has neither Content-Length nor chunks: its end is the connection's end")]
    NoLength,
}

enum Length {
    Known(usize),
    Chunked,
    Missing,
}

/// Parses one answer at the front of `input`.
pub(crate) fn parse<'a>(input: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Parsed<'a>, HttpError> {
    let Some(head_end) = memmem::find(input, b"\r\n\r\n") else {
        if input.len() > HEAD_BYTES_MAX {
            return Err(HttpError::HeadTooLarge);
        }
        if !b"HTTP/1.".starts_with(&input[..input.len().min(7)]) {
            return Err(HttpError::StatusLine);
        }
        return Ok(Parsed::Incomplete { need_bytes: input.len() + 1 });
    };
    let head = &input[..head_end + 2];
    let status = status(head).ok_or(HttpError::StatusLine)?;
    let body_start = head_end + 4;
    let (length, close) = framing(head)?;
    let response = |body, consumed| Ok(Parsed::Complete(Response { status, body, consumed, close }));
    if status == 204 || status == 304 || (100..200).contains(&status) {
        return response(&[], body_start);
    }
    match length {
        Length::Known(length) if length > RESPONSE_BYTES_MAX => Err(HttpError::BodyTooLarge),
        Length::Known(length) => match input.get(body_start..body_start + length) {
            Some(body) => response(body, body_start + length),
            None => Ok(Parsed::Incomplete { need_bytes: body_start + length }),
        },
        Length::Chunked => match chunks(&input[body_start..], scratch)? {
            Some(length) => response(scratch, body_start + length),
            None => Ok(Parsed::Incomplete { need_bytes: input.len() + 1 }),
        },
        Length::Missing => Err(HttpError::NoLength),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let digits = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    let mut status = 0;
    for digit in digits {
        status = status * 10 + u16::from(digit.checked_sub(b'0').filter(|d| *d < 10)?);
    }
    (100..=999).contains(&status).then_some(status)
}

/// Body length and whether the connection closes. `head` ends with the last header's CR LF.
fn framing(head: &[u8]) -> Result<(Length, bool), HttpError> {
    let mut length = Length::Missing;
    let mut close = head.starts_with(b"HTTP/1.0");
    let mut rest = head;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        // Only three names matter; their first letter decides for nearly all others.
        match line.first() {
            Some(b'c' | b'C' | b't' | b'T') => {}
            _ => continue,
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let number = str::from_utf8(value).ok().and_then(|v| v.parse().ok());
            if !matches!(length, Length::Chunked) {
                length = Length::Known(number.ok_or(HttpError::ContentLength)?);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if value.to_ascii_lowercase().ends_with(b"chunked") {
                length = Length::Chunked;
            }
        } else if name.eq_ignore_ascii_case(b"connection") {
            close =
                value.eq_ignore_ascii_case(b"close") || (close && !value.eq_ignore_ascii_case(b"keep-alive"));
        }
    }
    Ok((length, close))
}

/// Puts a chunked body together; its encoded length once it is whole.
fn chunks(input: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, HttpError> {
    body.clear();
    let mut at = 0;
    loop {
        let Some(line_end) = memmem::find(&input[at..], b"\r\n") else {
            return Ok(None);
        };
        let line = &input[at..at + line_end];
        let digits = line.split(|b| *b == b';').next().unwrap_or(line).trim_ascii();
        let size = str::from_utf8(digits)
            .ok()
            .and_then(|text| usize::from_str_radix(text, 16).ok())
            .ok_or(HttpError::ChunkSize)?;
        at += line_end + 2;
        if size > RESPONSE_BYTES_MAX - body.len() {
            return Err(HttpError::BodyTooLarge);
        }
        if size == 0 {
            // Trailers, if any, end with an empty line.
            let rest = &input[at..];
            if rest.starts_with(b"\r\n") {
                return Ok(Some(at + 2));
            }
            return Ok(memmem::find(rest, b"\r\n\r\n").map(|end| at + end + 4));
        }
        let Some(chunk) = input.get(at..at + size) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        at += size + 2;
        if at > input.len() {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Result<Option<(u16, &str, usize, bool)>, HttpError>) {
        let mut scratch = Vec::new();
        let parsed = parse(input.as_bytes(), &mut scratch).map(|parsed| match parsed {
            Parsed::Complete(r) => {
                Some((r.status, String::from_utf8(r.body.to_vec()).unwrap(), r.consumed, r.close))
            }
            Parsed::Incomplete { need_bytes } => {
                assert!(need_bytes > input.len());
                None
            }
        });
        let expected = expected.map(|e| e.map(|(s, b, consumed, close)| (s, b.to_string(), consumed, close)));
        assert_eq!(parsed, expected, "{input:?}");
    }

    #[test]
    fn parses_answers() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        check(ok, Ok(Some((200, "hi", ok.len(), false))));
        check(&format!("{ok}HTTP"), Ok(Some((200, "hi", ok.len(), false))));
        for end in 0..ok.len() {
            check(&ok[..end], Ok(None));
        }
        let close = "HTTP/1.1 503 x\r\nconnection: close\r\ncontent-length:0\r\n\r\n";
        check(close, Ok(Some((503, "", close.len(), true))));
        let old = "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n";
        check(old, Ok(Some((200, "", old.len(), true))));
        let empty = "HTTP/1.1 204 No Content\r\n\r\n";
        check(empty, Ok(Some((204, "", empty.len(), false))));
    }

    #[test]
    fn parses_chunks() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        let whole = format!("{head}{body}");
        check(&whole, Ok(Some((200, "abcde", whole.len(), false))));
        for end in 0..whole.len() {
            check(&whole[..end], Ok(None));
        }
        let trailers = format!("{head}1\r\na\r\n0\r\nx: y\r\n\r\n");
        check(&trailers, Ok(Some((200, "a", trailers.len(), false))));
        check(&format!("{head}zz\r\n"), Err(HttpError::ChunkSize));
    }

    #[test]
    fn refuses_what_is_not_http() {
        check("SSH-2.0", Err(HttpError::StatusLine));
        check("HTTP/1.1 2x0 OK\r\n\r\n", Err(HttpError::StatusLine));
        check("HTTP/1.1 200 OK\r\n\r\n", Err(HttpError::NoLength));
        check("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", Err(HttpError::ContentLength));
    }
}
