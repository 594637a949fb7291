//! stub
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod pb { tonic::include_proto!("inference"); }
/// stub
#[derive(Debug, Clone)]
pub struct GrpcService;
impl GrpcService {
    /// stub
    pub fn new(_state: std::sync::Arc<crate::state::State>) -> Self { Self }
    /// stub
    pub async fn call(&self, _request: ::http::Request<hyper::body::Incoming>) -> ::http::Response<http_body_util::Full<bytes::Bytes>> { ::http::Response::new(http_body_util::Full::default()) }
}
