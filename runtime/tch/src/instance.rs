//! One loaded copy of a model. Must not know where its signature comes from.

use std::{cell::Cell, fs, io::Cursor, path::Path};

use gannet_models::{DType, Signature, settings};
use gannet_runtime::{
    TensorView,
    backend::{BackendError, Instance, OpenOptions, Sink},
    tensor,
};
use tch::{CModule, Device, IValue, TchError, Tensor};

use crate::{
    archive,
    kind::kind_of,
    native::{Frozen, InferenceMode},
    outputs::{self, Output, Shown},
    refusal, signature,
};

/// Output buffers above this are given back after the run.
const BUFFER_BYTES_KEPT: usize = 16 << 20;

/// Archives above this are run as they are: to freeze one takes three times its bytes for a moment.
const FREEZE_BYTES_MAX: usize = 1 << 30;

thread_local! {
    /// What the library was told last on this thread, which it keeps for each.
    static THREADS: Cell<usize> = const { Cell::new(0) };
}

/// A module and what it takes and gives.
pub(crate) struct TorchInstance {
    program: Program,
    signature: Signature,
    /// An output on its way out.
    buffer: Vec<u8>,
}

/// A module on its device.
struct Program {
    module: CModule,
    device: Device,
    threads: usize,
}

impl TorchInstance {
    pub(crate) fn open(options: &OpenOptions<'_>) -> Result<Self, BackendError> {
        let path = options.model_path;
        let fault = |what: String| BackendError::Model(format!("{}: {what}", path.display()));
        look_at(path)?;
        let known = signature::known(&options.declared, path).map_err(fault)?;
        let device = device(options.device)?;
        let mut module = load(path, device)?;
        module.f_set_eval().map_err(|error| fault(refusal::brief(&error.to_string())))?;
        let program = Program { module, device, threads: options.threads.max(1) };
        let signature = match known.complete() {
            Some(signature) => signature,
            None => {
                let one = program.look(&known, 1).map_err(|why| {
                    fault(format!(
                        "its outputs are not all stated, and a run on zeros to see them failed: {why}. State \
                         [[outputs]] with name, dtype and dims, in order, in model.toml"
                    ))
                })?;
                let two = program.look(&known, 2).ok();
                known.completed(&one, two.as_deref()).map_err(fault)?
            }
        };
        Ok(Self { program, signature, buffer: Vec::new() })
    }
}

impl Instance for TorchInstance {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[TensorView<'_>], sink: &mut Sink<'_>) -> Result<(), BackendError> {
        let Signature { inputs: specs, outputs: expected, .. } = &self.signature;
        if specs.len() != inputs.len() {
            let (takes, given) = (specs.len(), inputs.len());
            return Err(BackendError::Execution(format!(
                "the model takes {takes} inputs, {given} were given"
            )));
        }
        for (spec, view) in specs.iter().zip(inputs) {
            if spec.dtype != view.dtype {
                return Err(BackendError::Input(format!(
                    "input '{}' has the type {}, expected {}",
                    spec.name, view.dtype, spec.dtype
                )));
            }
        }
        let given = self.program.run(inputs)?;
        for (index, spec) in expected.iter().enumerate() {
            let tensor = outputs::find(&given, &spec.name, index, expected.len())?;
            let dtype = outputs::dtype(tensor, &spec.name)?;
            if dtype != spec.dtype {
                let (name, expected) = (&spec.name, spec.dtype);
                return Err(BackendError::Execution(format!(
                    "output '{name}' came as {dtype}, expected {expected}"
                )));
            }
            let shape = outputs::shape(tensor);
            let elements = tensor::elements(&shape).unwrap_or(0);
            let bytes = elements * dtype.size_bytes().unwrap_or(0);
            if self.buffer.len() < bytes {
                self.buffer.resize(bytes, 0);
            }
            // from the device, if it is on one, in one go
            tensor
                .f_copy_data_u8(&mut self.buffer[..bytes], elements)
                .map_err(|error| refusal::of_run(&error))?;
            sink(index, TensorView { dtype, shape: &shape, data: &self.buffer[..bytes] });
        }
        if self.buffer.len() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}

impl Program {
    /// Runs once, without recording what gradients would need.
    fn run(&self, inputs: &[TensorView<'_>]) -> Result<Vec<Output>, BackendError> {
        let _inference = InferenceMode::begin();
        self.take_threads();
        let arguments = inputs.iter().map(|view| self.argument(view)).collect::<Result<Vec<_>, _>>()?;
        let value = self.module.forward_is(&arguments).map_err(|error| refusal::of_run(&error))?;
        outputs::flatten(value)
    }

    /// What the outputs look like when variable axes have this length.
    fn look(&self, known: &signature::Known, length: usize) -> Result<Vec<Shown>, BackendError> {
        let zeros = known
            .zeros(length)
            .ok_or_else(|| BackendError::Input("an input is too large to be made up".to_owned()))?;
        let views: Vec<TensorView<'_>> =
            zeros.iter().map(|(dtype, shape, data)| TensorView { dtype: *dtype, shape, data }).collect();
        outputs::show(&self.run(&views)?)
    }

    fn argument(&self, view: &TensorView<'_>) -> Result<IValue, BackendError> {
        let bytes = view.data.len();
        let kind = kind_of(view.dtype).filter(|_| tensor::size_bytes(view.dtype, view.shape) == Some(bytes));
        let Some(kind) = kind else {
            return Err(BackendError::Input(format!(
                "{bytes} bytes are no tensor of type {} and shape {:?}",
                view.dtype, view.shape
            )));
        };
        let lengths: Vec<i64> = view.shape.iter().map(|&length| i64::try_from(length).unwrap_or(0)).collect();
        let make = |data: &[u8]| Tensor::f_from_data_size(data, &lengths, kind);
        // a truth value that is neither 0 nor 1 is undefined in C++
        let odd = view.dtype == DType::Bool && view.data.iter().any(|&byte| byte > 1);
        let tensor = if odd {
            make(&view.data.iter().map(|&byte| u8::from(byte != 0)).collect::<Vec<u8>>())
        } else {
            make(view.data)
        };
        let placed = match (tensor, self.device) {
            (Ok(tensor), Device::Cpu) => Ok(tensor),
            (tensor, device) => tensor.and_then(|tensor| tensor.f_to(device)),
        };
        placed.map(IValue::Tensor).map_err(|error| refusal::of_run(&error))
    }

    /// The library counts threads for each thread that calls it.
    fn take_threads(&self) {
        if THREADS.replace(self.threads) != self.threads {
            tch::set_num_threads(i32::try_from(self.threads).unwrap_or(i32::MAX));
        }
    }
}

fn look_at(path: &Path) -> Result<(), BackendError> {
    let fault = |what: String| Err(BackendError::Model(format!("{} {what}", path.display())));
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => fault("is not a file".into()),
        Ok(metadata) if metadata.len() == 0 => fault("is empty".into()),
        Ok(_) => Ok(()),
        Err(error) => fault(format!("cannot be read: {error}")),
    }
}

fn device(device: settings::Device) -> Result<Device, BackendError> {
    let settings::Device::Cuda(index) = device else { return Ok(Device::Cpu) };
    let found = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if tch::Cuda::is_available() && index < found {
        return Ok(Device::Cuda(index));
    }
    Err(BackendError::Unavailable(format!(
        "CUDA device {index} cannot be used: LibTorch finds {found} devices. Build against a LibTorch with CUDA (set \
         LIBTORCH to it), on a machine that has the device, or let the model run on the CPU"
    )))
}

/// Loads the module, frozen where the library can: its attributes folded into the graph, which is optimised then.
fn load(path: &Path, device: Device) -> Result<CModule, BackendError> {
    let fault = |what: String| BackendError::Model(format!("{}: {what}", path.display()));
    let archive = if path.extension().is_some_and(|extension| extension == "mar") {
        archive::serialized(path).map_err(fault)?
    } else {
        fs::read(path).map_err(|error| fault(format!("cannot be read: {error}")))?
    };
    if archive.len() <= FREEZE_BYTES_MAX {
        match Frozen::of(&archive) {
            Ok(frozen) => match CModule::load_data_on_device(&mut Cursor::new(frozen.bytes()), device) {
                Ok(module) => return Ok(module),
                Err(error) => tracing::debug!(%error, "a frozen module was not loaded"),
            },
            Err(why) => tracing::debug!(why = %refusal::brief(&why), "the module is run unfrozen"),
        }
    }
    CModule::load_data_on_device(&mut Cursor::new(archive), device).map_err(|error| fault(refused(&error)))
}

fn refused(error: &TchError) -> String {
    let message = refusal::brief(&error.to_string());
    if message.contains("constants.pkl") {
        return "it holds weights alone (torch.save), and no program; export the model with torch.jit.trace or \
                torch.jit.script, and save what comes of that"
            .to_owned();
    }
    format!("not TorchScript that LibTorch can load: {message}")
}
