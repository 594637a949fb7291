//! Answers in batches against answers alone. Must not know odd shapes.

use serde_json::{Value, json};

use super::{ask_together, asking, batches, close, counts};
use crate::support::{
    http::infer,
    proof::scaled,
    random::Random,
    repository::Repository,
    server::{Server, zoo},
};

/// Requests that are on their way together.
const TOGETHER: usize = 64;

struct Model {
    name: &'static str,
    version: &'static str,
    input: &'static str,
    /// Without the batch axis.
    shape: &'static [usize],
    /// The largest value of a random input.
    scale: u64,
}

const BREAST_CANCER: Model =
    Model { name: "breast_cancer", version: "1", input: "features", shape: &[30], scale: 100 };
const DIGITS: Model = Model { name: "digits", version: "2", input: "image", shape: &[1, 8, 8], scale: 16 };

impl Model {
    fn rows(&self, random: &mut Random, rows: usize) -> Value {
        let width: usize = self.shape.iter().product();
        let mut value = || random.below(self.scale * 10 + 1) as f64 / 10.0;
        let data: Vec<f64> = (0..rows * width).map(|_| value()).collect();
        let shape = [&[rows], self.shape].concat();
        asking(&[(self.input, "FP32", &shape, json!(data))])
    }

    /// Alone one after the other, then all together, in several rounds.
    fn check(&self) {
        let repository = Repository::of(&[]);
        repository.add(self.name, "1", &zoo().join(self.name).join(self.version));
        repository.set(self.name, "[batching]\nqueue_delay_us_max = 5000\n");
        let server = Server::start(repository.path(), |_| {});
        let mut random = Random::new(3);
        for _ in 0..scaled(3, 50) {
            let rows = |random: &mut Random| 1 + random.below(3) as usize;
            let bodies: Vec<Value> = (0..TOGETHER)
                .map(|_| {
                    let rows = rows(&mut random);
                    self.rows(&mut random, rows)
                })
                .collect();
            let alone: Vec<_> = bodies.iter().map(|body| infer(server.http(), self.name, body)).collect();
            let together = ask_together(&server, self.name, &bodies, TOGETHER);
            for (index, (alone, together)) in alone.iter().zip(&together).enumerate() {
                let (shape, expected) = alone.output("probabilities");
                let (got_shape, got) = together.output("probabilities");
                assert_eq!(got_shape, shape);
                close(&got, &expected, &format!("{} request {index}", self.name));
            }
        }
        let found = batches(&server, self.name);
        assert!(found.iter().any(|(_, rows)| *rows > 3), "no batch of two requests: {found:?}");
        let (rows, runs) = counts(&server, self.name);
        assert!(runs < rows && runs < scaled(3, 50) * 2 * TOGETHER as u64, "{runs} runs of {rows} rows");
    }
}

#[test]
fn a_forest_answers_the_same_in_batches() {
    BREAST_CANCER.check();
}

#[test]
fn a_network_answers_the_same_in_batches() {
    DIGITS.check();
}

#[test]
fn a_request_larger_than_a_batch_is_run_in_parts() {
    let repository = Repository::of(&["identity_int64"]);
    repository.add("digits", "1", &zoo().join("digits/2"));
    let server = Server::start(repository.path(), |_| {});
    let numbers: Vec<u64> = (0..400).collect();
    let reply = infer(server.http(), "identity_int64", &asking(&[("x", "INT64", &[200, 2], json!(numbers))]));
    let expected: Vec<f64> = numbers.iter().map(|&number| number as f64).collect();
    assert_eq!(reply.output("y"), (vec![200, 2], expected));
    let whole = DIGITS.rows(&mut Random::new(5), 200);
    let (shape, got) = infer(server.http(), "digits", &whole).output("probabilities");
    assert_eq!(shape, [200, 10]);
    let data = whole["inputs"][0]["data"].as_array().unwrap();
    for (row, values) in data.chunks(64).enumerate() {
        let one = asking(&[("image", "FP32", &[1, 1, 8, 8], json!(values))]);
        let (_, expected) = infer(server.http(), "digits", &one).output("probabilities");
        close(&got[row * 10..][..10], &expected, &format!("row {row}"));
    }
}

#[test]
fn a_stated_batch_size_refuses_more_rows() {
    let repository = Repository::of(&["identity_fp32"]);
    repository.set("identity_fp32", "max_batch_size = 8\n");
    let server = Server::start(repository.path(), |_| {});
    let rows = |rows: usize| asking(&[("x", "FP32", &[rows, 1], json!(vec![1.5; rows]))]);
    assert_eq!(infer(server.http(), "identity_fp32", &rows(8)).output("y"), (vec![8, 1], vec![1.5; 8]));
    let reply = infer(server.http(), "identity_fp32", &rows(9));
    assert_eq!(reply.status, 400);
    let message = "inference request batch-size must be <= 8 for 'identity_fp32'";
    assert!(reply.text().contains(message), "{}", reply.text());
    let bodies: Vec<Value> = (1..=8).cycle().take(64).map(rows).collect();
    for (body, reply) in bodies.iter().zip(ask_together(&server, "identity_fp32", &bodies, 16)) {
        let rows = body["inputs"][0]["shape"][0].as_u64().unwrap();
        assert_eq!(reply.output("y"), (vec![rows, 1], vec![1.5; rows as usize]));
    }
    let found = batches(&server, "identity_fp32");
    assert!(found.iter().all(|(_, rows)| *rows <= 8), "{found:?}");
}

#[test]
fn no_rows_are_answered_with_no_rows() {
    let repository = Repository::of(&["identity_fp32", "add_sub"]);
    let server = Server::start(repository.path(), |_| {});
    let none = |name: &'static str, width: usize| (name, "FP32", vec![0, width], json!([]));
    for (model, inputs, output, width) in [
        ("identity_fp32", vec![none("x", 3)], "y", 3),
        ("identity_fp32", vec![none("x", 0)], "y", 0),
        ("add_sub", vec![none("a", 4), none("b", 4)], "diff", 4),
    ] {
        let inputs: Vec<_> = inputs.iter().map(|(n, t, s, d)| (*n, *t, &s[..], d.clone())).collect();
        let reply = infer(server.http(), model, &asking(&inputs));
        assert_eq!(reply.output(output), (vec![0, width], vec![]), "{model}");
    }
    // among others
    let bodies: Vec<Value> =
        (0..32).map(|n| asking(&[("x", "FP32", &[n % 2, 1], json!(vec![n; n % 2]))])).collect();
    for (n, reply) in ask_together(&server, "identity_fp32", &bodies, 8).iter().enumerate() {
        assert_eq!(reply.output("y"), (vec![n as u64 % 2, 1], vec![n as f64; n % 2]));
    }
}

#[test]
fn an_instance_group_answers_with_all_its_threads_there() {
    let repository = Repository::of(&["add_one"]);
    repository
        .set("add_one", "max_batch_size = 4\n[batching]\nqueue_delay_us_max = 500\n[instances]\ncount = 3\n");
    let server = Server::start(repository.path(), |_| {});
    let servable = server.app().state().table().resolve("add_one", None).expect("it is ready");
    assert_eq!(servable.instances(), 3);
    let bodies: Vec<Value> =
        (0..TOGETHER).map(|index| asking(&[("x", "FP32", &[1, 3], json!([index, 0, 0.5]))])).collect();
    for (index, answer) in ask_together(&server, "add_one", &bodies, TOGETHER).iter().enumerate() {
        assert_eq!(answer.output("y").1, [index as f64 + 1.0, 1.0, 1.5], "request {index}");
    }
}
