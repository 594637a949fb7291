//! The engines of this build. The one file that depends on the features chosen: a further engine is one entry here.
//! Must not know models.

use std::sync::Arc;

use gannet_ort::{OrtBackend, OrtOptions};
use gannet_runtime::backend::{Backend, BackendError};

use crate::config::RuntimeConfig;

/// Providers of ONNX Runtime that this build can register beside the processor.
pub const PROVIDERS: &[&str] = &[
    #[cfg(feature = "cuda")]
    "cuda",
];

/// The engines, started.
#[derive(Clone)]
pub struct Backends {
    /// In the order in which they are asked whether a file is theirs.
    pub all: Vec<Arc<dyn Backend>>,
    /// How ONNX Runtime describes its own build.
    pub build: String,
}

impl std::fmt::Debug for Backends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.all.iter().map(|backend| backend.name()).collect();
        f.debug_struct("Backends").field("all", &names).field("build", &self.build).finish()
    }
}

/// Starts every engine. Their thread pools inherit the priority of the caller: never call it on a loader thread.
///
/// # Errors
/// [`BackendError::Unavailable`], saying what was tried and what to do.
pub fn start(config: &RuntimeConfig) -> Result<Backends, BackendError> {
    let exe_dir = std::env::current_exe().ok().and_then(|path| path.parent().map(ToOwned::to_owned));
    let options = OrtOptions { pool_threads: config.pool_threads, dylib: config.ort_dylib.clone(), exe_dir };
    let ort = OrtBackend::start(&options)?;
    let build = ort.library_build().to_owned();
    Ok(Backends { all: vec![Arc::new(ort)], build })
}
