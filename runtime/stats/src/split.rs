//! Which version a key belongs to: the same key always to the same one, and raising the candidate's weight only adds
//! keys to it. Must not know what a key is.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Weights and buckets count hundredths of a percent.
pub const BASIS_POINTS: u32 = 10_000;

/// A split of all keys into buckets. Another salt is an independent split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    seed: u64,
}

impl Split {
    /// The split named `salt`; use one of its own for each experiment.
    #[must_use]
    pub fn new(salt: &str) -> Self {
        Self { seed: xxh3_64(salt.as_bytes()) }
    }

    /// The hash of a key.
    #[must_use]
    pub fn hash(self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }

    /// The bucket of a key, 0 to 9999.
    #[must_use]
    pub fn bucket(self, key: &[u8]) -> u32 {
        bucket_of(self.hash(key))
    }

    /// Whether a key belongs to the candidate while that has `weight_bp` basis points.
    #[must_use]
    pub fn is_candidate(self, key: &[u8], weight_bp: u32) -> bool {
        self.bucket(key) < weight_bp
    }
}

/// The bucket of a key with this hash, 0 to 9999: its high bits decide.
#[must_use]
pub fn bucket_of(hash: u64) -> u32 {
    ((u128::from(hash) * u128::from(BASIS_POINTS)) >> 64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_weight_only_adds_keys() {
        let split = Split::new("a");
        for i in 0..2000u32 {
            let key = i.to_le_bytes();
            assert!(!split.is_candidate(&key, 0) && split.is_candidate(&key, BASIS_POINTS));
            let ins = [100, 500, 2500, 5000].map(|weight| split.is_candidate(&key, weight));
            assert!(ins.is_sorted(), "{ins:?}");
        }
    }
}
