//! A gRPC server that is not ours: the `h2` crate with fixed answers, small windows and errors.

use std::net::TcpListener;

use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::server::{EchoThread, file, run};

#[derive(Clone, Copy)]
enum Answer {
    /// The request's message comes back.
    Same,
    /// Every second call is refused in trailers only.
    Refuse,
    /// Every second stream is reset.
    Reset,
}

fn h2_server(answer: Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("grpc://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, answer));
            }
        });
    });
    url
}

async fn serve(socket: tokio::net::TcpStream, answer: Answer) {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(20_000).initial_connection_window_size(70_000);
    builder.max_concurrent_streams(3);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else {
        return;
    };
    let mut number = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        number += 1;
        tokio::spawn(call(request, respond, answer, number));
    }
}

async fn call(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    answer: Answer,
    number: u64,
) {
    assert_eq!(request.uri().path(), "/inference.GRPCInferenceService/ModelInfer");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(request.headers()["te"], "trailers");
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(Ok(part)) = body.data().await {
        body.flow_control().release_capacity(part.len()).unwrap();
        message.extend_from_slice(&part);
    }
    let head = Response::builder().header("content-type", "application/grpc");
    match answer {
        Answer::Refuse if number.is_multiple_of(2) => {
            let head = head.header("grpc-status", "14").header("grpc-message", "queue is full");
            respond.send_response(head.body(()).unwrap(), true).unwrap();
        }
        Answer::Reset if number.is_multiple_of(2) => respond.send_reset(h2::Reason::INTERNAL_ERROR),
        _ => {
            let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
            stream.send_data(message.into(), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        }
    }
}

#[test]
fn small_and_large_messages_pass_small_windows() {
    let url = h2_server(Answer::Same);
    for bytes in [0, 1, 10_000, 16_384, 100_000, 1_000_000] {
        let body = file(&format!("grpc-{bytes}.bin"), &vec![0x0a; bytes]);
        let line = format!("-n 6 -c 2 --requests 60 --body {body} --expect {body}");
        let run = run(&url, &format!("{line} --no-server-stats"));
        assert_eq!((run.succeeded, run.failed), (60, 0), "{bytes}: {:?}", run.quotes);
    }
}

#[test]
fn the_server_bounds_the_streams() {
    let url = h2_server(Answer::Same);
    let body = file("grpc-many.bin", b"x");
    let run = run(&url, &format!("-n 64 -c 2 --requests 1000 --body {body} --no-server-stats"));
    assert_eq!((run.succeeded, run.failed), (1000, 0), "{:?}", run.quotes);
}

#[test]
fn refusals_and_resets_are_counted() {
    let body = file("grpc-refused.bin", b"x");
    let line = format!("-n 1 --requests 100 --body {body} --no-server-stats");
    let refused = run(&h2_server(Answer::Refuse), &line);
    assert_eq!((refused.succeeded, refused.failed), (50, 50));
    assert_eq!(refused.failures["gRPC 14 UNAVAILABLE"], 50);
    assert!(refused.quotes[0].contains("queue is full"), "{:?}", refused.quotes);
    let reset = run(&h2_server(Answer::Reset), &line);
    assert_eq!((reset.succeeded, reset.failed), (50, 50), "{:?}", reset.quotes);
    assert_eq!(reset.failures["HTTP/2 reset 2"], 50);
}

#[test]
fn metadata_travels() {
    let echo = EchoThread::start();
    let run = run(&echo.grpc, "--requests 20 --header x-tenant:blue");
    assert_eq!(run.succeeded, 20);
}
