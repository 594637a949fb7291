//! The engines of this build. The one file that depends on the features chosen: a further engine is one line in
//! [`ENGINES`]. Must not know models.

use std::sync::Arc;

use gannet_models::{Artifact, ModelSettings};
use gannet_ort::{OrtBackend, OrtOptions};
use gannet_runtime::backend::{Backend, BackendError, model_file};

use crate::config::RuntimeConfig;

/// Providers of ONNX Runtime that this build can register beside the processor.
pub const PROVIDERS: &[&str] = &[
    #[cfg(feature = "cuda")]
    "cuda",
];

type Start = fn(&RuntimeConfig) -> Result<Arc<dyn Backend>, BackendError>;

/// Name and start of each engine, in the order in which they are asked whether a file is theirs.
const ENGINES: &[(&str, Start)] = &[
    ("onnxruntime", onnx_runtime),
    #[cfg(feature = "torch")]
    ("pytorch", |_| Ok(Arc::new(gannet_tch::TorchBackend::start(gannet_ort::release_memory)?))),
];

/// Files of engines that this build lacks, and what is missing.
const LACKING: &[(&str, &str)] = &[
    #[cfg(not(feature = "torch"))]
    ("model.pt", TORCH_LACKING),
    #[cfg(not(feature = "torch"))]
    ("model.pth", TORCH_LACKING),
    #[cfg(not(feature = "torch"))]
    ("model.mar", TORCH_LACKING),
    #[cfg(not(feature = "torch"))]
    ("data/model.pth", TORCH_LACKING),
];

#[cfg(not(feature = "torch"))]
const TORCH_LACKING: &str =
    "is for LibTorch, which this build lacks: run runtime/tch/setup, and build with --features torch";

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
    let all = ENGINES.iter().map(|(_, start)| start(config)).collect::<Result<Vec<_>, _>>()?;
    Ok(Backends { all, build: OrtBackend::start(&ort_options(config))?.library_build().to_owned() })
}

/// Starts one engine alone.
///
/// # Errors
/// [`BackendError::Unavailable`] when this build has no such engine, or it does not start.
pub fn start_one(name: &str, config: &RuntimeConfig) -> Result<Arc<dyn Backend>, BackendError> {
    let engine = ENGINES.iter().find(|(known, _)| *known == name);
    let missing = || BackendError::Unavailable(format!("this build has no engine '{name}'"));
    engine.ok_or_else(missing)?.1(config)
}

fn onnx_runtime(config: &RuntimeConfig) -> Result<Arc<dyn Backend>, BackendError> {
    Ok(Arc::new(OrtBackend::start(&ort_options(config))?))
}

fn ort_options(config: &RuntimeConfig) -> OrtOptions {
    let exe_dir = std::env::current_exe().ok().and_then(|path| path.parent().map(ToOwned::to_owned));
    OrtOptions { pool_threads: config.pool_threads, dylib: config.ort_dylib.clone(), exe_dir }
}

/// Every model file that means something here: what the engines run, and what this build lacks the engine for.
pub fn known_files(backends: &[Arc<dyn Backend>]) -> Vec<String> {
    let files = backends.iter().flat_map(|backend| backend.model_files()).copied();
    files.chain(LACKING.iter().map(|(file, _)| *file)).map(str::to_owned).collect()
}

/// The engine for a version: the one that the settings name, or the first that knows one of its files.
///
/// # Errors
/// A text: what was looked for, what this build has, and what to do.
pub fn choose(
    backends: &[Arc<dyn Backend>],
    artifact: &Artifact,
    settings: &ModelSettings,
) -> Result<Arc<dyn Backend>, String> {
    let wanted = settings.backend.as_deref();
    let fits = |backend: &&Arc<dyn Backend>| {
        wanted.is_none_or(|name| name == backend.name()) && model_file(&***backend, artifact).is_some()
    };
    if let Some(backend) = backends.iter().find(fits) {
        return Ok(Arc::clone(backend));
    }
    if let Some((file, why)) = LACKING.iter().find(|(file, _)| artifact.file(file).is_some()) {
        return Err(format!("{file} {why}"));
    }
    let known =
        |backend: &Arc<dyn Backend>| format!("{} ({})", backend.name(), backend.model_files().join(", "));
    let known: Vec<String> = backends.iter().map(known).collect();
    let wanted = wanted.map(|name| format!(" by backend '{name}'")).unwrap_or_default();
    Err(format!(
        "expected a model file that can be run{wanted}, got none; this build has {}",
        known.join(" and ")
    ))
}
