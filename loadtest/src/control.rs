//! Questions to the server outside the load: a model's signature and its statistics.
//!
//! Blocking and slow on purpose, one connection a question. Must not know what the answers are
//! used for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use prost::Message;
use serde_json::Value;

use crate::grpc::{self, ModelConfigResponse, ModelMetadataResponse, ModelRequest};
use crate::http;
use crate::http2::call::CallHead;
use crate::link::{Calls, Status};
use crate::measure::server_stats::ServerStats;
use crate::signature::Signature;
use crate::target::{Scheme, ServerUrl};

/// Longest wait for the server in one step.
const STEP_SECONDS_MAX: u64 = 10;

/// A server to ask.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub url: ServerUrl,
    pub address: SocketAddr,
    pub headers: Vec<(String, String)>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("{url}: server cannot be reached: {cause}; start it, or correct --url")]
    Unreachable { url: ServerUrl, cause: std::io::Error },
    #[error("{url}: {question}: expected success, got {got}; {advice}")]
    Refused { url: ServerUrl, question: String, got: String, advice: &'static str },
    #[error("{url}: {question}: {fault}")]
    Answer { url: ServerUrl, question: String, fault: String },
}

impl Server {
    /// The inputs of a model.
    pub(crate) fn signature(&self, model: &str, version: &str) -> Result<Signature, ControlError> {
        let (question, signature) = match self.url.scheme {
            Scheme::Http => {
                let path = model_path(model, version);
                let metadata = self.get(&path)?;
                // Not every server has a configuration to show.
                let config = self.get(&format!("{path}/config")).ok();
                (path, Signature::from_json(&metadata, config.as_ref()))
            }
            Scheme::Grpc => {
                let request = model_request(model, version);
                let metadata: ModelMetadataResponse = self.call("ModelMetadata", &request)?;
                let config: Option<ModelConfigResponse> = self.call("ModelConfig", &request).ok();
                ("ModelMetadata".to_string(), Signature::from_grpc(metadata, config))
            }
        };
        signature.map_err(|fault| self.bad_answer(&question, fault))
    }

    /// The statistics of a model; `None` when the server keeps none.
    pub(crate) fn stats(&self, model: &str, version: &str) -> Option<ServerStats> {
        match self.url.scheme {
            Scheme::Http => {
                let path = format!("{}/stats", model_path(model, version));
                ServerStats::from_json(&self.get(&path).ok()?)
            }
            Scheme::Grpc => {
                let request = model_request(model, version);
                self.call("ModelStatistics", &request).ok().map(ServerStats::from_grpc)
            }
        }
    }

    fn get(&self, path: &str) -> Result<Value, ControlError> {
        let head =
            http::RequestHead { method: "GET", path, host: &self.url.authority, headers: &self.headers };
        let calls = Calls::Http { requests: vec![http::request(&head, &[])], depth: 1 };
        let body = self.exchange(path, &calls)?;
        serde_json::from_slice(&body).map_err(|e| self.bad_answer(path, format!("no JSON: {e}")))
    }

    fn call<T: Message + Default>(&self, method: &str, request: &impl Message) -> Result<T, ControlError> {
        let path = format!("{}{method}", grpc::SERVICE);
        let calls = Calls::Grpc {
            head: CallHead::new(&self.url.authority, &path, &self.headers),
            messages: vec![grpc::frame(&request.encode_to_vec())],
            streams: 1,
        };
        let body = self.exchange(method, &calls)?;
        T::decode(&body[..]).map_err(|e| self.bad_answer(method, format!("no message: {e}")))
    }

    /// One request over a connection of its own.
    fn exchange(&self, question: &str, calls: &Calls) -> Result<Vec<u8>, ControlError> {
        let unreachable = |cause| ControlError::Unreachable { url: self.url.clone(), cause };
        let timeout = Duration::from_secs(STEP_SECONDS_MAX);
        let mut socket = TcpStream::connect_timeout(&self.address, timeout).map_err(unreachable)?;
        socket.set_read_timeout(Some(timeout)).map_err(unreachable)?;
        socket.set_write_timeout(Some(timeout)).map_err(unreachable)?;
        let mut link = calls.link();
        let mut answer = None;
        let mut buffer = vec![0; 64 << 10];
        link.send(0, 0, calls);
        while answer.is_none() {
            link.flush(&mut socket, calls).map_err(unreachable)?;
            socket.flush().map_err(unreachable)?;
            let bytes = socket.read(&mut buffer).map_err(unreachable)?;
            if bytes == 0 {
                return Err(self.bad_answer(question, "connection closed without answer".into()));
            }
            link.receive(&buffer[..bytes], calls, &mut |got| {
                answer = Some((got.status, got.body.to_vec(), got.detail.to_string()));
            })
            .map_err(|error| self.bad_answer(question, error.to_string()))?;
        }
        match answer {
            Some((status, body, _)) if status.is_success() => Ok(body),
            Some((status, _, detail)) => Err(ControlError::Refused {
                url: self.url.clone(),
                question: question.to_string(),
                got: format!("{status} {}", detail.trim_end()),
                advice: match status {
                    Status::Http(404) | Status::Grpc(5) => "correct --model or --model-version",
                    Status::Grpc(12) => "give the requests with --body: it has no such method",
                    _ => "see the server's log",
                },
            }),
            None => Err(self.bad_answer(question, "no answer".into())),
        }
    }

    fn bad_answer(&self, question: &str, fault: String) -> ControlError {
        ControlError::Answer { url: self.url.clone(), question: question.to_string(), fault }
    }
}

/// `/v2/models/{m}[/versions/{v}]`, names percent-encoded.
pub(crate) fn model_path(model: &str, version: &str) -> String {
    let model = path_segment(model);
    match version {
        "" => format!("/v2/models/{model}"),
        _ => format!("/v2/models/{model}/versions/{}", path_segment(version)),
    }
}

fn path_segment(name: &str) -> String {
    let keep = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let encode = |byte: u8| match keep(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

fn model_request(model: &str, version: &str) -> ModelRequest {
    ModelRequest { name: model.to_string(), version: version.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(model_path("mlp", ""), "/v2/models/mlp");
        assert_eq!(model_path("a b/c", "v1.2"), "/v2/models/a%20b%2Fc/versions/v1.2");
    }
}
