//! One GET of a running server's admin API, over a plain socket. Must not know what is asked.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

/// Time to connect, and between two pieces of the answer.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const BYTES_MAX: u64 = 64 << 20;

/// An answer: status and body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("--admin: expected http://HOST:PORT, got {0:?}")]
    Url(String),
    #[error(
        "no server answers at {url}: {error}; start one with `gannet`, or name its admin address with --admin"
    )]
    Io { url: String, error: io::Error },
}

/// Asks `base` (`http://host:port`) for `path`. HTTP/1.0, so that the answer ends with the connection.
pub(super) fn get(base: &str, path: &str, token: Option<&str>) -> Result<Answer, ClientError> {
    let bad = || ClientError::Url(base.to_owned());
    let url = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
    let uri: http::Uri = url.parse().map_err(|_| bad())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(bad)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(80);
    let failed = |error| ClientError::Io { url: url.clone(), error };
    let mut stream = connect(host, port).map_err(failed)?;
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.0\r\nhost: {authority}\r\n{authorization}\r\n");
    let mut bytes = Vec::new();
    stream.write_all(request.as_bytes()).map_err(failed)?;
    stream.take(BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    parse(&bytes).ok_or_else(|| failed(io::Error::other("the answer is not HTTP")))
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name stands for no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIME_MAX) {
            Ok(stream) => {
                stream.set_read_timeout(Some(TIME_MAX))?;
                stream.set_write_timeout(Some(TIME_MAX))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = str::from_utf8(&bytes[..end]).ok()?;
    let mut words = head.lines().next()?.split(' ');
    words.next().filter(|word| word.starts_with("HTTP/1."))?;
    Some(Answer { status: words.next()?.parse().ok()?, body: bytes[end + 4..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_parsed() {
        let answer = parse(b"HTTP/1.0 404 Not Found\r\na: b\r\n\r\n{}").unwrap();
        assert_eq!((answer.status, &answer.body[..]), (404, &b"{}"[..]));
        assert!(parse(b"SSH-2.0\r\n\r\n").is_none());
        assert!(parse(b"HTTP/1.0 200").is_none());
    }

    #[test]
    fn urls_are_checked() {
        for bad in ["https://127.0.0.1:1", "http://", "a b"] {
            assert!(matches!(get(bad, "/", None), Err(ClientError::Url(_))), "{bad}");
        }
    }
}
