//! What a bundle costs and what it computes, as data and as a page for people. Must not compile anything.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::BundleInfo;
use crate::{
    arena::Arena,
    compile::{Compiled, Sparsity},
    manifest::hex,
    parity::Parity,
};

/// Code of the interpreter and of a few kernels, roughly: what a board needs of flash beside the model.
const INTERPRETER_FLASH: usize = 60 << 10;

/// A board: what it has, and how fast and how thirsty it is. Speeds are multiplications a cycle that CMSIS-NN or ESP-NN
/// reach on average, power is of the core while it computes: both from vendors' figures, good to a factor of two.
struct Board {
    name: &'static str,
    flash: usize,
    ram: usize,
    megahertz: f64,
    macs_per_cycle: f64,
    milliwatts: f64,
}

const BOARDS: [Board; 4] = [
    Board {
        name: "Arduino Nano 33 BLE Sense",
        flash: 1 << 20,
        ram: 256 << 10,
        megahertz: 64.0,
        macs_per_cycle: 0.45,
        milliwatts: 15.0,
    },
    Board {
        name: "Raspberry Pi Pico",
        flash: 2 << 20,
        ram: 264 << 10,
        megahertz: 133.0,
        macs_per_cycle: 0.12,
        milliwatts: 80.0,
    },
    Board {
        name: "ESP32-S3",
        flash: 8 << 20,
        ram: 512 << 10,
        megahertz: 240.0,
        macs_per_cycle: 1.0,
        milliwatts: 260.0,
    },
    Board {
        name: "STM32F4 (F407)",
        flash: 1 << 20,
        ram: 192 << 10,
        megahertz: 168.0,
        macs_per_cycle: 0.45,
        milliwatts: 150.0,
    },
];

/// What a board makes of the model. Times and energies are estimates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoardReport {
    /// The board.
    pub board: String,
    /// Whether flash and memory are enough, with a quarter of the memory left to the application.
    pub fits: bool,
    /// Model and interpreter, in bytes.
    pub flash_bytes: usize,
    /// The arena, in bytes.
    pub ram_bytes: usize,
    /// Estimated milliseconds of one row.
    pub time_ms: f64,
    /// Estimated microjoules of one row.
    pub energy_uj: f64,
}

/// What one layer costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// The node's name in the source.
    pub node: String,
    /// The operator.
    pub operator: String,
    /// Axes of its output.
    pub output: Vec<usize>,
    /// Weights and biases, in bytes.
    pub flash_bytes: usize,
    /// What goes in and out, in bytes.
    pub ram_bytes: usize,
    /// Multiplications.
    pub macs: u64,
    /// Decibels of signal over noise after it.
    pub sqnr_db: Option<f64>,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// Its version.
    pub version: String,
    /// Of the ONNX file.
    pub source_sha256: String,
    /// Of the int8 file.
    pub tflite_bytes: usize,
    /// Of the float file that was compared with.
    pub tflite_float_bytes: usize,
    /// On a 64-bit host.
    pub host64: Arena,
    /// On a Cortex-M.
    pub cortex_m: Arena,
    /// Bytes of the plan, of the bound that none can beat, and of the plan that the device would make by itself.
    pub plan: [usize; 3],
    /// Whether the plan is in the file.
    pub planned: bool,
    /// Multiplications of one row.
    pub macs: u64,
    /// By layer.
    pub layers: Vec<LayerReport>,
    /// By board.
    pub boards: Vec<BoardReport>,
    /// Layers whose source has zeros.
    pub sparsity: Vec<Sparsity>,
    /// Samples that ranges were chosen by.
    pub calibrated_on: usize,
    /// Where the codes of these samples fall, by input, in [`CODE_BINS`](crate::compile::CODE_BINS) bins.
    pub input_codes: Vec<Vec<u64>>,
    /// How many independent codes these are worth, by input.
    pub effective_codes: Vec<u64>,
    /// Float against int8.
    pub parity: Parity,
}

/// Makes the report.
#[must_use]
pub fn of(compiled: &Compiled, info: &BundleInfo) -> Report {
    let model = &compiled.model;
    let layer = |node: &crate::lite::Node| {
        let (constant, computed): (Vec<usize>, Vec<usize>) =
            node.inputs.iter().flatten().copied().partition(|id| !model.tensors[*id].data.is_empty());
        let output = &model.tensors[node.outputs[0]];
        let source = compiled.graph.nodes.iter().find(|source| source.name == node.name);
        let sqnr_db =
            compiled.parity.layers.iter().find(|layer| layer.node == node.name).map(|layer| layer.sqnr_db);
        LayerReport {
            node: node.name.clone(),
            operator: node.op.name(),
            output: output.shape.clone(),
            flash_bytes: constant.iter().map(|id| model.tensors[*id].data.len()).sum(),
            ram_bytes: computed.iter().map(|id| model.tensors[*id].bytes()).sum::<usize>() + output.bytes(),
            macs: source.map_or(0, |source| compiled.graph.macs(source)),
            sqnr_db,
        }
    };
    let layers: Vec<LayerReport> = model.nodes.iter().map(layer).collect();
    let macs = layers.iter().map(|layer| layer.macs).sum();
    let plan = &compiled.plan;
    Report {
        model: info.model.clone(),
        version: info.version.clone(),
        source_sha256: hex(&compiled.source_digest),
        tflite_bytes: compiled.tflite.len(),
        tflite_float_bytes: compiled.tflite_float.len(),
        host64: compiled.host64,
        cortex_m: compiled.cortex_m,
        plan: [plan.bytes, plan.lower_bound, plan.greedy_bytes],
        planned: model.offline_plan.is_some(),
        macs,
        boards: BOARDS.iter().map(|board| on(board, compiled, macs)).collect(),
        layers,
        sparsity: compiled.sparsity.clone(),
        calibrated_on: compiled.calibrated_on,
        input_codes: compiled.input_codes.clone(),
        effective_codes: compiled.effective_codes.clone(),
        parity: compiled.parity.clone(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn on(board: &Board, compiled: &Compiled, macs: u64) -> BoardReport {
    let (flash_bytes, ram_bytes) = (compiled.tflite.len() + INTERPRETER_FLASH, compiled.cortex_m.required);
    let time_ms = macs as f64 / board.macs_per_cycle / (board.megahertz * 1000.0);
    BoardReport {
        board: board.name.into(),
        fits: flash_bytes <= board.flash && ram_bytes <= board.ram / 4 * 3,
        flash_bytes,
        ram_bytes,
        time_ms,
        energy_uj: time_ms * board.milliwatts,
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
                     table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{border-bottom:1px solid #ddd;\
                     padding:.25rem .5rem;text-align:right}td:first-child,th:first-child{text-align:left}\
                     svg{background:#fafafa;border:1px solid #ddd}.no{color:#b00}.yes{color:#070}";

/// The report as one page without anything from elsewhere.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut page =
        String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Parity of ");
    let title = format!("{} {}", escaped(&report.model), escaped(&report.version));
    let _ = write!(page, "{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>");
    let parity = &report.parity;
    let _ = write!(
        page,
        "<p>The float model and the int8 model on {} samples: <b>{:.1} dB</b> of signal over noise, the same largest \
         output on <b>{:.2} %</b>, differences of at most {:.4}. {} bytes of flash, {} bytes of memory on a Cortex-M, \
         {} multiplications.</p>",
        parity.rows,
        parity.sqnr_db,
        100.0 * parity.top1_agreement,
        parity.largest_difference,
        report.tflite_bytes,
        report.cortex_m.required,
        report.macs
    );
    page.push_str("<h2>Outputs, float (across) against int8 (up)</h2>");
    page.push_str(&scatter(&parity.points));
    page.push_str("<h2>Noise by layer</h2>");
    page.push_str(&bars(report));
    page.push_str("<h2>Layers</h2><table><tr><th>layer</th><th>operator</th><th>output</th><th>flash</th><th>memory</th>\
                   <th>multiplications</th><th>dB</th></tr>");
    for layer in &report.layers {
        let decibels = layer.sqnr_db.map_or_else(String::new, |decibels| format!("{decibels:.1}"));
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{:?}</td><td>{}</td><td>{}</td><td>{}</td><td>{decibels}</td></tr>",
            escaped(&layer.node),
            layer.operator,
            layer.output,
            layer.flash_bytes,
            layer.ram_bytes,
            layer.macs
        );
    }
    page.push_str("</table><h2>Rows with the most noise</h2><table><tr><th>row</th><th>dB</th><th>float says</th><th>int8 says</th></tr>");
    for row in &parity.worst {
        let class = if row.float_class == row.int8_class { "yes" } else { "no" };
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{:.1}</td><td>{}</td><td class=\"{class}\">{}</td></tr>",
            row.row, row.sqnr_db, row.float_class, row.int8_class
        );
    }
    page.push_str("</table><h2>Boards (times and energies are estimates)</h2><table><tr><th>board</th><th>fits</th><th>flash</th>\
                   <th>memory</th><th>ms</th><th>&micro;J</th></tr>");
    for board in &report.boards {
        let fits = if board.fits { "yes" } else { "no" };
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"{fits}\">{fits}</td><td>{}</td><td>{}</td><td>{:.1}</td><td>{:.0}</td></tr>",
            board.board, board.flash_bytes, board.ram_bytes, board.time_ms, board.energy_uj
        );
    }
    page.push_str("</table></body></html>\n");
    page
}

fn scatter(points: &[(f32, f32)]) -> String {
    const SIDE: f32 = 360.0;
    let low = points.iter().map(|(a, b)| a.min(*b)).fold(f32::MAX, f32::min);
    let high = points.iter().map(|(a, b)| a.max(*b)).fold(f32::MIN, f32::max);
    let span = (high - low).max(1e-9);
    let mut svg =
        format!("<svg viewBox=\"0 0 {SIDE} {SIDE}\" width=\"{SIDE}\" height=\"{SIDE}\" role=\"img\">");
    let _ = write!(svg, "<line x1=\"0\" y1=\"{SIDE}\" x2=\"{SIDE}\" y2=\"0\" stroke=\"#bbb\"/>");
    for (a, b) in points {
        let place = |value: &f32| 8.0 + (value - low) / span * (SIDE - 16.0);
        let _ = write!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"1.6\" fill=\"#06c\"/>",
            place(a),
            SIDE - place(b)
        );
    }
    svg.push_str("</svg>");
    svg
}

#[expect(clippy::cast_precision_loss, reason = "places of bars")]
fn bars(report: &Report) -> String {
    const HEIGHT: f64 = 160.0;
    const STEP: f64 = 18.0;
    let layers = &report.parity.layers;
    let width = layers.len() as f64 * STEP;
    let mut svg =
        format!("<svg viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" height=\"{HEIGHT}\" role=\"img\">");
    for (index, layer) in layers.iter().enumerate() {
        let height = (layer.sqnr_db.clamp(0.0, 60.0) / 60.0) * HEIGHT;
        let _ = write!(
            svg,
            "<rect x=\"{:.0}\" y=\"{:.1}\" width=\"{:.0}\" height=\"{height:.1}\" fill=\"#06c\"><title>{}: {:.1} dB</title></rect>",
            index as f64 * STEP + 2.0,
            HEIGHT - height,
            STEP - 4.0,
            escaped(&layer.node),
            layer.sqnr_db
        );
    }
    svg.push_str("</svg>");
    svg
}
