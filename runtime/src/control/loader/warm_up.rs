//! Runs a fresh model with zeros, in batches of every power of two, so that the first request meets warm caches
//! and known costs. Must not know requests or artifacts.

use std::time::Duration;

use bytes::Bytes;
use gannet_models::{DType, Dim, ModelSettings, Signature, TensorSpec};

use crate::{
    Tensor, Time,
    backend::BackendError,
    batch::{assemble::Layout, cost::ShapeCosts},
    clock,
    request::{Tensors, Timing},
    servable::{instance::Worker, rows_max},
    tensor::{Shape, elements, size_bytes},
};

/// Runs of each batch size; the first is cold and is not learned from.
const RUNS: usize = 4;

/// Inputs larger than this are not made up.
const INPUT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Warms every worker and learns the costs. A model that refuses zeros is left cold: its first request warms it.
pub(super) fn run(
    signature: &Signature,
    settings: &ModelSettings,
    workers: &mut [Worker],
    costs: &ShapeCosts,
) -> Result<(), String> {
    let layout = Layout::new(signature, &settings.padding);
    let deadline = clock::now() + Duration::from_millis(settings.warm_up.ms_max);
    let largest = rows_max(signature, settings.batching).max(1);
    let mut sizes: Vec<usize> =
        std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n < largest).collect();
    sizes.push(largest);
    for worker in workers {
        for &rows in &sizes {
            if let Err(error) = warm(signature, settings, &layout, worker, rows, costs, deadline) {
                tracing::debug!(%error, rows, "the model refused zeros at warm-up");
                return Ok(());
            }
            if clock::now() >= deadline {
                break;
            }
        }
    }
    Ok(())
}

fn warm(
    signature: &Signature,
    settings: &ModelSettings,
    layout: &Layout,
    worker: &mut Worker,
    rows: usize,
    costs: &ShapeCosts,
    deadline: Time,
) -> Result<(), BackendError> {
    for run in 0..RUNS {
        let (inputs, timing) = probe(signature, settings, layout, worker, rows)?;
        let late = clock::now() >= deadline;
        // of a slow model the one cold run is all there is
        if run > 0 || late {
            costs.table(&layout.group(&inputs)).record(rows, timing.compute_ns);
        }
        if late {
            break;
        }
    }
    Ok(())
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
