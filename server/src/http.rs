//! The Open Inference Protocol over HTTP, with Triton's extensions. One function a path; the inference path reads
//! downwards in [`infer`]. Must not know batches, tables' insides, or sockets.

pub mod body;
pub mod codec;
mod feedback;
pub mod infer;
pub mod json;
pub mod manage;
pub mod raw;
pub mod route;

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

use self::route::Route;
use crate::{
    guard,
    respond::{Kind, Refusal},
    state::State,
};

/// Length of the JSON in front of binary tensors.
pub const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The version that a request is assigned to by its model's route.
pub const ARM: HeaderName = HeaderName::from_static("x-gannet-arm");

/// Answers requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpService {
    state: Arc<State>,
    /// The listener, for the guard against web pages.
    local: SocketAddr,
    /// What most clients name as the host: nothing to look at more closely.
    own_host: Arc<str>,
}

/// What every answer is.
pub type Answered = Response<Full<Bytes>>;

impl HttpService {
    /// Over the server's state, for connections to `local`.
    #[must_use]
    pub fn new(state: Arc<State>, local: SocketAddr) -> Self {
        Self { state, local, own_host: local.to_string().into() }
    }

    /// Answers one request. One flat future: every level of futures inside each other is memory that each request
    /// moves.
    pub fn call(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Answered, Infallible>> + Send + use<> {
        let service = self.clone();
        async move {
            let (parts, body) = request.into_parts();
            let state = &*service.state;
            let route = service.admit(&parts);
            let result = match route {
                Ok(Route::Infer { model, version }) => {
                    infer::infer(state, &parts.headers, body, &model, version.as_deref()).await
                }
                Ok(route) => Box::pin(manage::answer(&service.state, route, &parts.headers, body)).await,
                Err(refusal) => Err(refusal),
            };
            Ok(result.unwrap_or_else(|refusal| {
                let mut answer = refused(&refusal);
                if parts.method == Method::HEAD {
                    *answer.body_mut() = Full::default();
                }
                answer
            }))
        }
    }

    /// What is asked for, by somebody who may ask.
    fn admit<'a>(&self, parts: &'a http::request::Parts) -> Result<Route<'a>, Refusal> {
        self.guard(parts)?;
        let route = route::parse(&parts.method, parts.uri.path())?;
        if !matches!(route, Route::Live | Route::Ready) {
            self.state.check_token(&parts.headers)?;
        }
        Ok(route)
    }

    /// Web pages from elsewhere may not call a listener on loopback.
    fn guard(&self, parts: &http::request::Parts) -> Result<(), Refusal> {
        let value = |name| parts.headers.get(name);
        let (host, origin) = (value(header::HOST), value(header::ORIGIN));
        let authority = parts.uri.authority().map(http::uri::Authority::as_str);
        if origin.is_none() && authority.is_none() && host.is_some_and(|host| *host == *self.own_host) {
            return Ok(());
        }
        fn text(value: Option<&HeaderValue>) -> Option<&str> {
            value.map(|value| value.to_str().unwrap_or("?"))
        }
        guard::check(authority.or_else(|| text(host)), text(origin), self.local)
    }
}

/// An answer in JSON.
pub(crate) fn json_answer(status: StatusCode, body: Vec<u8>) -> Answered {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// A refusal as an answer: `{"error": "..."}`, never compressed.
pub(crate) fn refused(refusal: &Refusal) -> Answered {
    let mut answer = json_answer(refusal.kind.status(), json::write::error(&refusal.message));
    if let Some(ms) = refusal.retry_after_ms {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
    }
    if refusal.kind == Kind::Unauthenticated {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}
