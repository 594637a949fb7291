//! The echo server's HTTP side: fixed answers by path.
//!
//! Must not know about sockets.

use std::sync::OnceLock;

use memchr::memmem;

use super::Malformed;

/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;

const INFER: &str = r#"{"model_name":"echo","model_version":"1","outputs":[{"name":"y","shape":[1,4],"datatype":"FP32","data":[0.25,0.25,0.25,0.25]}]}"#;
const METADATA: &str = r#"{"name":"echo","versions":["1"],"platform":"echo","inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,4]}]}"#;

struct Answers {
    infer: Vec<u8>,
    metadata: Vec<u8>,
    missing: Vec<u8>,
    empty: Vec<u8>,
}

fn answers() -> &'static Answers {
    static ANSWERS: OnceLock<Answers> = OnceLock::new();
    ANSWERS.get_or_init(|| {
        let answer = |status: &str, body: &str| {
            format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        };
        Answers {
            infer: answer("200 OK", INFER),
            metadata: answer("200 OK", METADATA),
            missing: answer("404 Not Found", r#"{"error":"Not Found"}"#),
            empty: answer("200 OK", ""),
        }
    })
}

/// Answers the whole requests in `input`; the bytes they took.
pub(super) fn serve(input: &[u8], output: &mut Vec<u8>) -> Result<usize, Malformed> {
    let mut at = 0;
    while at < input.len() {
        let rest = &input[at..];
        let Some(head_end) = memmem::find(rest, b"\r\n\r\n") else {
            if rest.len() > HEAD_BYTES_MAX {
                return Err(Malformed);
            }
            break;
        };
        let head = &rest[..head_end + 2];
        let bytes = head_end + 4 + content_length(head).ok_or(Malformed)?;
        if rest.len() < bytes {
            break;
        }
        output.extend_from_slice(answer(head).ok_or(Malformed)?);
        at += bytes;
    }
    Ok(at)
}

fn answer(head: &[u8]) -> Option<&'static [u8]> {
    let answers = answers();
    if head.starts_with(b"POST ") {
        return Some(&answers.infer);
    }
    let path = head.strip_prefix(b"GET ")?.split(|b| *b == b' ').next()?;
    Some(match path {
        _ if path.starts_with(b"/v2/health") || path.ends_with(b"/ready") => &answers.empty,
        _ if path.ends_with(b"/config") || path.ends_with(b"/stats") => &answers.missing,
        _ if path.starts_with(b"/v2/models/") => &answers.metadata,
        _ => &answers.missing,
    })
}

/// 0 without the header, `None` when it is no number.
fn content_length(head: &[u8]) -> Option<usize> {
    let mut rest = head;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if !matches!(line.first(), Some(b'c' | b'C')) {
            continue;
        }
        if let Some(colon) = memchr::memchr(b':', line)
            && line[..colon].eq_ignore_ascii_case(b"content-length")
        {
            return str::from_utf8(&line[colon + 1..]).ok()?.trim().parse().ok();
        }
    }
    Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_whole_requests_only() {
        let request = b"POST /v2/models/m/infer HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc";
        let mut output = Vec::new();
        assert_eq!(serve(&request[..request.len() - 1], &mut output).unwrap(), 0);
        assert!(output.is_empty());
        let two = [&request[..], request].concat();
        assert_eq!(serve(&two, &mut output).unwrap(), two.len());
        assert_eq!(output.len(), 2 * answers().infer.len());
        assert!(serve(b"BREW / HTTP/1.1\r\n\r\n", &mut output).is_err());
    }
}
