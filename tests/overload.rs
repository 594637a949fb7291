//! More than can be done: queues that are full, deadlines that cannot be met, callers who leave, who goes first.
//! Must not know how answers are computed.

mod busy;

use std::time::Duration;

use gannet_runtime::clock;
use serde_json::json;

use self::busy::Busy;
use crate::support::{
    grpc::{Client, InferParameter, MODEL_INFER, ModelInferRequest, Tensor, frame},
    http::{Connection, exchange, get, request},
    repository::Repository,
    server::Server,
    wait,
};

/// Room for two.
const TWO_MAY_WAIT: &str = "[limits]\nqueue_requests_max = 2\n";

#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let busy = Busy::start(TWO_MAY_WAIT);
    let held = busy.hold();
    let waiting = [busy.ask(2.0, ""), busy.ask(3.0, "")];
    busy.until_waiting(2);
    let reply = busy.ask(4.0, "").read().expect("a refusal");
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.text().contains("Exceeds maximum queue size: 2 requests wait for 'slow', at most 2"));
    let seconds: u64 = reply.header("retry-after").expect("a time to come back").parse().expect("seconds");
    assert!(seconds >= 1);
    let ended = busy.grpc().infer(&busy::message(4.0));
    assert_eq!(ended.code, 8, "{}", ended.message);
    assert!(ended.message.contains("Exceeds maximum queue size"), "{}", ended.message);
    let ms: u64 = ended.headers["retry-after-ms"].to_str().unwrap().parse().expect("milliseconds");
    assert!(ms >= 1);
    for (connection, value) in [held].into_iter().chain(waiting).zip([1.0, 2.0, 3.0]) {
        busy::answered(connection, value);
    }
    busy.is_idle();
    assert_eq!(busy.runs(), 3);
}

#[test]
fn a_deadline_that_passes_in_the_queue_is_told_promptly() {
    // nothing is known of the cost, so nothing can be refused beforehand
    let busy = Busy::start("[warm_up]\nenabled = false\n");
    let started = clock::now();
    let held = busy.hold();
    let mut late = busy.ask(2.0, r#""timeout":20000"#);
    let reply = late.read().expect("a refusal");
    assert_eq!(reply.status, 504, "{}", reply.text());
    assert!(reply.text().contains("Request timeout expired"), "{}", reply.text());
    assert!(reply.text().contains("of the 20000 us allowed"), "{}", reply.text());
    // before the run in front of it had ended
    assert!(busy.inflight() > 0, "told only after {:?}", clock::now() - started);
    let parameters =
        [("timeout".to_owned(), InferParameter { int64_param: Some(20_000), ..InferParameter::default() })]
            .into();
    let request = ModelInferRequest { parameters, ..busy::message(2.0) };
    let ended = busy.grpc().infer(&request);
    assert_eq!(ended.code, 4, "{}", ended.message);
    assert!(ended.message.contains("Request timeout expired"), "{}", ended.message);
    let ended = busy.grpc().call(MODEL_INFER, &[("grpc-timeout", "20m")], frame(&busy::message(2.0)));
    assert_eq!(ended.code, 4, "{}", ended.message);
    assert!(busy.inflight() > 0, "told only after {:?}", clock::now() - started);
    busy::answered(held, 1.0);
    busy.is_idle();
    assert_eq!(busy.runs(), 1, "none of the late ones was run");
}

#[test]
fn a_deadline_that_cannot_be_met_is_refused_at_once() {
    // sixteen rows take some 250 to 500 ms, which the warm-up finds out
    let busy = Busy::start_with("max_batch_size = 16\n[warm_up]\nms_max = 60000\n");
    let reply = busy.ask_rows(16, 2.0, r#""timeout":100000"#).read().expect("a refusal");
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.text().contains("the deadline of 'slow' cannot be met"), "{}", reply.text());
    assert!(reply.header("retry-after").is_some(), "{}", reply.head);
    let ended = busy.grpc().call(MODEL_INFER, &[("grpc-timeout", "100m")], frame(&busy::message_of(16, 2.0)));
    assert!(ended.code == 8, "{} {}", ended.code, ended.message);
    assert!(ended.message.contains("cannot be met"), "{}", ended.message);
    // one that can be met is
    let reply = busy.ask_rows(16, 2.0, r#""timeout":30000000"#).read().expect("an answer");
    assert_eq!(reply.output("y").0, [16, 1]);
    busy.is_idle();
    assert_eq!(busy.runs(), 1);
}

#[test]
fn the_model_is_not_run_for_callers_who_left() {
    let busy = Busy::start("");
    let held = busy.hold();
    let left: Vec<Connection> = (0..5).map(|_| busy.ask(2.0, "")).collect();
    busy.until_waiting(5);
    let stays = busy.ask(3.0, "");
    busy.until_waiting(6);
    // one leaves by a reset of its stream, the connection stays
    let client = busy.grpc();
    client.abandon(&busy::message(4.0), || busy.waiting() == 7, || busy.inflight() == 7);
    drop(left);
    wait::until("the others are missed", || busy.inflight() == 2);
    busy::answered(held, 1.0);
    busy::answered(stays, 3.0);
    busy.is_idle();
    assert_eq!(busy.runs(), 2, "those who left cost nothing");
}

#[test]
fn bytes_over_the_budget_are_refused() {
    let repository = Repository::of(&["identity_fp32"]);
    let server = Server::start(repository.path(), |config| config.inflight_bytes_max = 100_000);
    let path = "/v2/models/identity_fp32/infer";
    let mut first = Connection::open(server.http());
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 80001\r\n\r\n");
    first.send(&[head.as_bytes(), &[b' '; 80_000]].concat());
    wait::until("the first bytes are counted", || server.app().state().admission.bytes() == 80_000);
    let reply = exchange(server.http(), &request("POST", path, "", &[b' '; 40_000]));
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.text().contains("the budget of 100000 (limits.inflight_bytes_max)"), "{}", reply.text());
    assert!(reply.header("retry-after").is_some(), "{}", reply.head);
    let message = ModelInferRequest {
        model_name: "identity_fp32".into(),
        inputs: vec![Tensor::typed("x", &[10_000, 1], &[0.0; 10_000])],
        ..ModelInferRequest::default()
    };
    let ended = Client::open(server.grpc()).infer(&message);
    assert_eq!(ended.code, 8, "{}", ended.message);
    assert!(ended.message.contains("limits.inflight_bytes_max"), "{}", ended.message);
    // the first goes on as if nothing had been
    first.send(b" ");
    assert_eq!(first.read().expect("a refusal").status, 400);
    wait::until("the budget is whole again", || server.app().state().admission.bytes() == 0);
    assert_eq!(get(server.http(), "/v2/health/ready").status, 200);
}

#[test]
fn the_first_priority_overtakes_the_second() {
    let busy = Busy::start("[priority]\nlevels = 2\ndefault = 2\n");
    let held = busy.hold();
    let mut second: Vec<Connection> = Vec::new();
    for count in 0..4 {
        second.push(busy.ask(2.0, if count % 2 == 0 { "" } else { r#""priority":2"# }));
        busy.until_waiting(count + 1);
    }
    let first = busy.ask(3.0, r#""priority":1"#);
    busy.until_waiting(5);
    busy::answered(held, 1.0);
    busy::answered(first, 3.0);
    // of those before it none was answered yet: at most one is being run
    assert!(busy.waiting() >= 2, "{} wait", busy.waiting());
    for connection in second {
        busy::answered(connection, 2.0);
    }
    busy.is_idle();
    assert_eq!(busy.runs(), 6);
}

#[test]
fn a_model_under_water_leaves_others_alone() {
    let busy = Busy::start(TWO_MAY_WAIT);
    let held = busy.hold();
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]});
    let started = clock::now();
    for _ in 0..20 {
        let reply = crate::support::http::infer(busy.server.http(), "add_one", &body);
        assert_eq!(reply.output("y").1, [2.0, 3.0, 4.0]);
    }
    assert!(clock::now() - started < Duration::from_secs(30));
    assert_eq!(get(busy.server.http(), "/v2/health/ready").status, 200);
    busy::answered(held, 1.0);
    busy.is_idle();
}
