//! Latencies in buckets that any thread may add to, fine enough for quantiles. Must not know of what.

use std::sync::atomic::{AtomicU64, Ordering};

use gannet_stats::quantile::rank_bounds;

/// Buckets of each power of two: a bucket is a sixteenth of its beginning wide.
const PARTS: u32 = 16;
/// Up to 2^40 ns, 18 minutes.
const BUCKETS: usize = (37 * PARTS) as usize;

/// Counted latencies.
#[derive(Debug)]
pub struct Latencies {
    buckets: Box<[AtomicU64]>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }
}

fn bucket(ns: u64) -> usize {
    let ns = ns.max(1);
    let power = ns.ilog2();
    // below 16 ns every value has a bucket of its own
    if power < 4 {
        return ns as usize;
    }
    let part = (ns >> (power - 4)) as u32 - PARTS;
    (((power - 3) * PARTS + part) as usize).min(BUCKETS - 1)
}

/// The largest latency of a bucket, in microseconds.
fn upper_us(bucket: usize) -> f64 {
    let (power, part) = (bucket as u32 / PARTS, bucket as u32 % PARTS);
    if power == 0 {
        return f64::from(part) / 1000.0;
    }
    (((u64::from(PARTS + part) + 1) << (power - 1)) - 1) as f64 / 1000.0
}

impl Latencies {
    pub(super) fn record(&self, ns: u64) {
        self.buckets[bucket(ns)].fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> Vec<u64> {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect()
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The upper end of the bucket that the quantile lies in; `None` before the first latency.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> Option<f64> {
        let counts = self.counts();
        let wanted = (counts.iter().sum::<u64>() as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        let place = counts.iter().position(|count| {
            below += count;
            below >= wanted
        });
        place.map(upper_us)
    }

    /// Bounds that hold at any time with probability 1 - `alpha` (Howard and Ramdas 2022), in microseconds; a side
    /// is `None` while there are too few latencies for it.
    #[must_use]
    pub fn bounds_us(&self, share: f64, alpha: f64) -> (Option<f64>, Option<f64>) {
        let counts = self.counts();
        let edges: Vec<f64> = (0..BUCKETS - 1).map(upper_us).collect();
        let bounds = rank_bounds(counts.iter().sum(), share, alpha);
        bounds.map_or((None, None), |bounds| bounds.of_bins(&edges, &counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_lies_in_its_bucket() {
        for power in 0..40 {
            for ns in [1u64 << power, (1 << power) + (1 << power) / 3, (2 << power) - 1] {
                let at = bucket(ns);
                let us = ns as f64 / 1000.0;
                assert!(upper_us(at) >= us && upper_us(at) <= us * 1.07 + 0.001, "{ns} ns: {}", upper_us(at));
                assert!(at == 0 || upper_us(at - 1) < us, "{ns} ns");
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_and_their_bounds() {
        let latencies = Latencies::default();
        assert_eq!(latencies.quantile_us(0.5), None);
        (1..=10_000).for_each(|us| latencies.record(us * 1000));
        let near = |got: Option<f64>, us: f64| {
            assert!(got.is_some_and(|got| (got / us - 1.0).abs() < 0.07), "{got:?}")
        };
        near(latencies.quantile_us(0.5), 5000.0);
        near(latencies.quantile_us(0.99), 9900.0);
        let (lower, upper) = latencies.bounds_us(0.5, 0.05);
        assert!(lower.is_some_and(|lower| lower < 5000.0 && lower > 4400.0), "{lower:?}");
        assert!(upper.is_some_and(|upper| upper > 5000.0 && upper < 5700.0), "{upper:?}");
    }
}
