//! Runs on a device: inputs and outputs are bound to the session, outputs stay in the device's memory until they are
//! handed out, and are fetched one by one then. Through the wrapper's own types: what they cost is nothing beside a
//! trip to a device. Must not know which device it is.

use gannet_models::DType;
use gannet_runtime::{
    TensorView,
    backend::{BackendError, Sink},
    tensor,
};
use ort::{
    memory::{AllocationDevice, MemoryInfo},
    session::{IoBinding, Session},
    value::{DynTensorValueType, DynValue, Tensor, TensorElementType, Value},
};

use crate::{outlet::OutputKind, refusal::Refusal};

/// A session whose outputs stay where it computes.
pub(crate) struct BoundRunner {
    session: Session,
    binding: IoBinding,
    /// Where outputs stay.
    memory: MemoryInfo<'static>,
    inputs: Vec<String>,
    outputs: Vec<(String, DType)>,
    /// An output on its way out.
    buffer: Vec<u8>,
}

impl BoundRunner {
    /// The error says what cannot be bound.
    pub(crate) fn new(
        session: Session,
        kinds: &[OutputKind],
        memory: MemoryInfo<'static>,
    ) -> Result<Self, String> {
        let mut outputs = Vec::new();
        for (outlet, kind) in session.outputs().iter().zip(kinds) {
            match kind {
                OutputKind::Tensor(dtype) if *dtype != DType::Bytes => {
                    outputs.push((outlet.name().to_owned(), *dtype));
                }
                _ => {
                    let name = outlet.name();
                    return Err(format!(
                        "output '{name}' is no tensor of numbers, which is all that a device gives"
                    ));
                }
            }
        }
        let inputs = session.inputs().iter().map(|outlet| outlet.name().to_owned()).collect();
        let binding = session.create_binding().map_err(|error| error.to_string())?;
        Ok(Self { session, binding, memory, inputs, outputs, buffer: Vec::new() })
    }

    /// Runs once and hands each output to `sink`.
    pub(crate) fn run(&mut self, views: &[TensorView<'_>], sink: &mut Sink<'_>) -> Result<(), BackendError> {
        if views.len() != self.inputs.len() {
            let (takes, given) = (self.inputs.len(), views.len());
            return Err(BackendError::Execution(format!("the model has {takes} inputs, {given} were given")));
        }
        for (name, view) in self.inputs.iter().zip(views) {
            self.binding.bind_input(name, &input(view)?).map_err(of_run)?;
        }
        // anew for each run: what was given out is not written over
        for (name, _) in &self.outputs {
            self.binding.bind_output_to_device(name, &self.memory).map_err(of_run)?;
        }
        let mut given = self.session.run_binding(&self.binding).map_err(of_run)?;
        for (index, (name, dtype)) in self.outputs.iter().enumerate() {
            let value = given
                .remove(name)
                .ok_or_else(|| BackendError::Execution(format!("the run left output '{name}' empty")))?;
            let tensor = value.downcast::<DynTensorValueType>().map_err(of_run)?;
            self.buffer.clear();
            let shape = if tensor.memory_info().is_cpu_accessible() {
                fetch(&tensor, *dtype, &mut self.buffer)
            } else {
                fetch(&tensor.to(AllocationDevice::CPU, 0).map_err(of_run)?, *dtype, &mut self.buffer)
            }?;
            sink(index, TensorView { dtype: *dtype, shape: &shape, data: &self.buffer });
        }
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn of_run(error: ort::Error) -> BackendError {
    Refusal { code: error.code() as i32, message: error.message().to_owned() }.of_run()
}

/// Does something for each type of numbers: (the protocol's, the wrapper's).
macro_rules! by_type {
    ($dtype:expr, $do:ident, $other:expr) => {
        match $dtype {
            DType::Uint8 => $do!(u8),
            DType::Uint16 => $do!(u16),
            DType::Uint32 => $do!(u32),
            DType::Uint64 => $do!(u64),
            DType::Int8 => $do!(i8),
            DType::Int16 => $do!(i16),
            DType::Int32 => $do!(i32),
            DType::Int64 => $do!(i64),
            DType::Fp16 => $do!(half::f16),
            DType::Bf16 => $do!(half::bf16),
            DType::Fp32 => $do!(f32),
            DType::Fp64 => $do!(f64),
            DType::Bool | DType::Bytes => $other,
        }
    };
}

/// A value with a copy of the view's data, which is what goes to the device.
fn input(view: &TensorView<'_>) -> Result<DynValue, BackendError> {
    let bytes = view.data.len();
    if view.dtype == DType::Bytes || tensor::size_bytes(view.dtype, view.shape) != Some(bytes) {
        return Err(BackendError::Input(format!(
            "{bytes} bytes are no tensor of numbers of type {} and shape {:?}",
            view.dtype, view.shape
        )));
    }
    let shape = view.shape.to_vec();
    macro_rules! make {
        ($type:ty) => {{
            let chunks = view.data.as_chunks().0.iter();
            let elements: Vec<$type> = chunks.map(|chunk| <$type>::from_le_bytes(*chunk)).collect();
            Tensor::from_array((shape, elements)).map(Value::into_dyn)
        }};
    }
    let flags = || view.data.iter().map(|&byte| byte != 0).collect::<Vec<bool>>();
    let made = by_type!(view.dtype, make, Tensor::from_array((shape, flags())).map(Value::into_dyn));
    made.map_err(of_run)
}

/// Appends the elements of a tensor in the processor's memory; its shape.
fn fetch(
    tensor: &Value<DynTensorValueType>,
    dtype: DType,
    out: &mut Vec<u8>,
) -> Result<Vec<usize>, BackendError> {
    macro_rules! read {
        ($type:ty) => {
            tensor.try_extract_tensor::<$type>().map(|(shape, elements)| {
                elements.iter().for_each(|element| out.extend(element.to_le_bytes()));
                shape
            })
        };
    }
    let flags = || tensor.try_extract_tensor::<bool>().map(|(shape, elements)| (shape, elements.to_vec()));
    let shape = match tensor.data_type() {
        TensorElementType::Bool => flags().map(|(shape, elements)| {
            out.extend(elements.iter().map(|&flag| u8::from(flag)));
            shape
        }),
        _ => by_type!(dtype, read, {
            return Err(BackendError::Execution(format!(
                "an output declared as {dtype} came as something else"
            )));
        }),
    };
    let shape = shape.map_err(of_run)?;
    Ok(shape.iter().map(|&length| usize::try_from(length).unwrap_or(0)).collect())
}

#[cfg(test)]
mod tests;
