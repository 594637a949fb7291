//! The server that captured requests are sent to once more: what it is sent, and what it answers. Must not know when.

use std::{error::Error as _, fmt::Display, time::Duration};

use bytes::Bytes;
use gannet_runtime::Tensor;
use http::{HeaderMap, HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::LiveArgs;
use crate::{
    http::{
        HEADER_LENGTH,
        codec::answer::{self, Read},
        json::write,
    },
    token::read_tokens,
};

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Bytes of a refusal's message that are told.
const MESSAGE_BYTES_MAX: usize = 300;
/// Time that a connection waits for the next request. Less than a server waits, so that none is closed while one is sent.
const IDLE_TIME_MAX: Duration = Duration::from_secs(5);
/// What of a name is escaped in a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The server, and how it is asked.
#[derive(Debug)]
pub(super) struct Target {
    client: reqwest::Client,
    /// `http://HOST:PORT`
    pub(super) base: String,
    version: Option<String>,
    id_prefix: String,
    deadline_us: Option<u64>,
}

/// What came back of a request that was answered.
#[derive(Debug)]
pub(super) struct Reply {
    body: Bytes,
    json_length: Option<usize>,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// What is counted, one of a few.
    pub(super) kind: String,
    pub(super) why: String,
}

/// A request as it is sent: JSON, and binary tensors behind it.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Vec<u8>,
    json_length: usize,
}

impl Target {
    /// The server at a URL; nothing is asked of it yet.
    ///
    /// # Errors
    /// A text: what cannot be used.
    pub(super) fn new(url: &str, args: &LiveArgs) -> Result<Self, String> {
        let base = base(url).ok_or_else(|| {
            format!("--against: expected http://HOST:PORT or https://HOST:PORT, got {url:?}")
        })?;
        gannet_registry::provide_crypto();
        let builder = reqwest::Client::builder()
            .timeout(Duration::from_millis(args.timeout_ms))
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_max_idle_per_host(args.concurrency as usize)
            .default_headers(headers(args)?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        let client = builder.build().map_err(|error| format!("no client to ask {base} with: {error}"))?;
        Ok(Self {
            client,
            base,
            version: args.against_version.clone(),
            id_prefix: args.id_prefix.clone(),
            deadline_us: args.deadline_ms.map(|ms| ms.saturating_mul(1000)),
        })
    }

    /// Whether the server has the model, before anything is sent.
    ///
    /// # Errors
    /// A text: that nobody answers there, or what the server says instead.
    pub(super) async fn look(&self, model: &str) -> Result<(), String> {
        let url = format!("{}{}", self.base, path(model, self.version.as_deref()));
        let asked = self.client.get(&url).send().await;
        let found = match asked {
            Ok(response) => reply(response).await,
            Err(error) => Err(failure(&error)),
        };
        found.map(drop).map_err(|failure| {
            format!(
                "{url}: expected the model '{model}', got none: {}; name a server with --against",
                failure.why
            )
        })
    }

    /// A request as it is sent.
    pub(super) fn body(&self, id: &str, inputs: &[(String, Tensor)]) -> Body {
        body(&format!("{}{id}", self.id_prefix), inputs, self.deadline_us)
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn ask(&self, model: &str, body: Body) -> Result<Reply, Failure> {
        let url = format!("{}{}/infer", self.base, path(model, self.version.as_deref()));
        let request = self.client.post(url).header(HEADER_LENGTH, body.json_length).body(body.bytes);
        match request.send().await {
            Ok(response) => reply(response).await,
            Err(error) => Err(failure(&error)),
        }
    }
}

/// What every request says of us.
fn headers(args: &LiveArgs) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    if let Some(path) = &args.against_token_file {
        let bad = |why: &dyn Display| format!("--against-token-file: {}: {why}", path.display());
        let token = read_tokens(path).map_err(|error| bad(&error))?.swap_remove(0);
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| bad(&error))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

impl Reply {
    /// What it says.
    ///
    /// # Errors
    /// That it is none.
    pub(super) fn read(&self) -> Result<Read, Failure> {
        answer::read(&self.body, self.json_length.unwrap_or(self.body.len())).map_err(|refusal| Failure {
            kind: "unreadable".into(),
            why: format!("the answer is none: {}", refusal.message),
        })
    }
}

/// The server of a URL; without a scheme it is HTTP.
fn base(url: &str) -> Option<String> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: http::Uri = url.parse().ok()?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
    let is_bare = uri.path_and_query().is_none_or(|rest| rest.as_str() == "/");
    is_bare.then(|| format!("{scheme}://{authority}"))
}

fn path(model: &str, version: Option<&str>) -> String {
    let model = utf8_percent_encode(model, ESCAPED);
    match version {
        None => format!("/v2/models/{model}"),
        Some(version) => format!("/v2/models/{model}/versions/{}", utf8_percent_encode(version, ESCAPED)),
    }
}

/// Every value goes and comes as bytes: they are the ones that were captured.
fn body(id: &str, inputs: &[(String, Tensor)], deadline_us: Option<u64>) -> Body {
    let mut bytes = b"{\"id\":".to_vec();
    write::text(&mut bytes, id);
    bytes.extend_from_slice(b",\"parameters\":{\"binary_data_output\":true");
    if let Some(deadline_us) = deadline_us {
        bytes.extend_from_slice(format!(",\"timeout\":{deadline_us}").as_bytes());
    }
    bytes.extend_from_slice(b"},\"inputs\":");
    write::list(&mut bytes, inputs.iter(), |out, (name, tensor)| {
        out.extend_from_slice(b"{\"name\":");
        write::text(out, name);
        out.extend_from_slice(b",\"shape\":");
        write::shape(out, &tensor.shape);
        let (dtype, size) = (tensor.dtype.name(), tensor.data.len());
        let rest = format!(",\"datatype\":\"{dtype}\",\"parameters\":{{\"binary_data_size\":{size}}}}}");
        out.extend_from_slice(rest.as_bytes());
    });
    bytes.push(b'}');
    let json_length = bytes.len();
    inputs.iter().for_each(|(_, tensor)| bytes.extend_from_slice(&tensor.data));
    Body { bytes, json_length }
}

async fn reply(mut response: reqwest::Response) -> Result<Reply, Failure> {
    let status = response.status();
    let length = response.headers().get(HEADER_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            let why = format!("expected an answer of at most {ANSWER_BYTES_MAX} bytes, got more");
            return Err(Failure { kind: "too large".into(), why });
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return Ok(Reply { body: Bytes::from(body), json_length: length });
    }
    let message = serde_json::from_slice::<serde_json::Value>(&body);
    let message = message.ok().and_then(|body| body["error"].as_str().map(str::to_owned)).unwrap_or_default();
    let message = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)];
    let kind = format!("status {}", status.as_u16());
    Err(Failure { why: format!("{kind}: {message}"), kind })
}

fn failure(error: &reqwest::Error) -> Failure {
    let kind = match error {
        error if error.is_timeout() => "timeout",
        error if error.is_connect() => "connect",
        _ => "connection",
    };
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        why.push_str(&format!(": {}", cause as &dyn Display));
        source = cause.source();
    }
    Failure { kind: kind.to_owned(), why: gannet_registry::explained(why) }
}

#[cfg(test)]
mod tests {
    use gannet_models::DType;
    use gannet_runtime::Time;

    use super::*;
    use crate::http::codec;

    #[test]
    fn urls_are_those_of_servers() {
        let check = |url: &str, expected: Option<&str>| assert_eq!(base(url).as_deref(), expected, "{url}");
        check("http://127.0.0.1:8000", Some("http://127.0.0.1:8000"));
        check("https://staging/", Some("https://staging"));
        check("localhost:8000", Some("http://localhost:8000"));
        check("http://[::1]:8000", Some("http://[::1]:8000"));
        check("http://user:secret@host:1", None);
        check("http://host:1/v2", None);
        check("grpc://host:1", None);
        check("", None);
        assert_eq!(path("a b/ü", Some("1.0-x")), "/v2/models/a%20b%2F%C3%BC/versions/1.0-x");
    }

    #[test]
    fn what_is_sent_is_what_our_own_server_reads() {
        let tensor = |dtype, shape: &[usize], data: &[u8]| Tensor {
            dtype,
            shape: shape.iter().copied().collect(),
            data: Bytes::copy_from_slice(data),
        };
        let inputs = [
            ("x".to_owned(), tensor(DType::Fp16, &[1, 2], &[0, 60, 0, 64])),
            ("s\"".to_owned(), tensor(DType::Bytes, &[1], b"\x01\0\0\0a")),
        ];
        let Body { bytes, json_length } = body("replay-7", &inputs, Some(50_000));
        let ask = codec::decode(&Bytes::from(bytes), json_length, Time::default()).unwrap();
        assert_eq!((ask.id.as_str(), ask.parameters.timeout_us), ("replay-7", 50_000));
        assert!(ask.parameters.binary_outputs);
        assert_eq!(ask.inputs, inputs);
    }
}
