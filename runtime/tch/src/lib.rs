//! Backend over LibTorch: TorchScript files, and TorchServe's archives of them. Without the feature `torch` it is
//! empty and needs nothing. Must not know environment variables, protocols, batching or where a model comes from.

#![cfg(feature = "torch")]

mod archive;

mod mlflow;

mod signature;

mod kind;

mod outputs;

mod instance;

mod refusal;

#[expect(unsafe_code, reason = "inference mode and freezing, which the wrapper crate does not offer")]
mod native;

use gannet_runtime::backend::{Backend, BackendError, Instance, OpenOptions};

/// LibTorch, of which there is one a process.
#[derive(Debug, Clone, Copy)]
pub struct TorchBackend {
    release_memory: fn(),
}

impl TorchBackend {
    /// The model files that it opens; the last is where MLflow puts one.
    pub const MODEL_FILES: [&str; 4] = ["model.pt", "model.pth", "model.mar", "data/model.pth"];

    /// Starts the library. `release_memory` gives freed memory of libc's heap, which the library allocates from, back
    /// to the system.
    ///
    /// # Errors
    /// None today: a library that is missing is told by the system before the process begins.
    pub fn start(release_memory: fn()) -> Result<Self, BackendError> {
        // Profiling compiles a graph anew for shapes that it has not seen, in the middle of a request.
        tch::jit::f_set_profiling_mode(false).map_err(|error| {
            BackendError::Unavailable(format!(
                "LibTorch did not start: {}",
                refusal::brief(&error.to_string())
            ))
        })?;
        tracing::info!(cuda_devices = tch::Cuda::device_count(), "LibTorch started");
        Ok(Self { release_memory })
    }
}

impl Backend for TorchBackend {
    fn name(&self) -> &'static str {
        "pytorch"
    }

    fn platform(&self) -> &'static str {
        "pytorch_libtorch"
    }

    fn model_files(&self) -> &'static [&'static str] {
        &Self::MODEL_FILES
    }

    fn runs_code(&self) -> bool {
        true
    }

    fn open(&self, options: &OpenOptions<'_>) -> Result<Box<dyn Instance>, BackendError> {
        Ok(Box::new(instance::TorchInstance::open(options)?))
    }

    fn release_memory(&self) {
        (self.release_memory)();
    }
}
