//! How right captured answers were, once it is known what became of them: accuracy and calibration, or errors, for each
//! version. Pure. Must not know where rows or labels come from.

use std::collections::BTreeMap;

use gannet_models::{DType, redaction::Side};

use crate::{
    CaptureError, Captured, Column, Form, Layout,
    labels::{Label, Labels},
};

/// Bins of the calibration error.
const BINS: usize = 10;
/// The least probability that a logarithm is taken of.
const PROBABILITY_MIN: f64 = 1e-15;
/// How far the scores of a row may be from summing to one, to be called probabilities.
const SUM_TOLERANCE: f64 = 1e-3;

/// What answers are compared with labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Scores of classes: the largest is the answer.
    Scores,
    /// A class's number or name.
    Class,
    /// A number.
    Value,
}

/// How right one version was. Every row counts as many times as it stands for: one by its sampling probability.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quality {
    /// Rows with a label.
    pub rows: u64,
    /// Share of rows whose class was right.
    pub accuracy: Option<f64>,
    /// Mean negative logarithm of the probability of what was right.
    pub log_loss: Option<f64>,
    /// Mean squared difference of all classes' probabilities.
    pub brier: Option<f64>,
    /// Expected calibration error of the answer's probability, over ten bins.
    pub calibration_error: Option<f64>,
    /// Mean absolute error of numbers.
    pub mean_absolute_error: Option<f64>,
    /// Root of the mean squared error of numbers.
    pub root_mean_squared_error: Option<f64>,
}

/// Counts answers and labels.
#[derive(Debug)]
pub struct Evaluation {
    column: usize,
    output: Column,
    task: Task,
    versions: BTreeMap<String, Sums>,
    /// Captured rows that no label was given for.
    unlabelled: u64,
    /// Labels that fit no row of their request, or no class.
    unfit: u64,
}

#[derive(Debug, Default)]
struct Sums {
    rows: u64,
    weight: f64,
    right: f64,
    log_loss: f64,
    brier: f64,
    /// Whether all scores were probabilities.
    not_probabilities: bool,
    /// By bin of the answer's probability: weight, right, probability.
    bins: [(f64, f64, f64); BINS],
    absolute: f64,
    squared: f64,
}

impl Evaluation {
    /// Compares an output; without a name, the first with scores of classes, else the first with a class, else the
    /// first.
    ///
    /// # Errors
    /// [`CaptureError::Invalid`] when the table has no such output, or keeps none of its values.
    pub fn new(layout: &Layout, output: Option<&str>, task: Option<Task>) -> Result<Self, CaptureError> {
        let outputs = || layout.side(Side::Output).filter(|(_, column)| column.form == Form::Values);
        let known = || outputs().map(|(_, column)| column.tensor.as_str()).collect::<Vec<_>>().join(", ");
        let is_class = |dtype: DType| !dtype.is_float() && dtype != DType::Bool;
        let named = match output {
            Some(name) => outputs().find(|(_, column)| column.tensor == name),
            None => outputs()
                .find(|(_, column)| column.dtype.is_float())
                .or_else(|| outputs().find(|(_, column)| is_class(column.dtype)))
                .or_else(|| outputs().next()),
        };
        let Some((column, found)) = named else {
            let wanted = output.map_or_else(|| "an output".to_owned(), |name| format!("the output '{name}'"));
            return Err(CaptureError::Invalid(format!(
                "expected {wanted} whose values are kept, got: {}",
                known()
            )));
        };
        let task = task.unwrap_or(if found.dtype.is_float() { Task::Scores } else { Task::Class });
        Ok(Self { column, output: found.clone(), task, versions: BTreeMap::new(), unlabelled: 0, unfit: 0 })
    }

    /// The output that is compared.
    #[must_use]
    pub fn output(&self) -> &str {
        &self.output.tensor
    }

    /// Captured rows that no label was given for.
    #[must_use]
    pub fn unlabelled(&self) -> u64 {
        self.unlabelled
    }

    /// Labels that fit no row of their request, or no class of the model.
    #[must_use]
    pub fn unfit(&self) -> u64 {
        self.unfit
    }

    /// Takes a captured request in, with what became of it.
    pub fn add(&mut self, captured: &Captured, labels: &Labels) {
        let given = labels.of(&captured.id);
        self.unlabelled += captured.rows.saturating_sub(given.len() as u64);
        let Some(values) = captured.values.get(self.column).and_then(Option::as_ref) else {
            return;
        };
        let Some(answers) = numbers(&self.output, &values.data) else { return };
        let rows = usize::try_from(captured.rows).unwrap_or(1).max(1);
        let width = answers.len() / rows;
        for (row, label) in given {
            let from = usize::try_from(*row).unwrap_or(usize::MAX).saturating_mul(width);
            let answer = answers.get(from..from.saturating_add(width)).filter(|answer| !answer.is_empty());
            let label = number(label, &self.output);
            let counted = answer.zip(label).is_some_and(|(answer, label)| {
                let sums = self.versions.entry(captured.version.clone()).or_default();
                let weight = if captured.probability > 0.0 { 1.0 / captured.probability } else { 1.0 };
                sums.add(self.task, answer, label, weight)
            });
            self.unfit += u64::from(!counted);
        }
    }

    /// How right each version was.
    #[must_use]
    pub fn qualities(&self) -> BTreeMap<&str, Quality> {
        self.versions.iter().map(|(version, sums)| (version.as_str(), sums.quality())).collect()
    }
}

impl Sums {
    /// Whether the label could be counted.
    fn add(&mut self, task: Task, answer: &[f64], label: f64, weight: f64) -> bool {
        match task {
            Task::Value => {
                let error = answer[0] - label;
                self.absolute += weight * error.abs();
                self.squared += weight * error * error;
                self.brier = f64::NAN;
            }
            // one score is that of the second of two classes
            Task::Scores if answer.len() == 1 => {
                return self.scores(&[1.0 - answer[0], answer[0]], label, weight);
            }
            Task::Scores => return self.scores(answer, label, weight),
            Task::Class => self.right += if answer[0] == label { weight } else { 0.0 },
        }
        self.rows += 1;
        self.weight += weight;
        true
    }

    fn scores(&mut self, scores: &[f64], label: f64, weight: f64) -> bool {
        let Some(score) = class(label).and_then(|class| scores.get(class)) else { return false };
        let best =
            (0..scores.len()).fold(0, |best, index| if scores[index] > scores[best] { index } else { best });
        let is_right = class(label) == Some(best);
        let sum: f64 = scores.iter().sum();
        let in_range = scores.iter().all(|score| (-1e-9..=1.0 + 1e-9).contains(score));
        self.not_probabilities |= !in_range || (sum - 1.0).abs() > SUM_TOLERANCE;
        self.rows += 1;
        self.weight += weight;
        self.right += if is_right { weight } else { 0.0 };
        self.log_loss -= weight * score.max(PROBABILITY_MIN).ln();
        let squares = scores.iter().enumerate().map(|(index, score)| {
            let truth = f64::from(u8::from(class(label) == Some(index)));
            (score - truth) * (score - truth)
        });
        self.brier += weight * squares.sum::<f64>();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place among ten bins")]
        let bin = ((scores[best].clamp(0.0, 1.0) * BINS as f64) as usize).min(BINS - 1);
        self.bins[bin].0 += weight;
        self.bins[bin].1 += if is_right { weight } else { 0.0 };
        self.bins[bin].2 += weight * scores[best];
        true
    }

    fn quality(&self) -> Quality {
        let mean = |sum: f64| (self.weight > 0.0).then(|| sum / self.weight);
        let binned: f64 = self.bins.iter().map(|(weight, _, _)| weight).sum();
        let has_scores = binned > 0.0;
        let probabilities = |value: Option<f64>| value.filter(|_| has_scores && !self.not_probabilities);
        let is_value = self.brier.is_nan();
        let error = self.bins.iter().map(|(_, right, probability)| (right - probability).abs()).sum::<f64>();
        Quality {
            rows: self.rows,
            accuracy: mean(self.right).filter(|_| !is_value),
            log_loss: probabilities(mean(self.log_loss)),
            brier: probabilities(mean(self.brier)),
            calibration_error: probabilities(mean(error)),
            mean_absolute_error: mean(self.absolute).filter(|_| is_value),
            root_mean_squared_error: mean(self.squared).filter(|_| is_value).map(f64::sqrt),
        }
    }
}

/// The place of a class; `None` for what is no whole number of 0 or more.
fn class(label: f64) -> Option<usize> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    let class = (label >= 0.0 && label.fract() == 0.0 && label < 1e9).then_some(label as usize);
    class
}

/// A label as a number: itself, or the place of a class's name.
fn number(label: &Label, output: &Column) -> Option<f64> {
    let name = match label {
        Label::Number(number) => return Some(*number),
        Label::Name(name) => name,
    };
    let place = output.labels.as_ref()?.iter().position(|known| known == name)?;
    Some(place as f64)
}

/// Answers as numbers; texts are the places of classes' names.
fn numbers(output: &Column, data: &[u8]) -> Option<Vec<f64>> {
    fn read<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f64) -> Option<Vec<f64>> {
        Some(data.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect())
    }
    match output.dtype {
        DType::Bool => read(data, |[c]: [u8; 1]| f64::from(c)),
        DType::Uint8 => read(data, |[c]: [u8; 1]| f64::from(c)),
        DType::Uint16 => read(data, |c| f64::from(u16::from_le_bytes(c))),
        DType::Uint32 => read(data, |c| f64::from(u32::from_le_bytes(c))),
        DType::Uint64 => read(data, |c| u64::from_le_bytes(c) as f64),
        DType::Int8 => read(data, |c| f64::from(i8::from_le_bytes(c))),
        DType::Int16 => read(data, |c| f64::from(i16::from_le_bytes(c))),
        DType::Int32 => read(data, |c| f64::from(i32::from_le_bytes(c))),
        DType::Int64 => read(data, |c| i64::from_le_bytes(c) as f64),
        DType::Fp16 => read(data, |c| half::f16::from_le_bytes(c).to_f64()),
        DType::Bf16 => read(data, |c| half::bf16::from_le_bytes(c).to_f64()),
        DType::Fp32 => read(data, |c| f64::from(f32::from_le_bytes(c))),
        DType::Fp64 => read(data, f64::from_le_bytes),
        DType::Bytes => {
            let texts = crate::row::elements(data).map(|text| {
                let label = Label::Name(String::from_utf8_lossy(text).into_owned());
                number(&label, output).unwrap_or(f64::NAN)
            });
            Some(texts.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gannet_models::{Dim, Redactor, Signature, TensorSpec};

    use super::*;
    use crate::{Latency, Values};

    fn layout(dtype: DType, labels: Option<&[&str]>) -> Layout {
        let labels = labels.map(|labels| labels.iter().map(|label| (*label).to_owned()).collect());
        let output = TensorSpec { name: "y".into(), dtype, shape: vec![Dim::Dynamic(None)], labels };
        let signature = Signature { inputs: vec![], outputs: vec![output], batched: true };
        Layout::new(&signature, &Redactor::default())
    }

    fn captured(id: &str, rows: u64, probability: f64, values: &[f32]) -> Captured {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Captured {
            id: id.into(),
            time_us: 0,
            version: "1".into(),
            arm: None,
            instance: "i".into(),
            sequence: 0,
            probability,
            rows,
            latency: Latency::default(),
            values: vec![Some(Values {
                shape: [values.len()].into_iter().collect(),
                data: Bytes::from(data),
            })],
        }
    }

    fn labels(given: &[(&str, u64, Label)]) -> Labels {
        let mut labels = Labels::default();
        given.iter().for_each(|(id, row, label)| labels.add(id, *row, label.clone()));
        labels
    }

    #[test]
    fn scores_are_judged_as_scikit_learn_does() {
        let mut evaluation = Evaluation::new(&layout(DType::Fp32, Some(&["no", "yes"])), None, None).unwrap();
        let known = labels(&[
            ("a", 0, Label::Name("yes".into())),
            ("a", 1, Label::Number(0.0)),
            ("b", 0, Label::Number(1.0)),
            ("b", 7, Label::Number(1.0)),
            ("c", 0, Label::Name("perhaps".into())),
        ]);
        evaluation.add(&captured("a", 2, 1.0, &[0.25, 0.75, 0.25, 0.75]), &known);
        evaluation.add(&captured("b", 1, 0.5, &[0.0, 1.0]), &known);
        evaluation.add(&captured("c", 1, 1.0, &[0.5, 0.5]), &known);
        evaluation.add(&captured("nobody knows", 3, 1.0, &[0.0; 6]), &known);
        let quality = evaluation.qualities()["1"];
        assert_eq!((quality.rows, evaluation.unfit(), evaluation.unlabelled()), (3, 2, 3));
        // sklearn.metrics with sample_weight = [1, 1, 2]
        let near = |got: Option<f64>, expected: f64| {
            assert!((got.unwrap() - expected).abs() < 1e-9, "{got:?} {expected}")
        };
        near(quality.accuracy, 0.75);
        near(quality.log_loss, (-(0.75f64.ln()) - 0.25f64.ln()) / 4.0);
        near(quality.brier, (0.125 + 1.125) / 4.0);
        near(quality.calibration_error, 0.5 / 4.0);
        assert_eq!(quality.mean_absolute_error, None);
    }

    #[test]
    fn numbers_and_classes_are_judged_too() {
        let known = labels(&[("a", 0, Label::Number(1.0)), ("b", 0, Label::Number(5.0))]);
        let mut values = Evaluation::new(&layout(DType::Fp32, None), Some("y"), Some(Task::Value)).unwrap();
        values.add(&captured("a", 1, 1.0, &[2.0]), &known);
        values.add(&captured("b", 1, 1.0, &[2.0]), &known);
        let quality = values.qualities()["1"];
        assert_eq!((quality.mean_absolute_error, quality.accuracy), (Some(2.0), None));
        assert!((quality.root_mean_squared_error.unwrap() - 5f64.sqrt()).abs() < 1e-12);
        let mut classes = Evaluation::new(&layout(DType::Fp32, None), None, Some(Task::Class)).unwrap();
        classes.add(&captured("a", 1, 1.0, &[1.0]), &known);
        classes.add(&captured("b", 1, 1.0, &[2.0]), &known);
        assert_eq!(classes.qualities()["1"].accuracy, Some(0.5));
        let error = Evaluation::new(&layout(DType::Fp32, None), Some("z"), None).unwrap_err();
        assert!(error.to_string().contains("'z' whose values are kept, got: y"), "{error}");
    }
}
