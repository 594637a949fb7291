//! One connection: told to be HTTP/1.1 or HTTP/2 by its first bytes, served, and ended when the server closes or when
//! it asks for nothing for too long. Must not know what is answered.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use gannet_runtime::{Time, clock};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use pin_project_lite::pin_project;
use tokio::{net::TcpStream, sync::watch, time::Sleep};

use crate::{
    protocol::Protocol,
    tls::{Stream, Tls},
};

/// HTTP/2 windows and frames that let a tensor of some megabytes through without a pause.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const FRAME_BYTES: u32 = 1 << 20;
/// Between two looks at the first bytes, when they came one by one.
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// What connections are served under.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// Turns true when the server closes.
    pub(super) closing: watch::Receiver<bool>,
    /// How long a client may take for a request's head, from the end of the request before.
    pub(super) head_time_max: Duration,
    /// What the connection is secured with; `None`: it is in clear.
    pub(super) tls: Option<Arc<Tls>>,
    /// What the listener is for.
    pub(super) protocol: Protocol,
    /// Calls at a time on one HTTP/2 connection.
    pub(super) streams_max: u32,
}

/// Serves the connection to its end. Dropping the future cuts it off.
pub(super) async fn serve<F, A, B>(stream: TcpStream, terms: Terms, call: F) -> Result<(), hyper::Error>
where
    F: Fn(Request<Incoming>) -> A + Send + 'static,
    A: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Ok(Some((stream, is_http2))) = tokio::time::timeout(terms.head_time_max, open(stream, &terms)).await
    else {
        return Ok(());
    };
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .max_concurrent_streams(terms.streams_max)
            .keep_alive_interval(Some(Duration::from_secs(60)))
            .keep_alive_timeout(Duration::from_secs(20));
        let connection = builder.serve_connection(TokioIo::new(stream), service_fn(call));
        return until_closed(connection, terms.closing, None).await;
    }
    let mut builder = http1::Builder::new();
    // a timer for each head costs more than everything that is done here: the idle guard needs one a connection
    builder.pipeline_flush(true).header_read_timeout(None);
    let activity = Arc::new(Activity::new());
    let idle = Idle::new(Arc::clone(&activity), terms.head_time_max);
    let service = service_fn(move |request| {
        activity.begin();
        Tracked { call: call(request), activity: Arc::clone(&activity) }
    });
    until_closed(builder.serve_connection(TokioIo::new(stream), service), terms.closing, Some(idle)).await
}

/// The connection as it is spoken on, and whether HTTP/2 is; `None` when the client left or did not agree before that.
async fn open(stream: TcpStream, terms: &Terms) -> Option<(Stream, bool)> {
    let Some(tls) = &terms.tls else {
        let is_http2 = begins_http2(&stream).await?;
        return Some((Stream::Plain(stream), is_http2));
    };
    match tls.accept(stream).await {
        Ok(stream) => {
            let agreed = stream.agreed().map(|agreed| agreed == b"h2");
            let is_http2 = agreed.unwrap_or(terms.protocol == Protocol::Grpc);
            Some((stream, is_http2))
        }
        Err(error) => {
            gannet_runtime::metrics::process::refused("tls");
            tracing::debug!(%error, protocol = terms.protocol.name(), "no TLS was agreed on");
            None
        }
    }
}

/// Whether HTTP/2's preface comes; `None` when the client left before that could be told.
async fn begins_http2(stream: &TcpStream) -> Option<bool> {
    const PREFACE: &[u8; 3] = b"PRI";
    let mut first = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut first).await {
            Err(_) | Ok(0) => return None,
            Ok(count) if first[..count] != PREFACE[..count] => return Some(false),
            Ok(count) if count == PREFACE.len() => return Some(true),
            Ok(_) => tokio::time::sleep(LOOK_PAUSE).await,
        }
    }
}

/// Serves a connection to its end, which comes after the requests under way once `closing` turns true, or at once when
/// it is idle for too long.
async fn until_closed<C: GracefulConnection>(
    connection: C,
    closing: watch::Receiver<bool>,
    mut idle: Option<Idle>,
) -> Result<(), C::Error> {
    let mut connection = pin!(connection);
    let mut told = closing.clone();
    let mut told = pin!(told.wait_for(|close| *close));
    // The first look leaves the waker of this task, which stays the same; after that one load tells.
    let (mut first, mut ending) = (true, false);
    poll_fn(|ctx| {
        if !ending && (first || closing.has_changed().unwrap_or(true)) {
            ending = told.as_mut().poll(ctx).is_ready();
            if ending {
                connection.as_mut().graceful_shutdown();
            }
        }
        if idle.as_mut().is_some_and(|idle| idle.is_over(first, ctx)) {
            // an answer may still be on its way to a slow reader: it is written to its end, only nothing new is read
            match idle.take() {
                Some(idle) if idle.activity.began() => connection.as_mut().graceful_shutdown(),
                _ => return Poll::Ready(Ok(())),
            }
        }
        first = false;
        connection.as_mut().poll(ctx)
    })
    .await
}

/// When a connection last had something to do. Read and written by one thread.
#[derive(Debug)]
struct Activity {
    calls: AtomicU64,
    under_way: AtomicU64,
    ended_ns: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            ended_ns: AtomicU64::new(clock::now().as_ns()),
        }
    }

    /// Whether any request ever came.
    fn began(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }

    fn begin(&self) {
        self.calls.store(self.calls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.under_way.store(self.under_way.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.under_way.store(self.under_way.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        self.ended_ns.store(clock::now().as_ns(), Ordering::Relaxed);
    }
}

pin_project! {
    /// A call that counts as activity until it is answered or dropped.
    struct Tracked<F> {
        #[pin]
        call: F,
        activity: Arc<Activity>,
    }

    impl<F> PinnedDrop for Tracked<F> {
        fn drop(this: Pin<&mut Self>) {
            this.project().activity.end();
        }
    }
}

impl<F: Future> Future for Tracked<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().call.poll(ctx)
    }
}

/// Ends a connection on which no request was under way for a time.
struct Idle {
    activity: Arc<Activity>,
    time_max: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Idle {
    fn new(activity: Arc<Activity>, time_max: Duration) -> Self {
        Self { activity, time_max, timer: Box::pin(tokio::time::sleep(time_max)) }
    }

    /// Looks at the clock only when the timer has run out, which it does once in a while, not once a request.
    fn is_over(&mut self, first: bool, ctx: &mut Context<'_>) -> bool {
        if !first && !self.timer.is_elapsed() {
            return false;
        }
        while self.timer.as_mut().poll(ctx).is_ready() {
            let busy = self.activity.under_way.load(Ordering::Relaxed) > 0;
            let ended = Time::from_ns(self.activity.ended_ns.load(Ordering::Relaxed));
            let now = clock::now();
            let due = if busy { now + self.time_max } else { ended + self.time_max };
            if due <= now {
                return true;
            }
            self.timer.as_mut().reset(tokio::time::Instant::now() + (due - now));
        }
        false
    }
}
