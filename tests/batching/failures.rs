//! What fails alone: one bad value in a batch, one bad version of a model. Must not know shapes.

use serde_json::{Value, json};

use super::{ask_together, asking, batches};
use crate::support::{
    http::{get, infer, request},
    repository::Repository,
    server::{Server, fixture},
    wait,
};

#[test]
fn one_bad_value_fails_its_own_request_alone() {
    let repository = Repository::of(&["gather"]);
    repository.set("gather", "[batching]\nqueue_delay_us_max = 20000\n");
    let server = Server::start(repository.path(), |_| {});
    let index = |n: usize| if n % 10 == 3 { 99 } else { n % 8 };
    let bodies: Vec<Value> = (0..60).map(|n| asking(&[("x", "INT64", &[1, 1], json!([index(n)]))])).collect();
    for (n, reply) in ask_together(&server, "gather", &bodies, 20).iter().enumerate() {
        if index(n) == 99 {
            assert!(reply.status == 400 || reply.status == 500, "{}: {}", reply.status, reply.text());
            let message = reply.json()["error"].as_str().unwrap().to_owned();
            assert!(message.contains("'gather' version '1'") && message.contains("99"), "{message}");
        } else {
            assert_eq!(reply.output("y"), (vec![1, 1], vec![index(n) as f64 * 10.0]));
        }
    }
    // without bad ones they do share batches
    let bodies: Vec<Value> = (0..60).map(|n| asking(&[("x", "INT64", &[1, 1], json!([n % 8]))])).collect();
    for (n, reply) in ask_together(&server, "gather", &bodies, 20).iter().enumerate() {
        assert_eq!(reply.output("y"), (vec![1, 1], vec![(n % 8) as f64 * 10.0]));
    }
    let found = batches(&server, "gather");
    assert!(found.iter().any(|(_, rows)| *rows > 1), "{found:?}");
}

#[test]
fn a_version_that_differs_from_its_golden_file_is_refused() {
    let repository = Repository::of(&["add_one"]);
    let server = Server::start(repository.path(), |_| {});
    let body = asking(&[("x", "FP32", &[1, 3], json!([1, 2, 3]))]);
    assert_eq!(infer(server.http(), "add_one", &body).output("y"), (vec![1, 3], vec![2.0, 3.0, 4.0]));
    // a version that adds two, and a golden file that says three about the last value
    let staged = tempfile::tempdir().unwrap();
    std::fs::create_dir(staged.path().join("golden")).unwrap();
    std::fs::copy(fixture("add_two").join("model.onnx"), staged.path().join("model.onnx")).unwrap();
    let golden = json!({
        "request": body,
        "response": {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [3, 4, 6]}]},
    });
    let file = staged.path().join("golden/three.json");
    std::fs::write(&file, golden.to_string()).unwrap();
    repository.add("add_one", "2", staged.path());
    let mut reason = String::new();
    wait::until("version 2 is refused", || {
        let bytes = request("POST", "/v2/repository/index", "", b"");
        let index = crate::support::http::exchange(server.http(), &bytes).json();
        let mut lines = index.as_array().unwrap().iter();
        let second = lines.find(|line| line["version"] == "2" && line["state"] == "UNAVAILABLE");
        reason = second.and_then(|line| line["reason"].as_str()).unwrap_or_default().to_owned();
        !reason.is_empty()
    });
    for word in ["golden/three.json", "output 'y'", "flat index 2", "is 5", "expected 6"] {
        assert!(reason.contains(word), "expected {word:?} in {reason:?}");
    }
    let reply = infer(server.http(), "add_one", &body);
    assert_eq!(reply.json()["model_version"], "1");
    assert_eq!(reply.output("y").1, [2.0, 3.0, 4.0]);
    assert_eq!(get(server.http(), "/v2/models/add_one/versions/2/ready").status, 503);
    assert_eq!(get(server.http(), "/v2/health/ready").status, 200);
    // once it is right, it takes over
    let right = golden.to_string().replace('6', "5");
    std::fs::write(repository.version("add_one", "2").join("golden/three.json"), right).unwrap();
    wait::until("version 2 serves", || infer(server.http(), "add_one", &body).json()["model_version"] == "2");
}
