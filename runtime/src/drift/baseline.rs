//! What a version's data and answers looked like when it was trained, as it is kept in the version's folder
//! (`baseline.json`). Must not know files.

use gannet_models::Signature;
use gannet_stats::monitor::{Bins, Reference};
use serde::{Deserialize, Serialize};

/// The format that is written.
pub const FORMAT: u32 = 2;
/// Features of one version that are watched: wide tensors by their first values.
pub const FEATURES_MAX: usize = 512;
/// Components of an embedding.
pub const COMPONENTS_MAX: usize = 32;
/// Rows that may be kept beside it.
pub const SAMPLES_MAX: usize = 1000;

/// A version's baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// [`FORMAT`].
    pub format: u32,
    /// Rows that it was made of.
    pub rows: u64,
    /// The inputs that are watched.
    pub inputs: Vec<TensorBaseline>,
    /// The outputs that are watched.
    #[serde(default)]
    pub outputs: Vec<TensorBaseline>,
    /// Some of the rows: of each, the flat values of each input. Redact what must not leave before it is made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Vec<Vec<f64>>>,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorBaseline {
    /// As in the signature.
    pub name: String,
    /// Directions of an embedding, whose values themselves are not watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Embedding>,
    /// What is watched of it.
    pub features: Vec<FeatureBaseline>,
}

/// Means, deviations and principal components of an embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Of each value.
    pub mean: Vec<f64>,
    /// Of each value.
    pub deviation: Vec<f64>,
    /// By component, a weight for each value.
    pub axes: Vec<Vec<f64>>,
}

/// One feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureBaseline {
    /// For people.
    pub name: String,
    /// What it is of its tensor.
    pub of: Of,
    /// How it fell.
    pub reference: Reference,
}

/// What a feature is of a row of its tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// The value at this place of the flat row.
    Value(usize),
    /// The largest value of an output: the score of what is predicted.
    Score,
    /// The place of the largest value of an output, or a whole number: the class that is predicted.
    Class,
    /// How far the row lies from the baseline's middle, in its standard deviations: what is out of distribution.
    Distance,
    /// How far it lies in a direction of the embedding.
    Component(usize),
}

impl Baseline {
    /// Whether it is one of a model with this signature.
    ///
    /// # Errors
    /// A text: what was expected and what was found.
    pub fn check(&self, signature: &Signature) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format: expected {FORMAT}, got {}; make it anew", self.format));
        }
        let count = |tensors: &[TensorBaseline]| tensors.iter().map(|t| t.features.len()).sum::<usize>();
        let features = count(&self.inputs) + count(&self.outputs);
        if features == 0 || features > FEATURES_MAX {
            return Err(format!("expected 1 to {FEATURES_MAX} features, got {features}"));
        }
        for (tensors, specs, side) in
            [(&self.inputs, &signature.inputs, "input"), (&self.outputs, &signature.outputs, "output")]
        {
            for tensor in tensors {
                if !specs.iter().any(|spec| spec.name == tensor.name) {
                    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
                    return Err(format!(
                        "{side} '{}': the model has {}; make it anew",
                        tensor.name,
                        names.join(", ")
                    ));
                }
                tensor.check()?;
            }
        }
        Ok(())
    }
}

impl TensorBaseline {
    fn check(&self) -> Result<(), String> {
        if let Some(embedding) = &self.embedding {
            let width = embedding.mean.len();
            let fits = embedding.deviation.len() == width
                && embedding.axes.len() <= COMPONENTS_MAX
                && embedding.axes.iter().all(|axis| axis.len() == width);
            if !fits {
                return Err(format!("'{}': the embedding's parts are not of one length", self.name));
            }
        }
        for feature in &self.features {
            let counts = feature.reference.counts.counts.len();
            if counts != feature.reference.bins.count() || feature.reference.counts.rows() == 0 {
                return Err(format!("'{}', '{}': its counts do not fit its bins", self.name, feature.name));
            }
            let axes = self.embedding.as_ref().map_or(0, |embedding| embedding.axes.len());
            if matches!(feature.of, Of::Component(index) if index >= axes) {
                return Err(format!("'{}', '{}': there is no such component", self.name, feature.name));
            }
        }
        Ok(())
    }

    /// Means and deviations of its values, by place; none where they are not watched.
    pub(super) fn spread(&self) -> Vec<(usize, f64, f64)> {
        if let Some(Embedding { mean, deviation, .. }) = &self.embedding {
            return mean.iter().zip(deviation).enumerate().map(|(at, (m, d))| (at, *m, *d)).collect();
        }
        let of = |feature: &FeatureBaseline| match (feature.of, &feature.reference.bins) {
            (Of::Value(at), Bins::Numeric(_)) => {
                let moments = &feature.reference.counts.moments;
                Some((at, moments.mean(), moments.variance().sqrt()))
            }
            _ => None,
        };
        self.features.iter().filter_map(of).collect()
    }
}
