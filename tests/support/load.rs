//! Clients that keep many connections busy over HTTP and gRPC and check every answer. Must not know what happens to
//! the server meanwhile.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use bytes::{Buf, Bytes};
use gannet_server::grpc::pb::{ModelInferRequest, ModelInferResponse, model_infer_request::InferInputTensor};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

/// What the clients saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answers: AtomicU64,
    /// Answers by version "1" and "2".
    pub(crate) versions: [AtomicU64; 2],
    pub(crate) failures: Mutex<Vec<String>>,
}

/// Clients at work; ends with [`Clients::stop`].
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    pub(crate) seen: Arc<Seen>,
    thread: JoinHandle<()>,
}

/// The model that the clients ask: `y = x + version`, three numbers a row.
const MODEL: &str = "swapped";

impl Clients {
    /// Starts `http` and `grpc` connections in a closed loop, on one thread.
    pub(crate) fn start(http: SocketAddr, http_count: usize, grpc: SocketAddr, grpc_count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Seen::default());
        let (stopping, counting) = (Arc::clone(&stop), Arc::clone(&seen));
        let run = move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut tasks = Vec::new();
                for index in 0..http_count {
                    tasks.push(tokio::spawn(over_http(
                        http,
                        index,
                        Arc::clone(&stopping),
                        Arc::clone(&counting),
                    )));
                }
                for index in 0..grpc_count {
                    tasks.push(tokio::spawn(over_grpc(
                        grpc,
                        index,
                        Arc::clone(&stopping),
                        Arc::clone(&counting),
                    )));
                }
                for task in tasks {
                    task.await.expect("a client that does not panic");
                }
            });
        };
        let thread = std::thread::Builder::new().name("clients".into()).spawn(run).expect("a thread");
        Self { stop, seen, thread }
    }

    pub(crate) fn stop(self) -> Arc<Seen> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the clients end");
        self.seen
    }
}

impl Seen {
    fn check(&self, version: &str, x: &[f32; 3], y: &[f32]) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        let added = match version {
            "1" => 1.0,
            "2" => 2.0,
            other => return self.fail(format!("answered by version {other:?}")),
        };
        self.versions[usize::from(version == "2")].fetch_add(1, Ordering::Relaxed);
        let right = y.len() == 3 && x.iter().zip(y).all(|(x, y)| x + added == *y);
        if !right {
            self.fail(format!("version {version} answered {y:?} to {x:?}"));
        }
    }

    fn fail(&self, what: String) {
        let mut failures = self.failures.lock().expect("no client panics");
        if failures.len() < 20 {
            failures.push(what);
        }
    }
}

fn input(index: usize, round: usize) -> [f32; 3] {
    // whole numbers below 2^24: sums are exact
    [index as f32, round as f32 % 65536.0, (index * 7 + round) as f32 % 65536.0]
}

async fn over_http(address: SocketAddr, index: usize, stop: Arc<AtomicBool>, seen: Arc<Seen>) {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    for round in 0.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let x = input(index, round);
        let body = format!(
            r#"{{"inputs":[{{"name":"x","shape":[1,3],"datatype":"FP32","data":[{},{},{}]}}]}}"#,
            x[0], x[1], x[2]
        );
        let request = Request::post(format!("/v2/models/{MODEL}/infer")).header("host", "localhost");
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let answer = match sender.send_request(request).await {
            Ok(answer) => answer,
            Err(error) => return seen.fail(format!("http: {error}")),
        };
        let status = answer.status();
        let body = match answer.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return seen.fail(format!("http: {error}")),
        };
        if status != StatusCode::OK {
            seen.fail(format!("http: {status} {}", String::from_utf8_lossy(&body)));
            continue;
        }
        let answer: serde_json::Value = serde_json::from_slice(&body).expect("an answer in JSON");
        let data = answer["outputs"][0]["data"].as_array().expect("data");
        let y: Vec<f32> = data.iter().map(|v| v.as_f64().unwrap_or(f64::NAN) as f32).collect();
        seen.check(answer["model_version"].as_str().unwrap_or("?"), &x, &y);
    }
}

async fn over_grpc(address: SocketAddr, index: usize, stop: Arc<AtomicBool>, seen: Arc<Seen>) {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let io = TokioIo::new(stream);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("a connection");
    tokio::spawn(connection);
    for round in 0.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let x = input(index, round);
        let tensor = InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 3],
            ..InferInputTensor::default()
        };
        let request = ModelInferRequest {
            model_name: MODEL.into(),
            inputs: vec![tensor],
            raw_input_contents: vec![Bytes::from(x.map(f32::to_le_bytes).concat())],
            ..ModelInferRequest::default()
        };
        match call(&mut sender, &request).await {
            Ok(answer) => {
                let raw = answer.raw_output_contents.first().map(|b| &b[..]).unwrap_or_default();
                let y: Vec<f32> = raw.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
                seen.check(&answer.model_version, &x, &y);
            }
            Err(error) => return seen.fail(format!("grpc: {error}")),
        }
    }
}

async fn call(
    sender: &mut http2::SendRequest<Full<Bytes>>,
    request: &ModelInferRequest,
) -> Result<ModelInferResponse, String> {
    let message = request.encode_to_vec();
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).expect("small").to_be_bytes());
    frame.extend_from_slice(&message);
    let request = Request::post("http://localhost/inference.GRPCInferenceService/ModelInfer")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(frame)))
        .expect("a request");
    sender.ready().await.map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let headers = answer.headers().clone();
    let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = trailers.get("grpc-status").or(headers.get("grpc-status"));
    if status.is_none_or(|status| status != "0") {
        return Err(format!("{headers:?} {trailers:?}"));
    }
    let mut bytes = body.to_bytes();
    bytes.advance(5);
    ModelInferResponse::decode(bytes).map_err(|error| error.to_string())
}
