//! One inference over HTTP, read downwards. Must not know JSON's grammar or how a batch is made.

use std::sync::LazyLock;

use bytes::Bytes;
use gannet_runtime::clock;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{
    ARM, Answered, HEADER_LENGTH,
    body::{self, Coding},
    codec, raw,
};
use crate::{
    ask,
    protocol::Protocol,
    respond::{Kind, Refusal},
    state::State,
};

static JSON: LazyLock<HeaderValue> = LazyLock::new(|| HeaderValue::from_static("application/json"));
static BINARY: LazyLock<HeaderValue> = LazyLock::new(|| HeaderValue::from_static("application/octet-stream"));

/// Answers `POST /v2/models/{model}[/versions/{version}]/infer`.
///
/// # Errors
/// Every refusal that a request can meet.
pub async fn infer(
    state: &State,
    headers: &HeaderMap,
    body: Incoming,
    model: &str,
    version: Option<&str>,
) -> Result<Answered, Refusal> {
    let stated = json_length(headers)?;
    let aligned = stated.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let (body, _permit) = body::read(state, headers, body, aligned).await?;
    let arrived = clock::now();
    let ask = match stated.map(|length| within(length, body.len())).transpose()? {
        Some(0) => raw::decode(&*state.table().resolve(model, version)?, body, arrived)?,
        length => codec::decode(&body, length.unwrap_or(body.len()), arrived)?,
    };
    let (protocol, tracer) = (Protocol::Http, state.tracer.as_deref());
    let target = ask::Target { model, version, headers, protocol, tracer };
    let answer = ask::begin(state.table(), target, ask)?.answer().await?;
    let encoded = codec::encode(&answer).map_err(|message| Refusal::new(Kind::Invalid, message))?;
    let mut response = respond(headers, encoded);
    if let Some(arm) = &answer.arm
        && let Ok(version) = HeaderValue::from_str(arm.version().as_str())
    {
        response.headers_mut().insert(ARM, version);
    }
    Ok(response)
}

/// The length of the JSON in front of binary tensors, if the request has any.
fn json_length(headers: &HeaderMap) -> Result<Option<i64>, Refusal> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    let text = value.to_str().unwrap_or("?");
    let Ok(length) = text.parse::<i64>() else {
        let number =
            !text.is_empty() && text.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
        let why = if number { ": value is out of range" } else { "" };
        return Err(Refusal::invalid(format!(
            "Unable to parse Inference-Header-Content-Length, got: {text}{why}"
        )));
    };
    if length > i64::from(i32::MAX) {
        return Err(Refusal::invalid(format!(
            "Unable to parse Inference-Header-Content-Length, got: {length}: value is out of range"
        )));
    }
    Ok(Some(length))
}

/// The length, if a body of so many bytes can have it.
fn within(length: i64, body: usize) -> Result<usize, Refusal> {
    usize::try_from(length).ok().filter(|&length| length <= body).ok_or_else(|| {
        Refusal::invalid(format!("inference header size should be in range (0, {body}), got: {length}"))
    })
}

fn respond(headers: &HeaderMap, encoded: codec::Encoded) -> Answered {
    let codec::Encoded { body, json_length } = encoded;
    let coding = Coding::choose(headers.get(header::ACCEPT_ENCODING), body.len());
    let body = match coding {
        None => body,
        Some(coding) => coding.pack(&body),
    };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    let out = answer.headers_mut();
    match json_length {
        None => out.insert(header::CONTENT_TYPE, JSON.clone()),
        Some(length) => {
            out.insert(HEADER_LENGTH, HeaderValue::from(length));
            out.insert(header::CONTENT_TYPE, BINARY.clone())
        }
    };
    if let Some(coding) = coding {
        out.insert(header::CONTENT_ENCODING, coding.name());
    }
    answer
}
