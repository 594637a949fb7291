//! `ModelInfer`: the line that every way to it shares, and the way that goes around tonic. Must not know streams.

use std::sync::Arc;

use bytes::Bytes;
use gannet_runtime::{Time, clock};
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message as _;

use super::{codec, deadline, frame, pb};
use crate::{
    admission::Permit,
    ask, patience,
    protocol::Protocol,
    respond::{Kind, Refusal},
    state::State,
};

/// What came beside a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside<'a> {
    pub(super) metadata: &'a HeaderMap,
    pub(super) deadline: Option<Time>,
}

/// Answers a decoded request.
///
/// # Errors
/// A refusal from any step.
pub(super) async fn answer(
    state: &State,
    request: pb::ModelInferRequest,
    beside: Beside<'_>,
) -> Result<pb::ModelInferResponse, Refusal> {
    let question = codec::read(request, clock::now(), beside.deadline)?;
    let codec::Question { model, version, ask, raw } = question;
    let target = ask::Target {
        model: &model,
        version: version.as_deref(),
        headers: beside.metadata,
        protocol: Protocol::Grpc,
        tracer: state.tracer.as_deref(),
    };
    let answer = ask::begin(state.table(), target, ask)?.answer().await?;
    Ok(codec::write(&answer, raw))
}

/// Answers a unary call without compression: the framed answer, and the permit for its bytes.
///
/// # Errors
/// A refusal from any step.
pub(super) async fn plain(
    state: &Arc<State>,
    request: Request<Incoming>,
    arrived: Time,
    deadline: Option<Time>,
) -> Result<(Bytes, Permit), Refusal> {
    let (head, body) = request.into_parts();
    let beside = Beside { metadata: &head.headers, deadline };
    let (message, mut permit) = received(state, body, arrived, beside).await?;
    let request = pb::ModelInferRequest::decode(message).map_err(|error| {
        Refusal::new(Kind::Internal, format!("the message is no inference.ModelInferRequest: {error}"))
    })?;
    let frame = frame::encode(&answer(state, request, beside).await?)?;
    permit.grow(frame.len())?;
    Ok((frame, permit))
}

/// The one message of the body, if it comes in time.
async fn received(
    state: &State,
    body: Incoming,
    arrived: Time,
    beside: Beside<'_>,
) -> Result<(Bytes, Permit), Refusal> {
    let Beside { metadata, deadline } = beside;
    let time_max = state.limits.body_time_max;
    let left = || deadline.map_or(time_max, |deadline| (deadline - clock::now()).min(time_max));
    patience::within(collect(state, metadata, body), left).await.unwrap_or_else(|| {
        Err(match deadline {
            Some(deadline) if clock::now() >= deadline => deadline::passed(arrived, deadline),
            _ => super::body::slow_sender(time_max),
        })
    })
}

/// The one message of the body.
async fn collect(state: &State, headers: &HeaderMap, mut body: Incoming) -> Result<(Bytes, Permit), Refusal> {
    let stated_bytes = headers.get(header::CONTENT_LENGTH);
    let stated_bytes = stated_bytes.and_then(|value| value.to_str().ok()?.parse().ok());
    let mut collector =
        frame::Collector::new(state.admission.permit(), state.limits.body_bytes_max, stated_bytes);
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Refusal::new(Kind::Cancelled, format!("the request was broken off: {error}")))?;
        if let Ok(piece) = frame.into_data() {
            collector.push(piece)?;
        }
    }
    collector.finish()
}
