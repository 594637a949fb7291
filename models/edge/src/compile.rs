//! The whole compilation as one pure function: bytes and samples in, everything that a bundle is made of out. Must not
//! know files, the command line or the server that may run it as a job.

use gannet_models::Digest;
use gannet_stats::clusters::Clusters;
use serde::{Deserialize, Serialize};

use crate::{
    arena::{Arena, Target, arena},
    calibrate::{SAMPLES_MAX, calibrate},
    data::{Samples, stored},
    error::{EdgeError, Result},
    graph::{Graph, Op},
    integer::{IntegerExecutor, Values},
    lite::{self, Model},
    lower,
    onnx::Source,
    parity::{self, Parity},
    passes::{self, Note},
    plan::{self, Plan},
    quantise::{QuantiseOptions, Quantised, equalise, quantise},
};

/// Rows that go into a bundle as golden vectors.
const GOLDEN_ROWS: usize = 8;
/// Rows on which float and int8 are compared, at most.
const PARITY_ROWS_MAX: usize = 512;

/// Bins of codes that a device counts its inputs in: eight codes each, from the least code up.
pub const CODE_BINS: usize = 32;

/// What may be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct CompileOptions {
    /// How numbers are chosen.
    pub quantise: QuantiseOptions,
    /// Whether neighbouring layers are equalised first.
    pub equalise: bool,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self { quantise: QuantiseOptions::default(), equalise: true }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: &'static str,
    /// Parts that are done.
    pub done: usize,
    /// Parts that there are.
    pub of: usize,
}

/// Samples of a model: rows for each input.
#[derive(Debug, Clone)]
pub struct Data {
    /// What ranges are chosen by.
    pub calibrate: Vec<Samples>,
    /// What float and int8 are compared on; the calibration samples where there are no others.
    pub compare: Option<Vec<Samples>>,
}

/// A row and what the device computes for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Golden {
    /// Codes of each input.
    pub inputs: Vec<Vec<i8>>,
    /// Codes of each output.
    pub outputs: Vec<Vec<i8>>,
}

/// The zeros that the source's weights carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sparsity {
    /// The layer.
    pub node: String,
    /// The share of weights that are zero in the source.
    pub source: f64,
    /// The share of codes that are zero.
    pub int8: f64,
}

/// Everything that was made.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Of the ONNX file.
    pub source_digest: Digest,
    /// What was lowered, before any pass.
    pub lowered: Graph,
    /// What is computed, in floats.
    pub graph: Graph,
    /// What the passes did.
    pub notes: Vec<Note>,
    /// The int8 model.
    pub model: Model,
    /// Its bytes.
    pub tflite: Vec<u8>,
    /// The bytes of the float model.
    pub tflite_float: Vec<u8>,
    /// Where values lie.
    pub plan: Plan,
    /// On a 64-bit host.
    pub host64: Arena,
    /// On a Cortex-M.
    pub cortex_m: Arena,
    /// Float against int8.
    pub parity: Parity,
    /// Rows with what the device computes for them.
    pub golden: Vec<Golden>,
    /// Of layers whose source has zeros.
    pub sparsity: Vec<Sparsity>,
    /// How many rows ranges were chosen by.
    pub calibrated_on: usize,
    /// Where the codes of those rows fall, by input: devices count theirs in the same bins.
    pub input_codes: Vec<Vec<u64>>,
    /// How many independent codes those are worth, by input: codes of one row are alike.
    pub effective_codes: Vec<u64>,
}

/// Reads and lowers a model, without samples: what `inspect` and `--emit graph` need.
///
/// # Errors
/// Those of [`Source::read`] and [`lower`](crate::lower).
pub fn graph_of(onnx: &[u8]) -> Result<Graph> {
    lower::lower(&Source::read(onnx)?)
}

/// Compiles a model. `progress` returns whether to go on.
///
/// # Errors
/// [`EdgeError`] names the node, the file or the row that stands in the way; [`EdgeError::Cancelled`] when `progress`
/// said so.
pub fn compile(
    onnx: &[u8],
    data: &Data,
    options: &CompileOptions,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Compiled> {
    let mut tell = |step: &'static str, done: usize, of: usize| {
        if progress(Progress { step, done, of }) { Ok(()) } else { Err(EdgeError::Cancelled(step.into())) }
    };
    tell("reading", 0, 1)?;
    let lowered = graph_of(onnx)?;
    tell("optimising", 0, 1)?;
    let passes::Optimised { mut graph, mut notes } = passes::optimise(lowered.clone(), 1);
    let sparsity_of_source: Vec<(String, f64)> = zeros(&graph);
    if options.equalise {
        let pairs = equalise(&mut graph);
        let what = format!("{pairs} pairs of layers");
        notes.push(Note { pass: "equalise", node: graph.name.clone(), what });
    }
    let calibration = calibrate(&graph, &data.calibrate, |done, of| tell("calibrating", done, of).is_ok())?;
    tell("quantising", 0, 1)?;
    let Quantised { mut model, codes } = quantise(&graph, &calibration, &options.quantise)?;
    let plan = plan::plan_model(&mut model);
    let tflite = lite::write(&model);
    let tflite_float = lite::write(&Model::of_graph(&graph)?);
    let compare = data.compare.as_ref().unwrap_or(&data.calibrate);
    let parity = parity::compare(&graph, &model, &codes, compare, PARITY_ROWS_MAX, &mut |done, of| {
        tell("comparing", done, of)
    })?;
    let golden = golden(&graph, &model, compare)?;
    let sparsity = sparsity(&graph, &model, sparsity_of_source);
    let (input_codes, effective_codes) = input_codes(&graph, &model, &data.calibrate).into_iter().unzip();
    Ok(Compiled {
        source_digest: Digest::of(onnx),
        host64: arena(&model, Target::Host64),
        cortex_m: arena(&model, Target::CortexM),
        calibrated_on: calibration.samples,
        lowered,
        graph,
        notes,
        model,
        tflite,
        tflite_float,
        plan,
        parity,
        golden,
        sparsity,
        input_codes,
        effective_codes,
    })
}

/// The codes of one row of samples, for each input.
#[must_use]
pub fn codes_of(graph: &Graph, model: &Model, samples: &[Samples], row: usize) -> Vec<Values> {
    let port = |(place, port): (usize, &crate::graph::Port)| {
        let values = stored(port, samples[place].row(row));
        let (scale, zero) = model.tensors[model.inputs[place]].scale();
        Values::Int8(values.iter().map(|value| crate::integer::quantised(*value, scale, zero)).collect())
    };
    graph.inputs.iter().enumerate().map(port).collect()
}

fn golden(graph: &Graph, model: &Model, samples: &[Samples]) -> Result<Vec<Golden>> {
    let executor = IntegerExecutor::new(model)?;
    let rows = samples.iter().map(Samples::len).min().unwrap_or(0).min(GOLDEN_ROWS);
    let codes = |values: Vec<Values>| -> Vec<Vec<i8>> {
        values
            .into_iter()
            .filter_map(|values| if let Values::Int8(codes) = values { Some(codes) } else { None })
            .collect()
    };
    let one = |row: usize| {
        let inputs = codes_of(graph, model, samples, row);
        let outputs = executor.run(&inputs)?;
        Ok(Golden { inputs: codes(inputs), outputs: codes(outputs) })
    };
    (0..rows).map(one).collect()
}

/// The bin of a code.
#[must_use]
pub fn code_bin(code: i8) -> usize {
    usize::from(code.cast_unsigned() ^ 0x80) / (256 / CODE_BINS)
}

/// Where the codes of all rows fall, by input, and how many independent ones they are worth.
fn input_codes(graph: &Graph, model: &Model, samples: &[Samples]) -> Vec<(Vec<u64>, u64)> {
    let mut inputs = vec![(vec![0; CODE_BINS], Clusters::new(CODE_BINS)); graph.inputs.len()];
    let rows = samples.iter().map(Samples::len).min().unwrap_or(0).min(SAMPLES_MAX);
    for row in 0..rows {
        for (codes, (all, clusters)) in codes_of(graph, model, samples, row).into_iter().zip(&mut inputs) {
            let Values::Int8(codes) = codes else { continue };
            let mut counts = [0; CODE_BINS];
            codes.into_iter().for_each(|code| counts[code_bin(code)] += 1);
            all.iter_mut().zip(counts).for_each(|(all, count): (&mut u64, u64)| *all += count);
            clusters.push(&counts);
        }
    }
    inputs.into_iter().map(|(counts, clusters)| (counts, clusters.effective())).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of weights")]
fn share(zeros: usize, of: usize) -> f64 {
    zeros as f64 / of.max(1) as f64
}

/// The layers whose weights hold zeros, which widened kernels are not counted for.
fn zeros(graph: &Graph) -> Vec<(String, f64)> {
    let layers = graph.nodes.iter().filter(|node| node.op.has_weights());
    let count = |node: &crate::graph::Node| {
        let values = graph.tensors[node.inputs[1]].floats().unwrap_or_default();
        (node.name.clone(), share(values.iter().filter(|value| **value == 0.0).count(), values.len()))
    };
    layers.map(count).collect()
}

fn sparsity(graph: &Graph, model: &Model, source: Vec<(String, f64)>) -> Vec<Sparsity> {
    let widened = |name: &str| {
        let node = graph.nodes.iter().find(|node| node.name == name);
        node.is_some_and(|node| matches!(&node.op, Op::Conv2d(w) | Op::DepthwiseConv2d(w, _) if w.padding == crate::graph::Padding::Same))
    };
    let mut all = Vec::new();
    for (name, share_of_source) in source.into_iter().filter(|(name, share)| *share > 0.05 && !widened(name))
    {
        let Some(node) = model.nodes.iter().find(|node| node.name == name) else { continue };
        let codes = node.inputs.get(1).copied().flatten().map(|id| &model.tensors[id].data);
        let int8 =
            codes.map_or(0.0, |codes| share(codes.iter().filter(|code| **code == 0).count(), codes.len()));
        all.push(Sparsity { node: name, source: share_of_source, int8 });
    }
    all
}
