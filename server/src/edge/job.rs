//! One compilation: a package's files and options in, a bundle out. Must not know who asked.

use std::fs;

use gannet_edge::{
    EdgeError,
    bundle::{Bundle, BundleInfo},
    compile::{CompileOptions, Data, compile, graph_of},
    data::Samples,
    graph::Graph,
    package::{Baseline, Golden, SampleSource},
    quantise::{QuantiseOptions, RangeChoice},
};
use gannet_models::Artifact;
use serde::{Deserialize, Serialize};

use super::{EdgeOrder, Tell};

/// Bytes of an ONNX file; a microcontroller has a hundredth of it.
const ONNX_BYTES_MAX: u64 = 256 << 20;
/// Bytes of every other file that is looked at.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Class names.
const LABELS_MAX: usize = 10_000;

/// What may be chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeOptions {
    /// Grows with every release; none: one more than was ever published.
    pub sequence: Option<u64>,
    /// What ranges are chosen by.
    pub calibrate: Calibration,
    /// How ranges are chosen.
    pub range: Range,
    /// Nodes that stay float.
    pub keep_float: Vec<String>,
    /// One scale for each output of fully connected layers.
    pub fc_per_channel: bool,
    /// Whether neighbouring layers are equalised.
    pub equalise: bool,
    /// Whether the mean error of rounded weights is put back through the bias.
    pub bias_correction: bool,
}

/// What ranges are chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Calibration {
    /// The package's golden requests.
    #[default]
    Golden,
    /// The package's `baseline.json`.
    Baseline,
}

/// How ranges are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// The least squared error.
    #[default]
    Mse,
    /// Everything that was seen.
    Minmax,
    /// All but a thousandth of the values.
    Percentile,
}

impl Default for EdgeOptions {
    fn default() -> Self {
        Self {
            sequence: None,
            calibrate: Calibration::default(),
            range: Range::default(),
            keep_float: Vec::new(),
            fc_per_channel: false,
            equalise: true,
            bias_correction: true,
        }
    }
}

impl EdgeOptions {
    fn compiler(&self) -> CompileOptions {
        let range = match self.range {
            Range::Mse => RangeChoice::MeanSquaredError,
            Range::Minmax => RangeChoice::MinMax,
            Range::Percentile => RangeChoice::Percentile(0.1),
        };
        let quantise = QuantiseOptions {
            range,
            dense_per_channel: self.fc_per_channel,
            bias_correction: self.bias_correction,
            bias_scales: false,
            keep_float: self.keep_float.clone(),
        };
        CompileOptions { quantise, equalise: self.equalise }
    }
}

/// Compiles; the error is what the caller is told.
pub(super) fn run(order: &EdgeOrder, progress: &mut Tell<'_>) -> Result<Bundle, String> {
    let EdgeOrder { model, version, artifact, options } = order;
    let onnx = read(artifact, onnx_name(artifact)?, ONNX_BYTES_MAX)?;
    let told = |error: EdgeError| error.to_string();
    let graph = graph_of(&onnx).map_err(told)?;
    let calibrate = samples(artifact, options.calibrate, &graph)?;
    // what ranges were not chosen by is what they are judged by
    let compare = (options.calibrate != Calibration::Golden)
        .then(|| samples(artifact, Calibration::Golden, &graph).ok())
        .flatten();
    let data = Data { calibrate, compare };
    let compiled = compile(&onnx, &data, &options.compiler(), progress).map_err(told)?;
    let info = BundleInfo {
        model: model.to_string(),
        version: version.to_string(),
        sequence: options.sequence.unwrap_or(1),
        class_names: labels(artifact)?,
    };
    Ok(Bundle::new(&compiled, &info))
}

/// The package's only ONNX file.
fn onnx_name(artifact: &Artifact) -> Result<&str, String> {
    let mut names =
        artifact.files().iter().map(|file| file.path.as_str()).filter(|path| path.ends_with(".onnx"));
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err("expected an ONNX file in the package, got none; only ONNX can be compiled".into()),
        (Some(_), Some(_)) => Err("expected one ONNX file in the package, got several".into()),
    }
}

fn read(artifact: &Artifact, name: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
    let entry = artifact.files().iter().find(|entry| entry.path == name);
    let entry = entry.ok_or_else(|| format!("expected {name} in the package, got none"))?;
    if entry.size > bytes_max {
        return Err(format!("{name}: expected at most {bytes_max} bytes, got {}", entry.size));
    }
    fs::read(artifact.dir().join(name)).map_err(|error| format!("{name} cannot be read: {error}"))
}

fn samples(artifact: &Artifact, source: Calibration, graph: &Graph) -> Result<Vec<Samples>, String> {
    let told = |error: EdgeError| error.to_string();
    match source {
        Calibration::Golden => {
            let names = artifact.files().iter().map(|file| file.path.as_str());
            let names = names.filter(|path| path.starts_with("golden/") && path.ends_with(".json"));
            let texts: Result<Vec<_>, String> =
                names.map(|name| read(artifact, name, FILE_BYTES_MAX)).collect();
            let texts = texts?;
            if texts.is_empty() {
                return Err(
                    "expected golden requests in the package, got none; ask with {\"calibrate\": \"baseline\"}, or \
                     compile with `gannet edge compile --calibrate samples.npy`"
                        .into(),
                );
            }
            Golden(texts).samples(graph).map_err(told)
        }
        Calibration::Baseline => {
            Baseline(read(artifact, "baseline.json", FILE_BYTES_MAX)?).samples(graph).map_err(told)
        }
    }
}

fn labels(artifact: &Artifact) -> Result<Vec<String>, String> {
    if artifact.file("labels.txt").is_none() {
        return Ok(Vec::new());
    }
    let text = String::from_utf8(read(artifact, "labels.txt", FILE_BYTES_MAX)?)
        .map_err(|_| "labels.txt: expected UTF-8".to_owned())?;
    Ok(text.lines().filter(|line| !line.is_empty()).take(LABELS_MAX).map(str::to_owned).collect())
}
