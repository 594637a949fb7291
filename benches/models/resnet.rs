//! ResNet-50 with random weights. Must not know how it is served.

use super::Graph;
use crate::onnx::{attribute_int, attribute_ints};

pub(super) fn resnet50() -> Vec<u8> {
    let mut graph = Graph::new(50);
    let mut x = conv(&mut graph, "image", (3, 64), 7, 2);
    x = graph.node("Relu", &[&x], &[]);
    let window = [attribute_ints("kernel_shape", &[3, 3]), attribute_ints("strides", &[2, 2])];
    x = graph.node("MaxPool", &[&x], &[&window[..], &[attribute_ints("pads", &[1; 4])]].concat());
    let mut channels = 64;
    for (stage, blocks) in [3, 4, 6, 3].into_iter().enumerate() {
        let width = 64 << stage;
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = bottleneck(&mut graph, &x, channels, width, stride);
            channels = width * 4;
        }
    }
    x = graph.node("GlobalAveragePool", &[&x], &[]);
    x = graph.node("Flatten", &[&x], &[attribute_int("axis", 1)]);
    x = graph.dense(&x, 2048, 1000);
    graph.finish(&x, &[("image", 1, &["batch", "3", "224", "224"])], &["batch", "1000"])
}

fn conv(graph: &mut Graph, x: &str, (from, to): (i64, i64), kernel: i64, stride: i64) -> String {
    // half of He's variance: residual sums stay finite over 50 layers
    let scale = (3.0 / (from * kernel * kernel) as f32).sqrt();
    let (w, b) = (graph.weights(&[to, from, kernel, kernel], scale), graph.weights(&[to], 0.02));
    let attributes = [
        attribute_ints("kernel_shape", &[kernel, kernel]),
        attribute_ints("strides", &[stride, stride]),
        attribute_ints("pads", &[kernel / 2; 4]),
    ];
    graph.node("Conv", &[x, &w, &b], &attributes)
}

fn bottleneck(graph: &mut Graph, x: &str, channels: i64, width: i64, stride: i64) -> String {
    let mut y = conv(graph, x, (channels, width), 1, 1);
    y = graph.node("Relu", &[&y], &[]);
    y = conv(graph, &y, (width, width), 3, stride);
    y = graph.node("Relu", &[&y], &[]);
    y = conv(graph, &y, (width, width * 4), 1, 1);
    let shortcut = match (stride, channels == width * 4) {
        (1, true) => x.to_owned(),
        _ => conv(graph, x, (channels, width * 4), 1, stride),
    };
    y = graph.node("Add", &[&y, &shortcut], &[]);
    graph.node("Relu", &[&y], &[])
}
