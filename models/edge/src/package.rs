//! Samples that come with a package, or from what was asked of it: golden requests, the baseline, captured requests. Must
//! not know how a table of captured ones is stored.

use std::path::Path;

use gannet_data::Cell;
use gannet_stats::random::Random;
use serde_json::Value;

use crate::{
    data::Samples,
    error::{EdgeError, Result},
    graph::{Graph, Port},
};

/// Rows that are taken of one source, at most.
const ROWS_MAX: usize = 1000;
/// Rows that are drawn of a baseline's columns.
const DRAWN_ROWS: usize = 128;
/// Of the draws; the same baseline gives the same rows.
const SEED: u64 = 0x6a6e;

/// Where samples come from.
pub trait SampleSource {
    /// Rows for each input of the graph, in its order.
    ///
    /// # Errors
    /// [`EdgeError::Data`] when there are none, or they do not fit.
    fn samples(&self, graph: &Graph) -> Result<Vec<Samples>>;
}

/// The texts of a package's golden requests.
#[derive(Debug, Clone)]
pub struct Golden(pub Vec<Vec<u8>>);

/// The text of a package's `baseline.json`. Where it holds rows (`samples` of an input) they are taken; else rows are drawn
/// of its columns, each on its own: right in every range, but what hangs together in real rows does not in these.
#[derive(Debug, Clone)]
pub struct Baseline(pub Vec<u8>);

/// Requests as they were captured.
#[derive(Debug, Clone, Default)]
pub struct Captured(pub Vec<CapturedRequest>);

/// One captured request: the columns `in_<name>` and `in_<name>_shape` of its row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CapturedRequest {
    /// By input.
    pub inputs: Vec<CapturedInput>,
}

/// One input of a captured request.
#[derive(Debug, Clone, PartialEq)]
pub struct CapturedInput {
    /// The input's name.
    pub name: String,
    /// All values, in row-major order.
    pub values: Vec<f32>,
    /// Their shape, the batch first.
    pub shape: Vec<usize>,
}

fn bad(what: &str, fault: impl Into<String>) -> EdgeError {
    let way_round = "give samples with --calibrate samples.npy".into();
    EdgeError::Data { what: what.into(), fault: fault.into(), way_round }
}

fn row_of(graph: &Graph, port: &Port) -> usize {
    graph.tensors[port.tensor].len()
}

/// Whole rows of each input, no more than the limit.
fn rows(graph: &Graph, values: Vec<Vec<f32>>, what: &str) -> Result<Vec<Samples>> {
    let cut = |(port, mut values): (&Port, Vec<f32>)| {
        let row = row_of(graph, port);
        values.truncate(ROWS_MAX * row);
        Samples::new(values, row, what)
    };
    graph.inputs.iter().zip(values).map(cut).collect()
}

impl SampleSource for Golden {
    fn samples(&self, graph: &Graph) -> Result<Vec<Samples>> {
        let mut values: Vec<Vec<f32>> = vec![Vec::new(); graph.inputs.len()];
        for text in &self.0 {
            let Ok(request) = serde_json::from_slice::<Value>(text) else { continue };
            let inputs = request.pointer("/inputs").or_else(|| request.pointer("/request/inputs"));
            for (port, values) in graph.inputs.iter().zip(&mut values) {
                if let Some(input) = named(inputs, port) {
                    numbers(&input["data"], values);
                }
            }
        }
        rows(graph, values, "golden requests")
    }
}

impl SampleSource for Baseline {
    fn samples(&self, graph: &Graph) -> Result<Vec<Samples>> {
        let what = "baseline.json";
        let text: Value = serde_json::from_slice(&self.0)
            .map_err(|error| bad(what, format!("expected JSON, got: {error}")))?;
        let values = graph.inputs.iter().map(|port| {
            let fault = || bad(what, format!("expected the input '{}', got none of that name", port.name));
            let inputs = text["inputs"].as_array().map(Vec::as_slice).unwrap_or_default();
            let place =
                inputs.iter().position(|input| input["name"] == port.name.as_str()).ok_or_else(fault)?;
            let mut values = Vec::new();
            for row in text["samples"].as_array().into_iter().flatten() {
                numbers(&row[place], &mut values);
            }
            if !values.is_empty() {
                return Ok(values);
            }
            drawn(&inputs[place], row_of(graph, port))
                .map_err(|fault| bad(what, format!("input '{}': {fault}", port.name)))
        });
        rows(graph, values.collect::<Result<_>>()?, what)
    }
}

impl Captured {
    /// Reads a table of captured traffic: a list `in_<name>` with `in_<name>_shape` for each input.
    ///
    /// # Errors
    /// [`EdgeError::Data`]: it is none, or lacks an input, or keeps its values redacted.
    pub fn read(folder: &Path, graph: &Graph) -> Result<Self> {
        let what = folder.display().to_string();
        let data = gannet_data::read(folder).map_err(|gannet_data::DataError { what, fault, advice }| {
            EdgeError::Data { what, fault, way_round: advice }
        })?;
        let mut requests = vec![CapturedRequest { inputs: Vec::new() }; data.rows().min(ROWS_MAX)];
        for port in &graph.inputs {
            let column = |name: String| {
                let missing =
                    || bad(&what, format!("expected a column '{name}' of captured traffic, got none"));
                data.column(&name).ok_or_else(missing)
            };
            let (values, shapes) =
                (column(format!("in_{}", port.name))?, column(format!("in_{}_shape", port.name))?);
            for ((request, cell), shape) in requests.iter_mut().zip(&values.cells).zip(&shapes.cells) {
                let list = flat(cell).filter(|list| !list.is_empty());
                let list = list.ok_or_else(|| {
                    bad(
                        &what,
                        format!("input '{}': expected numbers, got none; are they redacted?", port.name),
                    )
                })?;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "lengths, and floats"
                )]
                request.inputs.push(CapturedInput {
                    name: port.name.clone(),
                    values: list.iter().map(|value| *value as f32).collect(),
                    shape: flat(shape).unwrap_or_default().iter().map(|axis| *axis as usize).collect(),
                });
            }
        }
        Ok(Self(requests))
    }
}

/// The numbers of a list.
fn flat(cell: &Cell) -> Option<Vec<f64>> {
    let Cell::List(list) = cell else { return None };
    let number = |cell: &Cell| match cell {
        Cell::Number(number) => Some(*number),
        _ => None,
    };
    list.iter().map(number).collect()
}

impl SampleSource for Captured {
    fn samples(&self, graph: &Graph) -> Result<Vec<Samples>> {
        let mut values: Vec<Vec<f32>> = vec![Vec::new(); graph.inputs.len()];
        for (index, request) in self.0.iter().enumerate() {
            let what = format!("captured request {index}");
            for (port, values) in graph.inputs.iter().zip(&mut values) {
                let found = request.inputs.iter().find(|input| input.name == port.name);
                let input = found
                    .ok_or_else(|| bad(&what, format!("expected the input '{}', got none", port.name)))?;
                let (elements, row) = (input.shape.iter().product::<usize>(), row_of(graph, port));
                if elements != input.values.len() || !elements.is_multiple_of(row) {
                    let (got, shape) = (input.values.len(), &input.shape);
                    let fault = format!(
                        "input '{}': expected rows of {row} values, got {got} values of shape {shape:?}",
                        port.name
                    );
                    return Err(bad(&what, fault));
                }
                values.extend_from_slice(&input.values);
            }
        }
        rows(graph, values, "captured requests")
    }
}

fn named<'a>(inputs: Option<&'a Value>, port: &Port) -> Option<&'a Value> {
    inputs?.as_array()?.iter().find(|input| input["name"] == port.name.as_str())
}

/// All numbers of nested lists, in order.
#[expect(clippy::cast_possible_truncation, reason = "the model computes in float32")]
fn numbers(value: &Value, into: &mut Vec<f32>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| numbers(value, into)),
        other => into.extend(other.as_f64().map(|value| value as f32)),
    }
}

/// Rows whose columns fall as the baseline's do: every column's quantiles once, in an order of its own.
#[expect(clippy::cast_precision_loss, reason = "few rows")]
fn drawn(input: &Value, row: usize) -> Result<Vec<f32>, String> {
    // beside the values themselves there may be what is made of all of them
    let features = input["features"].as_array().map(Vec::as_slice).unwrap_or_default();
    let columns: Vec<&Value> = features.iter().filter(|feature| feature["of"]["value"].is_u64()).collect();
    if columns.len() != row {
        return Err(format!("expected {row} columns, got {}", columns.len()));
    }
    let mut random = Random::new(SEED);
    let mut values = vec![0.0; DRAWN_ROWS * row];
    for (place, column) in columns.iter().enumerate() {
        let (edges, counts) = bins(&column["reference"]);
        let total: f32 = counts.iter().sum();
        if edges.len() != counts.len() + 1 || total <= 0.0 {
            return Err(format!(
                "column {place}: expected the counts of numbers, got those of texts, or none"
            ));
        }
        let mut order: Vec<usize> = (0..DRAWN_ROWS).collect();
        for last in (1..order.len()).rev() {
            let other = usize::try_from(random.below(last as u64 + 1)).unwrap_or(0);
            order.swap(last, other);
        }
        for (at, quantile) in order.into_iter().enumerate() {
            let share = (quantile as f32 + 0.5) / DRAWN_ROWS as f32;
            values[at * row + place] = quantile_of(&edges, &counts, share * total);
        }
    }
    Ok(values)
}

/// The borders of all bins of numbers, and how many fell into each; missing and strange values are left out.
fn bins(reference: &Value) -> (Vec<f32>, Vec<f32>) {
    let numeric = &reference["bins"]["numeric"];
    let (mut edges, mut counts) = (Vec::new(), Vec::new());
    for part in ["least", "edges", "greatest"] {
        numbers(&numeric[part], &mut edges);
    }
    numbers(&reference["counts"]["counts"], &mut counts);
    counts.truncate(edges.len().saturating_sub(1));
    (edges, counts)
}

/// The value below which `wanted` of the counted values lie, linear within a bin.
fn quantile_of(edges: &[f32], counts: &[f32], wanted: f32) -> f32 {
    let mut below = 0.0;
    for (bin, count) in counts.iter().enumerate() {
        if below + count >= wanted && *count > 0.0 {
            return edges[bin] + (edges[bin + 1] - edges[bin]) * ((wanted - below) / count).clamp(0.0, 1.0);
        }
        below += count;
    }
    edges[edges.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::graph_of;

    fn zoo(path: &str) -> Vec<u8> {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../zoo").join(path)).unwrap()
    }

    fn graph() -> Graph {
        graph_of(&zoo("digits/1/model.onnx")).unwrap()
    }

    #[test]
    fn a_baselines_columns_are_drawn_as_they_fall() {
        let baseline = Baseline(zoo("digits/1/baseline.json"));
        let samples = baseline.samples(&graph()).unwrap().remove(0);
        assert_eq!((samples.row, samples.len()), (64, DRAWN_ROWS));
        let mean = |place: usize| {
            let column = (0..samples.len()).map(|row| samples.values[row * 64 + place]);
            column.sum::<f32>() / DRAWN_ROWS as f32
        };
        // means as the baseline itself states them
        let stated: Value = serde_json::from_slice(&baseline.0).unwrap();
        for place in [0, 2, 3, 20, 43, 63] {
            let of = stated["inputs"][0]["features"][place]["reference"]["counts"]["moments"]["mean"]
                .as_f64()
                .unwrap() as f32;
            let got = mean(place);
            assert!((got - of).abs() < 0.8, "column {place}: {got}, stated {of}");
        }
        assert_eq!(baseline.samples(&graph()).unwrap()[0].values, samples.values);
    }

    #[test]
    fn rows_of_a_baseline_go_before_its_columns() {
        let row = vec!["0.5"; 64].join(",");
        let text = format!("{{\"inputs\":[{{\"name\":\"image\"}}],\"samples\":[[[{row}]],[[{row}]]]}}");
        assert_eq!(Baseline(text.into_bytes()).samples(&graph()).unwrap()[0].values, [0.5; 128]);
        for (text, part) in [
            ("{", "expected JSON"),
            ("{}", "expected the input 'image'"),
            ("{\"inputs\":[{\"name\":\"image\",\"features\":[]}]}", "expected 64 columns, got 0"),
        ] {
            let refused = Baseline(text.into()).samples(&graph()).unwrap_err().to_string();
            assert!(refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn captured_requests_of_any_batch_are_rows() {
        let input = |rows: usize| CapturedInput {
            name: "image".into(),
            values: vec![1.0; rows * 64],
            shape: vec![rows, 1, 8, 8],
        };
        let request = |inputs| CapturedRequest { inputs };
        let good = Captured(vec![request(vec![input(3)]), request(vec![input(1)])]);
        assert_eq!(good.samples(&graph()).unwrap()[0].len(), 4);
        let other = CapturedInput { name: "x".into(), ..input(1) };
        let torn = CapturedInput { values: vec![1.0; 63], ..input(1) };
        for (requests, part) in [
            (Vec::new(), "got 0 values"),
            (vec![request(vec![other])], "expected the input 'image'"),
            (vec![request(vec![input(1)]), request(vec![torn])], "captured request 1"),
        ] {
            let refused = Captured(requests).samples(&graph()).unwrap_err().to_string();
            assert!(refused.contains(part), "{refused}");
        }
    }
}
