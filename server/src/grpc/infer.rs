//! `ModelInfer`: the line that every way to it shares, and the way that goes around tonic. Must not know streams.

use std::sync::Arc;

use bytes::Bytes;
use gannet_runtime::{Time, clock, table::TableReader};
use http::{Request, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message as _;

use super::{body, codec, deadline, frame, pb};
use crate::{
    admission::Permit,
    ask, patience,
    respond::{Kind, Refusal},
    state::State,
};

/// Answers a decoded request.
///
/// # Errors
/// A refusal from any step.
pub(super) async fn answer(
    table: &TableReader,
    request: pb::ModelInferRequest,
    deadline: Option<Time>,
) -> Result<pb::ModelInferResponse, Refusal> {
    let question = codec::read(request, clock::now(), deadline)?;
    let codec::Question { model, version, ask, raw } = question;
    let answer = ask::begin(table, &model, version.as_deref(), ask)?.answer().await?;
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
    let (message, mut permit) = received(state, request, arrived, deadline).await?;
    let request = pb::ModelInferRequest::decode(message).map_err(|error| {
        Refusal::new(Kind::Internal, format!("the message is no inference.ModelInferRequest: {error}"))
    })?;
    let frame = frame::encode(&answer(state.table(), request, deadline).await?)?;
    permit.grow(frame.len())?;
    Ok((frame, permit))
}

/// The one message of the body, if it comes in time.
async fn received(
    state: &State,
    request: Request<Incoming>,
    arrived: Time,
    deadline: Option<Time>,
) -> Result<(Bytes, Permit), Refusal> {
    let time_max = state.limits.body_time_max;
    let left = || deadline.map_or(time_max, |deadline| (deadline - clock::now()).min(time_max));
    patience::within(collect(state, request), left).await.unwrap_or_else(|| {
        Err(match deadline {
            Some(deadline) if clock::now() >= deadline => deadline::passed(arrived, deadline),
            _ => body::slow_sender(time_max),
        })
    })
}

/// The one message of the body.
async fn collect(state: &State, request: Request<Incoming>) -> Result<(Bytes, Permit), Refusal> {
    let stated_bytes = request.headers().get(header::CONTENT_LENGTH);
    let stated_bytes = stated_bytes.and_then(|value| value.to_str().ok()?.parse().ok());
    let mut collector =
        frame::Collector::new(state.admission.permit(), state.limits.body_bytes_max, stated_bytes);
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Refusal::new(Kind::Cancelled, format!("the request was broken off: {error}")))?;
        if let Ok(piece) = frame.into_data() {
            collector.push(piece)?;
        }
    }
    collector.finish()
}
