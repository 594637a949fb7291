//! What the computed values of a graph are on samples: their range, their spread, their means. Must not choose scales.

use crate::{
    data::{Samples, stored},
    error::{EdgeError, Result},
    float::FloatExecutor,
    graph::Graph,
};

/// Values that are kept of each tensor, at most, to weigh ranges with.
const KEPT_MAX: usize = 1 << 15;
/// Samples that are used, at most: more do not move a range.
pub const SAMPLES_MAX: usize = 1000;

/// What was seen of one tensor.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// The least value.
    pub min: f32,
    /// The largest value.
    pub max: f32,
    /// Values taken evenly over the samples, sorted.
    pub values: Vec<f32>,
    /// The mean of each element.
    pub mean: Vec<f32>,
}

/// What was seen, by tensor; nothing for constants.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// By tensor.
    pub observed: Vec<Option<Observed>>,
    /// How many samples there were.
    pub samples: usize,
}

/// Computes a graph on samples, one list of rows for each input; `progress` returns whether to go on.
///
/// # Errors
/// [`EdgeError::Data`] when the samples do not fit the inputs.
pub fn calibrate(
    graph: &Graph,
    samples: &[Samples],
    mut progress: impl FnMut(usize, usize) -> bool,
) -> Result<Calibration> {
    let count = check(graph, samples)?.min(SAMPLES_MAX);
    let executor = FloatExecutor::new(graph);
    let mut observed: Vec<Option<Observed>> = vec![None; graph.tensors.len()];
    let mut sums: Vec<Vec<f64>> = vec![Vec::new(); graph.tensors.len()];
    for index in 0..count {
        let rows: Vec<Vec<f32>> = graph
            .inputs
            .iter()
            .zip(samples)
            .map(|(port, samples)| stored(port, samples.row(index)))
            .collect();
        let values = executor.run(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        for (id, values) in values.iter().enumerate().filter(|(_, values)| !values.is_empty()) {
            let seen = observed[id].get_or_insert_with(|| Observed {
                min: f32::MAX,
                max: f32::MIN,
                ..Observed::default()
            });
            sums[id].resize(values.len(), 0.0);
            for (sum, value) in sums[id].iter_mut().zip(values) {
                *sum += f64::from(*value);
                seen.min = seen.min.min(*value);
                seen.max = seen.max.max(*value);
            }
            let each = KEPT_MAX.div_ceil(count);
            let step = (values.len() / each).max(1);
            // another start for each sample, so that no place is always left out
            seen.values.extend(values.iter().skip(index % step).step_by(step).take(each));
        }
        if !progress(index + 1, count) {
            return Err(EdgeError::Cancelled("calibrating".into()));
        }
    }
    for (seen, sums) in observed.iter_mut().zip(sums) {
        let Some(seen) = seen else { continue };
        seen.values.sort_by(f32::total_cmp);
        #[expect(clippy::cast_possible_truncation, reason = "means of floats")]
        #[expect(clippy::cast_precision_loss, reason = "few samples")]
        let means = sums.iter().map(|sum| (sum / count as f64) as f32).collect();
        seen.mean = means;
    }
    Ok(Calibration { observed, samples: count })
}

fn check(graph: &Graph, samples: &[Samples]) -> Result<usize> {
    let bad = |fault: String| EdgeError::Data {
        what: "samples".into(),
        fault,
        way_round: "give as many rows for each input of the model, in its order".into(),
    };
    if samples.len() != graph.inputs.len() {
        return Err(bad(format!(
            "expected samples for {} inputs, got {}",
            graph.inputs.len(),
            samples.len()
        )));
    }
    for (port, samples) in graph.inputs.iter().zip(samples) {
        let row: usize = graph.tensors[port.tensor].len();
        if samples.row != row {
            return Err(bad(format!(
                "input '{}' takes {row} values, got rows of {}",
                port.name, samples.row
            )));
        }
    }
    let count = samples.iter().map(Samples::len).min().unwrap_or(0);
    if samples.iter().any(|samples| samples.len() != count) || count == 0 {
        return Err(bad("expected as many rows for each input".into()));
    }
    Ok(count)
}
