//! The gRPC front end. One call is answered here directly on HTTP/2, because it is the one that is called all the
//! time: a unary, uncompressed `ModelInfer`. Everything else goes through tonic. Both use the same messages and the
//! same code behind them. Must not know sockets or connections.

mod frame;

mod codec;

mod body;

mod deadline;

mod infer;

mod stream;

mod repository;

mod service;

mod health;

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use gannet_runtime::{Time, clock};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tonic::{Code, Status, codec::CompressionEncoding, service::Routes};
use tower_service::Service as _;

use self::{
    body::Arriving, health::HealthService, pb::grpc_inference_service_server::GrpcInferenceServiceServer,
    service::InferenceService,
};
use crate::{
    admission::Permit,
    respond::{Kind, Refusal},
    state::State,
};

pub use self::body::Body;

/// The generated messages and the service's trait.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod pb {
    tonic::include_proto!("inference");

    /// The compiled schema, for reflection.
    pub(crate) const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/services.bin"));
}

const SERVICE_NAME: &str = "inference.GRPCInferenceService";
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Calls whose requests come one by one for as long as the caller likes.
const STREAMS: [&str; 3] = [
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// What tells of the server as a whole.
const HEALTH: [&str; 2] =
    ["/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady"];

const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// Every gRPC call of the data ports. Cheap to clone, once a connection or once a listener.
#[derive(Debug, Clone)]
pub struct GrpcService {
    state: Arc<State>,
    routes: Arc<Routes>,
}

impl GrpcService {
    /// The services over `state`.
    #[must_use]
    pub fn new(state: Arc<State>) -> Self {
        let bytes_max = state.limits.body_bytes_max;
        let inference = GrpcInferenceServiceServer::new(InferenceService::new(Arc::clone(&state)))
            .max_decoding_message_size(bytes_max)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate)
            .send_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Deflate);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(pb::DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let valid = "the build script made a valid descriptor set";
        let routes = Routes::new(inference)
            .add_service(HealthService::server(Arc::clone(&state)))
            .add_service(reflection().build_v1().expect(valid))
            .add_service(reflection().build_v1alpha().expect(valid))
            .prepare();
        Self { state, routes: Arc::new(routes) }
    }

    /// Answers one call. Dropping the future gives the call up. One flat future: every level of futures inside each
    /// other is memory that each call moves.
    pub fn call(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<> {
        let service = self.clone();
        async move {
            let arrived = clock::now();
            if let Some(status) = refuse_http(&request) {
                let mut response = Response::new(Body::Empty);
                *response.status_mut() = status;
                return Ok(response);
            }
            let admitted = match service.state.tokens.is_some() && !is_health(request.uri().path()) {
                true => service.state.check_token(request.headers()),
                false => Ok(()),
            };
            let deadline = match admitted.and_then(|()| deadline::read(request.headers(), arrived)) {
                Ok(deadline) => deadline,
                Err(refusal) => return Ok(refused(&refusal)),
            };
            if request.uri().path() == MODEL_INFER && is_plain(request.headers()) {
                return Ok(match infer::plain(&service.state, request, arrived, deadline).await {
                    Ok((frame, permit)) => answered(frame, permit),
                    Err(refusal) => refused(&refusal),
                });
            }
            Ok(Box::pin(service.route(request, arrived, deadline)).await)
        }
    }

    /// Through tonic.
    async fn route(
        &self,
        request: Request<Incoming>,
        arrived: Time,
        deadline: Option<Time>,
    ) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let arriving = match STREAMS.contains(&path.as_str()) {
            true => Arriving::endless,
            false => Arriving::bounded,
        };
        let mut request = request.map(|body| arriving(body, &self.state));
        if is_plain(request.headers()) {
            // Most clients say that they could take gzip; only one that sends it wants to pay for it.
            request.headers_mut().remove(ACCEPT_ENCODING);
        }
        let mut routes = Routes::clone(&self.routes);
        match deadline::within(arrived, deadline, routes.call(request)).await {
            Ok(Ok(response)) if is_unknown(response.headers()) => refused(&Refusal::new(
                Kind::Unsupported,
                format!("unknown call '{path}'; server reflection lists the services and their calls"),
            )),
            Ok(Ok(mut response)) => {
                name_the_limit(response.headers_mut());
                response.map(|body| Body::routed(body, arrived, deadline))
            }
            Ok(Err(never)) => match never {},
            Err(refusal) => refused(&refusal),
        }
    }
}

/// Whether a call asks for nothing but the server's health, which orchestrators do without a token.
fn is_health(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/") || HEALTH.contains(&path)
}

/// What is no gRPC call at all is answered in HTTP's own words.
fn refuse_http<B>(request: &Request<B>) -> Option<StatusCode> {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if request.method() != Method::POST {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    let is_grpc = content_type.is_some_and(|value| value.starts_with(b"application/grpc"));
    (!is_grpc).then_some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// Whether the caller compresses nothing.
fn is_plain(headers: &HeaderMap) -> bool {
    headers.get(ENCODING).is_none_or(|encoding| encoding == "identity")
}

/// tonic calls a message over the limit "out of range", which nothing else is here; the protocol's word for it is
/// "resource exhausted".
fn name_the_limit(headers: &mut HeaderMap) {
    let code = |code: Code| HeaderValue::from(code as i32);
    if headers.get(Status::GRPC_STATUS).is_some_and(|status| *status == code(Code::OutOfRange)) {
        headers.insert(Status::GRPC_STATUS, code(Code::ResourceExhausted));
    }
}

/// tonic's answer to a call that it does not know is the only one without a message.
fn is_unknown(headers: &HeaderMap) -> bool {
    let unimplemented = HeaderValue::from(Code::Unimplemented as i32);
    headers.get(Status::GRPC_STATUS) == Some(&unimplemented) && !headers.contains_key(Status::GRPC_MESSAGE)
}

fn answered(frame: Bytes, permit: Permit) -> Response<Body> {
    let mut response = Response::new(Body::Message { frame, permit });
    let content_type = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// An answer that is all trailers.
fn refused(refusal: &Refusal) -> Response<Body> {
    refusal.to_status().into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_are_taken() {
        let check = |method: Method, content_type: &str, expected: Option<u16>| {
            let request =
                Request::builder().method(&method).header("content-type", content_type).body(()).unwrap();
            let status = refuse_http(&request).map(|status| status.as_u16());
            assert_eq!(status, expected, "{method} {content_type}");
        };
        check(Method::POST, "application/grpc", None);
        check(Method::POST, "application/grpc+proto", None);
        check(Method::POST, "application/json", Some(415));
        check(Method::GET, "application/grpc", Some(405));
    }

    #[test]
    fn messages_over_the_limit_are_exhausted() {
        let check = |code: Code, expected: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(Status::GRPC_STATUS, HeaderValue::from(code as i32));
            name_the_limit(&mut headers);
            assert_eq!(headers[Status::GRPC_STATUS], expected);
        };
        check(Code::OutOfRange, "8");
        check(Code::NotFound, "5");
    }

    #[test]
    fn refusals_are_trailers_alone() {
        let mut refusal = Refusal::new(Kind::Exhausted, "100 % full: ä");
        refusal.retry_after_ms = Some(12);
        let response = refused(&refusal);
        assert!(http_body::Body::is_end_stream(response.body()));
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "8");
        assert_eq!(response.headers()["grpc-message"], "100%20%25%20full:%20%C3%A4");
        assert_eq!(response.headers()["retry-after-ms"], "12");
    }
}
