//! What is watched of a version's rows, and how it is found in one. Must not know how it is judged.

use gannet_models::{DType, Signature, TensorSpec};
use gannet_stats::{monitor::Value, principal};

use super::{
    baseline::{Baseline, Of, TensorBaseline},
    row::TensorRow,
};

/// One feature's place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Feature {
    pub(super) name: String,
    pub(super) is_input: bool,
    /// Place in the signature.
    pub(super) tensor: usize,
    pub(super) of: Of,
    /// By class, for outputs that have names.
    labels: Option<std::sync::Arc<[String]>>,
    /// For a distance: place, mean, deviation.
    spread: Vec<(usize, f64, f64)>,
    /// For a component: means and weights.
    axis: Option<(Vec<f64>, Vec<f64>)>,
}

/// A value on its way into a monitor.
pub(super) enum Found<'a> {
    Borrowed(Value<'a>),
    Class(String),
}

impl Feature {
    pub(super) fn new(name: String, is_input: bool, tensor: usize, of: Of, spec: &TensorSpec) -> Self {
        let labels = spec.labels.clone();
        Self { name, is_input, tensor, of, labels, spread: Vec::new(), axis: None }
    }

    /// The feature's value in a row.
    pub(super) fn find<'a>(&self, row: &'a TensorRow) -> Found<'a> {
        let values = match row {
            TensorRow::Texts(texts) => {
                let at = if let Of::Value(at) = self.of { at } else { 0 };
                let text = texts.get(at).filter(|text| !text.is_empty());
                return Found::Borrowed(text.map_or(Value::Missing, |text| Value::Text(text)));
            }
            TensorRow::Numbers(values) => values,
        };
        let number = match self.of {
            Of::Value(at) => values.get(at).copied(),
            Of::Score => values.iter().copied().reduce(f64::max),
            Of::Class => {
                let class = class(values);
                return class
                    .map_or(Found::Borrowed(Value::Missing), |class| Found::Class(self.label(class)));
            }
            Of::Distance => distance(&self.spread, values),
            Of::Component(_) => {
                let axis = self.axis.as_ref().filter(|(mean, _)| mean.len() == values.len());
                axis.map(|(mean, axis)| principal::score(mean, axis, values))
            }
        };
        Found::Borrowed(number.map_or(Value::Missing, Value::Number))
    }

    fn label(&self, class: f64) -> String {
        let name =
            self.labels.as_ref().and_then(|labels| labels.get(class as usize)).filter(|_| class >= 0.0);
        name.cloned().unwrap_or_else(|| class.to_string())
    }
}

/// The predicted class: the place of the largest value, or the only value.
pub(super) fn class(values: &[f64]) -> Option<f64> {
    match values {
        [] => None,
        [only] => Some(*only),
        _ => {
            let best = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
            best.map(|(class, _)| class as f64)
        }
    }
}

/// The root of the mean square of a row's deviations; of values that never differed, whether they do now.
pub(super) fn distance(spread: &[(usize, f64, f64)], values: &[f64]) -> Option<f64> {
    let square = |(at, mean, deviation): &(usize, f64, f64)| {
        let off = values.get(*at)? - mean;
        Some(if *deviation > 0.0 { (off / deviation).powi(2) } else { f64::from(u8::from(off != 0.0)) })
    };
    let squares: Option<Vec<f64>> = spread.iter().map(square).collect();
    let squares = squares.filter(|squares| !squares.is_empty())?;
    Some((squares.iter().sum::<f64>() / squares.len() as f64).sqrt())
}

/// The output that holds scores: the last one of floating-point numbers.
pub(super) fn scores(signature: &Signature) -> Option<usize> {
    signature.outputs.iter().rposition(|spec| spec.dtype.is_float())
}

/// What a baseline watches.
pub(super) fn of_baseline(signature: &Signature, baseline: &Baseline) -> Vec<Feature> {
    let mut features = Vec::new();
    for (tensors, specs, is_input) in
        [(&baseline.inputs, &signature.inputs, true), (&baseline.outputs, &signature.outputs, false)]
    {
        for tensor in tensors {
            let Some(place) = specs.iter().position(|spec| spec.name == tensor.name) else { continue };
            features.extend(tensor.features.iter().map(|feature| {
                let name = feature.name.clone();
                of_tensor(Feature::new(name, is_input, place, feature.of, &specs[place]), tensor)
            }));
        }
    }
    features
}

pub(super) fn of_tensor(mut feature: Feature, tensor: &TensorBaseline) -> Feature {
    match (feature.of, &tensor.embedding) {
        (Of::Distance, _) => feature.spread = tensor.spread(),
        (Of::Component(index), Some(embedding)) => {
            feature.axis = Some((embedding.mean.clone(), embedding.axes[index].clone()));
        }
        _ => {}
    }
    feature
}

/// What can be watched of an output without knowing more: the score and the class that is predicted.
pub(super) fn of_outputs(signature: &Signature, widths: &[usize]) -> Vec<(usize, Of)> {
    let mut found = Vec::new();
    let best = scores(signature);
    for (place, (spec, width)) in signature.outputs.iter().zip(widths).enumerate() {
        match spec.dtype {
            DType::Bytes => found.push((place, Of::Value(0))),
            _ if *width == 0 => {}
            dtype if dtype.is_float() && *width == 1 => found.push((place, Of::Value(0))),
            dtype if dtype.is_float() => found.extend([(place, Of::Score), (place, Of::Class)]),
            // the class in another form
            _ if best.is_some_and(|best| widths[best] > 1) => {}
            _ => found.push((place, Of::Class)),
        }
    }
    found
}
