//! What a TorchScript model takes and gives, which its file does not say: from the configuration, from MLflow, and
//! for outputs from a look at what two runs on zeros give. Must not know how runs are made.

use std::{path::Path, sync::Arc};

use gannet_models::{DType, Dim, Signature, TensorSpec, settings::TensorDeclaration};
use gannet_runtime::{backend::Declared, tensor};

use crate::{kind::kind_of, mlflow, outputs::Shown};

/// The symbol of the batch axis.
pub(crate) const BATCH: &str = "batch";
/// Bytes of one input that a look may have: it is a look at the outputs, not work.
const LOOK_BYTES_MAX: usize = 64 << 20;

/// What is known before anything ran.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) inputs: Vec<TensorSpec>,
    /// As far as stated; completed by [`complete`].
    pub(crate) outputs: Vec<Stated>,
}

/// Type, shape and bytes of an input made up.
pub(crate) type Zeros = (DType, Vec<usize>, Vec<u8>);

/// An output as it was stated.
#[derive(Debug, Clone)]
pub(crate) struct Stated {
    pub(crate) name: String,
    dtype: Option<DType>,
    shape: Option<Vec<Dim>>,
}

/// A name for what has none, in the words that Triton uses for this engine.
pub(crate) fn unnamed(input: bool, index: usize) -> String {
    format!("{}__{index}", if input { "INPUT" } else { "OUTPUT" })
}

/// What the configuration says; without inputs there, what MLflow says beside the model.
///
/// # Errors
/// A text: what is missing, and how to state it.
pub(crate) fn known(declared: &Declared<'_>, model_path: &Path) -> Result<Known, String> {
    let parent = model_path.parent().unwrap_or(Path::new(""));
    let in_data = parent.file_name().is_some_and(|name| name == "data");
    let dir = if in_data { parent.parent().unwrap_or(parent) } else { parent };
    let (inputs, mut outputs) = if declared.inputs.is_empty() {
        let (inputs, outputs) = mlflow::read(dir)?.ok_or(NOTHING_STATED)?;
        let stated =
            |spec: TensorSpec| Stated { name: spec.name, dtype: Some(spec.dtype), shape: Some(spec.shape) };
        (inputs, outputs.into_iter().map(stated).collect())
    } else {
        let inputs = declared.inputs.iter().map(|input| input_spec(input, declared.batch_axis));
        (inputs.collect::<Result<Vec<_>, _>>()?, Vec::new())
    };
    if !declared.outputs.is_empty() {
        outputs = declared.outputs.iter().map(|output| stated(output, declared.batch_axis)).collect();
    }
    let of_outputs = outputs.iter().filter_map(|output| Some((&output.name, output.dtype?)));
    for (name, dtype) in inputs.iter().map(|input| (&input.name, input.dtype)).chain(of_outputs) {
        if kind_of(dtype).is_none() {
            return Err(format!(
                "'{name}' is stated as {dtype}, which this engine does not have; use INT32 or INT64 for unsigned \
                 integers, and numbers for texts"
            ));
        }
    }
    Ok(Known { inputs, outputs })
}

const NOTHING_STATED: &str = "a TorchScript file does not say what it takes; state each argument of its forward \
                              method, in order, in model.toml: [[inputs]] with name, dtype and dims (without the batch \
                              axis)";

fn input_spec(input: &TensorDeclaration, batch_axis: bool) -> Result<TensorSpec, String> {
    let (Some(dtype), Some(dims)) = (input.dtype, &input.dims) else {
        return Err(format!(
            "input '{}': expected dtype and dims in the model's settings, which a TorchScript file does not say",
            input.name
        ));
    };
    Ok(TensorSpec { name: input.name.clone(), dtype, shape: shape(dims, batch_axis), labels: None })
}

fn stated(output: &TensorDeclaration, batch_axis: bool) -> Stated {
    let shape = output.dims.as_ref().map(|dims| shape(dims, batch_axis));
    Stated { name: output.name.clone(), dtype: output.dtype, shape }
}

fn shape(dims: &[i64], batch_axis: bool) -> Vec<Dim> {
    let batch = batch_axis.then(|| Dim::Dynamic(Some(Arc::from(BATCH))));
    let dim = |length: &i64| usize::try_from(*length).map_or(Dim::Dynamic(None), Dim::Fixed);
    batch.into_iter().chain(dims.iter().map(dim)).collect()
}

impl Known {
    /// The signature, when nothing has to be looked at.
    pub(crate) fn complete(&self) -> Option<Signature> {
        let spec = |output: &Stated| {
            let (name, dtype, shape) = (output.name.clone(), output.dtype?, output.shape.clone()?);
            Some(TensorSpec { name, dtype, shape, labels: None })
        };
        let outputs: Option<Vec<TensorSpec>> = self.outputs.iter().map(spec).collect();
        let outputs = outputs.filter(|outputs| !outputs.is_empty())?;
        Some(Signature { inputs: self.inputs.clone(), outputs, batched: false })
    }

    /// Zeros for every input, `length` along variable axes; `None` when that is too much.
    pub(crate) fn zeros(&self, length: usize) -> Option<Vec<Zeros>> {
        let zeros = |spec: &TensorSpec| {
            let axis = |dim: &Dim| match dim {
                Dim::Fixed(length) => *length,
                Dim::Dynamic(_) => length,
            };
            let shape: Vec<usize> = spec.shape.iter().map(axis).collect();
            let bytes = tensor::size_bytes(spec.dtype, &shape).filter(|&bytes| bytes <= LOOK_BYTES_MAX)?;
            Some((spec.dtype, shape, vec![0; bytes]))
        };
        self.inputs.iter().map(zeros).collect()
    }

    /// The signature, completed by what two runs gave: with variable axes of length 1, and of length 2 if that ran.
    ///
    /// # Errors
    /// A text when they do not fit what is stated.
    pub(crate) fn completed(&self, one: &[Shown], two: Option<&[Shown]>) -> Result<Signature, String> {
        let found: Vec<&str> = one.iter().map(|shown| shown.name.as_str()).collect();
        let names: Vec<String> = if self.outputs.is_empty() {
            found.iter().map(|&name| name.to_owned()).collect()
        } else {
            self.outputs.iter().map(|output| output.name.clone()).collect()
        };
        let by_name = one.iter().any(|shown| shown.named);
        if !by_name && names.len() != one.len() {
            return Err(format!(
                "the configuration names {} outputs, the model gives {}",
                names.len(),
                one.len()
            ));
        }
        let batched =
            self.inputs.iter().all(|spec| spec.shape.first() == Some(&Dim::Dynamic(Some(BATCH.into()))));
        let mut outputs = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            let at = if by_name { found.iter().position(|&found| found == name) } else { Some(index) };
            let Some(at) = at else {
                let found = found.join(", ");
                return Err(format!("the configuration names output '{name}', the model gives: {found}"));
            };
            let stated = self.outputs.get(index);
            let looked = || axes(&one[at].shape, two.and_then(|two| Some(&two.get(at)?.shape[..])), batched);
            outputs.push(TensorSpec {
                name,
                dtype: stated.and_then(|stated| stated.dtype).unwrap_or(one[at].dtype),
                shape: stated.and_then(|stated| stated.shape.clone()).unwrap_or_else(looked),
                labels: None,
            });
        }
        Ok(Signature { inputs: self.inputs.clone(), outputs, batched: false })
    }
}

/// An axis that differs between the runs is variable; the first is the batch axis where the inputs have one.
fn axes(one: &[usize], two: Option<&[usize]>, batched: bool) -> Vec<Dim> {
    let two = two.filter(|two| two.len() == one.len());
    let dim = |(axis, &length): (usize, &usize)| {
        let differs = two.is_some_and(|two| two[axis] != length);
        match (axis, differs) {
            (0, _) if batched && (differs || two.is_none()) => Dim::Dynamic(Some(Arc::from(BATCH))),
            (_, true) => Dim::Dynamic(None),
            (_, false) => Dim::Fixed(length),
        }
    };
    one.iter().enumerate().map(dim).collect()
}
