//! A text encoder of MiniLM's size with random weights: 30,522 words, six layers of 384 with 12 heads. Must not know
//! how it is served.

use super::Graph;
use crate::onnx::{attribute_float, attribute_int, attribute_ints};

const TOKENS: i64 = 64;
const WIDTH: i64 = 384;
const HEADS: i64 = 12;

pub(super) fn encoder() -> Vec<u8> {
    let mut graph = Graph::new(6);
    let words = graph.weights(&[30_522, WIDTH], 0.05);
    let places = graph.weights(&[TOKENS, WIDTH], 0.05);
    let mut x = graph.node("Gather", &[&words, "input_ids"], &[]);
    x = graph.node("Add", &[&x, &places], &[]);
    x = normalise(&mut graph, &x);
    let mask = mask(&mut graph);
    for _ in 0..6 {
        let attended = attention(&mut graph, &x, &mask);
        let sum = graph.node("Add", &[&x, &attended], &[]);
        x = normalise(&mut graph, &sum);
        let wide = graph.dense(&x, WIDTH, 4 * WIDTH);
        let wide = gelu(&mut graph, &wide);
        let narrow = graph.dense(&wide, 4 * WIDTH, WIDTH);
        let sum = graph.node("Add", &[&x, &narrow], &[]);
        x = normalise(&mut graph, &sum);
    }
    x = graph.node("ReduceMean", &[&x], &[attribute_ints("axes", &[1]), attribute_int("keepdims", 0)]);
    let shape = ["batch", "64"];
    graph.finish(&x, &[("input_ids", 7, &shape), ("attention_mask", 7, &shape)], &["batch", "384"])
}

/// 0 for tokens, -10,000 for padding, in the shape of the scores.
fn mask(graph: &mut Graph) -> String {
    let mask = graph.node("Cast", &["attention_mask"], &[attribute_int("to", 1)]);
    let axes = graph.integers(&[1, 2]);
    let mask = graph.node("Unsqueeze", &[&mask, &axes], &[]);
    let one = graph.constant(&[], &[1.0]);
    let mask = graph.node("Sub", &[&one, &mask], &[]);
    let far = graph.constant(&[], &[-10_000.0]);
    graph.node("Mul", &[&mask, &far], &[])
}

fn normalise(graph: &mut Graph, x: &str) -> String {
    let scale = graph.constant(&[WIDTH], &vec![1.0; 384]);
    let shift = graph.constant(&[WIDTH], &vec![0.0; 384]);
    graph.node("LayerNormalization", &[x, &scale, &shift], &[attribute_float("epsilon", 1e-12)])
}

fn gelu(graph: &mut Graph, x: &str) -> String {
    let (root, one, half) =
        (graph.constant(&[], &[2f32.sqrt()]), graph.constant(&[], &[1.0]), graph.constant(&[], &[0.5]));
    let scaled = graph.node("Div", &[x, &root], &[]);
    let erf = graph.node("Erf", &[&scaled], &[]);
    let plus = graph.node("Add", &[&erf, &one], &[]);
    let product = graph.node("Mul", &[x, &plus], &[]);
    graph.node("Mul", &[&product, &half], &[])
}

fn attention(graph: &mut Graph, x: &str, mask: &str) -> String {
    let split = graph.integers(&[0, 0, HEADS, WIDTH / HEADS]);
    let heads = |graph: &mut Graph, order: &[i64]| {
        let y = graph.dense(x, WIDTH, WIDTH);
        let y = graph.node("Reshape", &[&y, &split], &[]);
        graph.node("Transpose", &[&y], &[attribute_ints("perm", order)])
    };
    let query = heads(graph, &[0, 2, 1, 3]);
    let key = heads(graph, &[0, 2, 3, 1]);
    let value = heads(graph, &[0, 2, 1, 3]);
    let scores = graph.node("MatMul", &[&query, &key], &[]);
    let root = graph.constant(&[], &[((WIDTH / HEADS) as f32).sqrt()]);
    let scores = graph.node("Div", &[&scores, &root], &[]);
    let scores = graph.node("Add", &[&scores, mask], &[]);
    let weights = graph.node("Softmax", &[&scores], &[attribute_int("axis", -1)]);
    let mixed = graph.node("MatMul", &[&weights, &value], &[]);
    let mixed = graph.node("Transpose", &[&mixed], &[attribute_ints("perm", &[0, 2, 1, 3])]);
    let join = graph.integers(&[0, 0, WIDTH]);
    let mixed = graph.node("Reshape", &[&mixed, &join], &[]);
    graph.dense(&mixed, WIDTH, WIDTH)
}
