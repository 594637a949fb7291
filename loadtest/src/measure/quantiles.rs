//! Latency histograms and the percentiles read from them.
//!
//! Must not know whose latencies they are.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency told apart; longer ones count as this.
const LATENCY_NS_MAX: u64 = 600 * 1_000_000_000;
/// Finest resolution: a clock read costs about as much.
const LATENCY_NS_MIN: u64 = 64;

/// Latencies in nanoseconds.
#[derive(Debug, Clone)]
pub struct LatencyHistogram {
    inner: Histogram<u64>,
}

/// Percentiles in microseconds, the unit of every report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Values counted.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Smallest.
    pub min_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 95th percentile.
    pub p95_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Largest.
    pub max_us: f64,
}

impl LatencyHistogram {
    /// An empty histogram that keeps `digits` significant digits (1 to 5).
    pub fn new(digits: u8) -> Self {
        let inner = Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, digits)
            .expect("constant bounds with 1 to 5 digits are valid");
        Self { inner }
    }

    /// Counts one latency.
    pub fn record(&mut self, latency_ns: u64) {
        self.inner.saturating_record(latency_ns);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.inner.reset();
    }

    /// Latencies counted.
    pub fn count(&self) -> u64 {
        self.inner.len()
    }

    /// The latency at a quantile from 0 to 1; 0 when empty.
    pub fn at_us(&self, quantile: f64) -> f64 {
        self.inner.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Largest latency.
    pub fn max_us(&self) -> f64 {
        self.inner.max() as f64 / 1000.0
    }

    /// Adds all of another's latencies.
    pub fn add(&mut self, other: &Self) {
        self.inner.add(&other.inner).expect("both histograms have the same constant bounds");
    }

    /// The summary of a report.
    pub fn percentiles(&self) -> Percentiles {
        if self.count() == 0 {
            return Percentiles::default();
        }
        Percentiles {
            count: self.count(),
            mean_us: self.inner.mean() / 1000.0,
            min_us: self.inner.min() as f64 / 1000.0,
            p50_us: self.at_us(0.5),
            p90_us: self.at_us(0.9),
            p95_us: self.at_us(0.95),
            p99_us: self.at_us(0.99),
            p999_us: self.at_us(0.999),
            max_us: self.max_us(),
        }
    }

    /// Points (quantile, latency in us) for a percentile plot: ten a decade towards 1, as far as
    /// the count supports.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        if self.count() == 0 {
            return Vec::new();
        }
        let decades = (self.count() as f64).log10();
        let points = (decades * 10.0).ceil() as u32;
        let mut curve: Vec<(f64, f64)> = (0..=points)
            .map(|i| 1.0 - 10f64.powf(-f64::from(i) / 10.0))
            .map(|quantile| (quantile, self.at_us(quantile)))
            .collect();
        curve.push((1.0 - 10f64.powf(-decades - 0.1), self.max_us()));
        curve
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_known_latencies() {
        let mut histogram = LatencyHistogram::new(3);
        (1..=1000).for_each(|us| histogram.record(us * 1000));
        let percentiles = histogram.percentiles();
        for (got, expected) in [
            (percentiles.p50_us, 500.0),
            (percentiles.p99_us, 990.0),
            (percentiles.max_us, 1000.0),
            (percentiles.mean_us, 500.5),
        ] {
            assert!((got / expected - 1.0).abs() < 0.002, "{got} {expected}");
        }
        assert_eq!(LatencyHistogram::new(3).percentiles(), Percentiles::default());
        assert!(histogram.curve().is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
    }
}
