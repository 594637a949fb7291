//! Backend over ONNX Runtime, loaded at run time from a shared library. Must not know environment variables,
//! protocols, batching or where a model comes from.

mod library;

mod environment;

mod session;

mod outlet;

mod bound;

mod instance;

mod refusal;

#[expect(
    unsafe_code,
    reason = "the library's C interface: runs without copies, allocations or wrapper types"
)]
mod native;

use std::path::PathBuf;

use gannet_runtime::backend::{Backend, BackendError, Instance, OpenOptions};

use crate::environment::Engine;

/// Gives memory that engines freed back to the system: they allocate from libc's heap, which keeps it otherwise.
pub fn release_memory() {
    native::release_memory();
}

/// How to start ONNX Runtime.
#[derive(Debug, Clone, Default)]
pub struct OrtOptions {
    /// Threads of the process-wide pool that models with more than one thread share, the caller's included.
    pub pool_threads: usize,
    /// The library that the operator named (`ORT_DYLIB_PATH`). A bad one is an error: nothing else is tried.
    pub dylib: Option<PathBuf>,
    /// The folder of the executable; the library is looked for there and in `../lib` beside it.
    pub exe_dir: Option<PathBuf>,
}

/// ONNX Runtime. There is one environment a process; every value of this type stands for the same.
#[derive(Debug, Clone, Copy)]
pub struct OrtBackend {
    engine: &'static Engine,
}

impl OrtBackend {
    /// Loads the library and makes the process-wide thread pool. Call it before any loader thread exists: the
    /// pool's threads inherit the priority of the caller. A second call returns the same backend, whatever its
    /// options; a failed one may be repeated.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`], saying what was tried and what to do.
    pub fn start(options: &OrtOptions) -> Result<Self, BackendError> {
        Ok(Self { engine: environment::start(options)? })
    }

    /// How the library describes its own build.
    #[must_use]
    pub fn library_build(&self) -> &'static str {
        ort::info()
    }

    /// The process-wide environment, for sessions beside this backend's own, such as in comparisons.
    #[must_use]
    pub fn environment(&self) -> &'static ort::environment::Environment {
        self.engine.environment()
    }

    /// The file that was loaded.
    #[must_use]
    pub fn library_path(&self) -> &std::path::Path {
        self.engine.library()
    }
}

impl Backend for OrtBackend {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn platform(&self) -> &'static str {
        "onnxruntime_onnx"
    }

    fn model_files(&self) -> &'static [&'static str] {
        &["model.onnx"]
    }

    fn open(&self, options: &OpenOptions<'_>) -> Result<Box<dyn Instance>, BackendError> {
        Ok(Box::new(instance::OrtInstance::open(self.engine, options)?))
    }

    fn release_memory(&self) {
        release_memory();
    }
}
