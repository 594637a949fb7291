//! One call of a running server's admin API, over a plain socket or TLS. Must not know what is asked.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring, pki_types::ServerName,
};

/// Time to connect, and between two pieces of the answer.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const BYTES_MAX: u64 = 64 << 20;

/// An answer: status and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("--admin: expected http(s)://HOST:PORT, got {0:?}")]
    Url(String),
    #[error(
        "no server answers at {url}: {error}; start one with `gannet`, or name its admin address with --admin"
    )]
    Io { url: String, error: io::Error },
    #[error(
        "{url}: no TLS was agreed on: {error}; name who signed the server's certificate, as with SSL_CERT_FILE=ca.pem"
    )]
    Tls { url: String, error: io::Error },
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// `http(s)://host:port`
    pub(crate) base: &'a str,
    pub(crate) path: &'a str,
    pub(crate) body: &'a str,
    pub(crate) token: Option<&'a str>,
    /// Who asks, for the log.
    pub(crate) actor: Option<&'a str>,
}

/// Asks for `path`.
pub(crate) fn get(base: &str, path: &str, token: Option<&str>) -> Result<Answer, ClientError> {
    call(&Request { method: "GET", base, path, body: "", token, actor: None })
}

/// Asks once.
pub(crate) fn call(request: &Request<'_>) -> Result<Answer, ClientError> {
    send(request, request.body.as_bytes())
}

/// Asks once, with these bytes for a body. HTTP/1.0, so that the answer ends with the connection.
pub(crate) fn send(request: &Request<'_>, body: &[u8]) -> Result<Answer, ClientError> {
    let Request { method, base, path, body: _, token, actor } = *request;
    let bad = || ClientError::Url(base.to_owned());
    let url = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
    let uri: http::Uri = url.parse().map_err(|_| bad())?;
    let secured = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(bad()),
    };
    let authority = uri.authority().ok_or_else(bad)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(if secured { 443 } else { 80 });
    let failed = |error| ClientError::Io { url: url.clone(), error };
    let stream = connect(host, port).map_err(failed)?;
    let mut stream: Box<dyn Stream> = match secured {
        false => Box::new(stream),
        true => {
            let agreed = secure(stream, host);
            Box::new(agreed.map_err(|error| ClientError::Tls { url: url.clone(), error })?)
        }
    };
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    // what is no header's value is left out
    let actor = actor.filter(|actor| actor.bytes().all(|byte| byte.is_ascii_graphic()));
    let actor = actor.map(|actor| format!("x-gannet-actor: {actor}\r\n")).unwrap_or_default();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nhost: {authority}\r\n{authorization}{actor}content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).map_err(failed)?;
    // a server that refuses a long body answers before it has read it: what counts is the answer
    let sent = stream.write_all(body);
    let mut bytes = Vec::new();
    let read = stream.take(BYTES_MAX).read_to_end(&mut bytes);
    parse(&bytes).ok_or_else(|| {
        failed(sent.and(read.map(|_| ())).err().unwrap_or_else(|| io::Error::other("the answer is not HTTP")))
    })
}

/// A connection of either kind.
trait Stream: io::Read + io::Write {}
impl<S: io::Read + io::Write> Stream for S {}

/// Agrees with a server whose certificate was signed by somebody whom this machine, or `SSL_CERT_FILE`, trusts.
fn secure(mut stream: TcpStream, host: &str) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        let agreed = connection.complete_io(&mut stream);
        agreed.map_err(|error| io::Error::other(gannet_registry::explained(error.to_string())))?;
    }
    Ok(StreamOwned::new(connection, stream))
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
        for bad in ["ftp://127.0.0.1:1", "http://", "a b"] {
            assert!(matches!(get(bad, "/", None), Err(ClientError::Url(_))), "{bad}");
        }
    }
}
