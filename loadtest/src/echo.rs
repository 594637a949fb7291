//! A minimal fixed-answer server: how fast this machine and the loader are without any serving.
//!
//! One thread, one epoll, loopback only, ends after a time. It looks at a request only as far as
//! needed to find its end. Must not know about measurement.

mod grpc;
mod http;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::Context as _;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::Timespec;

use crate::clock::{Clock, SECOND_NS};
use crate::flags::EchoFlags;
use crate::measure::cpu;

/// Connections at a time; later ones are closed at once.
const CONNECTIONS_MAX: usize = 16_384;
/// Bytes read at once.
const READ_BYTES_MAX: usize = 256 << 10;
/// Largest request; a larger one ends its connection.
const REQUEST_BYTES_MAX: usize = 256 << 20;
/// Bytes that may wait for a client that does not read; then it is dropped.
const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// How often the deadline is looked at.
const WAIT_NS: i64 = 20_000_000;
/// Events taken from one wait.
const EVENTS_MAX: usize = 1024;

/// Why a client is dropped.
#[derive(Debug)]
struct Malformed;

/// Runs the `echo` command.
pub fn run(flags: &EchoFlags) -> anyhow::Result<()> {
    if flags.http.is_none() && flags.grpc.is_none() {
        anyhow::bail!("echo: expected a port; add --http PORT or --grpc PORT");
    }
    if let Some(cpu) = flags.pin {
        cpu::pin_thread(cpu).map_err(anyhow::Error::msg)?;
    }
    let mut echo =
        Echo::bind(flags.http, flags.grpc).context("echo: a port cannot be bound; choose another")?;
    if let Some(address) = echo.http_address() {
        println!("http://{address}");
    }
    if let Some(address) = echo.grpc_address() {
        println!("grpc://{address}");
    }
    let clock = Clock::start();
    let end_ns = flags.seconds.saturating_mul(SECOND_NS);
    echo.serve(|| clock.now_ns() >= end_ns).context("echo: epoll failed")
}

/// The server, bound and not yet serving.
#[derive(Debug)]
pub struct Echo {
    http: Option<TcpListener>,
    grpc: Option<TcpListener>,
    clients: Vec<Option<Client>>,
    vacant: Vec<usize>,
    poll: OwnedFd,
}

#[derive(Debug)]
struct Client {
    socket: TcpStream,
    state: State,
    input: Vec<u8>,
    output: Vec<u8>,
    waits_for_room: bool,
}

#[derive(Debug)]
enum State {
    Http,
    Grpc(Box<grpc::Connection>),
}

const HTTP_LISTENER: u64 = u64::MAX;
const GRPC_LISTENER: u64 = u64::MAX - 1;

impl Echo {
    /// Binds on 127.0.0.1; port 0 takes any free one.
    pub fn bind(http: Option<u16>, grpc: Option<u16>) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bind = |port: Option<u16>, data| {
            let Some(port) = port else { return Ok(None) };
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            listener.set_nonblocking(true)?;
            epoll::add(&poll, &listener, EventData::new_u64(data), EventFlags::IN)?;
            Ok::<_, io::Error>(Some(listener))
        };
        Ok(Self {
            http: bind(http, HTTP_LISTENER)?,
            grpc: bind(grpc, GRPC_LISTENER)?,
            clients: Vec::new(),
            vacant: Vec::new(),
            poll,
        })
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Where gRPC is served.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until `ended` says so; it is asked at least every 20 ms.
    pub fn serve(&mut self, ended: impl Fn() -> bool) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        let mut buffer = vec![0; READ_BYTES_MAX];
        let wait = Timespec { tv_sec: 0, tv_nsec: WAIT_NS as _ };
        while !ended() {
            events.clear();
            match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    data @ (HTTP_LISTENER | GRPC_LISTENER) => self.accept(data == GRPC_LISTENER)?,
                    index => self.serve_client(index as usize, &mut buffer),
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, is_grpc: bool) -> io::Result<()> {
        let listener = if is_grpc { &self.grpc } else { &self.http };
        let Some(listener) = listener else {
            return Ok(());
        };
        while let Ok((socket, _)) = listener.accept() {
            let index = match self.vacant.pop() {
                Some(index) => index,
                None if self.clients.len() < CONNECTIONS_MAX => {
                    self.clients.push(None);
                    self.clients.len() - 1
                }
                None => continue,
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            epoll::add(&self.poll, &socket, EventData::new_u64(index as u64), EventFlags::IN)?;
            let mut output = Vec::new();
            let state = match is_grpc {
                true => State::Grpc(Box::new(grpc::Connection::new(&mut output))),
                false => State::Http,
            };
            self.clients[index] =
                Some(Client { socket, state, input: Vec::new(), output, waits_for_room: false });
        }
        Ok(())
    }

    fn serve_client(&mut self, index: usize, buffer: &mut [u8]) {
        let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let alive = client.receive(buffer) && client.flush(&self.poll, index);
        if !alive {
            self.clients[index] = None;
            self.vacant.push(index);
        }
    }
}

impl Client {
    /// False when the client is gone or sends what is no request.
    fn receive(&mut self, buffer: &mut [u8]) -> bool {
        let bytes = match (&self.socket).read(buffer) {
            Ok(0) => return false,
            Ok(bytes) => bytes,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        };
        let received = &buffer[..bytes];
        if self.input.is_empty() {
            let Ok(consumed) = self.state.serve(received, &mut self.output) else {
                return false;
            };
            self.input.extend_from_slice(&received[consumed..]);
        } else {
            self.input.extend_from_slice(received);
            let Ok(consumed) = self.state.serve(&self.input, &mut self.output) else {
                return false;
            };
            self.input.drain(..consumed);
        }
        self.input.len() <= REQUEST_BYTES_MAX && self.output.len() <= OUTPUT_BYTES_MAX
    }

    fn flush(&mut self, poll: &OwnedFd, index: usize) -> bool {
        let mut at = 0;
        while at < self.output.len() {
            match (&self.socket).write(&self.output[at..]) {
                Ok(0) => return false,
                Ok(bytes) => at += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        self.output.drain(..at);
        let blocked = !self.output.is_empty();
        if blocked != self.waits_for_room {
            self.waits_for_room = blocked;
            let room = if blocked { EventFlags::OUT } else { EventFlags::empty() };
            let flags = EventFlags::IN | room;
            return epoll::modify(poll, &self.socket, EventData::new_u64(index as u64), flags).is_ok();
        }
        true
    }
}

impl State {
    /// Answers the whole requests in `input`; the bytes they took.
    fn serve(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Malformed> {
        match self {
            Self::Http => http::serve(input, output),
            Self::Grpc(connection) => connection.serve(input, output),
        }
    }
}
