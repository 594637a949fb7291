//! Bodies of both directions: what goes to hyper, and what tonic reads from. Must not know messages.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use gannet_runtime::{Time, clock};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use tokio::time::Sleep;
use tonic::Status;

use super::deadline;
use crate::{
    admission::Permit,
    respond::{Kind, Refusal},
    state::State,
};

/// The body of an answer.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing: the head said all.
    #[default]
    Empty,
    /// One message, then the trailers of success.
    Message {
        /// The message with its prefix.
        frame: Bytes,
        /// For its bytes.
        permit: Permit,
    },
    /// Those trailers, with the permit for what is being sent.
    Success(Permit),
    /// What tonic gives, until the deadline.
    Routed(Routed),
}

/// An answer from tonic.
#[derive(Debug)]
pub struct Routed {
    inner: tonic::body::Body,
    arrived: Time,
    deadline: Option<(Time, Pin<Box<Sleep>>)>,
}

impl Body {
    /// An answer from tonic, ended at the deadline if there is one.
    pub(super) fn routed(inner: tonic::body::Body, arrived: Time, deadline: Option<Time>) -> Self {
        let sleep = |deadline: Time| (deadline, Box::pin(tokio::time::sleep(deadline - clock::now())));
        let deadline = deadline.filter(|_| !inner.is_end_stream()).map(sleep);
        Self::Routed(Routed { inner, arrived, deadline })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let body = &mut *self;
        match std::mem::take(body) {
            Self::Empty => Poll::Ready(None),
            Self::Message { frame, permit } => {
                *body = Self::Success(permit);
                Poll::Ready(Some(Ok(Frame::data(frame))))
            }
            Self::Success(_) => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Self::Routed(mut routed) => {
                let frame = routed.poll_frame(context);
                if let Poll::Ready(Some(Err(passed))) = frame {
                    let mut trailers = HeaderMap::new();
                    passed.add_header(&mut trailers)?;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                *body = Self::Routed(routed);
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Message { .. } | Self::Success(_) => false,
            Self::Routed(routed) => routed.inner.is_end_stream(),
        }
    }
}

impl Routed {
    /// What tonic gives next, or why it gives no more.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(mut frame) = Pin::new(&mut self.inner).poll_frame(context) {
            if let Some(trailers) = frame.iter_mut().flatten().find_map(Frame::trailers_mut) {
                super::name_the_limit(trailers);
            }
            return Poll::Ready(frame);
        }
        let Some((deadline, sleep)) = &mut self.deadline else { return Poll::Pending };
        std::task::ready!(sleep.as_mut().poll(context));
        Poll::Ready(Some(Err(deadline::passed(self.arrived, *deadline).to_status())))
    }
}

/// A request's body on its way to tonic, held to the limits of time and of bytes in flight. tonic itself holds each
/// message to the limit of its size.
#[derive(Debug)]
pub(super) struct Arriving {
    inner: Incoming,
    bounds: Option<Bounds>,
}

#[derive(Debug)]
struct Bounds {
    permit: Permit,
    time_max: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Arriving {
    /// A body that has to arrive whole.
    pub(super) fn bounded(inner: Incoming, state: &State) -> Self {
        let time_max = state.limits.body_time_max;
        let sleep = Box::pin(tokio::time::sleep(time_max));
        let permit = state.admission.permit();
        Self { inner, bounds: Some(Bounds { permit, time_max, sleep }) }
    }

    /// A body whose messages come whenever the caller likes; each is counted once it is there.
    pub(super) fn endless(inner: Incoming, _state: &State) -> Self {
        Self { inner, bounds: None }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { inner, bounds } = &mut *self;
        let frame = Pin::new(inner).poll_frame(context).map_err(|error| Status::from_error(error.into()));
        let Some(bounds) = bounds else { return frame };
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                bounds.permit.grow(bytes).map_err(|refusal| refusal.to_status())?;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => Poll::Ready(end),
            Poll::Pending => {
                std::task::ready!(bounds.sleep.as_mut().poll(context));
                Poll::Ready(Some(Err(slow_sender(bounds.time_max).to_status())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// A body that took too long to arrive.
pub(super) fn slow_sender(time_max: Duration) -> Refusal {
    Refusal::new(
        Kind::SlowSender,
        format!("the request did not arrive whole within {} s (limits.body_ms_max)", time_max.as_secs_f64()),
    )
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::admission::Admission;

    #[tokio::test]
    async fn a_message_is_followed_by_success() {
        let admission = Admission::new(8);
        let mut permit = admission.permit();
        permit.grow(3).unwrap();
        let mut body = Body::Message { frame: Bytes::from_static(b"abc"), permit };
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data, &b"abc"[..]);
        assert!(!body.is_end_stream());
        assert_eq!(admission.bytes(), 3);
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert!(body.is_end_stream());
        assert_eq!(admission.bytes(), 0);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_routed_answer_ends_at_its_deadline() {
        let (tx, rx) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Status>>(1);
        let stream = tokio_stream::wrappers::ReceiverStream::new(rx);
        let inner = tonic::body::Body::new(http_body_util::StreamBody::new(stream));
        let now = clock::now();
        let mut body = Body::routed(inner, now, Some(now.plus_ns(1_000)));
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "4");
        assert!(body.frame().await.is_none());
        drop(tx);
    }
}
