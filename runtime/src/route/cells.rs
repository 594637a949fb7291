//! A set of hashed keys in constant memory that any thread may add to: which keys were seen, and about how many.
//! Two keys that share a cell count as one. Must not know whose keys these are.

use std::sync::atomic::{AtomicU64, Ordering};

/// Cells of a set; 32 KiB.
pub(super) const CELLS: usize = 1 << 18;

/// A set of hashes.
#[derive(Debug)]
pub(super) struct Cells {
    words: Box<[AtomicU64]>,
    taken: AtomicU64,
}

impl Default for Cells {
    fn default() -> Self {
        Self { words: (0..CELLS / 64).map(|_| AtomicU64::new(0)).collect(), taken: AtomicU64::new(0) }
    }
}

impl Cells {
    /// Adds a key; whether its cell was free. The low bits choose the cell: the high ones chose the arm.
    pub(super) fn add(&self, hash: u64) -> bool {
        let cell = hash as usize % CELLS;
        let (word, bit) = (&self.words[cell / 64], 1 << (cell % 64));
        // most keys come again: a look is cheaper than a write
        let is_new =
            word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0;
        if is_new {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        is_new
    }

    /// Cells that are taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// About how many keys were added: linear counting (Whang, Vander-Zanden and Taylor 1990), which allows for keys
    /// that share a cell.
    pub(super) fn estimate(&self) -> u64 {
        let free = (CELLS as u64).saturating_sub(self.taken()).max(1) as f64;
        (CELLS as f64 * (CELLS as f64 / free).ln()).round() as u64
    }

    /// Empties it. A key that is added meanwhile may be forgotten.
    pub(super) fn clear(&self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.taken.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use gannet_stats::random::Random;

    use super::*;

    #[test]
    fn keys_are_seen_once_and_counted() {
        let (cells, mut random) = (Cells::default(), Random::new(1));
        let keys: Vec<u64> = (0..100_000).map(|_| random.bits()).collect();
        assert!(cells.add(keys[0]) && !cells.add(keys[0]));
        for (count, key) in (1..).zip(&keys) {
            cells.add(*key);
            if [1, 200, 10_000, 100_000].contains(&count) {
                let (off, estimate) = (cells.estimate().abs_diff(count), cells.estimate());
                // the standard error is below 0.1 % at this load
                assert!(off * 200 <= count, "{estimate} of {count}");
            }
        }
        cells.clear();
        assert_eq!((cells.taken(), cells.estimate()), (0, 0));
    }
}
