//! From settings and signature to a model configuration, as clients ask for it. Must not know how it is sent.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, MapKey, SerializeOptions, Value};

use crate::{
    ModelSettings, Signature, TensorSpec,
    settings::{BATCH_ROWS_INFERRED, Batching, Device, VersionPolicy},
};

use super::{descriptor, read::THREADS_PARAMETER};

/// What a model configuration is made of.
#[derive(Debug, Clone, Copy)]
pub struct ModelConfigParts<'a> {
    /// The model's name.
    pub name: &'a str,
    /// Its settings.
    pub settings: &'a ModelSettings,
    /// Its signature, `batched` decided.
    pub signature: &'a Signature,
    /// The backend's name for engine and format, such as `onnxruntime_onnx`.
    pub platform: &'a str,
    /// The backend's name.
    pub backend: &'a str,
    /// The backend's model file, such as `model.onnx`.
    pub model_file: &'a str,
}

/// The configuration of a model that runs, completed from the model itself.
#[must_use]
pub fn to_model_config(parts: &ModelConfigParts<'_>) -> DynamicMessage {
    let ModelConfigParts { settings, signature, .. } = parts;
    let rows = match settings.batching {
        _ if !signature.batched => 0,
        Batching::Off => 0,
        Batching::Inferred => BATCH_ROWS_INFERRED,
        Batching::Stated(rows) => rows,
    };
    let inputs = signature.inputs.iter().map(|spec| tensor("ModelInput", spec, signature.batched));
    let outputs = signature.outputs.iter().map(|spec| tensor("ModelOutput", spec, signature.batched));
    let mut fields = vec![
        ("name", text(parts.name)),
        ("platform", text(parts.platform)),
        ("backend", text(parts.backend)),
        ("version_policy", version_policy(&settings.version_policy)),
        ("max_batch_size", Value::I32(clamp(rows))),
        ("input", Value::List(inputs.collect())),
        ("output", Value::List(outputs.collect())),
        ("optimization", message("ModelOptimizationPolicy", [])),
        ("instance_group", Value::List(vec![instance_group(parts.name, settings)])),
        ("default_model_filename", text(parts.model_file)),
        ("parameters", parameters(settings)),
    ];
    if rows > 0 {
        fields.push(("dynamic_batching", dynamic_batching(settings)));
    }
    build("ModelConfig", fields)
}

/// The configuration as JSON: the schema's own field names, defaults included, 64-bit integers as numbers.
#[must_use]
pub fn to_json(config: &DynamicMessage) -> serde_json::Value {
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false)
        .stringify_64_bit_integers(false);
    let json = config.serialize_with_options(serde_json::value::Serializer, &options);
    json.expect("a message of a known schema, without floats that JSON lacks, serialises")
}

fn dynamic_batching(settings: &ModelSettings) -> Value {
    let preferred = settings.preferred_batch_rows.iter().map(|&rows| Value::I32(clamp(rows)));
    let queue_policy = message(
        "ModelQueuePolicy",
        [
            ("default_timeout_microseconds", Value::U64(settings.timeout_us_default)),
            ("allow_timeout_override", Value::Bool(settings.timeout_override)),
            ("max_queue_size", Value::U32(u32::try_from(settings.queue_requests_max).unwrap_or(u32::MAX))),
        ],
    );
    message(
        "ModelDynamicBatching",
        [
            ("preferred_batch_size", Value::List(preferred.collect())),
            ("max_queue_delay_microseconds", Value::U64(settings.queue_delay_us_max)),
            ("priority_levels", Value::U64(settings.priority_levels.into())),
            ("default_priority_level", Value::U64(settings.priority_default.into())),
            ("default_queue_policy", queue_policy),
        ],
    )
}

fn instance_group(name: &str, settings: &ModelSettings) -> Value {
    let (kind, gpus) = match settings.device {
        Device::Cpu => (2, Vec::new()),
        Device::Cuda(index) => (1, vec![Value::I32(clamp(index))]),
    };
    message(
        "ModelInstanceGroup",
        [
            ("name", text(name)),
            ("kind", Value::EnumNumber(kind)),
            ("count", Value::I32(clamp(settings.instances.unwrap_or(1)))),
            ("gpus", Value::List(gpus)),
        ],
    )
}

fn tensor(kind: &str, spec: &TensorSpec, batched: bool) -> Value {
    let dims = spec.wire_shape().into_iter().skip(usize::from(batched)).map(Value::I64);
    let data_type = super::POOL.get_enum_by_name("inference.DataType");
    let data_type =
        data_type.and_then(|all| all.get_value_by_name(spec.dtype.config_name()).map(|v| v.number()));
    message(
        kind,
        [
            ("name", text(&spec.name)),
            ("data_type", Value::EnumNumber(data_type.expect("the schema has every element type"))),
            ("dims", Value::List(dims.collect())),
        ],
    )
}

fn version_policy(policy: &VersionPolicy) -> Value {
    let choice = match policy {
        VersionPolicy::Latest(count) => {
            let count = Value::U32(u32::try_from(*count).unwrap_or(u32::MAX));
            ("latest", message("ModelVersionPolicy.Latest", [("num_versions", count)]))
        }
        VersionPolicy::All => ("all", message("ModelVersionPolicy.All", [])),
        VersionPolicy::Specific(versions) => {
            // The schema knows numbers only.
            let numbers = versions.iter().filter_map(|version| version.as_str().parse().ok()).map(Value::I64);
            let versions = Value::List(numbers.collect());
            ("specific", message("ModelVersionPolicy.Specific", [("versions", versions)]))
        }
    };
    message("ModelVersionPolicy", [choice])
}

fn parameters(settings: &ModelSettings) -> Value {
    let mut all = settings.parameters.clone();
    if settings.threads > 1 {
        all.entry(THREADS_PARAMETER.to_owned()).or_insert_with(|| settings.threads.to_string());
    }
    let entry = |(key, value): (String, String)| {
        (MapKey::String(key), message("ModelParameter", [("string_value", text(&value))]))
    };
    Value::Map(all.into_iter().map(entry).collect::<HashMap<_, _>>())
}

fn message<const N: usize>(name: &str, fields: [(&str, Value); N]) -> Value {
    Value::Message(build(name, fields))
}

fn build<'a>(name: &str, fields: impl IntoIterator<Item = (&'a str, Value)>) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor(name));
    for (field, value) in fields {
        message.set_field_by_name(field, value);
    }
    message
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn clamp(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
