//! Whether a value says something of the next one, beside what the mean of both says: measured within blocks, so that
//! a change of the mean is not taken for it. Must not know what the values are.

/// Weight of what was known when a block is over: about 50 blocks count.
const MEMORY: f64 = 0.98;
/// Values before it is believed.
const ROWS_MIN: f64 = 500.0;

/// Correlation of each value with the one before.
#[derive(Debug, Clone, Default)]
pub(super) struct Correlation {
    block: Block,
    rows: f64,
    products: f64,
    squares: f64,
}

#[derive(Debug, Clone, Default)]
struct Block {
    first: f64,
    last: f64,
    n: f64,
    sum: f64,
    squares: f64,
    products: f64,
}

impl Correlation {
    #[inline]
    pub(super) fn push(&mut self, value: f64) {
        let block = &mut self.block;
        if block.n > 0.0 {
            block.products += block.last * value;
        } else {
            block.first = value;
        }
        block.last = value;
        block.n += 1.0;
        block.sum += value;
        block.squares += value * value;
    }

    /// Ends a block.
    pub(super) fn turn(&mut self) {
        let Block { first, last, n, sum, squares, products } = std::mem::take(&mut self.block);
        if n < 2.0 {
            return;
        }
        let mean = sum / n;
        // the mean is the block's own, which makes neighbours look a little opposed
        let bias = (squares - n * mean * mean) / n;
        let products = products - mean * (2.0 * sum - first - last) + (n - 1.0) * mean * mean + bias;
        self.rows = self.rows * MEMORY + n;
        self.products = self.products * MEMORY + products;
        self.squares = self.squares * MEMORY + squares - n * mean * mean;
    }

    pub(super) fn value(&self) -> Option<f64> {
        (self.rows >= ROWS_MIN && self.squares > 1e-9).then(|| self.products / self.squares)
    }
}
