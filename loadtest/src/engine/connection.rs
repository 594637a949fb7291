//! One socket with its protocol state and its place in epoll.
//!
//! Must not know about arrivals or the recorder.

use std::io::{self, Read};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::Target;
use crate::link::Link;

/// Longest wait for a connection and for HTTP/2's first settings.
const CONNECT_SECONDS_MAX: u64 = 2;
/// Reads granted to a server until its settings are complete.
const HANDSHAKE_READS_MAX: usize = 64;

pub(super) struct Connection {
    pub socket: TcpStream,
    pub link: Link,
    /// Stands in the list of connections to be written.
    pub dirty: bool,
    waits_for_room: bool,
}

impl Connection {
    /// Connects, shakes hands where the protocol does, and registers for reading.
    pub(super) fn open(target: &Target, poll: &OwnedFd, index: usize) -> io::Result<Self> {
        let timeout = Duration::from_secs(CONNECT_SECONDS_MAX);
        let mut socket = TcpStream::connect_timeout(&target.address, timeout)?;
        socket.set_nodelay(true)?;
        let mut link = target.calls.link();
        if !link.ready() {
            socket.set_read_timeout(Some(timeout))?;
            link.flush(&socket, &target.calls)?;
            let mut buffer = vec![0; 16 << 10];
            for _ in 0..HANDSHAKE_READS_MAX {
                if link.ready() {
                    break;
                }
                let bytes = match socket.read(&mut buffer) {
                    Ok(0) => Err(io::Error::other("server closed during HTTP/2's start")),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        Err(io::Error::other("server sent no HTTP/2 settings: is this its gRPC port?"))
                    }
                    other => other,
                }?;
                link.receive(&buffer[..bytes], &target.calls, &mut |_| {}).map_err(io::Error::other)?;
            }
            link.flush(&socket, &target.calls)?;
        }
        socket.set_nonblocking(true)?;
        epoll::add(poll, &socket, EventData::new_u64(index as u64), EventFlags::IN)?;
        Ok(Self { socket, link, dirty: false, waits_for_room: false })
    }

    /// The protocol itself wants to say something (acknowledgements).
    pub(super) fn has_output(&mut self) -> bool {
        match &mut self.link {
            Link::Http(_) => false,
            Link::Grpc(client) => !client.output_mut().is_empty(),
        }
    }

    /// Writes what it can; asks epoll for room when the socket is full.
    pub(super) fn flush(&mut self, target: &Target, poll: &OwnedFd, index: usize) -> io::Result<()> {
        let done = self.link.flush(&self.socket, &target.calls)?;
        if done == self.waits_for_room {
            self.waits_for_room = !done;
            let flags = match done {
                true => EventFlags::IN,
                false => EventFlags::IN | EventFlags::OUT,
            };
            epoll::modify(poll, &self.socket, EventData::new_u64(index as u64), flags)?;
        }
        Ok(())
    }
}
