//! HTTP servers that are not ours: hyper, and hand-written ones that misbehave.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use crate::server::{file, run, try_run};

/// A hyper server on its own thread, as long as the test process lives.
fn hyper_server<F>(answer: F) -> String
where
    F: Fn(&str, Bytes) -> Response<Full<Bytes>> + Clone + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                let answer = answer.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let path = request.uri().path().to_string();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        Ok::<_, Infallible>(answer(&path, body))
                    }
                });
                tokio::task::spawn_local(
                    hyper::server::conn::http1::Builder::new()
                        .pipeline_flush(true)
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
    });
    url
}

const METADATA: &str = r#"{"inputs":[{"name":"x","datatype":"INT64","shape":[-1,2]}]}"#;

fn respond(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

#[test]
fn signature_statistics_and_every_byte_of_large_bodies() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let url = hyper_server(move |path, body| match path {
        "/v2/models/m" => respond(200, METADATA),
        "/v2/models/m/config" => respond(200, r#"{"max_batch_size":100000}"#),
        "/v2/models/m/stats" => {
            let n = counted.load(Ordering::Relaxed);
            let ns = n * 3000;
            respond(
                200,
                format!(
                    r#"{{"model_stats":[{{"inference_count":{n},"execution_count":{n},"inference_stats":
                {{"success":{{"count":{n},"ns":{ns}}},"queue":{{"count":{n},"ns":{ns}}}}}}}]}}"#
                ),
            )
        }
        "/v2/models/m/infer" => {
            counted.fetch_add(1, Ordering::Relaxed);
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(json["inputs"][0]["data"].as_array().unwrap().len(), 100_000);
            respond(200, body)
        }
        _ => respond(404, ""),
    });
    let run = run(&url, "-n 4 --rows 50000 --variants 2 --requests 40");
    assert_eq!((run.succeeded, run.failed), (40, 0), "{:?}", run.quotes);
    let server = run.server.unwrap();
    assert_eq!((server.requests, server.queue_us), (40, 3.0));
}

#[test]
fn statuses_are_counted_and_quoted() {
    let count = Arc::new(AtomicUsize::new(0));
    let url = hyper_server(move |_, _| match count.fetch_add(1, Ordering::Relaxed) % 4 {
        0 => respond(503, r#"{"error":"Exceeds maximum queue size"}"#),
        _ => respond(200, "{}"),
    });
    let body = file("any.json", b"{}");
    let run = run(&url, &format!("-n 2 --requests 400 --body {body} --no-server-stats"));
    assert_eq!((run.succeeded, run.failed), (300, 100));
    assert_eq!((run.statuses["HTTP 200"], run.statuses["HTTP 503"]), (300, 100));
    assert_eq!(run.failed_latency.count, 100);
    assert_eq!(run.quotes.len(), 1);
    assert!(run.quotes[0].contains("Exceeds maximum queue size"));
}

#[test]
fn connections_that_the_server_closes_are_opened_again() {
    let url = hyper_server(|_, _| {
        let mut response = respond(200, "{}");
        response.headers_mut().insert("connection", "close".parse().unwrap());
        response
    });
    let body = file("any2.json", b"{}");
    let run = run(&url, &format!("-n 2 --requests 50 --body {body}"));
    assert_eq!((run.succeeded, run.failed), (50, 0));
    assert!(run.reconnects >= 48, "{}", run.reconnects);
}

#[test]
fn pipelining_keeps_answers_in_order() {
    let url = hyper_server(|_, body| respond(200, body));
    let body = file("echoed.json", b"{\"inputs\":[]}");
    let line = format!("-n 32 --pipeline 32 --requests 2000 --body {body} --expect {body}");
    assert_eq!(run(&url, &line).succeeded, 2000);
}

/// The server says nothing for a while at the first request: every request that was due
/// meanwhile waited, and a tester that omits that wait (coordinated omission) hides it.
#[test]
fn latency_counts_from_when_a_request_was_due() {
    const STALL: Duration = Duration::from_millis(150);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let mut first = true;
        while socket.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {
            if std::mem::take(&mut first) {
                std::thread::sleep(STALL);
            }
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    let times: String = (0..100).map(|i| format!("{}\n", f64::from(i) * 0.001)).collect();
    let times = file("stall.txt", times.as_bytes());
    let body = file("stall.json", b"{}");
    let run = run(&url, &format!("--arrivals-file {times} --body {body} -c 1 --no-server-stats"));
    assert_eq!(run.succeeded, 100);
    // The last request was due at 99 ms, the first answer came after 150 ms.
    assert!(run.latency.min_us >= 50_000.0, "{:?}", run.latency);
    assert!(run.latency.max_us >= 149_000.0, "{:?}", run.latency);
    assert!(run.lateness.p50_us >= 90_000.0, "{:?}", run.lateness);
}

#[test]
fn a_server_that_never_answers_does_not_stop_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = file("mute.json", b"{}");
    let run =
        run(&url, &format!("-n 3 --duration 50ms --drain 10ms --body {body} --no-server-stats --slo p99=1s"));
    assert_eq!((run.succeeded, run.failed), (0, 3));
    assert_eq!(run.failures["no answer when the run ended"], 3);
    assert!(!run.held());
}

#[test]
fn an_overloaded_open_loop_counts_what_was_never_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = file("full.json", b"{}");
    let run = run(
        &url,
        &format!(
            "--rate 1000 --arrivals constant -c 2 --duration 50ms --drain 1ms --body {body} \
             --no-server-stats"
        ),
    );
    assert_eq!(run.failures["no answer when the run ended"], 2);
    assert!(run.failures["due but never sent (no free connection)"] >= 40, "{:?}", run.failures);
}

#[test]
fn garbage_is_an_error_of_its_request() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let mut buffer = [0; 4096];
            let _ = socket.read(&mut buffer);
            let _ = socket.write_all(b"SSH-2.0-OpenSSH\r\n");
        }
    });
    let body = file("garbage.json", b"{}");
    let run = run(&url, &format!("-n 1 --requests 3 --body {body} --no-server-stats"));
    assert_eq!((run.succeeded, run.failed), (0, 3));
    assert!(run.quotes[0].contains("status line"), "{:?}", run.quotes);
}

#[test]
fn a_missing_model_or_server_is_named() {
    let url = hyper_server(|_, _| respond(404, r#"{"error":"Request for unknown model"}"#));
    let error = try_run(&format!("--url {url} -m nope")).unwrap_err().to_string();
    assert!(error.contains("/v2/models/nope") && error.contains("unknown model"), "{error}");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for scheme in ["http", "grpc"] {
        let error = try_run(&format!("--url {scheme}://{free} -m m")).unwrap_err();
        let unreachable = matches!(error, gannet_loadtest::session::SessionError::Unreachable(_));
        assert!(unreachable, "{error}");
    }
}
