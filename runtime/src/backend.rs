//! What the runtime asks of an engine. A further engine is one crate that implements [`Backend`] and one line
//! in the server's registration file. Must not know any engine.

use std::path::{Path, PathBuf};

use gannet_models::{
    Artifact, Signature,
    settings::{Device, TensorDeclaration},
};

use crate::TensorView;

/// An engine, made once a process.
pub trait Backend: Send + Sync + 'static {
    /// Name in configurations, such as `onnxruntime`.
    fn name(&self) -> &'static str;

    /// Triton's name for the pair of engine and format, such as `onnxruntime_onnx`.
    fn platform(&self) -> &'static str;

    /// The files in a version's folder that tell the version is for this engine, such as `model.onnx`; of several,
    /// the first that is there. At least one.
    fn model_files(&self) -> &'static [&'static str];

    /// Whether a model file is a program, which could do more than compute. Such a file is loaded only from
    /// somebody who is trusted, and the first time in a process of its own.
    fn runs_code(&self) -> bool {
        false
    }

    /// Opens one instance of the model. Called on a loader thread, several times for several instances.
    ///
    /// # Errors
    /// [`BackendError::Model`] when the file is no model of this engine, [`BackendError::Unavailable`] when the
    /// engine or the device is missing.
    fn open(&self, options: &OpenOptions<'_>) -> Result<Box<dyn Instance>, BackendError>;

    /// Gives memory freed by loads and unloads back to the system.
    fn release_memory(&self) {}
}

/// The model file of an artifact that a backend would open: its name and where it lies.
#[must_use]
pub fn model_file(backend: &dyn Backend, artifact: &Artifact) -> Option<(&'static str, PathBuf)> {
    backend.model_files().iter().find_map(|name| Some((*name, artifact.file(name)?)))
}

/// What to open, and how.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions<'a> {
    /// The model file inside a verified artifact; its neighbours (external data) lie beside it.
    pub model_path: &'a Path,
    /// Threads inside one run. 1: the caller's own; more: the process-wide pool.
    pub threads: usize,
    /// Where to run.
    pub device: Device,
    /// What the configuration states, for formats that do not say it themselves.
    pub declared: Declared<'a>,
}

impl<'a> OpenOptions<'a> {
    /// One thread, on the processor, with nothing declared.
    #[must_use]
    pub fn new(model_path: &'a Path) -> Self {
        Self { model_path, threads: 1, device: Device::Cpu, declared: Declared::default() }
    }
}

/// Inputs and outputs as the configuration states them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Declared<'a> {
    /// In the order of the model's arguments.
    pub inputs: &'a [TensorDeclaration],
    /// In the model's own order.
    pub outputs: &'a [TensorDeclaration],
    /// Whether each tensor has a batch axis before the dims that are stated.
    pub batch_axis: bool,
}

/// One loaded copy of a model. Used by one thread at a time.
pub trait Instance: Send {
    /// Inputs and outputs with all their axes; `batched` is left false for the runtime to decide.
    fn signature(&self) -> &Signature;

    /// Runs the model once. `inputs` are in the signature's order; their data need not be aligned.
    /// `sink` is called once for each output, in any order, with its index and its value, valid for that call.
    ///
    /// # Errors
    /// [`BackendError::Execution`] or [`BackendError::Input`]. The instance must stay usable after any error.
    fn run(&mut self, inputs: &[TensorView<'_>], sink: &mut Sink<'_>) -> Result<(), BackendError>;
}

/// Receiver of outputs: (index in the signature, value).
pub type Sink<'a> = dyn FnMut(usize, TensorView<'_>) + 'a;

/// What went wrong in an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The engine or its device is not there; the message says what to do.
    #[error("{0}")]
    Unavailable(String),
    /// The file is not a model that this engine can load.
    #[error("{0}")]
    Model(String),
    /// The engine refused the values (not their shapes or types, which were checked before).
    #[error("{0}")]
    Input(String),
    /// The run failed.
    #[error("{0}")]
    Execution(String),
}
