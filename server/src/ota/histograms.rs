//! Where the inputs of devices fall, in the bins and counts that a drift monitor takes, beside where those of the
//! calibration fell, and what of one report such a monitor is given. A device counts codes, which mean the same wherever
//! the bundle runs. Must not know devices, nor what is an alarm.

use std::{collections::BTreeMap, sync::Arc};

use gannet_edge::{
    compile::CODE_BINS,
    manifest::{Manifest, Port},
};
use gannet_models::{ModelName, Version};
use gannet_runtime::drift::{DeviceBundle, DeviceInput};
use gannet_stats::{
    binning::{BinCounts, NumericBins},
    moments::Moments,
    monitor::{Bins, Reference},
    random::Random,
    score::{Scores, scores},
    split::Split,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Values of one report that count: a device that sees more is no more than another one.
const ROWS_MAX: u64 = 1000;
/// Codes of a bin.
const CODES: usize = 256 / CODE_BINS;

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

/// The middle of a bin of codes: of eight, the upper edge is the last.
fn middle(bins: &NumericBins, bin: usize) -> f64 {
    let edges: Vec<f64> = bins.edges().into_iter().map(f64::from).collect();
    let step = if edges.len() > 1 { edges[1] - edges[0] } else { 0.0 };
    let upper = edges.get(bin).copied().unwrap_or_else(|| edges[edges.len() - 1] + step);
    upper - step * (CODES as f64 - 1.0) / (2.0 * CODES as f64)
}

/// Counts of codes as counts of values.
fn counted(port_bins: &NumericBins, counts: &[u64]) -> BinCounts {
    let mut all = BinCounts::new(port_bins.len());
    for (bin, count) in counts.iter().enumerate() {
        all.count(bin, u32::try_from(*count).unwrap_or(u32::MAX));
        all.moments.merge(&Moments::of(*count, middle(port_bins, bin), 0.0));
    }
    all
}

/// The inputs of a bundle, with where the codes of its calibration fell, as its report has them.
#[must_use]
pub(crate) fn inputs(manifest: &Manifest, report: Option<&[u8]>) -> Vec<DeviceInput> {
    let report: Value = report.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    let of = |(place, port): (usize, &Port)| {
        let counts: Vec<u64> = serde_json::from_value(report["input_codes"][place].clone()).ok()?;
        let sum = counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count))?;
        if counts.len() != CODE_BINS || sum == 0 || port.dtype != "int8" {
            return None;
        }
        let bins = bins(port)?;
        let counts = counted(&bins, &counts);
        // a bundle of before says only of how many samples they are, whose codes may all be alike
        let worth = [&report["effective_codes"][place], &report["calibrated_on"]];
        let rows = worth.into_iter().find_map(Value::as_u64).unwrap_or(1).clamp(1, sum);
        let reference = Arc::new(Reference { bins: Bins::Numeric(bins), counts });
        Some(DeviceInput { name: port.name.clone(), reference, rows })
    };
    manifest.abi.inputs.iter().enumerate().filter_map(of).collect()
}

/// The bundle as a drift monitor watches it; `None` where none can: it says nothing of its calibration, or its names are
/// none that a model could have here.
#[must_use]
pub(crate) fn watched(manifest: &Manifest, inputs: &[DeviceInput]) -> Option<Arc<DeviceBundle>> {
    let (model, version) = (ModelName::new(&manifest.model).ok()?, Version::new(&manifest.version).ok()?);
    let bundle = DeviceBundle { model, version, sequence: manifest.sequence, inputs: inputs.to_vec() };
    (!inputs.is_empty()).then(|| Arc::new(bundle))
}

/// What one report says to a drift monitor, by input of the bundle: one of its values, drawn by how often each came. However
/// much a device sees, it is one row as any other. The same seed draws the same.
#[must_use]
pub(crate) fn draw(
    known: &[DeviceInput],
    inputs: &BTreeMap<String, Vec<u64>>,
    seed: u64,
) -> Vec<Option<f64>> {
    let mut random = Random::new(seed);
    let mut one = |input: &DeviceInput| {
        let counts = inputs.get(&input.name).filter(|counts| counts.len() == CODE_BINS)?;
        let Bins::Numeric(bins) = &input.reference.bins else { return None };
        let mut left = random.below(counts.iter().sum());
        let bin = counts.iter().position(|count| {
            let is_here = left < *count;
            left = left.saturating_sub(*count);
            is_here
        });
        bin.map(|bin| middle(bins, bin))
    };
    known.iter().map(&mut one).collect()
}

/// What a draw of a device's report begins with: another one for each report.
#[must_use]
pub(crate) fn seed(device: &str, sequence: u64, window: u64) -> u64 {
    let key = [&sequence.to_le_bytes(), &window.to_le_bytes(), device.as_bytes()].concat();
    Split::new("devices").hash(&key)
}

/// Takes the histograms of one report; what the bundle does not have is left out.
pub(crate) fn take(
    seen: &mut BTreeMap<String, Seen>,
    known: &[DeviceInput],
    inputs: &BTreeMap<String, Vec<u64>>,
) {
    for DeviceInput { name, reference, .. } in known {
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
            reference: Reference::clone(reference),
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
}

#[cfg(test)]
mod tests {
    use gannet_edge::compile::code_bin;
    use gannet_stats::{
        monitor::{FeatureMonitor, Thresholds, Value as Watched},
        random::Random,
    };

    use super::*;

    fn input() -> DeviceInput {
        let bins = bins(&port()).unwrap();
        let reference = Reference { counts: counted(&bins, &[2; CODE_BINS]), bins: Bins::Numeric(bins) };
        DeviceInput { name: "x".into(), reference: Arc::new(reference), rows: 64 }
    }

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
        let mut codes = |rows: usize, mean: f64| -> Vec<u64> {
            let mut counts = vec![0; CODE_BINS];
            for _ in 0..rows {
                counts[code_bin((random.normal() * 20.0 + mean).clamp(-128.0, 127.0) as i8)] += 1;
            }
            counts
        };
        let reference = Reference { counts: counted(&bins, &codes(5000, 0.0)), bins: Bins::Numeric(bins) };
        let known = [DeviceInput { name: "x".into(), reference: Arc::new(reference), rows: 5000 }];
        let mut seen = BTreeMap::new();
        // one device that shouts, and ten of the others
        take(
            &mut seen,
            &known,
            &BTreeMap::from([("x".into(), codes(400, 0.0).iter().map(|n| n * 1_000_000).collect())]),
        );
        for _ in 0..10 {
            take(
                &mut seen,
                &known,
                &BTreeMap::from([("x".into(), codes(1000, 0.0)), ("y".into(), vec![1; 32])]),
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
        take(&mut other, &known, &BTreeMap::from([("x".into(), codes(1000, 15.0))]));
        assert!(other["x"].scores().unwrap().psi_debiased() > 0.2);
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

    #[test]
    fn a_report_is_one_row_whose_values_come_as_often_as_it_says() {
        let known = [input(), DeviceInput { name: "y".into(), ..input() }];
        let Bins::Numeric(bins) = &known[0].reference.bins else { panic!("numbers") };
        let mut counts = vec![0; CODE_BINS];
        (counts[0], counts[7], counts[31]) = (1, 2, 5);
        let said = |count: u64| {
            BTreeMap::from([("x".to_owned(), counts.iter().map(|n| n * count).collect::<Vec<u64>>())])
        };
        let mut drawn = vec![0; CODE_BINS];
        for window in 0..8000 {
            let row = draw(&known, &said(1 << 40), seed("a", 1, window));
            assert_eq!(row, draw(&known, &said(1 << 40), seed("a", 1, window)), "the same once more");
            assert_eq!((row.len(), row[1]), (2, None));
            drawn[bins.bin(row[0].unwrap())] += 1;
        }
        for (bin, count) in counts.iter().enumerate() {
            let expected = 1000.0 * *count as f64;
            assert!((f64::from(drawn[bin]) - expected).abs() <= 5.0 * expected.sqrt(), "{bin}: {drawn:?}");
        }
        // nothing is said of what has no values, too few bins, or another name
        let nothing = [vec![0; CODE_BINS], vec![1; 31]].map(|counts| BTreeMap::from([("x".into(), counts)]));
        for inputs in nothing.into_iter().chain([BTreeMap::from([("z".into(), vec![1; CODE_BINS])])]) {
            assert_eq!(draw(&known, &inputs, 1), [None, None]);
        }
        let seeds = [seed("a", 1, 2), seed("a", 2, 1), seed("b", 1, 2)];
        assert!(seeds[0] != seeds[1] && seeds[0] != seeds[2]);
    }

    #[test]
    fn a_bundle_says_what_its_calibration_is_worth() {
        let abi = gannet_edge::manifest::Abi {
            inputs: vec![port(), Port { name: "y".into(), dtype: "float32".into(), ..port() }],
            outputs: Vec::new(),
            operators: Vec::new(),
            arena: gannet_edge::manifest::ArenaSizes { host64: 0, cortex_m: 0 },
        };
        let manifest = Manifest {
            schema: 1,
            model: "m".into(),
            version: "1".into(),
            source_sha256: String::new(),
            sequence: 7,
            files: BTreeMap::new(),
            abi,
        };
        let check = |report: Value, expected: Option<u64>| {
            let known = inputs(&manifest, Some(report.to_string().as_bytes()));
            assert_eq!(known.first().map(|input| input.rows), expected, "{report}");
            assert_eq!(watched(&manifest, &known).map(|bundle| bundle.sequence), expected.map(|_| 7));
        };
        let codes = json!([vec![10; CODE_BINS], vec![10; CODE_BINS]]);
        check(json!({ "input_codes": codes, "effective_codes": [150, 9], "calibrated_on": 80 }), Some(150));
        check(json!({ "input_codes": codes, "calibrated_on": 80 }), Some(80));
        check(json!({ "input_codes": codes, "effective_codes": [9999, 9] }), Some(320));
        check(json!({ "input_codes": codes, "effective_codes": [0, 9] }), Some(1));
        check(json!({ "input_codes": codes }), Some(1));
        check(json!({ "input_codes": [vec![0; CODE_BINS]], "calibrated_on": 80 }), None);
        check(json!({ "input_codes": [vec![1; 31]], "calibrated_on": 80 }), None);
        check(json!({}), None);
        let nameless = Manifest { model: "a model/of nobody".into(), ..manifest.clone() };
        assert!(watched(&nameless, &[input()]).is_none() && watched(&manifest, &[input()]).is_some());
    }
}
