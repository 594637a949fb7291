//! Whether a value says something of the next one, beside what the mean of both says: measured within blocks, so that
//! a change of the mean is not taken for it. Must not know what the values are.

use std::sync::LazyLock;

use crate::{binning::COARSE_BINS, special::normal_quantile};

/// Weight of what was known when a block is over: about 50 blocks count.
const MEMORY: f64 = 0.98;
/// Values before it is believed.
const ROWS_MIN: f64 = 500.0;
/// Steps of a score of one: whole numbers add up without waiting for each other.
const STEPS: f64 = 1024.0;

/// By number of bins, the normal score of each.
static SCORES: LazyLock<[[i32; COARSE_BINS]; COARSE_BINS + 1]> = LazyLock::new(|| {
    let mut scores = [[0; COARSE_BINS]; COARSE_BINS + 1];
    for (bins, scores) in scores.iter_mut().enumerate() {
        for (bin, score) in scores.iter_mut().take(bins).enumerate() {
            *score = (normal_quantile((bin as f64 + 0.5) / bins as f64) * STEPS).round() as i32;
        }
    }
    scores
});

/// Correlation of each value with the one before.
#[derive(Debug, Clone, Default)]
pub(super) struct Correlation {
    rows: f64,
    products: f64,
    squares: f64,
}

impl Correlation {
    /// Takes a block of values that follow each other, each by its bin of `bins`.
    pub(super) fn take(&mut self, block: &[u8], bins: usize) {
        let ([first, ..], [.., last]) = (block, block) else { return };
        let scores = &SCORES[bins.min(COARSE_BINS)];
        let score = |bin: &u8| scores[usize::from(*bin) % COARSE_BINS];
        let (mut sum, mut squares, mut products, mut before) = (0, 0, 0, 0);
        for bin in block {
            let score = score(bin);
            sum += score;
            squares += score * score;
            products += score * before;
            before = score;
        }
        let n = block.len() as f64;
        let (first, last) = (f64::from(score(first)), f64::from(score(last)));
        let (sum, squares, products) = (f64::from(sum), f64::from(squares), f64::from(products));
        let mean = sum / n;
        // the mean is the block's own, which makes neighbours look a little opposed
        let bias = (squares - n * mean * mean) / n;
        let products = products - mean * (2.0 * sum - first - last) + (n - 1.0) * mean * mean + bias;
        self.rows = self.rows * MEMORY + n;
        self.products = self.products * MEMORY + products;
        self.squares = self.squares * MEMORY + squares - n * mean * mean;
    }

    pub(super) fn value(&self) -> Option<f64> {
        (self.rows >= ROWS_MIN && self.squares > 1.0).then(|| self.products / self.squares)
    }
}
