//! Traces of requests, as OpenTelemetry's own code reads them, of callers whose SDK says which trace they are part of; and
//! collectors that are down, slow or in trouble, which cost spans alone. Must not know how spans are written.

use std::{net::TcpListener, process::Command, time::Duration};

use gannet_runtime::clock;
use gannet_server::config::Credentials;
use serde_json::{Value, json};

use crate::support::{
    call,
    environment::Environment,
    folder::Folder,
    grpc::{Client, MODEL_INFER, ModelInferRequest, Tensor, frame},
    printer::Printer,
    server::{Server, root},
    wait,
};

fn collector(refusals: &str) -> Printer {
    Printer::start(Environment::Mlflow, "trace_peer.py", &["--receive", "--refuse", refusals])
}

/// A server that tells a collector of requests, and of so many that say nothing of a trace.
fn telling(folder: &Folder, url: &str, rate: f64) -> Server {
    Server::start(&folder.path(), |config| {
        config.trace.url = Some(url.to_owned());
        config.trace.rate = rate;
        config.registry.server_name = "test".into();
    })
}

/// Asks with OpenTelemetry's SDK; what it says of its own span.
fn ask(server: &Server, model: &str, more: &[&str]) -> Value {
    let mut python = Command::new(Environment::Mlflow.python());
    python.arg(root().join("tests/peers/trace_peer.py"));
    python.args(["--ask", &format!("http://{}", server.http()), "--model", model]).args(more);
    let output = python.env("PYTHONDONTWRITEBYTECODE", "1").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&said)
        .unwrap_or_else(|_| panic!("{said} {}", String::from_utf8_lossy(&output.stderr)))
}

fn spans<'a>(seen: &'a [Value], trace: &Value) -> Vec<&'a Value> {
    seen.iter().filter(|span| span["trace"] == *trace).collect()
}

#[test]
fn a_request_is_part_of_its_callers_trace() {
    let folder = Folder::with_add_one();
    let collector = collector("0");
    let key = folder.beside("key");
    std::fs::write(&key, "t0ken\n").expect("a file");
    let server = Server::start(&folder.path(), |config| {
        config.trace.url = Some(format!("{}/v1/traces", collector.base()));
        config.trace.credentials = Some(Credentials::File(key));
        config.registry.server_name = "test".into();
    });
    let good = ask(&server, "m", &[]);
    assert_eq!(good["status"], 200, "{good}");
    let off = ask(&server, "m", &["--off"]);
    let unknown = ask(&server, "nobody", &[]);
    assert_eq!((&off["status"], &unknown["status"]), (&json!(200), &json!(404)));
    // says nothing of a trace: with a rate of 0 it is not traced
    assert_eq!(call::add(server.http(), "m"), Ok(2.0));
    wait::until("both are told", || {
        let seen = collector.lines();
        spans(&seen, &good["trace"]).len() == 5 && spans(&seen, &unknown["trace"]).len() == 1
    });
    let seen = collector.lines();
    assert_eq!(seen.len(), 6, "{seen:#?}");

    let of_good = spans(&seen, &good["trace"]);
    let whole = of_good[0];
    assert_eq!(
        (&whole["name"], &whole["kind"], &whole["parent"], &whole["status"]),
        (&json!("infer m"), &json!(2), &good["span"], &json!(0)),
        "{whole}"
    );
    let expected = json!({ "gannet.model": "m", "gannet.version": "1", "gannet.request.id": "of the SDK",
                           "gannet.rows": 1, "gannet.batch.rows": 1, "network.protocol.name": "http" });
    assert_eq!(whole["attributes"], expected);
    let resource = &whole["resource"];
    assert_eq!(
        (&resource["service.name"], &resource["service.instance.id"], &whole["scope"]),
        (&json!("gannet"), &json!("test"), &json!("gannet")),
        "{whole}"
    );
    assert_eq!(
        (&whole["path"], &whole["authorization"], &whole["content_type"]),
        (&json!("/v1/traces"), &json!("Bearer t0ken"), &json!("application/x-protobuf"))
    );
    // within the caller's span, by the clock of this machine; the parts one after the other, within the whole
    let time = |span: &Value, what: &str| span[what].as_u64().expect("a time");
    assert!(time(&good, "start") <= time(whole, "start"), "{good} {whole}");
    assert!(time(whole, "end") <= time(&good, "end"), "{good} {whole}");
    let mut from = time(whole, "start");
    for (part, name) in of_good[1..].iter().zip(["queue", "assemble", "compute", "scatter"]) {
        assert_eq!((&part["name"], &part["parent"]), (&json!(name), &whole["span"]), "{part}");
        assert_eq!(time(part, "start"), from, "{part}");
        from = time(part, "end");
    }
    assert!(from <= time(whole, "end"), "{whole}");
    let mut numbers: Vec<&str> = seen.iter().filter_map(|span| span["span"].as_str()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 6, "each span has a number of its own");

    let refused = spans(&seen, &unknown["trace"])[0];
    assert_eq!((&refused["status"], &refused["parent"]), (&json!(2), &unknown["span"]), "{refused}");
    assert_eq!(refused["attributes"]["error.type"], "not_found");
    assert!(refused["message"].as_str().is_some_and(|why| why.contains("nobody")), "{refused}");
}

#[test]
fn grpc_and_requests_without_a_trace_are_told_of_too() {
    let folder = Folder::with_add_one();
    // the collector is in trouble at first: nothing is lost for that
    let collector = collector("2");
    let server = telling(&folder, &format!("{}/v1/traces", collector.base()), 1.0);
    let request = ModelInferRequest {
        model_name: "m".into(),
        id: "of gRPC".into(),
        inputs: vec![Tensor::typed("x", &[2, 3], &[1.0; 6])],
        ..ModelInferRequest::default()
    };
    let parent = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "rojo=1"),
    ];
    Client::open(server.grpc()).call(MODEL_INFER, &parent, frame(&request)).response();
    assert_eq!(call::add(server.http(), "m"), Ok(2.0));
    wait::until("ten spans are told", || collector.lines().len() == 10);
    let seen = collector.lines();
    let of_grpc = spans(&seen, &json!("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(of_grpc.len(), 5, "{seen:#?}");
    let whole = of_grpc[0];
    assert_eq!((&whole["parent"], &whole["state"]), (&json!("00f067aa0ba902b7"), &json!("rojo=1")));
    let attributes = &whole["attributes"];
    assert_eq!(
        (&attributes["network.protocol.name"], &attributes["gannet.rows"]),
        (&json!("grpc"), &json!(2)),
        "{whole}"
    );
    let own = seen.iter().find(|span| span["parent"] == "").expect("the first of its own trace");
    assert_eq!(spans(&seen, &own["trace"]).len(), 5, "{seen:#?}");
    wait::until("they are counted", || {
        call::sample(&server, "gannet_trace_spans_total{outcome=\"sent\"}").is_some_and(|sent| sent >= 10.0)
    });
}

#[test]
fn what_waits_is_told_when_the_server_ends() {
    let folder = Folder::with_add_one();
    let collector = collector("0");
    let server = telling(&folder, &format!("{}/v1/traces", collector.base()), 1.0);
    for _ in 0..20 {
        assert_eq!(call::add(server.http(), "m"), Ok(2.0));
    }
    assert!(server.drain(Duration::from_secs(20)));
    assert_eq!(collector.lines().len(), 100);
}

#[test]
fn a_collector_that_does_not_answer_costs_nobody_anything() {
    let folder = Folder::with_add_one();
    // takes connections and says nothing
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/v1/traces", silent.local_addr().expect("an address"));
    let server = telling(&folder, &url, 1.0);
    for _ in 0..200 {
        assert_eq!(call::add(server.http(), "m"), Ok(2.0));
    }
    let started = clock::now();
    assert!(server.drain(Duration::from_secs(20)), "it ends all the same");
    assert!(clock::now() - started < Duration::from_secs(10), "and soon");
}
