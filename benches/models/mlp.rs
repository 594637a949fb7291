//! A small net over the features of one row. Must not know how it is served.

use super::Graph;
use crate::onnx::attribute_int;

/// 30-64-32-2 with softmax.
pub(super) fn mlp30() -> Vec<u8> {
    let mut graph = Graph::new(30);
    let mut x = "x".to_owned();
    for (from, to) in [(30, 64), (64, 32), (32, 2)] {
        let scale = (3.0 / from as f32).sqrt();
        let (w, b) = (graph.weights(&[from, to], scale), graph.weights(&[to], 0.02));
        x = graph.node("Gemm", &[&x, &w, &b], &[]);
        let last = to == 2;
        x = graph.node(if last { "Softmax" } else { "Relu" }, &[&x], &[]);
    }
    graph.finish(&x, &[("x", 1, &["batch", "30"])], &["batch", "2"])
}

/// The first value of a long row.
pub(super) fn wide() -> Vec<u8> {
    let mut graph = Graph::new(1);
    let first = graph.integers(&[0]);
    let value = graph.node("Gather", &["x", &first], &[attribute_int("axis", 1)]);
    graph.finish(&value, &[("x", 1, &["batch", "150528"])], &["batch", "1"])
}
