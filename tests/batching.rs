//! Requests that share a batch get the answers that they would get alone. Must not know faults of the wire.

mod answers;
mod failures;
mod shapes;

use serde_json::{Value, json};

use crate::support::{
    http::{Connection, Reply, request, statistics},
    server::Server,
};

/// A request of these inputs, each `[name, datatype, shape, data]`.
fn asking(inputs: &[(&str, &str, &[usize], Value)]) -> Value {
    let input = |(name, datatype, shape, data): &(&str, &str, &[usize], Value)| json!({"name": name, "datatype": datatype, "shape": shape, "data": data});
    json!({"inputs": inputs.iter().map(input).collect::<Vec<_>>()})
}

/// Sends all bodies before the first answer is read: each client's down one pipeline.
fn ask_together(server: &Server, model: &str, bodies: &[Value], clients: usize) -> Vec<Reply> {
    let path = format!("/v2/models/{model}/infer");
    let mut connections: Vec<Connection> = (0..clients).map(|_| Connection::open(server.http())).collect();
    for (index, connection) in connections.iter_mut().enumerate() {
        let own = bodies.iter().skip(index).step_by(clients);
        let bytes: Vec<u8> =
            own.flat_map(|body| request("POST", &path, "", body.to_string().as_bytes())).collect();
        connection.send(&bytes);
    }
    (0..bodies.len()).map(|index| connections[index % clients].read().expect("an answer")).collect()
}

/// (times run, rows) of each size of batch that a model ran.
fn batches(server: &Server, model: &str) -> Vec<(u64, u64)> {
    let stats = statistics(server.http(), model);
    let sizes = stats["batch_stats"].as_array().expect("sizes").iter();
    let number = |value: &Value| value.as_u64().expect("a number");
    sizes.map(|size| (number(&size["compute_infer"]["count"]), number(&size["batch_size"]))).collect()
}

/// Rows and runs of a model so far.
fn counts(server: &Server, model: &str) -> (u64, u64) {
    let stats = statistics(server.http(), model);
    let number = |name: &str| stats[name].as_u64().expect("a number");
    (number("inference_count"), number("execution_count"))
}

#[track_caller]
fn close(got: &[f64], expected: &[f64], case: &str) {
    assert_eq!(got.len(), expected.len(), "{case}");
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= 1e-5, "{case}: expected {expected}, got {got}");
    }
}
