//! The Open Inference Protocol over HTTP, with Triton's extensions. One function a path; the inference path reads
//! downwards in [`infer`]. Must not know batches, tables' insides, or sockets.

pub mod body;
pub mod codec;
pub mod infer;
pub mod json;
pub mod manage;
pub mod raw;
pub mod route;

use std::{net::SocketAddr, sync::Arc};

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

/// Answers requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpService {
    state: Arc<State>,
    /// The listener, for the guard against web pages.
    local: SocketAddr,
}

/// What every answer is.
pub type Answered = Response<Full<Bytes>>;

impl HttpService {
    /// Over the server's state, for connections to `local`.
    #[must_use]
    pub fn new(state: Arc<State>, local: SocketAddr) -> Self {
        Self { state, local }
    }

    /// Answers one request.
    pub async fn call(&self, request: Request<Incoming>) -> Answered {
        let (parts, body) = request.into_parts();
        let result = match self.guard(&parts).and_then(|()| route::parse(&parts.method, parts.uri.path())) {
            Ok(Route::Infer { model, version }) => {
                infer::infer(&self.state, &parts.headers, body, &model, version.as_deref()).await
            }
            Ok(route) => manage::answer(&self.state, route, &parts.headers, body).await,
            Err(refusal) => Err(refusal),
        };
        result.unwrap_or_else(|refusal| {
            let mut answer = refused(&refusal);
            if parts.method == Method::HEAD {
                *answer.body_mut() = Full::default();
            }
            answer
        })
    }
}

impl HttpService {
    /// Web pages from elsewhere may not call a listener on loopback.
    fn guard(&self, parts: &http::request::Parts) -> Result<(), Refusal> {
        let text = |name| parts.headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
        let host = parts.uri.authority().map(http::uri::Authority::as_str).or_else(|| text(header::HOST));
        guard::check(host, text(header::ORIGIN), self.local)
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
