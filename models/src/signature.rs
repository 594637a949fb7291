//! The shape of a model's inputs and outputs. Must not know values, only their types.

use std::{fmt, sync::Arc};

use crate::DType;

/// One axis of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Exactly this many elements.
    Fixed(usize),
    /// Any number of elements; the symbol, if any, ties axes that must agree.
    Dynamic(Option<Arc<str>>),
}

impl Dim {
    /// The protocol's number for the axis: its length, or -1 when variable.
    #[must_use]
    pub fn wire(&self) -> i64 {
        match self {
            Self::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
            Self::Dynamic(_) => -1,
        }
    }

    /// Whether an axis of `size` elements fits.
    #[must_use]
    pub fn admits(&self, size: usize) -> bool {
        match self {
            Self::Fixed(expected) => *expected == size,
            Self::Dynamic(_) => true,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.wire())
    }
}

/// Name, element type and shape of one input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name requests use.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// All axes, the batch axis (first) included where the model has one.
    pub shape: Vec<Dim>,
    /// Class names of an output, index by index (Triton's classification extension).
    pub labels: Option<Arc<[String]>>,
}

impl TensorSpec {
    /// The shape as the protocol writes it, -1 for a variable axis.
    #[must_use]
    pub fn wire_shape(&self) -> Vec<i64> {
        self.shape.iter().map(Dim::wire).collect()
    }

    /// The shape as text, such as `[-1,4]`.
    #[must_use]
    pub fn shape_text(&self) -> String {
        let dims: Vec<String> = self.shape.iter().map(Dim::to_string).collect();
        format!("[{}]", dims.join(","))
    }
}

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signature {
    /// In the model's own order.
    pub inputs: Vec<TensorSpec>,
    /// In the model's own order.
    pub outputs: Vec<TensorSpec>,
    /// Whether axis 0 of every input and output counts rows that are independent of each other.
    pub batched: bool,
}

impl Signature {
    /// The index of an input.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|spec| spec.name == name)
    }

    /// The index of an output.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|spec| spec.name == name)
    }

    /// Whether axis 0 *can* be a batch axis: variable on every input and output, and one symbol at most among
    /// the inputs that name one. Exporters rename the axes of outputs freely, so their symbols prove nothing:
    /// a probe run with several rows settles it.
    #[must_use]
    pub fn batch_axis_inferred(&self) -> bool {
        let mut symbol: Option<&str> = None;
        let variable = |spec: &TensorSpec| matches!(spec.shape.first(), Some(Dim::Dynamic(_)));
        !self.inputs.is_empty()
            && self.outputs.iter().all(variable)
            && self.inputs.iter().all(|spec| match spec.shape.first() {
                Some(Dim::Dynamic(None)) => true,
                Some(Dim::Dynamic(Some(name))) => *symbol.get_or_insert(name) == &**name,
                _ => false,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, shape: &[&str]) -> TensorSpec {
        let dim = |text: &&str| match text.parse() {
            Ok(size) => Dim::Fixed(size),
            Err(_) if text.is_empty() => Dim::Dynamic(None),
            Err(_) => Dim::Dynamic(Some(Arc::from(*text))),
        };
        TensorSpec {
            name: name.into(),
            dtype: DType::Fp32,
            shape: shape.iter().map(dim).collect(),
            labels: None,
        }
    }

    #[test]
    fn batch_axis_is_inferred_from_agreeing_variable_first_axes() {
        let check = |inputs: &[&[&str]], outputs: &[&[&str]], expected: bool| {
            let specs = |shapes: &[&[&str]]| shapes.iter().map(|s| spec("t", s)).collect();
            let signature = Signature { inputs: specs(inputs), outputs: specs(outputs), batched: false };
            assert_eq!(signature.batch_axis_inferred(), expected, "{inputs:?} -> {outputs:?}");
        };
        check(&[&["batch", "4"]], &[&["batch", "3"]], true);
        check(&[&["", "4"]], &[&["N"], &["", "3"]], true);
        check(&[&["batch", "4"]], &[&["unk__6", "3"]], true);
        check(&[&["N", "4"], &["M", "4"]], &[&["N"]], false);
        check(&[&["1", "4"]], &[&["1", "3"]], false);
        check(&[&["N", "4"]], &[&[]], false);
        check(&[], &[&["N"]], false);
    }
}
