//! Models whose axes are not all alike: variable, fixed, none at all. Must not know the zoo.

use serde_json::{Value, json};

use super::{ask_together, asking, batches, close};
use crate::support::{
    http::{get, infer},
    repository::Repository,
    server::Server,
};

/// A sequence of `length` numbers from `start` on, of which every second one counts.
fn sequence(start: usize, length: usize) -> (Value, f64) {
    let x: Vec<usize> = (start..start + length).collect();
    let mask: Vec<usize> = x.iter().map(|n| n % 2).collect();
    let sum = x.iter().zip(&mask).map(|(x, mask)| (x * mask) as f64).sum();
    let shape: &[usize] = &[1, length];
    (asking(&[("x", "FP32", shape, json!(x)), ("mask", "INT64", shape, json!(mask))]), sum)
}

fn sequences() -> (Vec<Value>, Vec<f64>) {
    (0..120).map(|n| sequence(n, 1 + n % 7)).unzip()
}

fn sums_are_right(server: &Server, clients: usize) {
    let (bodies, sums) = sequences();
    for (index, reply) in ask_together(server, "seq_len", &bodies, clients).iter().enumerate() {
        let (shape, got) = reply.output("y");
        assert_eq!(shape, [1, 1]);
        close(&got, &sums[index..=index], &format!("sequence {index}"));
    }
}

#[test]
fn sequences_of_different_lengths_share_no_batch() {
    let repository = Repository::of(&["seq_len"]);
    let server = Server::start(repository.path(), |config| config.runtime.io_threads = 1);
    sums_are_right(&server, 24);
    let found = batches(&server, "seq_len");
    let most = found.iter().map(|(_, rows)| *rows).max().unwrap();
    // 120 sequences of 7 lengths: 18 of a length at most
    assert!((2..=18).contains(&most), "{found:?}");
}

#[test]
fn sequences_that_are_padded_share_batches() {
    let repository = Repository::of(&["seq_len"]);
    repository.set(
        "seq_len",
        "[batching]\nqueue_delay_us_max = 100000\n[[padding]]\naxis = \"seq\"\nbuckets = [4, 8]\nvalue = 0\n",
    );
    let server = Server::start(repository.path(), |_| {});
    sums_are_right(&server, 120);
    let most = batches(&server, "seq_len").iter().map(|(_, rows)| *rows).max().unwrap();
    // 69 sequences have 1 to 4 numbers, 51 have 5 to 7
    assert!(most > 18, "{:?}", batches(&server, "seq_len"));
    // over the last bucket
    let (body, sum) = sequence(1, 20);
    close(&infer(server.http(), "seq_len", &body).output("y").1, &[sum], "a long sequence");
}

#[test]
fn inputs_that_disagree_about_an_axis_of_one_name_are_told_so() {
    let repository = Repository::of(&["seq_len"]);
    let server = Server::start(repository.path(), |_| {});
    let body = asking(&[("x", "FP32", &[1, 3], json!([1, 2, 3])), ("mask", "INT64", &[1, 2], json!([1, 1]))]);
    let reply = infer(server.http(), "seq_len", &body);
    assert!(reply.status == 400 || reply.status == 500, "{}", reply.text());
    sums_are_right(&server, 24);
}

#[test]
fn models_without_a_batch_axis() {
    let repository = Repository::of(&["unbatched", "fixed_batch", "two_outputs_dynamic"]);
    let server = Server::start(repository.path(), |_| {});
    let bodies: Vec<Value> =
        (0..40).map(|n| asking(&[("x", "FP32", &[3], json!([n, n + 1, n + 2]))])).collect();
    for (n, reply) in ask_together(&server, "unbatched", &bodies, 8).iter().enumerate() {
        let n = n as f64;
        assert_eq!(reply.output("y"), (vec![3], vec![n + 1.0, n + 2.0, n + 3.0]));
    }
    assert_eq!(batches(&server, "unbatched"), [(40, 1)]);
    let bodies: Vec<Value> =
        (0..40).map(|n| asking(&[("x", "FP32", &[2, 3], json!([n, n, n, 0, 0, 0]))])).collect();
    for (n, reply) in ask_together(&server, "fixed_batch", &bodies, 8).iter().enumerate() {
        let first = n as f64 + 1.0;
        assert_eq!(reply.output("y"), (vec![2, 3], vec![first, first, first, 1.0, 1.0, 1.0]));
    }
    let one = asking(&[("x", "FP32", &[1, 3], json!([1, 2, 3]))]);
    let reply = infer(server.http(), "fixed_batch", &one);
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("Expected [2,3], got [1,3]"), "{}", reply.text());
    // its second output's first axis is 2, whatever is sent
    let bodies: Vec<Value> =
        (1..=20).map(|n| asking(&[("x", "FP32", &[1, 4], json!([n, 0, n, 0]))])).collect();
    for (n, reply) in ask_together(&server, "two_outputs_dynamic", &bodies, 4).iter().enumerate() {
        let n = n as f64 + 1.0;
        assert_eq!(reply.output("y"), (vec![1, 4], vec![n, 0.0, n, 0.0]));
        assert_eq!(reply.output("indices"), (vec![2, 2], vec![0.0, 0.0, 0.0, 2.0]));
    }
    assert_eq!(batches(&server, "two_outputs_dynamic"), [(20, 1)]);
    for model in ["unbatched", "fixed_batch", "two_outputs_dynamic"] {
        let config = get(server.http(), &format!("/v2/models/{model}/config")).json();
        assert_eq!(config["max_batch_size"].as_u64().unwrap_or(0), 0, "{config}");
    }
}

#[test]
fn maps_of_probabilities_become_a_tensor() {
    let repository = Repository::of(&["zipmap", "zipmap_string"]);
    let server = Server::start(repository.path(), |_| {});
    let rows = [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]];
    for model in ["zipmap", "zipmap_string"] {
        let metadata = get(server.http(), &format!("/v2/models/{model}")).json();
        let outputs = metadata["outputs"].as_array().unwrap();
        assert_eq!(
            (&outputs[1]["datatype"], &outputs[1]["shape"]),
            (&json!("FP32"), &json!([-1, 3])),
            "{model}"
        );
        let name = outputs[1]["name"].as_str().unwrap();
        let alone: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| {
                let body = asking(&[("input", "FP32", &[1, 4], json!(row))]);
                let (shape, values) = infer(server.http(), model, &body).output(name);
                assert_eq!(shape, [1, 3]);
                assert!((values.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{values:?}");
                values
            })
            .collect();
        let bodies: Vec<Value> =
            (0..40).map(|n| asking(&[("input", "FP32", &[1, 4], json!(rows[n % 2]))])).collect();
        for (n, reply) in ask_together(&server, model, &bodies, 10).iter().enumerate() {
            close(&reply.output(name).1, &alone[n % 2], model);
            let label = &reply.json()["outputs"][0];
            let expected = match model {
                "zipmap" => json!([n % 2 * 2]),
                _ if n % 2 == 0 => json!(["setosa"]),
                _ => json!(["virginica"]),
            };
            assert_eq!(label["data"], expected);
        }
    }
}

#[test]
fn weights_in_a_file_beside_the_model() {
    let repository = Repository::of(&["external_data"]);
    let server = Server::start(repository.path(), |_| {});
    let weight = |i: usize, j: usize| (((7 * i + 3 * j) % 11) as f64 - 5.0) / 8.0;
    for row in [0, 17, 63] {
        let mut x = vec![0; 64];
        x[row] = 2;
        let reply = infer(server.http(), "external_data", &asking(&[("x", "FP32", &[1, 64], json!(x))]));
        let expected: Vec<f64> = (0..64).map(|j| 2.0 * weight(row, j)).collect();
        assert_eq!(reply.output("y"), (vec![1, 64], expected));
    }
}
