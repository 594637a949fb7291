//! Makes a session of a model file for a device. Must not know how it is run.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use gannet_models::settings::Device;
use gannet_runtime::backend::{BackendError, OpenOptions};
use ort::{
    ErrorCode,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::{
        Session,
        builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder},
    },
};

use crate::environment::Engine;

/// Opens the file. Nothing is left behind on an error.
pub(crate) fn open(engine: &Engine, options: &OpenOptions<'_>) -> Result<Session, BackendError> {
    look_at(options.model_path)?;
    // The wrapper panics on types it does not know (a sequence of sequences); its guards release what it holds.
    catch_unwind(AssertUnwindSafe(|| {
        let mut builder = on_device(
            configured(engine, options.threads).map_err(|error| refused_options(&error))?,
            options.device,
        )?;
        builder.commit_from_file(options.model_path).map_err(|error| refusal(&error, options))
    }))
    .unwrap_or_else(|_| {
        Err(BackendError::Model(format!(
            "{}: an input or output has a type that is not supported",
            options.model_path.display()
        )))
    })
}

fn look_at(path: &Path) -> Result<(), BackendError> {
    let fault = |what: String| Err(BackendError::Model(format!("{} {what}", path.display())));
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => fault("is not a file".into()),
        Ok(metadata) if metadata.len() == 0 => fault("is empty".into()),
        Ok(_) => Ok(()),
        Err(error) => fault(format!("cannot be read: {error}")),
    }
}

fn configured(engine: &Engine, threads: usize) -> Result<SessionBuilder, ort::Error> {
    let builder = Session::builder(engine.environment())?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_auto_device(AutoDevicePolicy::PreferCPU)?
        .with_intra_op_spinning(false)?;
    if threads > 1 {
        return Ok(builder);
    }
    // A session of its own with one thread makes no pool: the caller's thread does the work.
    Ok(builder.with_independent_thread_pool()?.with_intra_threads(1)?.with_inter_threads(1)?)
}

fn on_device(builder: SessionBuilder, device: Device) -> Result<SessionBuilder, BackendError> {
    match device {
        Device::Cpu => Ok(builder),
        Device::Cuda(index) => cuda(builder, index),
    }
}

#[cfg(feature = "cuda")]
fn cuda(builder: SessionBuilder, index: usize) -> Result<SessionBuilder, BackendError> {
    let unavailable = |reason: String| {
        BackendError::Unavailable(format!(
            "CUDA device {index} cannot be used: {reason}. Set ORT_DYLIB_PATH to the library of onnxruntime-gpu \
             1.31.x, or let the model run on the CPU"
        ))
    };
    let id = i32::try_from(index).map_err(|_| unavailable("there is no such index".into()))?;
    // Without this a failure means the CPU, silently.
    let provider = ort::ep::CUDA::default()
        .with_device_id(id)
        // takes what models need and no more: several share a device
        .with_arena_extend_strategy(ort::ep::ArenaExtendStrategy::SameAsRequested)
        .build()
        .error_on_failure();
    builder.with_execution_providers([provider]).map_err(|error| unavailable(error.to_string()))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: SessionBuilder, index: usize) -> Result<SessionBuilder, BackendError> {
    Err(BackendError::Unavailable(format!(
        "CUDA device {index} cannot be used: this binary was built without CUDA. Build it with `--features cuda` \
         and set ORT_DYLIB_PATH to the library of onnxruntime-gpu 1.31.x, or let the model run on the CPU"
    )))
}

/// The memory of a CUDA device, for outputs.
pub(crate) fn memory_of(index: usize) -> Result<MemoryInfo<'static>, BackendError> {
    let id = i32::try_from(index).unwrap_or(i32::MAX);
    MemoryInfo::new(AllocationDevice::CUDA, id, AllocatorType::Device, MemoryType::Default)
        .map_err(|error| BackendError::Unavailable(format!("CUDA device {index} cannot be used: {error}")))
}

fn refused_options(error: &ort::Error) -> BackendError {
    BackendError::Unavailable(format!("ONNX Runtime refused a session's options: {error}"))
}

fn refusal(error: &ort::Error, options: &OpenOptions<'_>) -> BackendError {
    let message = format!("{}: {error}", options.model_path.display());
    match error.code() {
        ErrorCode::ExecutionProviderFailure | ErrorCode::EngineError => BackendError::Unavailable(message),
        _ => BackendError::Model(message),
    }
}
