//! Accepts connections of a listener that few call, and hands their requests to an endpoint. Must not know any path.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::{
    respond::{Kind, Refusal},
    tls::{Stream, Tls},
};

/// Pause after a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for requests under way when the listener closes.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// Answers requests.
pub trait Endpoint: Send + Sync + 'static {
    /// Connections of the listener; further ones wait to be accepted.
    const CONNECTIONS_MAX: usize = 256;
    /// Time for a request's head to arrive, and for an idle connection to stay.
    const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

    /// Answers one request, whatever it is.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// An endpoint, and where it is.
#[derive(Debug)]
pub struct Served<E> {
    /// Does not block.
    pub listener: std::net::TcpListener,
    /// What connections are secured with; `None`: they are in clear.
    pub tls: Option<Arc<Tls>>,
    /// Answers.
    pub endpoint: Arc<E>,
}

/// Serves until told to stop, then lets requests under way end.
pub(crate) async fn serve<E: Endpoint>(served: Served<E>, mut stop: watch::Receiver<bool>) {
    let Served { listener, tls, endpoint } = served;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listener cannot be watched");
            return;
        }
    };
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            () = stopped(&mut stop) => break,
            _ = connections.join_next(), if connections.len() >= E::CONNECTIONS_MAX => {}
            accepted = listener.accept(), if connections.len() < E::CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, tls.clone(), Arc::clone(&endpoint), stop.clone()));
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(CLOSE_TIME_MAX, all).await;
}

async fn connection<E: Endpoint>(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    endpoint: Arc<E>,
    mut stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let stream = match tls {
        None => Stream::Plain(stream),
        Some(tls) => match tokio::time::timeout(E::HEAD_TIME_MAX, tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            failed => {
                gannet_runtime::metrics::process::refused("tls");
                tracing::debug!(error = ?failed.err(), "no TLS was agreed on");
                return;
            }
        },
    };
    let service = service_fn(move |request| {
        let endpoint = Arc::clone(&endpoint);
        async move { Ok::<_, std::convert::Infallible>(endpoint.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(E::HEAD_TIME_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Ends when the listener is to stop. Gives the lock of the value back at once.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A refusal as an answer: `{"error": "..."}` and what its kind says.
pub(crate) fn refuse(refusal: &Refusal) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(json!({ "error": refusal.message }).to_string()));
    *response.status_mut() = refusal.kind.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(ms) = refusal.retry_after_ms {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
    }
    if refusal.kind == Kind::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
