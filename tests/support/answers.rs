//! An HTTP server that answers whatever a test wants, and remembers what it was asked. Must not know what is tested.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
};

/// An answer: status line and headers, and the body.
pub(crate) struct Reply {
    head: String,
    body: Vec<u8>,
}

impl Reply {
    /// With a status such as `200 OK`.
    pub(crate) fn new(status: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { head: format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len()), body }
    }

    pub(crate) fn with(mut self, header: &str) -> Self {
        self.head.extend([header, "\r\n"]);
        self
    }

    /// Says that it is longer than it is.
    pub(crate) fn broken_off(mut self) -> Self {
        let (length, longer) = (self.body.len(), self.body.len() + 1000);
        self.head =
            self.head.replace(&format!("content-length: {length}"), &format!("content-length: {longer}"));
        self
    }
}

/// The server. Its threads end with the process.
pub(crate) struct Answers {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Answers {
    /// Answers with what `answer` makes of a request's head.
    pub(crate) fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (answer, heads) = (Arc::new(answer), Arc::clone(&asked));
        let accept = move || {
            for stream in listener.incoming().flatten() {
                let (answer, heads) = (Arc::clone(&answer), Arc::clone(&heads));
                let serve = move || serve(stream, &*answer, &heads);
                let _ = std::thread::Builder::new().name("answers".into()).spawn(serve);
            }
        };
        std::thread::Builder::new().name("answers".into()).spawn(accept).expect("a thread");
        Self { address, asked }
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Heads of all requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(stream: TcpStream, answer: &dyn Fn(&str) -> Reply, asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    let Reply { head: reply, body } = answer(&head);
    let body = if head.starts_with("HEAD") { &[][..] } else { &body };
    let stream = reader.get_mut();
    let _ = stream.write_all(reply.as_bytes());
    let _ = stream.write_all(b"connection: close\r\n\r\n");
    let _ = stream.write_all(body);
}
