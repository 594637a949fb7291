//! What a run gave, as tensors: one, a tuple or list of them, or a dictionary by name. Must not know how it was run.

use gannet_models::DType;
use gannet_runtime::backend::BackendError;
use tch::{IValue, Tensor};

use crate::{
    kind::{dtype_of, kind_of},
    signature,
};

/// An output and its name, if it has one.
pub(crate) struct Output {
    name: Option<String>,
    pub(crate) tensor: Tensor,
}

/// What one output looks like.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) name: String,
    /// Whether the model gave the name.
    pub(crate) named: bool,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
}

/// Takes the result of a run apart.
pub(crate) fn flatten(value: IValue) -> Result<Vec<Output>, BackendError> {
    let unnamed = |tensor| Output { name: None, tensor };
    match value {
        IValue::Tensor(tensor) => Ok(vec![unnamed(tensor)]),
        IValue::TensorList(tensors) => Ok(tensors.into_iter().map(unnamed).collect()),
        IValue::Tuple(values) | IValue::GenericList(values) => {
            values.into_iter().map(|value| tensor_of(value).map(unnamed)).collect()
        }
        IValue::GenericDict(pairs) => {
            let pair = |(key, value)| match key {
                IValue::String(name) => Ok(Output { name: Some(name), tensor: tensor_of(value)? }),
                _ => Err(unserved("a dictionary whose keys are no texts")),
            };
            pairs.into_iter().map(pair).collect()
        }
        _ => Err(unserved("something else")),
    }
}

fn tensor_of(value: IValue) -> Result<Tensor, BackendError> {
    match value {
        IValue::Tensor(tensor) => Ok(tensor),
        _ => Err(unserved("a collection of more than tensors")),
    }
}

fn unserved(got: &str) -> BackendError {
    BackendError::Execution(format!(
        "the model must give a tensor, a tuple or list of tensors, or a dictionary of them by name; it gave {got}"
    ))
}

/// The output that is served as `name`, the `index`th of so many.
pub(crate) fn find<'a>(
    outputs: &'a [Output],
    name: &str,
    index: usize,
    count: usize,
) -> Result<&'a Tensor, BackendError> {
    if outputs.first().is_some_and(|output| output.name.is_some()) {
        let found = outputs.iter().find(|output| output.name.as_deref() == Some(name));
        return found
            .map(|output| &output.tensor)
            .ok_or_else(|| BackendError::Execution(format!("the model gave no output '{name}'")));
    }
    if outputs.len() != count {
        let got = outputs.len();
        return Err(BackendError::Execution(format!("the model gave {got} outputs, expected {count}")));
    }
    Ok(&outputs[index].tensor)
}

/// What they look like.
pub(crate) fn show(outputs: &[Output]) -> Result<Vec<Shown>, BackendError> {
    let show = |(index, output): (usize, &Output)| {
        let name = output.name.clone().unwrap_or_else(|| signature::unnamed(false, index));
        let dtype = dtype(&output.tensor, &name)?;
        let shape = shape(&output.tensor);
        Ok(Shown { name, named: output.name.is_some(), dtype, shape })
    };
    outputs.iter().enumerate().map(show).collect()
}

/// The protocol's element type of an output.
pub(crate) fn dtype(tensor: &Tensor, name: &str) -> Result<DType, BackendError> {
    let kind = tensor.f_kind().ok();
    kind.and_then(dtype_of).ok_or_else(|| {
        let got = kind.map_or("one that its wrapper does not know".to_owned(), |kind| format!("{kind:?}"));
        let served: Vec<&str> = DType::all().filter(|d| kind_of(*d).is_some()).map(DType::name).collect();
        BackendError::Execution(format!(
            "output '{name}' has the type {got}, which is not served; convert it in the model to one of {}",
            served.join(", ")
        ))
    })
}

/// The lengths of a tensor's axes.
pub(crate) fn shape(tensor: &Tensor) -> Vec<usize> {
    tensor.size().into_iter().map(|length| usize::try_from(length).unwrap_or(0)).collect()
}
