//! The data plane's threads and sockets: one current-thread runtime for each core, one acceptor for each listener
//! that hands every connection to the least loaded of them. Must not know what is spoken on a connection.

mod connection;

use std::{
    convert::Infallible,
    future::Future,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::{mpsc, watch};

use self::connection::Terms;
use crate::{
    grpc::GrpcService,
    http::HttpService,
    protocol::Protocol,
    state::State,
    tls::{Secured, Tls},
};

/// Accepted connections that may wait for one thread to take them over.
const HANDED_MAX: usize = 1024;
/// Pause of the acceptor after an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What is to be served, and where.
#[derive(Debug)]
pub struct Options {
    /// Speaks the HTTP protocol.
    pub http: Option<TcpListener>,
    /// Speaks gRPC.
    pub grpc: Option<TcpListener>,
    /// What they are secured with.
    pub secured: Secured,
    /// Event loops.
    pub threads: usize,
    /// What the endpoints need.
    pub state: Arc<State>,
}

/// The running data plane.
#[derive(Debug)]
pub struct Handle {
    /// Set to true: no new connections, and those that stand end with their requests.
    close: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    open: Arc<AtomicUsize>,
}

impl Handle {
    /// Stops accepting and lets every connection end after the request it is at.
    pub fn close(&self) {
        self.close.send_replace(true);
    }

    /// Waits for the connections to end. Whether they did in time.
    pub fn join(self, within: Duration) -> bool {
        let deadline = gannet_runtime::clock::now() + within;
        while self.open.load(Ordering::Acquire) > 0 || self.threads.iter().any(|thread| !thread.is_finished())
        {
            if gannet_runtime::clock::now() >= deadline {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        self.threads.into_iter().all(|thread| thread.join().is_ok())
    }
}

/// One event loop, as the acceptors see it.
#[derive(Debug, Clone)]
struct Worker {
    connections: mpsc::Sender<(TcpStream, Protocol)>,
    open: Arc<AtomicUsize>,
}

/// Starts the data plane.
///
/// # Errors
/// When the system gives no thread or the listeners cannot be watched.
pub fn start(options: Options) -> anyhow::Result<Handle> {
    let (close, closing) = watch::channel(false);
    let open = Arc::new(AtomicUsize::new(0));
    let http_local = options.http.as_ref().map(TcpListener::local_addr).transpose()?;
    let mut threads = Vec::new();
    let mut workers = Vec::new();
    for index in 0..options.threads.max(1) {
        let (sender, receiver) = mpsc::channel(HANDED_MAX);
        workers.push(Worker { connections: sender, open: Arc::default() });
        let worker = EventLoop {
            state: Arc::clone(&options.state),
            secured: options.secured.clone(),
            http_local: http_local.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            open: Arc::clone(&workers[index].open),
            all_open: Arc::clone(&open),
            closing: closing.clone(),
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("no event loop")?;
        let run = move || runtime.block_on(worker.run(receiver));
        threads.push(std::thread::Builder::new().name(format!("gannet-io-{index}")).spawn(run)?);
    }
    let listeners = [(options.http, Protocol::Http), (options.grpc, Protocol::Grpc)];
    let listeners: Vec<_> = listeners.into_iter().filter_map(|(l, protocol)| Some((l?, protocol))).collect();
    let acceptor =
        Acceptor { workers, connections_max: options.state.limits.connections_max, open: Arc::clone(&open) };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no event loop")?;
    let run = move || runtime.block_on(acceptor.run(listeners, closing));
    threads.push(std::thread::Builder::new().name("gannet-accept".into()).spawn(run)?);
    Ok(Handle { close, threads, open })
}

/// Accepts on all listeners and hands connections out.
struct Acceptor {
    workers: Vec<Worker>,
    connections_max: usize,
    open: Arc<AtomicUsize>,
}

impl Acceptor {
    async fn run(self, listeners: Vec<(TcpListener, Protocol)>, closing: watch::Receiver<bool>) {
        let this = Arc::new(self);
        let mut tasks = Vec::new();
        for (listener, protocol) in listeners {
            let (this, mut closing) = (Arc::clone(&this), closing.clone());
            tasks.push(tokio::spawn(async move {
                tokio::select! {
                    () = this.accept(listener, protocol) => {}
                    _ = closing.wait_for(|close| *close) => {}
                }
            }));
        }
        for task in tasks {
            let _ = task.await;
        }
    }

    async fn accept(&self, listener: TcpListener, protocol: Protocol) {
        let listener =
            match listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener)) {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::error!(%error, protocol = protocol.name(), "the listener cannot be watched");
                    return;
                }
            };
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, protocol = protocol.name(), "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if self.open.load(Ordering::Relaxed) >= self.connections_max {
                gannet_runtime::metrics::process::refused("connections");
                continue;
            }
            let Ok(stream) = stream.into_std() else { continue };
            let Some(worker) = self.workers.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed))
            else {
                return;
            };
            worker.open.fetch_add(1, Ordering::Relaxed);
            self.open.fetch_add(1, Ordering::AcqRel);
            if worker.connections.send((stream, protocol)).await.is_err() {
                return;
            }
        }
    }
}

/// One thread's event loop.
struct EventLoop {
    state: Arc<State>,
    secured: Secured,
    http_local: SocketAddr,
    open: Arc<AtomicUsize>,
    all_open: Arc<AtomicUsize>,
    closing: watch::Receiver<bool>,
}

/// Counts a connection as open until it is dropped.
struct Open(Arc<AtomicUsize>, Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        self.1.fetch_sub(1, Ordering::AcqRel);
    }
}

impl EventLoop {
    async fn run(self, mut connections: mpsc::Receiver<(TcpStream, Protocol)>) {
        // first, so that every turn's batch runs behind the turn's connections
        tokio::spawn(gannet_runtime::servable::turn::flusher());
        // nothing is ever sent: the channel ends with the last connection
        let (alive, mut ended) = mpsc::channel::<Infallible>(1);
        let http = HttpService::new(Arc::clone(&self.state), self.http_local);
        let grpc = GrpcService::new(Arc::clone(&self.state));
        let mut closing = self.closing.clone();
        loop {
            let next = tokio::select! {
                next = connections.recv() => next,
                _ = closing.wait_for(|close| *close) => None,
            };
            let Some((stream, protocol)) = next else { break };
            let open = Open(Arc::clone(&self.open), Arc::clone(&self.all_open));
            match protocol {
                Protocol::Http => {
                    let service = http.clone();
                    self.serve(stream, protocol, (open, alive.clone()), move |request| service.call(request));
                }
                Protocol::Grpc => {
                    let service = grpc.clone();
                    self.serve(stream, protocol, (open, alive.clone()), move |request| service.call(request));
                }
            }
        }
        connections.close();
        while let Ok((stream, _)) = connections.try_recv() {
            drop((stream, Open(Arc::clone(&self.open), Arc::clone(&self.all_open))));
        }
        drop(alive);
        let _ = ended.recv().await;
    }

    fn serve<F, A, B>(
        &self,
        stream: TcpStream,
        protocol: Protocol,
        held: (Open, mpsc::Sender<Infallible>),
        call: F,
    ) where
        F: Fn(Request<Incoming>) -> A + Send + 'static,
        A: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = match prepare(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection was lost before it was served");
                return;
            }
        };
        let terms = Terms {
            closing: self.closing.clone(),
            head_time_max: self.state.limits.head_time_max,
            tls: self.tls(protocol).cloned(),
            protocol,
            streams_max: self.state.limits.streams_max,
        };
        tokio::spawn(async move {
            if let Err(error) = connection::serve(stream, terms, call).await {
                tracing::debug!(%error, "a connection ended badly");
            }
            drop(held);
        });
    }
}

impl EventLoop {
    fn tls(&self, protocol: Protocol) -> Option<&Arc<Tls>> {
        match protocol {
            Protocol::Http => self.secured.http.as_ref(),
            Protocol::Grpc => self.secured.grpc.as_ref(),
        }
    }
}

fn prepare(stream: TcpStream) -> std::io::Result<tokio::net::TcpStream> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    tokio::net::TcpStream::from_std(stream)
}
