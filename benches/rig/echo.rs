//! Bare servers on hyper and on tonic: they read a request whole and answer with fixed bytes. What a server costs
//! that does nothing, on the same libraries. Must not know what the bytes mean, but that tonic's are a message.

use std::{
    convert::Infallible,
    fs,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use gannet_server::grpc::pb::{ModelInferRequest, ModelInferResponse};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tonic::{
    Status,
    server::{NamedService, UnaryService},
    transport::server::TcpIncoming,
};
use tower_service::Service;

/// Serves until standard input ends. `answers` is a folder with `body` (HTTP), `message` (gRPC, encoded) and, where
/// binary tensors follow the JSON of `body`, `json_length`.
pub(super) fn serve(answers: &Path) {
    let read = |name: &str| fs::read(answers.join(name)).expect("an answer");
    let body = Bytes::from(read("body"));
    let json_length = fs::read_to_string(answers.join("json_length")).ok();
    let message: ModelInferResponse = prost::Message::decode(&read("message")[..]).expect("a message");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let http = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let grpc = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (http_at, grpc_at) = (http.local_addr().expect("bound"), grpc.local_addr().expect("bound"));
        tokio::spawn(hyper_echo(http, body, json_length));
        tokio::spawn(tonic_echo(grpc, message));
        let ended = tokio::task::spawn_blocking(move || super::announce(http_at, grpc_at, None));
        let _ = ended.await;
    });
}

async fn hyper_echo(listener: TcpListener, body: Bytes, json_length: Option<String>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (body, json_length) = (body.clone(), json_length.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (body, json_length) = (body.clone(), json_length.clone());
            async move {
                let _read = request.into_body().collect().await;
                let mut answer = Response::new(Full::new(body));
                let kind =
                    if json_length.is_some() { "application/octet-stream" } else { "application/json" };
                answer.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
                if let Some(length) = json_length.and_then(|length| length.parse().ok()) {
                    answer.headers_mut().insert("inference-header-content-length", length);
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        server.pipeline_flush(true);
        tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
    }
}

/// The one call, on tonic as its users write it: a decoded message in, a message out.
#[derive(Debug, Clone)]
struct TonicEcho(ModelInferResponse);

impl UnaryService<ModelInferRequest> for TonicEcho {
    type Response = ModelInferResponse;
    type Future = std::future::Ready<Result<tonic::Response<ModelInferResponse>, Status>>;

    fn call(&mut self, request: tonic::Request<ModelInferRequest>) -> Self::Future {
        drop(request.into_inner());
        std::future::ready(Ok(tonic::Response::new(self.0.clone())))
    }
}

impl NamedService for TonicEcho {
    const NAME: &'static str = "inference.GRPCInferenceService";
}

impl Service<Request<tonic::body::Body>> for TonicEcho {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(echo, request).await)
        })
    }
}

async fn tonic_echo(listener: TcpListener, answer: ModelInferResponse) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tonic::transport::Server::builder().add_service(TonicEcho(answer));
    server.serve_with_incoming(incoming).await.expect("tonic serves");
}
