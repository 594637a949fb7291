//! Loads one version: opens its instances, decides the batch axis, warms up, runs its golden requests. Runs on
//! threads of low priority, so that a load is not felt by requests. Must not know the table, or who is replaced.

pub mod golden;
pub mod profile;
mod tune;
pub mod warm_up;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use gannet_models::{Artifact, ModelName, ModelSettings, Signature, Version, settings::Batching};

use super::lifecycle::Wanted;
use crate::{
    backend::{Backend, BackendError, Declared, OpenOptions, model_file},
    batch::{assemble::Layout, cost::ShapeCosts},
    drift::Baseline,
    request::GoldenCase,
    servable::{Engine, Incarnation, Loaded, instance::Worker},
};

/// Memory that a session takes beyond its files, and the factor on them: ONNX Runtime keeps prepacked copies of
/// weights. Measured: 1.3 times the file for an encoder of 90 MB, 5 MB for the smallest.
const SESSION_BYTES: u64 = 8 * 1024 * 1024;

/// One version as it is to be loaded.
#[derive(Clone)]
pub struct LoadSpec {
    /// The version.
    pub version: Version,
    /// Its verified files.
    pub artifact: Artifact,
    /// How to serve it.
    pub settings: Arc<ModelSettings>,
    /// Class names of the one output that can have them.
    pub class_labels: Option<Arc<[String]>>,
    /// The engine.
    pub backend: Arc<dyn Backend>,
    /// Whether the files may be a program ([`Backend::runs_code`]): somebody who is trusted vouches for them.
    pub may_run_code: bool,
    /// Where it was found, for messages.
    pub origin: Arc<str>,
    /// I/O threads, each of which could run an instance of its own.
    pub event_loops: usize,
}

impl fmt::Debug for LoadSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadSpec")
            .field("version", &self.version)
            .field("digest", &self.artifact.digest())
            .finish()
    }
}

impl Wanted for LoadSpec {
    fn version(&self) -> &Version {
        &self.version
    }

    fn same(&self, other: &Self) -> bool {
        self.version == other.version
            && self.artifact.digest() == other.artifact.digest()
            && self.settings.loads_alike(&other.settings)
            && self.class_labels == other.class_labels
            && self.backend.name() == other.backend.name()
    }

    fn memory_bytes(&self) -> u64 {
        let files = self.artifact.size_bytes();
        let one = files.saturating_mul(2).saturating_add(SESSION_BYTES);
        self.settings
            .memory_bytes
            .unwrap_or_else(|| one.saturating_mul(self.settings.instances.unwrap_or(1) as u64))
    }
}

impl LoadSpec {
    /// How to open the model file that lies at `model_path`, with so many threads.
    #[must_use]
    pub fn open_options<'a>(&'a self, model_path: &'a Path, threads: usize) -> OpenOptions<'a> {
        let settings = &self.settings;
        let batch_axis = settings.batching != Batching::Off;
        let declared = Declared { inputs: &settings.inputs, outputs: &settings.outputs, batch_axis };
        OpenOptions { model_path, threads, device: settings.device, declared }
    }

    /// The model file: its name and where it lies.
    ///
    /// # Errors
    /// A text when the version has none for its engine.
    pub fn model_file(&self) -> Result<(&'static str, PathBuf), String> {
        let missing = || format!("the version has no {}", self.backend.model_files().join(" or "));
        model_file(&*self.backend, &self.artifact).ok_or_else(missing)
    }
}

/// What the server adds to a load: it alone can read the golden requests' format, and start a process.
pub trait Qualify: Send + Sync + 'static {
    /// The golden requests of an artifact, against the signature that was just found.
    ///
    /// # Errors
    /// A text naming the file and what is wrong with it.
    fn golden_cases(
        &self,
        artifact: &Artifact,
        model: &str,
        signature: &Signature,
    ) -> Result<Vec<GoldenCase>, String>;

    /// What an artifact says of the data that it was trained on, if it says anything.
    ///
    /// # Errors
    /// A text naming the file and what is wrong with it; the version is watched as if it had none.
    fn baseline(&self, artifact: &Artifact, signature: &Signature) -> Result<Option<Baseline>, String> {
        let _ = (artifact, signature);
        Ok(None)
    }

    /// Loads a version whose file is a program, for the first time, where it can do no harm but to itself.
    ///
    /// # Errors
    /// A text: how it ended, or why that cannot be tried.
    fn rehearse(&self, spec: &LoadSpec) -> Result<(), String> {
        Err(format!("{} files are programs, and there is nowhere to try them", spec.backend.name()))
    }
}

/// Loads one version. The reason of a failure names the path.
///
/// # Errors
/// A text for people: what failed, where, and what to do.
pub fn load(
    model: &ModelName,
    incarnation: Incarnation,
    spec: &LoadSpec,
    qualify: &dyn Qualify,
) -> Result<Loaded, String> {
    let settings = &spec.settings;
    vouched_for(spec)?;
    if spec.backend.runs_code() {
        qualify.rehearse(spec)?;
    }
    let mut workers = vec![open(spec, settings.threads)?];
    let mut signature = workers[0].signature().clone();
    declare(&mut signature, spec)?;
    decide_batch_axis(&mut signature, settings, &mut workers[0])?;
    let costs = ShapeCosts::default();
    let measured = warm_up::run(&signature, settings, &mut workers[0], &costs);
    let rows_max = tune::rows_max(&signature, settings.batching, &measured);
    let instances = settings.instances.unwrap_or_else(|| {
        tune::instances(rows_max, &measured, spec.event_loops, spec.artifact.size_bytes())
    });
    while workers.len() < instances.max(1) {
        let mut worker = open(spec, settings.threads)?;
        warm_up::touch(&signature, settings, &mut worker, rows_max);
        workers.push(worker);
    }
    let cases = qualify.golden_cases(&spec.artifact, model.as_str(), &signature)?;
    golden::check(&cases, &signature, (settings, rows_max), &mut workers[0])?;
    spec.backend.release_memory();
    let engine = Engine {
        name: spec.backend.name(),
        platform: spec.backend.platform(),
        model_file: spec.model_file()?.0,
    };
    let baseline = qualify.baseline(&spec.artifact, &signature).unwrap_or_else(|why| {
        tracing::warn!(%model, version = %spec.version, "{why}; its first rows become its baseline");
        None
    });
    let (model, version, settings) = (model.clone(), spec.version.clone(), Arc::clone(settings));
    Ok(Loaded {
        model,
        version,
        incarnation,
        signature,
        settings,
        engine,
        workers,
        costs,
        rows_max,
        baseline: baseline.map(Arc::new),
    })
}

/// Opens a model and runs it once with zeros, which it may refuse. What a crash would end is this process alone.
///
/// # Errors
/// A text: why it cannot be opened.
pub fn try_once(backend: &dyn Backend, options: &OpenOptions<'_>) -> Result<(), String> {
    let mut worker = Worker::new(backend.open(options).map_err(|error| error.to_string())?);
    let mut signature = worker.signature().clone();
    signature.batched = options.declared.batch_axis && signature.batch_axis_inferred();
    let settings = ModelSettings::default();
    let layout = Layout::new(&signature, &settings.padding);
    if let Err(error) = warm_up::probe(&signature, &settings, &layout, &mut worker, 1) {
        tracing::debug!(%error, "the model refused zeros");
    }
    Ok(())
}

/// Whether a file that is a program may be loaded.
fn vouched_for(spec: &LoadSpec) -> Result<(), String> {
    if !spec.backend.runs_code() || spec.may_run_code {
        return Ok(());
    }
    let (file, _) = spec.model_file()?;
    Err(format!(
        "{file} is a program and could do more than compute, so it is loaded only from somebody who is trusted. If you \
         trust this one, say allow_torchscript = true in the model's model.toml, or name the key that the version is signed with in a \
         [[trust]] rule; or start the server with --set repository.allow_torchscript=true to trust the whole repository"
    ))
}

/// Opens one more instance.
fn open(spec: &LoadSpec, threads: usize) -> Result<Worker, String> {
    vouched_for(spec)?;
    let (file, path) = spec.model_file()?;
    match spec.backend.open(&spec.open_options(&path, threads)) {
        Ok(instance) => Ok(Worker::new(instance)),
        Err(BackendError::Unavailable(why)) => Err(why),
        Err(error) => Err(format!("{file} was refused: {error}")),
    }
}

/// Checks what the configuration states against what the model says, and takes over its class names.
fn declare(signature: &mut Signature, spec: &LoadSpec) -> Result<(), String> {
    let mut faults = Vec::new();
    let batched = spec.settings.batching != Batching::Off && signature.batch_axis_inferred();
    let sides = [
        ("input", &spec.settings.inputs, &mut signature.inputs),
        ("output", &spec.settings.outputs, &mut signature.outputs),
    ];
    for (side, declared, found) in sides {
        for declaration in declared {
            let Some(tensor) = found.iter_mut().find(|t| t.name == declaration.name) else {
                let names: Vec<&str> = found.iter().map(|t| t.name.as_str()).collect();
                let (name, names) = (&declaration.name, names.join(", "));
                faults.push(format!("the configuration names {side} '{name}', the model has: {names}"));
                continue;
            };
            if let Some(dtype) = declaration.dtype.filter(|&dtype| dtype != tensor.dtype) {
                let (name, found) = (&tensor.name, tensor.dtype);
                faults.push(format!(
                    "the configuration says {side} '{name}' is {dtype}, the model says {found}"
                ));
            }
            if let Some(dims) = &declaration.dims {
                let found: Vec<i64> = tensor.wire_shape().into_iter().skip(usize::from(batched)).collect();
                let fits =
                    found.len() == dims.len() && found.iter().zip(dims).all(|(f, d)| *f == -1 || f == d);
                if !fits {
                    let name = &tensor.name;
                    faults.push(format!(
                        "the configuration says {side} '{name}' has dims {dims:?} without the batch axis, \
                         the model says {found:?}"
                    ));
                }
            }
            if declaration.labels.is_some() {
                tensor.labels.clone_from(&declaration.labels);
            }
        }
    }
    if let Some(labels) = &spec.class_labels {
        let mut scores = signature.outputs.iter_mut().filter(|t| t.shape.len() == 2 && t.dtype.is_float());
        if let (Some(only), None) = (scores.next(), scores.next()) {
            only.labels.get_or_insert_with(|| Arc::clone(labels));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

/// Whether axis 0 is a batch axis: stated, or inferred from the shapes and proved by runs of one and several rows.
fn decide_batch_axis(
    signature: &mut Signature,
    settings: &ModelSettings,
    worker: &mut Worker,
) -> Result<(), String> {
    let possible = signature.batch_axis_inferred();
    signature.batched = match settings.batching {
        Batching::Off | Batching::Stated(0) => false,
        Batching::Stated(rows) if !possible => {
            return Err(format!(
                "max_batch_size is {rows}, but axis 0 of every input and output must be variable for that, and the \
                 same for all inputs; the model has {}. Set max_batch_size = 0, or export the model with a variable \
                 batch axis",
                describe(signature)
            ));
        }
        Batching::Stated(_) => true,
        Batching::Inferred => possible,
    };
    if signature.batched && settings.batching == Batching::Inferred {
        let layout = Layout::new(signature, &settings.padding);
        let mut runs = |rows| warm_up::probe(signature, settings, &layout, worker, rows).is_ok();
        // a model that cannot run zeros at all proves nothing either way
        signature.batched = !(runs(1) && !(runs(2) && runs(3)));
    }
    Ok(())
}

fn describe(signature: &Signature) -> String {
    let all = signature.inputs.iter().chain(&signature.outputs);
    let texts: Vec<String> = all.map(|t| format!("{} {}", t.name, t.shape_text())).collect();
    texts.join(", ")
}
