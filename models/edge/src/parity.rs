//! What quantisation costs: float against int8 on samples, by layer and by row. Must not change either.

use serde::{Deserialize, Serialize};

use crate::{
    data::{Samples, stored},
    error::Result,
    float::FloatExecutor,
    graph::Graph,
    integer::{IntegerExecutor, Values},
    lite::Model,
};

/// Rows that are named as the worst.
const WORST_ROWS: usize = 5;

/// One layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerParity {
    /// The node's name in the source.
    pub node: String,
    /// The operator.
    pub operator: String,
    /// Signal to quantisation noise in decibels, of everything up to here.
    pub sqnr_db: f64,
    /// The scale of its output.
    pub scale: f32,
    /// The zero point of its output.
    pub zero_point: i32,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowParity {
    /// Which row.
    pub row: usize,
    /// Its noise in decibels.
    pub sqnr_db: f64,
    /// The largest output of the float model.
    pub float_class: usize,
    /// The largest output of the int8 model.
    pub int8_class: usize,
}

/// The comparison.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Parity {
    /// Rows that were compared.
    pub rows: usize,
    /// Of the first output.
    pub sqnr_db: f64,
    /// The share of rows whose largest output is the same.
    pub top1_agreement: f64,
    /// The largest difference of any output.
    pub largest_difference: f32,
    /// By layer, in order.
    pub layers: Vec<LayerParity>,
    /// The rows with the most noise, worst first.
    pub worst: Vec<RowParity>,
    /// Pairs of float and int8 outputs, a few of each row, for the plot.
    pub points: Vec<(f32, f32)>,
}

/// Decibels of a signal over a noise.
#[must_use]
pub fn decibels(signal: f64, noise: f64) -> f64 {
    // what is exact is as good as the format can say
    (10.0 * (signal.max(1e-30) / noise.max(1e-30)).log10()).clamp(-99.0, 150.0)
}

fn largest<T: PartialOrd + Copy>(values: &[T]) -> usize {
    let better = |best: usize, place: usize| if values[place] > values[best] { place } else { best };
    (0..values.len()).fold(0, better)
}

/// Pairs of outputs that are kept, at most.
const POINTS_MAX: usize = 1500;

/// Compares a graph with the model that was made of it.
pub(crate) fn compare(
    graph: &Graph,
    model: &Model,
    codes: &[Option<usize>],
    samples: &[Samples],
    rows_max: usize,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Parity> {
    let rows = samples.iter().map(Samples::len).min().unwrap_or(0).min(rows_max);
    let (float, integer) = (FloatExecutor::new(graph), IntegerExecutor::new(model)?);
    let mut sums = vec![(0.0f64, 0.0f64); graph.nodes.len()];
    let (mut parity, mut all_rows, mut agreed) = (Parity { rows, ..Parity::default() }, Vec::new(), 0usize);
    let output = graph.outputs[0].tensor;
    for row in 0..rows {
        let inputs: Vec<Vec<f32>> =
            graph.inputs.iter().zip(samples).map(|(port, samples)| stored(port, samples.row(row))).collect();
        let expected = float.run(&inputs.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let got = integer.run_all(&crate::compile::codes_of(graph, model, samples, row))?;
        let value = |tensor: usize| {
            let id = codes[tensor]?;
            let (scale, zero) = model.tensors[id].scale();
            let Some(Values::Int8(values)) = &got[id] else { return None };
            #[expect(clippy::cast_precision_loss, reason = "nine bits")]
            let real = |code: &i8| (i32::from(*code) - zero) as f32 * scale;
            Some(values.iter().map(real).collect::<Vec<f32>>())
        };
        for (node, sums) in graph.nodes.iter().zip(&mut sums) {
            if let Some(values) = value(node.output) {
                add(sums, &expected[node.output], &values);
            }
        }
        let (real, codes_of_row) = (&expected[output], value(output).unwrap_or_default());
        let mut of_row = (0.0, 0.0);
        add(&mut of_row, real, &codes_of_row);
        let step = (rows * real.len() / POINTS_MAX).max(1);
        parity
            .points
            .extend(real.iter().copied().zip(codes_of_row.iter().copied()).skip(row % step).step_by(step));
        for (a, b) in real.iter().zip(&codes_of_row) {
            parity.largest_difference = parity.largest_difference.max((a - b).abs());
        }
        let (float_class, int8_class) = (largest(real), largest(&codes_of_row));
        agreed += usize::from(float_class == int8_class);
        all_rows.push(RowParity { row, sqnr_db: decibels(of_row.0, of_row.1), float_class, int8_class });
        progress(row + 1, rows)?;
    }
    for (node, (signal, noise)) in graph.nodes.iter().zip(&sums) {
        let Some(id) = codes[node.output] else { continue };
        let (scale, zero_point) = model.tensors[id].scale();
        let (name, operator) = (node.name.clone(), node.op.name());
        parity.layers.push(LayerParity {
            node: name,
            operator,
            sqnr_db: decibels(*signal, *noise),
            scale,
            zero_point,
        });
        if node.output == output {
            parity.sqnr_db = decibels(*signal, *noise);
        }
    }
    parity.worst = worst(all_rows);
    #[expect(clippy::cast_precision_loss, reason = "counts of rows")]
    let agreement = agreed as f64 / rows.max(1) as f64;
    parity.top1_agreement = agreement;
    Ok(parity)
}

/// Rows of another class first, then those with the most noise.
fn worst(mut rows: Vec<RowParity>) -> Vec<RowParity> {
    rows.sort_by(|a, b| {
        let same = |row: &RowParity| row.float_class == row.int8_class;
        same(a).cmp(&same(b)).then(a.sqnr_db.total_cmp(&b.sqnr_db))
    });
    rows.truncate(WORST_ROWS);
    rows
}

fn add(sums: &mut (f64, f64), expected: &[f32], got: &[f32]) {
    for (a, b) in expected.iter().zip(got) {
        sums.0 += f64::from(*a).powi(2);
        sums.1 += f64::from(a - b).powi(2);
    }
}

impl Parity {
    /// The layers after which the noise grew most, worst first.
    #[must_use]
    pub fn worst_layers(&self, count: usize) -> Vec<&LayerParity> {
        let mut layers: Vec<&LayerParity> = self.layers.iter().collect();
        layers.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
        layers.truncate(count);
        layers
    }
}
