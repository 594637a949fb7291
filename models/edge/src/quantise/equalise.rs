//! Cross-layer equalisation (Nagel et al., 2019): between two products with nothing but a rectifier, a channel may be
//! made smaller before and larger after, so that one scale fits all channels of a layer. Must not know scales.

use crate::graph::{Activation, Data, Graph, Op};

/// A channel is never scaled by more than this, or by less than its inverse.
const FACTOR_MAX: f32 = 16.0;

/// Equalises neighbouring fully connected layers, which have one scale for a whole layer; how many pairs there were.
pub fn equalise(graph: &mut Graph) -> usize {
    let mut pairs = 0;
    for second in 0..graph.nodes.len() {
        let Some(first) = pair(graph, second) else { continue };
        let (before, after) = (graph.nodes[first].inputs[1], graph.nodes[second].inputs[1]);
        let bias = graph.nodes[first].inputs[2];
        let channels = graph.tensors[bias].len();
        let (Some(rows), Some(columns)) = (graph.tensors[before].floats(), graph.tensors[after].floats())
        else {
            continue;
        };
        let inner = rows.len() / channels;
        let top =
            |values: &mut dyn Iterator<Item = f32>| values.fold(0.0f32, |top, value| top.max(value.abs()));
        let factors: Vec<f32> = (0..channels)
            .map(|channel| {
                let row = top(&mut rows[channel * inner..(channel + 1) * inner].iter().copied());
                let column = top(&mut columns.iter().skip(channel).step_by(channels).copied());
                if row == 0.0 || column == 0.0 { 1.0 } else { (row / column).sqrt() }
            })
            .collect();
        // the layer as a whole keeps its size
        #[expect(clippy::cast_precision_loss, reason = "counts of channels")]
        let mean = (factors.iter().map(|factor| factor.ln()).sum::<f32>() / channels as f32).exp();
        let factors: Vec<f32> =
            factors.iter().map(|factor| (factor / mean).clamp(1.0 / FACTOR_MAX, FACTOR_MAX)).collect();
        scale(graph, before, |place| 1.0 / factors[place / inner]);
        scale(graph, bias, |place| 1.0 / factors[place]);
        scale(graph, after, |place| factors[place % channels]);
        pairs += 1;
    }
    pairs
}

fn scale(graph: &mut Graph, tensor: usize, by: impl Fn(usize) -> f32) {
    if let Data::Float(values) = &mut graph.tensors[tensor].data {
        values.iter_mut().enumerate().for_each(|(place, value)| *value *= by(place));
    }
}

/// The product right before this one, if both may be equalised.
fn pair(graph: &Graph, second: usize) -> Option<usize> {
    let dense = |index: usize| matches!(graph.nodes[index].op, Op::FullyConnected(_));
    let input = graph.nodes[second].inputs.first().copied()?;
    let first = graph.maker(input).filter(|first| dense(*first) && dense(second))?;
    let linear = matches!(graph.nodes[first].op.activation(), Activation::None | Activation::Relu);
    let own = [first, second].iter().all(|index| {
        let node = &graph.nodes[*index];
        node.inputs[1..].iter().all(|id| graph.readers(*id).len() == 1 && graph.tensors[*id].fixed.is_none())
    });
    let whole = graph.tensors[graph.nodes[second].inputs[1]].shape.get(1)
        == Some(&graph.tensors[graph.nodes[first].inputs[2]].len());
    (linear && own && whole && graph.has_one_reader(input) && graph.tensors[input].fixed.is_none())
        .then_some(first)
}
