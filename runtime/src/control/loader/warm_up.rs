//! Runs a fresh model with zeros, in batches of every power of two, so that the first request meets warm caches
//! and known costs. Must not know requests or artifacts.

use std::time::Duration;

use bytes::Bytes;
use gannet_models::{
    DType, Dim, ModelSettings, Signature, TensorSpec,
    settings::{BATCH_ROWS_TRIED, Batching},
};

use crate::{
    Tensor, Time,
    backend::BackendError,
    batch::{assemble::Layout, cost::ShapeCosts},
    clock,
    request::{Tensors, Timing},
    servable::instance::Worker,
    tensor::{Shape, elements, size_bytes},
};

/// Runs of each batch size; the first is cold and is not learned from.
const RUNS: usize = 4;

/// Inputs larger than this are not made up.
const INPUT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a size of batch costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) rows: usize,
    /// The least time of a run, in nanoseconds.
    pub(super) least_ns: u64,
    /// Of all inputs together.
    pub(super) input_bytes: usize,
}

/// Warms a worker and learns the costs, as far as the settings' time goes. A model that refuses zeros is left cold:
/// its first request warms it.
pub(super) fn run(
    signature: &Signature,
    settings: &ModelSettings,
    worker: &mut Worker,
    costs: &ShapeCosts,
) -> Vec<Measured> {
    let mut measured: Vec<Measured> = Vec::new();
    if !settings.warm_up.enabled {
        return measured;
    }
    let layout = Layout::new(signature, &settings.padding);
    let deadline = clock::now() + Duration::from_millis(settings.warm_up.ms_max);
    for rows in sizes(signature, settings.batching) {
        // the size before tells what this one will take, so that a slow model is not held up for long
        let expected = |last: &Measured| last.least_ns * RUNS as u64 * (rows / last.rows) as u64;
        let expected_ns = measured.last().map_or(0, expected);
        if clock::now().plus_ns(expected_ns) > deadline {
            break;
        }
        match warm(signature, settings, &layout, worker, rows, costs, deadline) {
            Ok(cost) => measured.push(cost),
            Err(error) => {
                tracing::debug!(%error, rows, "the model refused zeros at warm-up");
                break;
            }
        }
    }
    measured
}

/// Sizes of batches to try: powers of two, and the largest.
fn sizes(signature: &Signature, batching: Batching) -> Vec<usize> {
    let largest = match batching {
        _ if !signature.batched => 1,
        Batching::Off => 1,
        Batching::Inferred => BATCH_ROWS_TRIED,
        Batching::Stated(rows) => rows.max(1),
    };
    let mut sizes: Vec<usize> =
        std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n < largest).collect();
    sizes.push(largest);
    sizes
}

/// Some runs of one size.
fn warm(
    signature: &Signature,
    settings: &ModelSettings,
    layout: &Layout,
    worker: &mut Worker,
    rows: usize,
    costs: &ShapeCosts,
    deadline: Time,
) -> Result<Measured, BackendError> {
    let mut cost = Measured { rows, least_ns: u64::MAX, input_bytes: 0 };
    for run in 0..RUNS {
        let (inputs, timing) = probe(signature, settings, layout, worker, rows)?;
        cost.least_ns = cost.least_ns.min(timing.compute_ns);
        cost.input_bytes = inputs.iter().map(|tensor| tensor.data.len()).sum();
        let late = clock::now() >= deadline;
        // of a slow model the one cold run is all there is
        if run > 0 || late {
            costs.table(&layout.group(&inputs)).record(rows, timing.compute_ns, timing.compute_ns);
        }
        if late {
            break;
        }
    }
    Ok(cost)
}

/// Warms another worker of a model that is measured: its first run, and its largest.
pub(super) fn touch(signature: &Signature, settings: &ModelSettings, worker: &mut Worker, rows_max: usize) {
    let layout = Layout::new(signature, &settings.padding);
    for rows in [1, rows_max] {
        if settings.warm_up.enabled && probe(signature, settings, &layout, worker, rows).is_err() {
            return;
        }
    }
}

/// One run with zeros of `rows` rows; the inputs and the times.
pub(super) fn probe(
    signature: &Signature,
    settings: &ModelSettings,
    layout: &Layout,
    worker: &mut Worker,
    rows: usize,
) -> Result<(Tensors, Timing), BackendError> {
    let zeros = |spec: &TensorSpec| {
        zeros(spec, signature.batched, rows, settings).ok_or_else(|| {
            BackendError::Input(format!("input '{}' of {rows} rows is too large to make up", spec.name))
        })
    };
    let inputs = signature.inputs.iter().map(zeros).collect::<Result<Tensors, _>>()?;
    let (_, timing) = worker.run_alone(layout, &inputs, rows, usize::MAX)?;
    Ok((inputs, timing))
}

/// A tensor of zeros (empty strings) that fits `spec`; variable axes have length 1, or their first bucket.
fn zeros(spec: &TensorSpec, batched: bool, rows: usize, settings: &ModelSettings) -> Option<Tensor> {
    let length = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Dynamic(_) if batched && axis == 0 => rows,
        Dim::Fixed(size) => *size,
        Dim::Dynamic(symbol) => {
            let rule = settings.padding.iter().find(|p| symbol.as_ref() == Some(&p.axis));
            rule.and_then(|p| p.buckets.first().copied()).unwrap_or(1)
        }
    };
    let shape: Shape = spec.shape.iter().enumerate().map(length).collect();
    let bytes = match spec.dtype {
        // an empty string is its length alone
        DType::Bytes => elements(&shape)?.checked_mul(4)?,
        dtype => size_bytes(dtype, &shape)?,
    };
    (bytes <= INPUT_BYTES_MAX).then(|| Tensor { dtype: spec.dtype, shape, data: Bytes::from(vec![0; bytes]) })
}
