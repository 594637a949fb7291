//! The admin API and the metrics listener, on a thread and a small event loop of their own, so that they answer
//! when the data plane is saturated. Must not know how requests are served.

pub mod listener;

mod router;

mod capture;
mod config_view;
mod drift;
mod edge;
mod labels;
mod models;
mod ota;
mod registry;
mod rollouts;
mod shadows;
mod traffic;

pub mod view;

use std::{io, net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::sync::watch;

use self::{
    listener::{Endpoint, Served, refuse},
    router::{Call, Found, Reply},
};
use crate::{
    config::Config,
    exporter::Exporter,
    guard,
    respond::{Kind, Refusal},
    state::State,
    token::TokenFile,
    webhook::Webhook,
};

/// Time for a body to arrive whole.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// What every admin request needs.
#[derive(Debug)]
pub struct Context {
    /// What is served.
    pub state: Arc<State>,
    /// As it is in force.
    pub config: Arc<Config>,
    /// Who may call; `None`: anyone who can reach it.
    pub tokens: Option<TokenFile>,
    /// The listener's address.
    pub local: SocketAddr,
    /// The name it was configured with.
    pub bind_host: Option<String>,
}

/// What [`start`] needs.
#[derive(Debug)]
pub struct Options {
    /// The admin API.
    pub admin: Option<Served<Context>>,
    /// The metrics.
    pub metrics: Option<Served<Exporter>>,
    /// Webhooks of registries.
    pub webhook: Option<Served<Webhook>>,
}

/// The running thread.
#[derive(Debug)]
pub struct Handle {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// Starts the thread. The listeners must not block.
///
/// # Errors
/// When the system gives no thread or event loop.
pub fn start(options: Options) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = watch::channel(false);
    let Options { admin, metrics, webhook } = options;
    let run = move || {
        let (admin, metrics, webhook) = (
            serve_any(admin, stopped.clone()),
            serve_any(metrics, stopped.clone()),
            serve_any(webhook, stopped),
        );
        runtime.block_on(async { tokio::join!(admin, metrics, webhook) });
    };
    let thread = std::thread::Builder::new().name("gannet-admin".into()).spawn(run)?;
    Ok(Handle { stop, thread })
}

async fn serve_any<E: Endpoint>(served: Option<Served<E>>, stopped: watch::Receiver<bool>) {
    if let Some(served) = served {
        listener::serve(served, stopped).await;
    }
}

/// Serves one endpoint on a thread and an event loop of its own: what comes to it cannot slow the others down.
///
/// # Errors
/// As [`start`].
pub fn start_alone<E: Endpoint>(name: &str, served: Served<E>) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = watch::channel(false);
    let run = move || runtime.block_on(listener::serve(served, stopped));
    let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
    Ok(Handle { stop, thread })
}

impl Handle {
    /// Stops accepting; the thread ends by itself.
    pub fn stop(&self) {
        let _ = self.stop.send(true);
    }

    /// Stops accepting, lets what is under way end, and ends the thread.
    pub fn close(self) {
        self.stop();
        let _ = self.thread.join();
    }
}

impl Endpoint for Context {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match respond(self, request).await {
            Ok(reply) => json(reply),
            Err(Denied { refusal, allow }) => {
                let mut response = refuse(&refusal);
                if let Some(allow) = allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
                    response.headers_mut().insert(header::ALLOW, allow);
                }
                response
            }
        }
    }
}

/// A refusal, with the methods that would do.
struct Denied {
    refusal: Refusal,
    allow: Option<String>,
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, allow: None }
    }
}

async fn respond(context: Arc<Context>, request: Request<Incoming>) -> Result<Reply, Denied> {
    let text = |name| request.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let local = guard::Local { address: context.local, bind_host: context.bind_host.as_deref() };
    guard::check(text(header::HOST), text(header::ORIGIN), local)?;
    if let Some(tokens) = &context.tokens {
        tokens.check(text(header::AUTHORIZATION))?;
    }
    match router::find(request.method(), request.uri().path()) {
        Found::Route { run, parameters, body_bytes_max } => {
            let (head, body) = request.into_parts();
            let body = read(body, body_bytes_max).await?;
            Ok(run(Call { context, parameters, headers: head.headers, body }).await?)
        }
        Found::OtherMethods(methods) => {
            let message = format!("{} is not allowed here; use {methods}", request.method());
            Err(Denied { refusal: Refusal::new(Kind::MethodNotAllowed, message), allow: Some(methods) })
        }
        Found::Nothing => {
            let path = request.uri().path();
            let message = format!("there is no {path:?}; GET /admin/v1/openapi.json lists what there is");
            Err(Refusal::new(Kind::NotFound, message).into())
        }
    }
}

/// A body, within limits of bytes and time.
pub(crate) async fn read(body: Incoming, bytes_max: usize) -> Result<Bytes, Refusal> {
    let whole = tokio::time::timeout(BODY_TIME_MAX, Limited::new(body, bytes_max).collect()).await;
    match whole {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refusal::new(Kind::TooLarge, format!("the body has more than {bytes_max} bytes; send less")))
        }
        Ok(Err(error)) => Err(Refusal::invalid(format!("the body could not be read: {error}"))),
        Err(_) => {
            Err(Refusal::new(Kind::SlowSender, "the body took more than 10 s to arrive; send it faster"))
        }
    }
}

fn json(reply: Reply) -> Response<Full<Bytes>> {
    let (body, content_type, name) = match reply.file {
        Some(file) => (file.bytes, file.content_type, Some(file.name)),
        None => (reply.body.to_string().into(), "application/json", None),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let attached =
        name.and_then(|name| HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")).ok());
    if let Some(attached) = attached {
        headers.insert(header::CONTENT_DISPOSITION, attached);
    }
    if let Some(etag) = reply.etag.and_then(|etag| HeaderValue::from_str(&etag).ok()) {
        headers.insert(header::ETAG, etag);
    }
    response
}

#[cfg(test)]
mod tests;
