//! The one HTTP client of this crate: bounded in time and size, following few redirects and carrying no credentials
//! along them, and with one reading of what a status means. Must not know any registry's paths.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method, Response, StatusCode,
    header::{self, HeaderMap, HeaderValue},
    redirect::Policy,
};
use serde::de::DeserializeOwned;
use url::Url;

use crate::{
    RemoteError,
    error::causes,
    opened::{Opened, Pieces},
    uri::is_loopback,
};

/// Time to connect.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Time without a byte, of an answer's head or its body.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// Time for a small answer as a whole.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes of an answer that is no artifact.
pub(crate) const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;
/// Characters of an error's body that a message shows.
const SHOWN_CHARS_MAX: usize = 200;

/// What may stand in a path's segment as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A segment of a path: nothing in it can be taken for another segment.
pub(crate) fn segment(text: &str) -> String {
    match text {
        // URLs take these two for steps through the tree even when they are encoded: encoded twice, they name nothing
        "." => "%252E".into(),
        ".." => "%252E%252E".into(),
        _ => utf8_percent_encode(text, SEGMENT).to_string(),
    }
}

/// A path of segments, each encoded by itself.
pub(crate) fn path(text: &str) -> String {
    text.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// What a registry may be told of us.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// User and password.
    Basic(String, String),
    /// A bearer token.
    Token(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// `user:password`, or a token, which has no colon.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        match text.split_once(':') {
            Some((user, password)) => Self::Basic(user.to_owned(), password.to_owned()),
            None => Self::Token(text.to_owned()),
        }
    }

    /// The header's value; `None` where it holds what no header may.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        use base64::Engine as _;
        let text = match self {
            Self::Basic(user, password) => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                format!("Basic {encoded}")
            }
            Self::Token(token) => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Reads a source's credentials anew, so that a changed file counts at once.
pub type Secrets = Arc<dyn Fn() -> Result<Option<Secret>, String> + Send + Sync>;

/// A client for one source.
#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    secrets: Secrets,
    /// Whether hosts other than this machine may be asked without TLS.
    plain: bool,
    requests: Arc<AtomicU64>,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("plain", &self.plain).finish_non_exhaustive()
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    /// In place of the source's own credentials.
    pub(crate) authorization: Option<HeaderValue>,
    /// Whether nobody is told who asks.
    pub(crate) anonymous: bool,
}

impl<'a> Ask<'a> {
    pub(crate) fn get(url: &'a str) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: None,
            authorization: None,
            anonymous: false,
        }
    }

    pub(crate) fn send(method: Method, url: &'a str, body: Bytes, content_type: &'static str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { method, headers, body: Some(body), ..Self::get(url) }
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

impl Http {
    /// A client. `plain` allows `http://` to other machines than this one.
    ///
    /// # Errors
    /// When the system's certificates cannot be read.
    pub(crate) fn new(secrets: Secrets, plain: bool, requests: Arc<AtomicU64>) -> Result<Self, RemoteError> {
        provide_crypto();
        let client = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIME_MAX)
            .read_timeout(IDLE_TIME_MAX)
            .no_proxy()
            .user_agent(concat!("gannet/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| RemoteError::Local(format!("no HTTP client: {error}")))?;
        Ok(Self { client, secrets, plain, requests })
    }

    /// Sends, follows redirects, and gives back an answer that is a success, or 304.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Response, RemoteError> {
        let shown = shown(ask.url);
        let response = self.ask_any(ask).await?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        Err(refused(&shown, response).await)
    }

    /// Sends and follows redirects, whatever the answer is.
    pub(crate) async fn ask_any(&self, ask: Ask<'_>) -> Result<Response, RemoteError> {
        let mut url: Url =
            ask.url.parse().map_err(|error| RemoteError::Unusable(format!("{:?}: {error}", ask.url)))?;
        let own = (self.secrets)().map_err(RemoteError::Denied)?;
        let mut authorization = match (&ask.authorization, own) {
            _ if ask.anonymous => None,
            (Some(given), _) => Some(given.clone()),
            (None, Some(secret)) => Some(secret.header().ok_or_else(|| {
                RemoteError::Denied("the credentials hold characters that no header may have".to_owned())
            })?),
            (None, None) => None,
        };
        for _ in 0..=REDIRECTS_MAX {
            self.check(&url)?;
            let mut request =
                self.client.request(ask.method.clone(), url.clone()).headers(ask.headers.clone());
            if let Some(value) = &authorization {
                request = request.header(header::AUTHORIZATION, value.clone());
            }
            if let Some(body) = &ask.body {
                request = request.body(body.clone());
            }
            count(&self.requests);
            let response = request.send().await.map_err(|error| broken(&url, &error))?;
            let status = response.status();
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let Some(location) = location.filter(|_| status.is_redirection()) else { return Ok(response) };
            if ask.method != Method::GET && ask.method != Method::HEAD {
                return Err(RemoteError::Down(format!(
                    "{url}: answered a {} with a redirect to {location}; name that address instead",
                    ask.method
                )));
            }
            url = url
                .join(location)
                .map_err(|error| RemoteError::Down(format!("{url}: redirects to nothing: {error}")))?;
            // wherever it leads: what was meant for one address is told to no other
            authorization = None;
        }
        Err(RemoteError::Down(format!("{url}: more than {REDIRECTS_MAX} redirects")))
    }

    /// A file from `offset` on where the server can do that and the file is still the one of `etag`; else all of it.
    pub(crate) async fn open(
        &self,
        url: &str,
        offset: u64,
        etag: Option<&str>,
    ) -> Result<Opened, RemoteError> {
        self.open_with(Ask::get(url), offset, etag).await
    }

    /// The same for a request that says more.
    pub(crate) async fn open_with(
        &self,
        ask: Ask<'_>,
        offset: u64,
        etag: Option<&str>,
    ) -> Result<Opened, RemoteError> {
        let mut whole = ask.header(header::ACCEPT_ENCODING, "identity");
        let shown = shown(whole.url);
        if offset > 0 {
            let mut part = whole.clone().header(header::RANGE, &format!("bytes={offset}-"));
            // a weak validator is none for ranges
            if let Some(etag) = etag.filter(|etag| !etag.starts_with("W/")) {
                part = part.header(header::IF_RANGE, etag);
            }
            let response = self.ask_any(part).await?;
            let status = response.status();
            let begins = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let begins =
                begins.and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
            match status {
                StatusCode::PARTIAL_CONTENT if begins == Some(offset) => return Ok(opened(response, offset)),
                StatusCode::OK => return Ok(opened(response, 0)),
                StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {}
                _ => return Err(refused(&shown, response).await),
            }
            whole.headers.remove(header::RANGE);
        }
        Ok(opened(self.ask(whole).await?, 0))
    }

    /// A small answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, RemoteError> {
        let shown = shown(ask.url);
        let bytes = self.bytes(ask).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            RemoteError::Down(format!("{shown}: answered something else than expected: {error}"))
        })
    }

    /// A small answer.
    pub(crate) async fn bytes(&self, ask: Ask<'_>) -> Result<Bytes, RemoteError> {
        let shown = shown(ask.url);
        let whole = async { small(&shown, self.ask(ask).await?, ANSWER_BYTES_MAX).await };
        tokio::time::timeout(ANSWER_TIME_MAX, whole).await.unwrap_or_else(|_| {
            Err(RemoteError::Down(format!("{shown}: took longer than {} s", ANSWER_TIME_MAX.as_secs())))
        })
    }

    fn check(&self, url: &Url) -> Result<(), RemoteError> {
        let host = url.host_str().unwrap_or_default();
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.plain || is_loopback(host) => Ok(()),
            "http" => Err(RemoteError::Denied(format!(
                "{}: expected https, got http to another machine; everything sent could be read and changed on the \
                 way. Use https, or allow it with plain_http = true",
                shown(url.as_str())
            ))),
            other => Err(RemoteError::Down(format!("expected http or https, got {other:?}"))),
        }
    }
}

fn opened(response: Response, offset: u64) -> Opened {
    let etag = response.headers().get(header::ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Opened { pieces: Pieces::Http(response), offset, etag }
}

/// The bytes of an answer, up to a bound.
pub(crate) async fn small(
    shown: &str,
    mut response: Response,
    bytes_max: usize,
) -> Result<Bytes, RemoteError> {
    let over = || RemoteError::Unusable(format!("{shown}: answered more than {bytes_max} bytes"));
    if response.content_length().is_some_and(|length| length > bytes_max as u64) {
        return Err(over());
    }
    let mut whole = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(piece)) if whole.len() + piece.len() > bytes_max => return Err(over()),
            Ok(Some(piece)) => whole.extend_from_slice(&piece),
            Ok(None) => return Ok(whole.into()),
            Err(error) => return Err(RemoteError::Down(format!("{shown}: broke off: {}", causes(&error)))),
        }
    }
}

/// Has this process's TLS computed by `ring`, for clients of other crates too.
pub fn provide_crypto() {
    // fails when one is installed already, which is as good
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn broken(url: &Url, error: &reqwest::Error) -> RemoteError {
    RemoteError::Down(format!("{}: cannot be reached: {}", shown(url.as_str()), causes(error)))
}

/// Counts one request.
pub(crate) fn count(requests: &AtomicU64) {
    requests.fetch_add(1, Ordering::Relaxed);
}

/// A URL without its query, which may hold signatures.
fn shown(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}

/// What a status other than success means.
pub(crate) async fn refused(shown: &str, response: Response) -> RemoteError {
    let status = response.status();
    let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let body = small(shown, response, 64 << 10).await.unwrap_or_default();
    let message = format!("{shown}: answered {status}{}", said(&body));
    match status {
        StatusCode::UNAUTHORIZED => RemoteError::Denied(format!(
            "{message}; name valid credentials with credentials = \"env:NAME\" or \"file:PATH\""
        )),
        StatusCode::FORBIDDEN => RemoteError::Denied(format!("{message}; the credentials do not allow it")),
        StatusCode::NOT_FOUND | StatusCode::GONE => RemoteError::Missing(message),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            RemoteError::Busy { message, retry_after }
        }
        // how MLflow says that an alias does not exist
        StatusCode::BAD_REQUEST => RemoteError::Missing(message),
        _ => RemoteError::Down(message),
    }
}

/// The message of an error's body: JSON's own, or the start of a text. Pages for people are left out.
fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let json: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let message = json.as_ref().and_then(|json| {
        json["message"]
            .as_str()
            .or_else(|| json["errors"][0]["message"].as_str())
            .or_else(|| json["error"].as_str())
    });
    let message = message.unwrap_or(if text.trim_start().starts_with('<') { "" } else { text.trim() });
    let line: String =
        message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS_MAX).collect();
    if line.is_empty() { String::new() } else { format!(": {line}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        for (name, expected) in [
            ("iris", "iris"),
            ("a b/c", "a%20b%2Fc"),
            ("..", "%252E%252E"),
            ("../../etc", "..%2F..%2Fetc"),
            ("a?b#c", "a%3Fb%23c"),
            ("modèle", "mod%C3%A8le"),
        ] {
            assert_eq!(segment(name), expected);
        }
        assert_eq!(path("1/models/a b"), "1/models/a%20b");
    }

    #[test]
    fn secrets_are_read_and_not_shown() {
        assert_eq!(Secret::parse("u:p:q\n"), Secret::Basic("u".into(), "p:q".into()));
        assert_eq!(Secret::parse("hf_x"), Secret::Token("hf_x".into()));
        assert_eq!(format!("{:?}", Secret::parse("u:p")), "Secret(..)");
        assert!(Secret::Token("a\nb".into()).header().is_none());
    }

    #[test]
    fn errors_say_what_the_registry_said() {
        assert_eq!(said(br#"{"error_code":"X","message":"no\nsuch"}"#), ": no such");
        assert_eq!(said(b"Permission denied"), ": Permission denied");
        assert_eq!(said(b"<html>"), "");
    }
}
