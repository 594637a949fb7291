//! Inputs and outputs as the model declares them, and how each is presented. Must not know values.

use std::sync::Arc;

use gannet_models::{DType, Dim, TensorSpec};
use ort::value::{Outlet, TensorElementType, ValueType};

/// How an output is turned into a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// It is one.
    Tensor(DType),
    /// Scores by class, one map a row (scikit-learn's ZipMap) or one map in all: FP32 with a column a class.
    Classes {
        /// A sequence of maps; else a lone map.
        rows: bool,
        /// The type of the class names: Int64 or Bytes.
        key: DType,
    },
}

/// An input; the error says what it is instead of a tensor.
pub(crate) fn input(outlet: &Outlet) -> Result<TensorSpec, String> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, dimension_symbols } => {
            let dtype = dtype(*ty).ok_or_else(|| unsupported(outlet, "input"))?;
            Ok(spec(outlet.name(), dtype, dims(shape, dimension_symbols)))
        }
        _ => Err(unsupported(outlet, "input")),
    }
}

/// An output. `batch` is the axis 0 of the first input, for outputs that have rows but no shape.
pub(crate) fn output(outlet: &Outlet, batch: Option<&Dim>) -> Result<(TensorSpec, OutputKind), String> {
    let classes = |rows, key: TensorElementType, value: TensorElementType| {
        let key = dtype(key).filter(|key| matches!(key, DType::Int64 | DType::Bytes))?;
        let axis = if rows { batch.cloned().unwrap_or(Dim::Dynamic(None)) } else { Dim::Fixed(1) };
        let shape = vec![axis, Dim::Dynamic(None)];
        (value == TensorElementType::Float32)
            .then(|| (spec(outlet.name(), DType::Fp32, shape), OutputKind::Classes { rows, key }))
    };
    let described = match outlet.dtype() {
        ValueType::Tensor { ty, shape, dimension_symbols } => dtype(*ty).map(|dtype| {
            (spec(outlet.name(), dtype, dims(shape, dimension_symbols)), OutputKind::Tensor(dtype))
        }),
        ValueType::Map { key, value } => classes(false, *key, *value),
        ValueType::Sequence(inner) => match **inner {
            ValueType::Map { key, value } => classes(true, key, value),
            _ => None,
        },
        ValueType::Optional(_) => None,
    };
    described.ok_or_else(|| unsupported(outlet, "output"))
}

/// What to say about a type that is not served.
fn unsupported(outlet: &Outlet, role: &str) -> String {
    let way_round = match outlet.dtype() {
        ValueType::Tensor { .. } => "insert a Cast to a type of the inference protocol",
        ValueType::Sequence(inner) if inner.is_tensor() => "join its elements with ConcatFromSequence",
        ValueType::Sequence(_) | ValueType::Map { .. } => "export with zipmap=False",
        ValueType::Optional(_) => "make it a plain tensor with OptionalGetElement",
    };
    format!("{role} '{}' has the type {}, which cannot be served: {way_round}", outlet.name(), outlet.dtype())
}

/// What to say about a sparse tensor, which the library's wrapper describes as a dense one.
pub(crate) fn sparse(name: &str) -> String {
    format!("output '{name}' is a sparse tensor, which cannot be served: make it dense in the model")
}

fn spec(name: &str, dtype: DType, shape: Vec<Dim>) -> TensorSpec {
    TensorSpec { name: name.to_owned(), dtype, shape, labels: None }
}

fn dims(shape: &[i64], symbols: &[String]) -> Vec<Dim> {
    let dim = |(axis, &length): (usize, &i64)| match usize::try_from(length) {
        Ok(length) => Dim::Fixed(length),
        Err(_) => {
            Dim::Dynamic(symbols.get(axis).filter(|symbol| !symbol.is_empty()).map(|s| Arc::from(s.as_str())))
        }
    };
    shape.iter().enumerate().map(dim).collect()
}

fn dtype(element: TensorElementType) -> Option<DType> {
    Some(match element {
        TensorElementType::Bool => DType::Bool,
        TensorElementType::Uint8 => DType::Uint8,
        TensorElementType::Uint16 => DType::Uint16,
        TensorElementType::Uint32 => DType::Uint32,
        TensorElementType::Uint64 => DType::Uint64,
        TensorElementType::Int8 => DType::Int8,
        TensorElementType::Int16 => DType::Int16,
        TensorElementType::Int32 => DType::Int32,
        TensorElementType::Int64 => DType::Int64,
        TensorElementType::Float16 => DType::Fp16,
        TensorElementType::Bfloat16 => DType::Bf16,
        TensorElementType::Float32 => DType::Fp32,
        TensorElementType::Float64 => DType::Fp64,
        TensorElementType::String => DType::Bytes,
        _ => return None,
    })
}
