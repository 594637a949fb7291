//! An HTTP/1.1 client that sends exactly the bytes it is given. Must not know what is tested.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use super::wait::BOUND;

/// One connection. Any number of requests may be sent before an answer is read.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The status line and the headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(BOUND)).expect("a bound");
        stream.set_nodelay(true).expect("no delay");
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes as they are. A server that closed the connection is found out when the answer is read.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// Tells the server that no more bytes come.
    pub(crate) fn finish(&mut self) {
        let _ = self.stream.get_mut().shutdown(std::net::Shutdown::Write);
    }

    /// The next answer; `None` when the server closed the connection without one.
    pub(crate) fn read(&mut self) -> Option<Reply> {
        let mut reply = self.read_head()?;
        let length = reply.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        reply.body.resize(length, 0);
        self.stream.read_exact(&mut reply.body).expect("a body as long as stated");
        Some(reply)
    }

    /// The next answer without its body, as to a `HEAD`.
    pub(crate) fn read_head(&mut self) -> Option<Reply> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match self.stream.read_line(&mut head) {
                Ok(1..) => {}
                Ok(0) | Err(_) if head.is_empty() => return None,
                other => panic!("the answer's head broke off ({other:?}): {head}"),
            }
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Some(Reply { status, head, body: Vec::new() })
    }

    /// Whether the server ends the connection, within the bound and without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.stream.fill_buf().map_or(true, <[u8]>::is_empty)
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Values of the output `name`.
    #[track_caller]
    pub(crate) fn output(&self, name: &str) -> (Vec<u64>, Vec<f64>) {
        let json = self.json();
        assert_eq!(self.status, 200, "{json}");
        let outputs = json["outputs"].as_array().expect("outputs");
        let output = outputs.iter().find(|output| output["name"] == name).expect("the output");
        let list = |value: &Value| value.as_array().expect("a list").clone();
        let shape = list(&output["shape"]).iter().map(|axis| axis.as_u64().expect("a size")).collect();
        let data = list(&output["data"]).iter().map(|value| value.as_f64().expect("a number")).collect();
        (shape, data)
    }
}

/// A request's bytes. `headers` are whole lines.
pub(crate) fn request(verb: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{verb} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Sends one request on a connection of its own.
#[track_caller]
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> Reply {
    let mut connection = Connection::open(address);
    connection.send(request);
    connection.read().expect("an answer")
}

#[track_caller]
pub(crate) fn get(address: SocketAddr, path: &str) -> Reply {
    exchange(address, &request("GET", path, "", b""))
}

/// Asks for an inference in JSON.
#[track_caller]
pub(crate) fn infer(address: SocketAddr, model: &str, body: &Value) -> Reply {
    let path = format!("/v2/models/{model}/infer");
    exchange(address, &request("POST", &path, "", body.to_string().as_bytes()))
}

/// The statistics of one model's newest version.
#[track_caller]
pub(crate) fn statistics(address: SocketAddr, model: &str) -> Value {
    get(address, &format!("/v2/models/{model}/stats")).json()["model_stats"][0].clone()
}
