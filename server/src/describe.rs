//! What the server says about itself and its models, as plain values: gRPC copies them into messages, HTTP writes
//! them as JSON, so the field names are the protocol's. Must not know either.

use std::{collections::BTreeMap, sync::Arc};

use gannet_models::{
    TensorSpec,
    pbtxt::{self, ModelConfigParts},
};
use gannet_runtime::{
    InferError,
    metrics::{Outcome, Phase},
    servable::Servable,
    table::{ModelEntry, ServingTable},
};
use prost_reflect::DynamicMessage;
use serde::Serialize;

use crate::{
    respond::Refusal,
    state::{EXTENSIONS, SERVER_NAME, SERVER_VERSION},
};

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerMetadata {
    /// The product.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Protocol extensions that work.
    pub extensions: &'static [&'static str],
}

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelMetadata {
    /// The model.
    pub name: String,
    /// Its versions that are ready, ascending.
    pub versions: Vec<String>,
    /// Engine and format, such as `onnxruntime_onnx`.
    pub platform: &'static str,
    /// In the model's own order.
    pub inputs: Vec<TensorMetadata>,
    /// In the model's own order.
    pub outputs: Vec<TensorMetadata>,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// Its element type, such as `FP32`.
    pub datatype: &'static str,
    /// All axes, -1 for a variable one.
    pub shape: Vec<i64>,
}

/// The statistics of some versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatisticsList {
    /// By model and version, ascending.
    pub model_stats: Vec<ModelStatistics>,
}

/// What one version did since it was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelStatistics {
    /// The model.
    pub name: String,
    /// The version.
    pub version: String,
    /// Wall clock of the last answer, in milliseconds since 1970; 0: none yet.
    pub last_inference: u64,
    /// Rows computed.
    pub inference_count: u64,
    /// Batches computed.
    pub execution_count: u64,
    /// By request.
    pub inference_stats: InferenceStatistics,
    /// By number of answer; only models that give several answers to one request have any, and none here do.
    pub response_stats: BTreeMap<String, ResponseStatistics>,
    /// By number of rows, ascending.
    pub batch_stats: Vec<BatchStatistics>,
    /// Not measured by model: always empty.
    pub memory_usage: Vec<MemoryUsage>,
}

/// How often, and for how long in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Duration {
    /// How often.
    pub count: u64,
    /// Their sum, in nanoseconds.
    pub ns: u64,
}

/// Requests, and what they spent their time on. A request's share of a batch is the whole batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the protocol's own names")]
pub struct InferenceStatistics {
    pub success: Duration,
    pub fail: Duration,
    pub queue: Duration,
    pub compute_input: Duration,
    pub compute_infer: Duration,
    pub compute_output: Duration,
    pub cache_hit: Duration,
    pub cache_miss: Duration,
}

/// Answers of one number within their requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the protocol's own names")]
pub struct ResponseStatistics {
    pub compute_infer: Duration,
    pub compute_output: Duration,
    pub success: Duration,
    pub fail: Duration,
    pub empty_response: Duration,
    pub cancel: Duration,
}

/// Batches of one number of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the protocol's own names")]
pub struct BatchStatistics {
    pub batch_size: usize,
    pub compute_input: Duration,
    pub compute_infer: Duration,
    pub compute_output: Duration,
}

/// Memory of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the protocol's own names")]
pub struct MemoryUsage {
    pub r#type: String,
    pub id: i64,
    pub byte_size: u64,
}

/// Who answers.
#[must_use]
pub fn server_metadata() -> ServerMetadata {
    ServerMetadata { name: SERVER_NAME, version: SERVER_VERSION, extensions: &EXTENSIONS }
}

/// Whether a request to `model` and, if given, `version` (a version or a label) would find someone to answer it.
/// What nobody knows is not ready, which is no error.
#[must_use]
pub fn model_is_ready(table: &ServingTable, model: &str, version: Option<&str>) -> bool {
    table.resolve(model, version).is_ok()
}

/// What a model takes and gives.
///
/// # Errors
/// When nobody answers for `model` and `version`.
pub fn model_metadata(
    table: &ServingTable,
    model: &str,
    version: Option<&str>,
) -> Result<ModelMetadata, Refusal> {
    let servable = table.resolve(model, version)?;
    let tensors = |specs: &[TensorSpec]| specs.iter().map(TensorMetadata::of).collect();
    Ok(ModelMetadata {
        name: servable.model.to_string(),
        versions: servables(table.model(model)).map(|servable| servable.version.to_string()).collect(),
        platform: servable.engine.platform,
        inputs: tensors(&servable.signature.inputs),
        outputs: tensors(&servable.signature.outputs),
    })
}

/// A model's configuration, completed from the model; [`pbtxt::to_json`] writes it as JSON.
///
/// # Errors
/// When nobody answers for `model` and `version`.
pub fn model_config(
    table: &ServingTable,
    model: &str,
    version: Option<&str>,
) -> Result<DynamicMessage, Refusal> {
    let servable = table.resolve(model, version)?;
    let engine = servable.engine;
    Ok(pbtxt::to_model_config(&ModelConfigParts {
        name: servable.model.as_str(),
        settings: &servable.settings,
        signature: &servable.signature,
        platform: engine.platform,
        backend: engine.name,
        model_file: engine.model_file,
    }))
}

/// The statistics of every ready version, or of one model's, or of one version.
///
/// # Errors
/// When nobody answers for the model and version named.
pub fn statistics(
    table: &ServingTable,
    model: Option<&str>,
    version: Option<&str>,
) -> Result<StatisticsList, Refusal> {
    let model_stats = match (model, version) {
        (None, None) => table
            .models()
            .into_values()
            .flat_map(|entry| servables(Some(entry)))
            .map(|servable| ModelStatistics::of(servable))
            .collect(),
        (None, Some(version)) => {
            return Err(Refusal::invalid(format!(
                "statistics of version '{version}' were asked for without a model; name the model too"
            )));
        }
        (Some(model), None) => {
            let entry = table.model(model).ok_or_else(|| InferError::UnknownModel(model.to_owned()))?;
            table.resolve(model, None)?;
            servables(Some(entry)).map(|servable| ModelStatistics::of(servable)).collect()
        }
        (Some(model), version) => vec![ModelStatistics::of(table.resolve(model, version)?)],
    };
    Ok(StatisticsList { model_stats })
}

fn servables(entry: Option<&ModelEntry>) -> impl Iterator<Item = &Arc<Servable>> {
    entry.into_iter().flat_map(|entry| &entry.versions).filter_map(|version| version.servable.as_ref())
}

impl TensorMetadata {
    fn of(spec: &TensorSpec) -> Self {
        Self { name: spec.name.clone(), datatype: spec.dtype.name(), shape: spec.wire_shape() }
    }
}

impl ModelStatistics {
    fn of(servable: &Servable) -> Self {
        let stats = servable.stats.snapshot();
        let success = stats.outcome(Outcome::Ok);
        let phase = |phase| Duration { count: success, ns: stats.request_ns(phase) };
        let queue = Duration { count: stats.phase(Phase::Queue).count(), ns: stats.request_ns(Phase::Queue) };
        let batch = |(rows, size): (usize, gannet_runtime::metrics::BatchSize)| BatchStatistics {
            batch_size: rows,
            compute_input: Duration { count: size.count, ns: size.assemble_ns },
            compute_infer: Duration { count: size.count, ns: size.compute_ns },
            compute_output: Duration { count: size.count, ns: size.scatter_ns },
        };
        Self {
            name: servable.model.to_string(),
            version: servable.version.to_string(),
            last_inference: stats.last_ms,
            inference_count: stats.batch_rows.sum,
            execution_count: stats.batch_rows.count(),
            inference_stats: InferenceStatistics {
                success: phase(Phase::Request),
                fail: Duration { count: stats.failed(), ns: stats.failed_ns },
                queue,
                compute_input: phase(Phase::Assemble),
                compute_infer: phase(Phase::Compute),
                compute_output: phase(Phase::Scatter),
                cache_hit: Duration::default(),
                cache_miss: Duration::default(),
            },
            response_stats: BTreeMap::new(),
            batch_stats: servable.stats.batch_sizes().into_iter().map(batch).collect(),
            memory_usage: Vec::new(),
        }
    }
}
