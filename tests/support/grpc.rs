//! A gRPC client that sends exactly the frames it is given, and the messages of an inference. Must not know what is
//! tested.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::TcpStream, runtime::Runtime};

use super::wait::BOUND;

pub(crate) const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelInferRequest {
    #[prost(string, tag = "1")]
    pub(crate) model_name: String,
    #[prost(string, tag = "2")]
    pub(crate) model_version: String,
    #[prost(string, tag = "3")]
    pub(crate) id: String,
    #[prost(map = "string, message", tag = "4")]
    pub(crate) parameters: HashMap<String, InferParameter>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) inputs: Vec<Tensor>,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub(crate) raw_input_contents: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelInferResponse {
    #[prost(string, tag = "1")]
    pub(crate) model_name: String,
    #[prost(string, tag = "2")]
    pub(crate) model_version: String,
    #[prost(string, tag = "3")]
    pub(crate) id: String,
    #[prost(map = "string, message", tag = "4")]
    pub(crate) parameters: HashMap<String, InferParameter>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) outputs: Vec<Tensor>,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub(crate) raw_output_contents: Vec<Bytes>,
}

/// An input or an output.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tensor {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(crate) shape: Vec<i64>,
    #[prost(message, optional, tag = "5")]
    pub(crate) contents: Option<Contents>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Contents {
    #[prost(int64, repeated, tag = "3")]
    pub(crate) int64_contents: Vec<i64>,
    #[prost(float, repeated, tag = "6")]
    pub(crate) fp32_contents: Vec<f32>,
}

/// A parameter that is a number or a text.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct InferParameter {
    #[prost(int64, optional, tag = "2")]
    pub(crate) int64_param: Option<i64>,
    #[prost(string, optional, tag = "3")]
    pub(crate) string_param: Option<String>,
}

impl Tensor {
    /// FP32 values in the field for them.
    pub(crate) fn typed(name: &str, shape: &[i64], values: &[f32]) -> Self {
        let contents = Contents { fp32_contents: values.to_vec(), ..Contents::default() };
        Self { contents: Some(contents), ..Self::empty(name, "FP32", shape) }
    }

    pub(crate) fn empty(name: &str, datatype: &str, shape: &[i64]) -> Self {
        Self { name: name.to_owned(), datatype: datatype.to_owned(), shape: shape.to_vec(), contents: None }
    }
}

/// FP32 values as they go on the wire.
pub(crate) fn raw(values: &[f32]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A message with its prefix.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("a short message");
    [&[0], &length.to_be_bytes()[..], &message].concat().into()
}

/// The end of a call.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// HTTP's own status.
    pub(crate) status: u16,
    /// gRPC's; 2 (unknown) where there was none.
    pub(crate) code: i32,
    pub(crate) message: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Ended {
    /// The answer to an inference.
    #[track_caller]
    pub(crate) fn response(&self) -> ModelInferResponse {
        assert_eq!(self.code, 0, "{}", self.message);
        ModelInferResponse::decode(self.body.slice(5..)).expect("an answer")
    }
}

/// What a request sends.
#[derive(Debug, Default)]
pub(crate) struct Body {
    bytes: Option<Bytes>,
    /// Whether it goes on for ever without another byte.
    stalls: bool,
}

impl Body {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { bytes: Some(bytes), stalls: false }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        match self.bytes.take() {
            Some(bytes) => Poll::Ready(Some(Ok(hyper::body::Frame::data(bytes)))),
            None if self.stalls => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

/// One connection and the loop that drives it.
pub(crate) struct Client {
    runtime: Runtime,
    sender: SendRequest<Body>,
}

impl Client {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("the server listens");
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender }
    }

    /// One call with these header pairs; `body` is sent as it is.
    pub(crate) fn call(&self, path: &str, headers: &[(&str, &str)], body: Bytes) -> Ended {
        let request = call_request(path, headers, Body::whole(body));
        let ended = async { tokio::time::timeout(BOUND, ended(self.sender.clone(), request)).await };
        self.runtime.block_on(ended).expect("an end within the bound")
    }

    /// A call whose body never ends; `body` is all that is sent of it.
    pub(crate) fn stall(&self, path: &str, body: Bytes) -> Ended {
        let request = call_request(path, &[], Body { bytes: Some(body), stalls: true });
        let ended = async { tokio::time::timeout(BOUND, ended(self.sender.clone(), request)).await };
        self.runtime.block_on(ended).expect("an end within the bound")
    }

    pub(crate) fn infer(&self, request: &ModelInferRequest) -> Ended {
        self.call(MODEL_INFER, &[], frame(request))
    }

    /// Asks over plain HTTP/2.
    pub(crate) fn http(&self, request: Request<Body>) -> Ended {
        self.runtime.block_on(ended(self.sender.clone(), request))
    }

    /// Sends a call, gives it up once `sent` holds, and waits until `missed` does: the stream is reset, the
    /// connection stays.
    pub(crate) fn abandon(
        &self,
        request: &ModelInferRequest,
        sent: impl Fn() -> bool,
        missed: impl Fn() -> bool,
    ) {
        let request = call_request(MODEL_INFER, &[], Body::whole(frame(request)));
        let steps = async {
            let call = tokio::spawn(ended(self.sender.clone(), request));
            while !sent() {
                tokio::task::yield_now().await;
            }
            call.abort();
            while !missed() {
                tokio::task::yield_now().await;
            }
        };
        let steps = async { tokio::time::timeout(BOUND, steps).await };
        self.runtime.block_on(steps).expect("the call is missed within the bound");
    }
}

fn call_request(path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::post(format!("http://localhost{path}")).header("te", "trailers");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).expect("a request")
}

async fn ended(mut sender: SendRequest<Body>, request: Request<Body>) -> Ended {
    let response = sender.send_request(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.expect("a whole answer");
    let mut headers = parts.headers;
    headers.extend(collected.trailers().cloned().unwrap_or_default());
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let code = text("grpc-status").parse().unwrap_or(2);
    let message = unescaped(text("grpc-message"));
    Ended { status: parts.status.as_u16(), code, message, headers, body: collected.to_bytes() }
}

/// A message without its percent signs.
fn unescaped(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let digits: Vec<u8> = bytes.clone().take(2).collect();
        let hex = std::str::from_utf8(&digits).ok().filter(|_| byte == b'%');
        let value = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(value.unwrap_or(byte));
        if value.is_some() {
            bytes.nth(1);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
