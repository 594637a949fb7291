//! The one environment of a process: library, thread pool, log. Must not know models.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use gannet_runtime::backend::BackendError;
use ort::{
    environment::{Environment, GlobalThreadPoolOptions},
    logging::LogLevel,
};

use crate::{OrtOptions, library};

/// Warnings that come with ordinary models or machines and call for nobody's action: (part of the place in the
/// library's code, what it is about).
const NOISE: [(&str, &str); 3] = [
    ("CleanUnusedInitializers", "a constant that no node uses"),
    ("device_discovery", "no graphics card could be asked"),
    ("VerifyOutputSizes", "an exporter declared another output shape than the model computes"),
];

/// The started library. Lives until the process ends: its own destructors race with running threads.
pub(crate) struct Engine {
    environment: Environment,
    library: PathBuf,
}

static ENGINE: OnceLock<Engine> = OnceLock::new();

/// Starts once; later calls get the same.
pub(crate) fn start(options: &OrtOptions) -> Result<&'static Engine, BackendError> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(engine) = ENGINE.get() {
        return Ok(engine);
    }
    let (builder, library) = library::load(options)?;
    let unavailable = |error: ort::Error| {
        BackendError::Unavailable(format!(
            "ONNX Runtime was loaded from {} and did not start: {error}",
            library.display()
        ))
    };
    let pool = GlobalThreadPoolOptions::default()
        .with_intra_threads(options.pool_threads.max(1))
        .and_then(|pool| pool.with_inter_threads(1))
        .and_then(|pool| pool.with_spin_control(false))
        .map_err(unavailable)?;
    let environment = builder
        .with_name("gannet")
        .with_telemetry(false)
        .with_global_thread_pool(pool)
        .with_logger(Arc::new(log))
        .build()
        .map_err(unavailable)?;
    // A logger of one's own starts at the most verbose level: thousands of calls a load.
    environment.set_log_level(LogLevel::Warning);
    let engine = Engine { environment, library };
    tracing::info!(
        build = ort::info(),
        library = %engine.library.display(),
        pool_threads = options.pool_threads.max(1),
        "ONNX Runtime started"
    );
    Ok(ENGINE.get_or_init(|| engine))
}

impl Engine {
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn library(&self) -> &Path {
        &self.library
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("library", &self.library).finish()
    }
}

fn log(level: LogLevel, _category: &str, session: &str, place: &str, message: &str) {
    match severity(level, place) {
        tracing::Level::ERROR => tracing::error!(session, place, "{message}"),
        tracing::Level::WARN => tracing::warn!(session, place, "{message}"),
        _ => tracing::debug!(session, place, "{message}"),
    }
}

/// Who must act decides the level. What the library calls an error it also returns, to a caller who knows which
/// model and request it belongs to; a bad request must not write to the log.
fn severity(level: LogLevel, place: &str) -> tracing::Level {
    match level {
        LogLevel::Fatal => tracing::Level::ERROR,
        LogLevel::Warning if !NOISE.iter().any(|(part, _)| place.contains(part)) => tracing::Level::WARN,
        _ => tracing::Level::DEBUG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_who_must_act() {
        let check =
            |level, place, expected| assert_eq!(severity(level, place), expected, "{level:?} {place}");
        check(LogLevel::Fatal, "x", tracing::Level::ERROR);
        check(LogLevel::Error, "sequential_executor.cc:572 ExecuteKernel", tracing::Level::DEBUG);
        check(LogLevel::Warning, "transformer_memcpy.cc:74 ApplyImpl", tracing::Level::WARN);
        check(LogLevel::Warning, "graph.cc:4885 CleanUnusedInitializersAndNodeArgs", tracing::Level::DEBUG);
        check(LogLevel::Info, "x", tracing::Level::DEBUG);
    }
}
