//! Where the inputs of devices fall, in the bins and counts that a drift monitor takes, beside where those of the
//! calibration fell. A device counts codes, which mean the same wherever the bundle runs. Must not know devices.

use std::collections::BTreeMap;

use gannet_edge::{
    compile::CODE_BINS,
    manifest::{Manifest, Port},
};
use gannet_stats::{
    binning::{BinCounts, NumericBins},
    moments::Moments,
    monitor::{Bins, Reference},
    score::{PsiThreshold, Scores, scores},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Values of one report that count: a device that sees more is no more than another one.
const ROWS_MAX: u64 = 1000;
/// The index of devices' inputs that is tolerated: a calibration is a hundred samples, and no two devices see the same.
const TOLERATED: f64 = 0.1;
/// Share of inputs at that index that are over the threshold.
const ALPHA: f64 = 0.001;
/// Codes of a bin.
const CODES: usize = 256 / CODE_BINS;

/// By input: where the codes of the calibration fell.
pub(crate) type References = BTreeMap<String, Reference>;

/// What devices saw of one input, beside its reference: what a drift monitor takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Where the calibration's fell.
    pub reference: Reference,
    /// Where the devices' fell.
    pub counts: BinCounts,
    /// Reports that were taken.
    pub reports: u64,
}

/// The bins of an input, between the values of its codes.
fn bins(port: &Port) -> Option<NumericBins> {
    #[expect(clippy::cast_precision_loss, reason = "codes are small")]
    let value = |code: i64| (code - i64::from(port.zero_point)) as f64 * port.scale;
    let edges: Vec<f64> = (1..CODE_BINS).map(|bin| value((bin * CODES) as i64 - 129)).collect();
    // the only way in from outside is what is written, and it is checked
    serde_json::from_value(json!({ "edges": edges, "least": value(-128), "greatest": value(127) })).ok()
}

/// Counts of codes as counts of values.
fn counted(port_bins: &NumericBins, counts: &[u64]) -> BinCounts {
    let mut all = BinCounts::new(port_bins.len());
    let edges: Vec<f64> = port_bins.edges().into_iter().map(f64::from).collect();
    let middle = |bin: usize| {
        let step = if edges.len() > 1 { edges[1] - edges[0] } else { 0.0 };
        // the middle of eight codes, of which the edge is the last
        let upper = edges.get(bin).copied().unwrap_or_else(|| edges[edges.len() - 1] + step);
        upper - step * (CODES as f64 - 1.0) / (2.0 * CODES as f64)
    };
    for (bin, count) in counts.iter().enumerate() {
        all.count(bin, u32::try_from(*count).unwrap_or(u32::MAX));
        all.moments.merge(&Moments::of(*count, middle(bin), 0.0));
    }
    all
}

/// The references of a bundle, as its report has them.
#[must_use]
pub(crate) fn references(manifest: &Manifest, report: Option<&[u8]>) -> References {
    let report: Value = report.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    let of = |(place, port): (usize, &Port)| {
        let counts: Vec<u64> = serde_json::from_value(report["input_codes"][place].clone()).ok()?;
        let sum = counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count))?;
        if counts.len() != CODE_BINS || sum == 0 || port.dtype != "int8" {
            return None;
        }
        let bins = bins(port)?;
        let counts = counted(&bins, &counts);
        Some((port.name.clone(), Reference { bins: Bins::Numeric(bins), counts }))
    };
    manifest.abi.inputs.iter().enumerate().filter_map(of).collect()
}

/// Takes the histograms of one report; what the bundle does not have is left out.
pub(crate) fn take(
    seen: &mut BTreeMap<String, Seen>,
    references: &References,
    inputs: &BTreeMap<String, Vec<u64>>,
) {
    for (name, reference) in references {
        let Some(counts) = inputs.get(name).filter(|counts| counts.len() == CODE_BINS) else { continue };
        let Bins::Numeric(bins) = &reference.bins else { continue };
        let sum: u64 = counts.iter().sum();
        if sum == 0 {
            continue;
        }
        let scaled = |count: &u64| {
            let share = u128::from(*count) * u128::from(ROWS_MAX.min(sum)) / u128::from(sum);
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        let counts: Vec<u64> = counts.iter().map(scaled).collect();
        let entry = seen.entry(name.clone()).or_insert_with(|| Seen {
            reference: reference.clone(),
            counts: BinCounts::new(bins.len()),
            reports: 0,
        });
        // the bins are those it was made of
        if entry.counts.merge(&counted(bins, &counts)).is_ok() {
            entry.reports += 1;
        }
    }
}

impl Seen {
    /// How far it is from the calibration.
    #[must_use]
    pub fn scores(&self) -> Option<Scores> {
        scores(&self.reference.counts.counts, &self.counts.counts).ok()
    }

    /// The index above which it differs by more than is tolerated, for so many values of the calibration and of devices.
    #[must_use]
    pub fn threshold(&self) -> Option<f64> {
        let (counts, reference) = (&self.counts, &self.reference.counts);
        let bins =
            counts.counts.iter().zip(&reference.counts).filter(|(a, b)| **a > 0 || **b > 0).count() as u64;
        let (reference, current) = (reference.rows(), counts.rows());
        PsiThreshold { bins, reference, current, tolerated: TOLERATED, alpha: ALPHA }.value().ok()
    }

    /// Whether it does.
    #[must_use]
    pub fn alarm(&self) -> bool {
        self.scores().zip(self.threshold()).is_some_and(|(scores, threshold)| scores.psi > threshold)
    }
}

#[cfg(test)]
mod tests {
    use gannet_edge::compile::code_bin;
    use gannet_stats::{
        monitor::{FeatureMonitor, Thresholds, Value as Watched},
        random::Random,
    };

    use super::*;

    fn port() -> Port {
        Port { name: "x".into(), shape: vec![1, 4], dtype: "int8".into(), scale: 0.1, zero_point: -20 }
    }

    #[test]
    fn a_code_falls_into_the_bin_of_its_value() {
        let (port, bins) = (port(), bins(&port()).unwrap());
        assert_eq!(bins.len(), CODE_BINS + 4);
        for code in i8::MIN..=i8::MAX {
            let value = (f64::from(code) - f64::from(port.zero_point)) * port.scale;
            assert_eq!(bins.bin(value), code_bin(code), "{code}");
        }
    }

    #[test]
    fn what_devices_saw_is_what_a_drift_monitor_takes() {
        let bins = bins(&port()).unwrap();
        let mut random = Random::new(5);
        let mut draw = |rows: usize, mean: f64| -> Vec<u64> {
            let mut counts = vec![0; CODE_BINS];
            for _ in 0..rows {
                counts[code_bin((random.normal() * 20.0 + mean).clamp(-128.0, 127.0) as i8)] += 1;
            }
            counts
        };
        let reference = Reference { counts: counted(&bins, &draw(5000, 0.0)), bins: Bins::Numeric(bins) };
        let references = References::from([("x".to_owned(), reference)]);
        let mut seen = BTreeMap::new();
        // one device that shouts, and ten of the others
        take(
            &mut seen,
            &references,
            &BTreeMap::from([("x".into(), draw(400, 0.0).iter().map(|n| n * 1_000_000).collect())]),
        );
        for _ in 0..10 {
            take(
                &mut seen,
                &references,
                &BTreeMap::from([("x".into(), draw(1000, 0.0)), ("y".into(), vec![1; 32])]),
            );
        }
        let same = seen["x"].clone();
        assert!(
            (10_900..=11_000).contains(&same.counts.rows()) && same.reports == 11,
            "{}",
            same.counts.rows()
        );
        let psi = same.scores().unwrap().psi_debiased();
        assert!(psi < 0.05, "{psi}");
        let mean = same.counts.moments.mean();
        assert!((mean - 2.0).abs() < 0.2, "code 0 is 2.0, got {mean}");
        let mut other = BTreeMap::new();
        take(&mut other, &references, &BTreeMap::from([("x".into(), draw(1000, 15.0))]));
        assert!(other["x"].scores().unwrap().psi_debiased() > 0.2);
        assert!(other["x"].alarm() && !same.alarm(), "{:?} {:?}", other["x"].threshold(), same.threshold());
        // it is written and read as it is, and a monitor starts from its reference
        let text = serde_json::to_string(&same).unwrap();
        let again: Seen = serde_json::from_str(&text).unwrap();
        let mut monitor = FeatureMonitor::new(again.reference).unwrap();
        for (bin, count) in again.counts.counts.iter().take(CODE_BINS).enumerate() {
            let value = ((bin * 8) as f64 - 124.5 + 20.0) * 0.1;
            (0..*count).for_each(|_| monitor.push(Watched::Number(value)));
        }
        assert_eq!(*monitor.end_window(&mut Thresholds::new(0.01)).unwrap().counts, *again.counts.counts);
    }
}
