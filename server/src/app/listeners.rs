//! The sockets of the server, bound before anything is started, so that a port that is taken is told at once. Must
//! not know what is served on them.

use std::net::{SocketAddr, TcpListener};

use crate::config::{Config, address::Address};

/// Connections that the system keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// Sockets that listen already; a port of 0 has become a real one.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Inference over HTTP.
    pub http: Option<TcpListener>,
    /// Inference over gRPC.
    pub grpc: Option<TcpListener>,
    /// Prometheus.
    pub metrics: Option<TcpListener>,
    /// The admin API.
    pub admin: Option<TcpListener>,
    /// Webhooks of registries.
    pub webhook: Option<TcpListener>,
    /// Devices.
    pub ota: Option<TcpListener>,
}

/// Where the server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addresses {
    /// Inference over HTTP.
    pub http: Option<SocketAddr>,
    /// Inference over gRPC.
    pub grpc: Option<SocketAddr>,
    /// Prometheus.
    pub metrics: Option<SocketAddr>,
    /// The admin API.
    pub admin: Option<SocketAddr>,
    /// Webhooks of registries.
    pub webhook: Option<SocketAddr>,
    /// Devices.
    pub ota: Option<SocketAddr>,
}

impl Listeners {
    /// Binds what the configuration names.
    ///
    /// # Errors
    /// A line for every address that cannot be had.
    pub fn bind(config: &Config) -> anyhow::Result<Self> {
        let mut faults = Vec::new();
        let mut take = |key: &str, address: &Option<Address>| {
            let address = address.as_ref()?;
            bind(address).map_err(|error| faults.push(refused(key, config.source(key), address, &error))).ok()
        };
        let listen = &config.listen;
        let listeners = Self {
            http: take("listen.http", &listen.http),
            grpc: take("listen.grpc", &listen.grpc),
            metrics: take("listen.metrics", &listen.metrics),
            admin: take("listen.admin", &listen.admin),
            webhook: take("webhook.listen", &config.webhook.listen),
            ota: take("ota.listen", &config.ota.listen),
        };
        if faults.is_empty() { Ok(listeners) } else { Err(anyhow::anyhow!(faults.join("\n"))) }
    }

    /// The addresses that the system gave.
    ///
    /// # Errors
    /// When a socket is no longer one.
    pub fn addresses(&self) -> std::io::Result<Addresses> {
        let local =
            |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
        Ok(Addresses {
            http: local(&self.http)?,
            grpc: local(&self.grpc)?,
            metrics: local(&self.metrics)?,
            admin: local(&self.admin)?,
            webhook: local(&self.webhook)?,
            ota: local(&self.ota)?,
        })
    }
}

fn bind(address: &Address) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let mut last = std::io::Error::other("the name stands for no address");
    for address in address.resolve()? {
        let open = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            // a restart need not wait for connections that are still closing; two servers still exclude each other
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        };
        match open() {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn refused(key: &str, source: &str, address: &Address, error: &std::io::Error) -> String {
    let advice = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "stop the process that listens there, choose another port, or write \"off\""
        }
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose a higher one",
        _ => "choose an address of this machine",
    };
    format!("{key} ({source}): cannot listen on {address}: {error}; {advice}")
}
