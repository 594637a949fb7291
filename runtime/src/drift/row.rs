//! One row of a request's or an answer's tensors, as values. Must not know what is watched of them.

use gannet_models::{DType, Signature, TensorSpec};

use crate::{
    Tensor,
    request::Tensors,
    tensor::{byte_elements, values},
};

/// Values of one tensor that are looked at; an embedding may have as many.
pub(super) const VALUES_MAX: usize = 16_384;

/// One row of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TensorRow {
    Numbers(Vec<f64>),
    Texts(Vec<String>),
}

/// Row `row` of each tensor, in the signature's order.
pub(super) fn rows(
    signature: &Signature,
    specs: &[TensorSpec],
    tensors: &Tensors,
    row: usize,
) -> Vec<TensorRow> {
    let one = |(_, tensor): (&TensorSpec, &Tensor)| {
        let has_rows = signature.batched && tensor.shape.first().is_some_and(|rows| *rows > row);
        if has_rows { read(&tensor.rows(row, row + 1)) } else { read(tensor) }
    };
    specs.iter().zip(tensors).map(one).collect()
}

fn read(tensor: &Tensor) -> TensorRow {
    match tensor.dtype {
        DType::Bytes => {
            let texts = byte_elements(&tensor.data).map_while(Result::ok).take(VALUES_MAX);
            TensorRow::Texts(texts.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect())
        }
        DType::Bool => {
            TensorRow::Numbers(tensor.data.iter().take(VALUES_MAX).map(|flag| f64::from(*flag)).collect())
        }
        dtype => {
            let bytes = tensor.data.len().min(VALUES_MAX * dtype.size_bytes().unwrap_or(1));
            let cut = Tensor { dtype, shape: tensor.shape.clone(), data: tensor.data.slice(..bytes) };
            TensorRow::Numbers(values(&cut).unwrap_or_default())
        }
    }
}
