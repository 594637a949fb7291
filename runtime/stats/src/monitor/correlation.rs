//! Whether a value says something of the next one, beside what the mean of both says: measured within batches, so that
//! a change of the mean is not taken for it. Must not know what the values are.

use std::sync::LazyLock;

use crate::{binning::COARSE_BINS, detector::Real as _};

/// Weight of what was known when a batch is over: about 50 of those that are listened to count.
const MEMORY: f32 = 0.98;
/// Values before it is believed.
const ROWS_MIN: f32 = 500.0;
/// Values from which on only one batch in four is listened to.
const ROWS_KNOWN: f32 = 1000.0;
const DEAF: u8 = 3;
/// Steps of a score of one: whole numbers add up without waiting for each other.
const STEPS: f32 = 1024.0;

/// By number of bins, the normal score of each in steps.
static SCORES: LazyLock<[[i32; COARSE_BINS]; COARSE_BINS + 1]> = LazyLock::new(|| {
    let of = |bins| f32::normal_scores(bins).map(|score| (score * STEPS).round() as i32);
    std::array::from_fn(of)
});

/// Correlation of each value with the one before.
#[derive(Debug, Clone, Default)]
pub(super) struct Correlation {
    rows: f32,
    products: f32,
    squares: f32,
    /// Batches until the next one that is listened to.
    deaf: u8,
    batch: Neighbours,
}

/// What the scores of a batch add up to.
#[derive(Debug, Clone, Copy, Default)]
struct Neighbours {
    rows: i32,
    first: i32,
    last: i32,
    sum: i32,
    squares: i32,
    products: i32,
}

impl Correlation {
    /// Whether it wants this batch.
    pub(super) fn is_listening(&self) -> bool {
        self.deaf == 0
    }

    /// Takes values that follow each other, each by its bin of `bins`.
    #[inline]
    pub(super) fn take(&mut self, values: impl Iterator<Item = u8>, bins: usize) {
        let scores = &SCORES[bins.min(COARSE_BINS)];
        let mut batch = self.batch;
        for bin in values {
            let score = scores[usize::from(bin) % COARSE_BINS];
            if batch.rows == 0 {
                batch.first = score;
            }
            batch.rows += 1;
            batch.sum += score;
            batch.squares += score * score;
            // before the first one there is none
            batch.products += score * batch.last;
            batch.last = score;
        }
        self.batch = batch;
    }

    /// The batch is over.
    pub(super) fn end_batch(&mut self) {
        if self.deaf > 0 {
            self.deaf -= 1;
            return;
        }
        // how values follow each other changes slowly
        self.deaf = if self.rows < ROWS_KNOWN { 0 } else { DEAF };
        let Neighbours { rows, first, last, sum, squares, products } = std::mem::take(&mut self.batch);
        let [n, first, last] = [rows, first, last].map(|x| x as f32);
        let [sum, squares, products] = [sum, squares, products].map(|x| x as f32);
        let mean = sum / n;
        // the mean is the batch's own, which makes neighbours look a little opposed
        let bias = (squares - n * mean * mean) / n;
        let products = products - mean * (2.0 * sum - first - last) + (n - 1.0) * mean * mean + bias;
        self.rows = self.rows * MEMORY + n;
        self.products = self.products * MEMORY + products;
        self.squares = self.squares * MEMORY + squares - n * mean * mean;
    }

    pub(super) fn value(&self) -> Option<f64> {
        let is_known = self.rows >= ROWS_MIN && self.squares > STEPS;
        is_known.then(|| f64::from(self.products / self.squares))
    }
}
