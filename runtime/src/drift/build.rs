//! Makes a baseline out of rows: those of a data set, or the first ones that a version answers. Must not know where rows
//! come from.

use gannet_models::Signature;
use gannet_stats::{
    StatsError,
    monitor::{Reference, Value},
    principal::principal,
};

use super::{
    baseline::{
        Baseline, COMPONENTS_MAX, Embedding, FEATURES_MAX, FORMAT, FeatureBaseline, Of, TensorBaseline,
    },
    plan::{self, Feature, Found},
    row::{TensorRow, VALUES_MAX},
};

/// Bytes of a text that are kept.
const TEXT_BYTES_MAX: usize = 256;

/// A value of a data set's row.
#[derive(Debug, Clone, PartialEq)]
pub enum CellValue {
    /// None.
    Missing,
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// Rows by column, until there are enough.
#[derive(Debug, Clone)]
pub struct Builder {
    signature: Signature,
    /// By input, the names of its values; empty: by their place.
    names: Vec<Vec<String>>,
    /// Inputs that are embeddings.
    embeddings: Vec<usize>,
    /// By tensor of the inputs, then of the outputs: rows of values.
    inputs: Vec<Vec<Vec<CellValue>>>,
    outputs: Vec<Vec<TensorRow>>,
    rows: usize,
}

impl Builder {
    /// No rows yet.
    #[must_use]
    pub fn new(signature: &Signature) -> Self {
        let (inputs, outputs) = (signature.inputs.len(), signature.outputs.len());
        Self {
            signature: signature.clone(),
            names: vec![Vec::new(); inputs],
            embeddings: Vec::new(),
            inputs: vec![Vec::new(); inputs],
            outputs: vec![Vec::new(); outputs],
            rows: 0,
        }
    }

    /// Names the values of an input, in the order of its flat row.
    pub fn name(&mut self, input: usize, names: Vec<String>) {
        self.names[input] = names;
    }

    /// Has an input watched by its principal components and its distance in place of its values.
    pub fn embed(&mut self, input: usize) {
        self.embeddings.push(input);
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes one row: by input, its flat values; and what the model answers, if that is known.
    pub fn push(&mut self, inputs: Vec<Vec<CellValue>>, outputs: Option<&crate::request::Tensors>) {
        if let Some(outputs) = outputs {
            let rows = super::row::rows(&self.signature, &self.signature.outputs, outputs, 0);
            self.outputs.iter_mut().zip(rows).for_each(|(column, row)| column.push(row));
        }
        self.inputs.iter_mut().zip(inputs).for_each(|(column, row)| column.push(row));
        self.rows += 1;
    }

    /// The same of a sample.
    pub(super) fn push_rows(&mut self, inputs: Vec<TensorRow>, outputs: Vec<TensorRow>) {
        let cells = |row: TensorRow| match row {
            TensorRow::Numbers(values) => {
                values.into_iter().map(CellValue::Number).take(FEATURES_MAX).collect()
            }
            TensorRow::Texts(texts) => texts.into_iter().map(CellValue::text).take(FEATURES_MAX).collect(),
        };
        self.inputs.iter_mut().zip(inputs).for_each(|(column, row)| column.push(cells(row)));
        self.outputs.iter_mut().zip(outputs).for_each(|(column, row)| column.push(row));
        self.rows += 1;
    }

    /// The baseline of all rows, with some of them kept.
    ///
    /// # Errors
    /// [`StatsError`] where there is nothing to make one of.
    pub fn finish(&self, samples: usize) -> Result<Baseline, StatsError> {
        let mut left = FEATURES_MAX;
        // outputs are few, and first
        let widths: Vec<usize> = self.outputs.iter().map(|rows| rows.first().map_or(0, width)).collect();
        let mut outputs: Vec<TensorBaseline> = Vec::new();
        for (place, of) in plan::of_outputs(&self.signature, &widths).into_iter().take(left / 2) {
            let name = &self.signature.outputs[place].name;
            let reference = self.of_output(place, of)?;
            let shown = match of {
                Of::Score => format!("{name} score"),
                Of::Class if widths[place] > 1 => format!("{name} class"),
                _ => name.clone(),
            };
            left -= 1;
            let feature = FeatureBaseline { name: shown, of, reference };
            match outputs.iter_mut().find(|tensor| tensor.name == *name) {
                Some(tensor) => tensor.features.push(feature),
                None => outputs.push(TensorBaseline {
                    name: name.clone(),
                    embedding: None,
                    features: vec![feature],
                }),
            }
        }
        let mut inputs = Vec::new();
        for place in 0..self.inputs.len() {
            let tensor = self.of_input(place, left)?;
            left = left.saturating_sub(tensor.features.len());
            inputs.push(tensor);
        }
        let baseline = Baseline {
            format: FORMAT,
            rows: self.rows as u64,
            inputs,
            outputs,
            samples: self.samples(samples),
        };
        Ok(baseline)
    }

    fn of_output(&self, place: usize, of: Of) -> Result<Reference, StatsError> {
        let feature = Feature::new(String::new(), false, place, of, &self.signature.outputs[place]);
        let found: Vec<Found<'_>> = self.outputs[place].iter().map(|row| feature.find(row)).collect();
        let classes = found.iter().map(|found| match found {
            Found::Class(class) => Some(class.as_str()),
            Found::Borrowed(Value::Text(text)) => Some(*text),
            Found::Borrowed(_) => None,
        });
        if of == Of::Class || matches!(self.outputs[place].first(), Some(TensorRow::Texts(_))) {
            return Ok(Reference::of_categories(&classes.collect::<Vec<_>>()));
        }
        let numbers = found.iter().map(|found| match found {
            Found::Borrowed(Value::Number(number)) => Some(*number),
            _ => None,
        });
        Reference::of_numbers(&numbers.collect::<Vec<_>>())
    }

    fn of_input(&self, place: usize, most: usize) -> Result<TensorBaseline, StatsError> {
        let (rows, spec) = (&self.inputs[place], &self.signature.inputs[place]);
        let width = rows.iter().map(Vec::len).max().unwrap_or(0).min(VALUES_MAX);
        let mut tensor = TensorBaseline { name: spec.name.clone(), embedding: None, features: Vec::new() };
        if self.embeddings.contains(&place) {
            self.embedding(place, width, &mut tensor)?;
        } else {
            for at in 0..width.min(most.saturating_sub(1)) {
                // a column without a single value says nothing
                if let Some(reference) = column(rows, at)? {
                    let named = self.names[place].get(at).filter(|name| !name.is_empty()).cloned();
                    let default = if width == 1 { spec.name.clone() } else { format!("{}[{at}]", spec.name) };
                    let name = named.unwrap_or(default);
                    tensor.features.push(FeatureBaseline { name, of: Of::Value(at), reference });
                }
            }
        }
        let spread = tensor.spread();
        if spread.len() > 1 && most > tensor.features.len() {
            let distances: Vec<Option<f64>> =
                rows.iter().map(|row| plan::distance(&spread, &numbers(row)?)).collect();
            if let Ok(reference) = Reference::of_numbers(&distances) {
                let name = format!("{} distance", spec.name);
                tensor.features.push(FeatureBaseline { name, of: Of::Distance, reference });
            }
        }
        Ok(tensor)
    }

    fn embedding(&self, place: usize, width: usize, tensor: &mut TensorBaseline) -> Result<(), StatsError> {
        let rows: Vec<Vec<f64>> = self.inputs[place]
            .iter()
            .filter_map(|row| numbers(row))
            .filter(|row| row.len() == width)
            .collect();
        let found = principal(&rows, COMPONENTS_MAX)?;
        let mut deviation = vec![0.0; width];
        for row in &rows {
            for (at, value) in row.iter().enumerate() {
                deviation[at] += (value - found.mean[at]).powi(2) / rows.len() as f64;
            }
        }
        deviation.iter_mut().for_each(|square| *square = square.sqrt());
        for (index, axis) in found.axes.iter().enumerate() {
            let score = |row: &Vec<f64>| Some(gannet_stats::principal::score(&found.mean, axis, row));
            let reference = Reference::of_numbers(&rows.iter().map(score).collect::<Vec<_>>())?;
            let name = format!("{} component {}", tensor.name, index + 1);
            tensor.features.push(FeatureBaseline { name, of: Of::Component(index), reference });
        }
        tensor.embedding = Some(Embedding { mean: found.mean, deviation, axes: found.axes });
        Ok(())
    }

    /// Some rows, evenly over all; only where every value is a number.
    fn samples(&self, count: usize) -> Vec<Vec<Vec<f64>>> {
        let count = count.min(super::baseline::SAMPLES_MAX).min(self.rows);
        let row = |index: usize| -> Option<Vec<Vec<f64>>> {
            let row = index * self.rows / count;
            self.inputs.iter().map(|column| numbers(column.get(row)?)).collect()
        };
        (0..count).filter_map(row).collect()
    }
}

impl CellValue {
    pub(super) fn text(mut text: String) -> Self {
        let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
        if text.is_empty() { Self::Missing } else { Self::Text(text) }
    }
}

fn width(row: &TensorRow) -> usize {
    match row {
        TensorRow::Numbers(values) => values.len(),
        TensorRow::Texts(texts) => texts.len(),
    }
}

/// A row of numbers alone.
fn numbers(row: &[CellValue]) -> Option<Vec<f64>> {
    let number = |cell: &CellValue| if let CellValue::Number(number) = cell { Some(*number) } else { None };
    row.iter().map(number).collect()
}

/// A reference of the values at one place; `None` when there are none.
fn column(rows: &[Vec<CellValue>], at: usize) -> Result<Option<Reference>, StatsError> {
    let cells = || rows.iter().map(|row| row.get(at).unwrap_or(&CellValue::Missing));
    if cells().any(|cell| matches!(cell, CellValue::Text(_))) {
        let texts: Vec<Option<&str>> = cells()
            .map(|cell| if let CellValue::Text(text) = cell { Some(text.as_str()) } else { None })
            .collect();
        return Ok(Some(Reference::of_categories(&texts)));
    }
    let numbers: Vec<Option<f64>> =
        cells().map(|cell| if let CellValue::Number(number) = cell { Some(*number) } else { None }).collect();
    if !numbers.iter().flatten().any(|number| number.is_finite()) {
        return Ok(None);
    }
    Reference::of_numbers(&numbers).map(Some)
}
