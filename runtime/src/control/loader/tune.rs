//! What nobody configured is chosen by what was measured at load: how many rows run together, and how many instances
//! there are. Pure. Must not know how it was measured.

use gannet_models::{
    Signature,
    settings::{BATCH_ROWS_INFERRED, Batching},
};

use super::warm_up::Measured;
use crate::servable::INLINE_NS_MAX;

/// A price per row within this of the best is as good as the best: measurements differ by more.
const NEAR_PERCENT: u64 = 102;

/// Rows that run together are gathered first, at 10 GB a second or so; a row on its own is run where it lies.
const GATHERED_BYTES_PER_NS: u64 = 10;

/// Models up to this size may have an instance for each event loop.
const SMALL_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Rows that one run takes at most: stated, or the smallest size whose price per row is near the best. More rows than
/// that only make everybody in the batch wait longer.
#[must_use]
pub(super) fn rows_max(signature: &Signature, batching: Batching, measured: &[Measured]) -> usize {
    match batching {
        _ if !signature.batched => 1,
        Batching::Off => 1,
        Batching::Stated(rows) => rows,
        Batching::Inferred => {
            let Some(best) = measured.iter().map(price).min() else { return BATCH_ROWS_INFERRED };
            let near = |size: &&Measured| price(size) * 100 <= best * NEAR_PERCENT;
            measured.iter().find(near).map_or(BATCH_ROWS_INFERRED, |size| size.rows)
        }
    }
}

/// Of a row, in 1024ths of a nanosecond.
fn price(size: &Measured) -> u64 {
    let gather_ns = if size.rows > 1 { size.input_bytes as u64 / GATHERED_BYTES_PER_NS } else { 0 };
    size.least_ns.saturating_add(gather_ns).saturating_mul(1024) / size.rows.max(1) as u64
}

/// Instances: one for each event loop where a full batch is so cheap that event loops run it themselves, so that none
/// waits for another; else one.
#[must_use]
pub(super) fn instances(
    rows_max: usize,
    measured: &[Measured],
    event_loops: usize,
    model_bytes: u64,
) -> usize {
    let full = measured.iter().find(|size| size.rows == rows_max);
    let cheap = full.is_some_and(|size| size.least_ns <= INLINE_NS_MAX);
    if cheap && model_bytes <= SMALL_BYTES_MAX { event_loops.max(1) } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(measured: &[(usize, u64)], row_bytes: usize) -> Vec<Measured> {
        let cost =
            |&(rows, least_ns): &(usize, u64)| Measured { rows, least_ns, input_bytes: rows * row_bytes };
        measured.iter().map(cost).collect()
    }

    #[test]
    fn the_smallest_size_that_is_as_good_as_the_best() {
        let check = |measured: &[(usize, u64)], row_bytes: usize, rows: usize, count: usize| {
            let measured = &costs(measured, row_bytes)[..];
            let signature = Signature { inputs: vec![], outputs: vec![], batched: true };
            let chosen = rows_max(&signature, Batching::Inferred, measured);
            assert_eq!(chosen, rows, "{measured:?}");
            assert_eq!(instances(chosen, measured, 4, 1 << 20), count, "{measured:?}");
        };
        // a tiny net: the more the better
        check(&[(1, 2_400), (64, 4_000), (256, 9_000)], 16, 256, 4);
        // trees that get dearer in large batches
        check(&[(1, 2_700), (32, 28_000), (64, 48_000), (128, 112_000)], 120, 64, 4);
        // a large net to which batches bring nothing
        check(&[(1, 80_000_000), (2, 159_000_000), (4, 317_000_000)], 602_112, 1, 1);
        // one to which they bring a little
        check(&[(1, 16_000_000), (2, 30_000_000), (4, 57_000_000)], 1_024, 4, 1);
        // next to nothing on rows of 600 KB: gathering them costs more than it saves
        check(&[(1, 2_500), (2, 2_700), (4, 3_000)], 602_112, 1, 4);
        check(&[], 16, 64, 1);
        let large = instances(256, &costs(&[(256, 9_000)], 16), 4, 1 << 30);
        assert_eq!(large, 1, "memory is not multiplied without being asked");
    }

    #[test]
    fn what_is_stated_holds() {
        let signature = Signature { inputs: vec![], outputs: vec![], batched: true };
        assert_eq!(rows_max(&signature, Batching::Stated(16), &costs(&[(1, 10), (16, 500)], 4)), 16);
        assert_eq!(rows_max(&signature, Batching::Off, &costs(&[(1, 10)], 4)), 1);
        let unbatched = Signature { batched: false, ..signature };
        assert_eq!(rows_max(&unbatched, Batching::Inferred, &costs(&[(1, 10)], 4)), 1);
    }
}
