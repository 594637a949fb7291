//! Rows of a model's training data, out of its baseline, and requests of them. Must not know what is watched.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    http::{Connection, request},
    random::Random,
    server::Server,
};

/// Requests that are sent before an answer is read.
const IN_FLIGHT: usize = 16;

/// Rows of one input of a model.
pub(crate) struct Rows {
    pub(crate) input: String,
    pub(crate) names: Vec<String>,
    pub(crate) rows: Vec<Vec<f64>>,
    deviations: Vec<f64>,
}

impl Rows {
    pub(crate) fn of_baseline(path: &Path, input: &str) -> Self {
        let baseline: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let features = baseline["inputs"][0]["features"].as_array().unwrap();
        let names = features
            .iter()
            .filter(|feature| feature["of"]["value"].is_u64())
            .map(|feature| feature["name"].as_str().unwrap().to_owned())
            .collect();
        let rows: Vec<Vec<f64>> = serde_json::from_value(
            baseline["samples"].as_array().unwrap().iter().map(|row| row[0].clone()).collect(),
        )
        .unwrap();
        let deviation = |at: usize| {
            let mean = rows.iter().map(|row| row[at]).sum::<f64>() / rows.len() as f64;
            (rows.iter().map(|row| (row[at] - mean).powi(2)).sum::<f64>() / rows.len() as f64).sqrt()
        };
        let deviations = (0..rows[0].len()).map(deviation).collect();
        Self { input: input.to_owned(), names, rows, deviations }
    }

    /// Adds so many standard deviations to a value.
    pub(crate) fn shift(&self, row: &mut [f64], name: &str, deviations: f64) {
        let at = self.names.iter().position(|known| known == name).unwrap();
        row[at] += deviations * self.deviations[at];
    }
}

/// Sends so many rows, drawn evenly and changed, with the ids `row-0` and so on; the classes that were answered.
pub(crate) fn send(server: &Server, rows: &Rows, count: u64, change: impl Fn(&mut [f64])) -> Vec<u64> {
    let mut random = Random::new(42);
    let body = |index: u64| {
        let mut row = rows.rows[usize::try_from(random.below(rows.rows.len() as u64)).unwrap()].clone();
        change(&mut row);
        json!({
            "id": format!("row-{index}"),
            "inputs": [{ "name": rows.input, "shape": [1, row.len()], "datatype": "FP32", "data": row }],
        })
    };
    let bodies: Vec<Value> = (0..count).map(body).collect();
    let answers = send_all(server, "breast_cancer", &bodies);
    answers.iter().map(|answer| answer["outputs"][0]["data"][0].as_u64().unwrap()).collect()
}

/// Sends so many rows as [`send`] does, but as binary data, in which there are values that JSON has no words for.
pub(crate) fn send_binary(server: &Server, rows: &Rows, count: u64, change: impl Fn(u64, &mut [f64])) {
    let row = |index: u64| {
        let mut row = rows.rows[usize::try_from(index).unwrap() % rows.rows.len()].clone();
        change(index, &mut row);
        let data: Vec<u8> = row.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
        let head = json!({ "inputs": [{
            "name": rows.input, "shape": [1, row.len()], "datatype": "FP32",
            "parameters": { "binary_data_size": data.len() },
        }]})
        .to_string();
        let length = format!("inference-header-content-length: {}\r\n", head.len());
        request("POST", "/v2/models/breast_cancer/infer", &length, &[head.as_bytes(), &data].concat())
    };
    send_requests(server, &(0..count).map(row).collect::<Vec<_>>());
}

/// Sends requests on one connection, some at a time.
pub(crate) fn send_all(server: &Server, model: &str, bodies: &[Value]) -> Vec<Value> {
    let path = format!("/v2/models/{model}/infer");
    let one = |body: &Value| request("POST", &path, "", body.to_string().as_bytes());
    send_requests(server, &bodies.iter().map(one).collect::<Vec<_>>())
}

fn send_requests(server: &Server, requests: &[Vec<u8>]) -> Vec<Value> {
    let mut connection = Connection::open(server.http());
    let mut answers = Vec::with_capacity(requests.len());
    for requests in requests.chunks(IN_FLIGHT) {
        requests.iter().for_each(|request| connection.send(request));
        for _ in requests {
            let reply = connection.read().expect("an answer");
            assert_eq!(reply.status, 200, "{}", reply.text());
            answers.push(reply.json());
        }
    }
    answers
}
