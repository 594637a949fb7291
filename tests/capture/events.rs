//! Captured requests as events: the SDK for Python reads them as KServe's logger sends them, redacted values are in none, and a
//! receiver that is down or does not answer costs events alone.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use gannet_server::config::{Credentials, Root};
use serde_json::{Value, json};

use super::{status, written};
use crate::support::{
    call, environment::Environment, folder::Folder, mlflow::free_port, printer::Printer, receiver,
    server::Server, wait,
};

const SECRET: &str = "a secret of the test";
/// The receiver, in Python.
fn receiving(folder: &Folder) -> Printer {
    let secret = secret(folder).display().to_string();
    Printer::start(Environment::Kserve, "event_receiver.py", &["--secret", &secret])
}

fn url(receiver: &Printer) -> String {
    format!("{}/events", receiver.base())
}

fn secret(folder: &Folder) -> std::path::PathBuf {
    let path = folder.beside("secret");
    fs::write(&path, SECRET).expect("a file");
    path
}

/// A server that captures everything, and tells of it.
fn telling(folder: &Folder, url: String, queue_bytes: usize) -> Server {
    let (place, secret) = (folder.beside("captured"), secret(folder));
    let key = folder.beside("key");
    fs::write(&key, "0123456789abcdef").expect("a file");
    Server::start(&folder.path(), |config| {
        config.capture.root = Some(Root::Folder(place));
        config.capture.tap.rate = 1.0;
        config.capture.tap.bytes_max = queue_bytes;
        config.capture.flush = Duration::from_millis(100);
        config.capture.events_url = Some(url);
        config.capture.events_secret = Some(Credentials::File(secret));
        config.capture.redaction_key = Some(Credentials::File(key));
        config.registry.server_name = "test".into();
    })
}

fn ask(server: &Server, model: &str, id: &str, data: &Value) {
    let inputs = json!([{ "name": "x", "shape": [1, 3], "datatype": "FP32", "data": data }]);
    call::post(server.http(), &format!("/v2/models/{model}/infer"), &json!({ "id": id, "inputs": inputs }))
        .ok();
}

#[test]
fn the_sdk_for_python_reads_what_kserves_logger_would_have_sent() {
    let folder = Folder::with_add_one();
    folder.put("hidden/1", "add_one");
    folder
        .write("hidden/model.toml", "[redaction.inputs]\nx = \"mask\"\n[redaction.outputs]\ny = \"hash\"\n");
    let receiver = receiving(&folder);
    let server = telling(&folder, url(&receiver), 64 << 20);
    for number in 0..10 {
        ask(&server, "m", &format!("row {number}%"), &json!([number, 0.5, -1]));
    }
    ask(&server, "hidden", "secret", &json!([987_654, 987_655, 987_656]));
    wait::until("22 events were taken", || receiver.lines().len() == 22);
    let events = receiver.lines();
    let of = |kind: &str, id: &str| -> Value {
        let fits = |event: &&Value| {
            event["attributes"]["type"] == format!("org.kubeflow.serving.inference.{kind}")
                && event["attributes"]["id"] == id
        };
        let found: Vec<&Value> = events.iter().filter(fits).collect();
        assert_eq!(found.len(), 1, "{kind} {id}: {events:?}");
        found[0].clone()
    };
    assert!(events.iter().all(|event| event["signed"] == json!(true)), "{events:?}");
    let mut deliveries: Vec<&str> = events.iter().filter_map(|event| event["delivery"].as_str()).collect();
    deliveries.sort_unstable();
    deliveries.dedup();
    assert_eq!(deliveries.len(), 22, "no two deliveries have one name");

    // what a header cannot hold is percent-encoded, which this SDK leaves to its caller
    let request = of("request", "row%207%25");
    let attributes = &request["attributes"];
    let expected = json!({
        "specversion": "1.0", "id": "row%207%25", "source": "/gannet/test",
        "type": "org.kubeflow.serving.inference.request", "datacontenttype": "application/json",
        "inferenceservicename": "m", "namespace": "default", "component": "predictor", "endpoint": "1",
        "time": attributes["time"],
    });
    assert_eq!(attributes, &expected);
    assert!(attributes["time"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 24));
    let expected = json!({ "id": "row 7%", "inputs": [
        { "name": "x", "datatype": "FP32", "shape": [1, 3], "data": [7.0, 0.5, -1.0] },
    ] });
    assert_eq!(request["data"], expected);
    let response = of("response", "row%207%25");
    let expected = json!({ "model_name": "m", "model_version": "1", "id": "row 7%", "outputs": [
        { "name": "y", "datatype": "FP32", "shape": [1, 3], "data": [8.0, 1.5, 0.0] },
    ] });
    assert_eq!(response["data"], expected);

    let request = of("request", "secret");
    let expected = json!([
        { "name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": { "redacted": "mask" } },
    ]);
    assert_eq!(request["data"]["inputs"], expected);
    let response = of("response", "secret");
    let output = &response["data"]["outputs"][0];
    assert_eq!(
        (&output["datatype"], &output["parameters"]),
        (&json!("BYTES"), &json!({ "redacted": "hash" }))
    );
    assert!(output["data"][0].as_str().is_some_and(|hash| hash.len() == 64), "{output}");
    let raw = |event: &Value| event["raw"].as_str().expect("a text").contains("98765");
    assert!(!raw(&request) && !raw(&response), "{request} {response}");

    let counted = call::sample(&server, "gannet_capture_events_total");
    assert_eq!(counted, Some(22.0));
    written(&server, 11);
}

#[test]
fn a_server_that_ends_sends_what_waits() {
    let folder = Folder::with_add_one();
    let receiver = receiver::Receiver::start(0);
    let server = telling(&folder, format!("http://{}/", receiver.address), 64 << 20);
    for number in 0..40 {
        ask(&server, "m", &format!("row-{number}"), &json!([number, 0, 0]));
    }
    assert!(server.drain(Duration::from_secs(30)), "every thread ended");
    let deliveries = receiver.deliveries();
    assert_eq!(deliveries.len(), 80);
    let kinds = |kind: &str| deliveries.iter().filter(|it| it.header("ce-type").ends_with(kind)).count();
    assert_eq!((kinds(".request"), kinds(".response")), (40, 40));
}

#[test]
fn a_receiver_that_is_down_costs_events_and_no_request() {
    let folder = Folder::with_add_one();
    let server = telling(&folder, format!("http://127.0.0.1:{}/", free_port()), 64 << 20);
    for number in 0..50 {
        ask(&server, "m", &format!("row-{number}"), &json!([number, 0, 0]));
    }
    written(&server, 50);
    let dropped =
        || call::sample(&server, "gannet_capture_events_dropped_total{reason=\"receiver\"}") == Some(100.0);
    wait::until("what could not be sent is counted", dropped);
    let counts = status(&server)["counts"].clone();
    assert_eq!(
        (&counts["events"], &counts["events_dropped_receiver"], &counts["dropped_queue_full"]),
        (&json!(0), &json!(100), &json!(0)),
        "{counts}"
    );
}

#[test]
fn a_receiver_that_does_not_answer_fills_the_queue_and_nothing_else() {
    let folder = Folder::with_add_one();
    // connections are made, and nobody reads them
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = silent.local_addr().expect("an address");
    let server = telling(&folder, format!("http://{address}/"), 20_000);
    let full = || status(&server)["counts"]["events_dropped_queue_full"].as_u64() > Some(0);
    let mut asked = 0;
    wait::until("the queue is full", || {
        ask(&server, "m", &format!("row-{asked}"), &json!([asked, 0, 0]));
        asked += 1;
        full()
    });
    for more in 0..20 {
        ask(&server, "m", &format!("more-{more}"), &json!([more, 0, 0]));
    }
    written(&server, asked + 20);
    assert_eq!(status(&server)["counts"]["dropped_queue_full"], json!(0));
    drop(silent);
}
