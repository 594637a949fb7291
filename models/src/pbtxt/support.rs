//! What becomes of each field of Triton's model configuration: read, harmless, or refused by name.
//! Must not know what the fields that are read turn into.

use prost_reflect::{DynamicMessage, Value};

use crate::faults::Faults;

use self::Verdict::{Harmless, Read, Refused};

/// What becomes of a field and everything below it. A field without a verdict is judged by its own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// `read.rs` turns it into settings.
    Read,
    /// It changes nothing here, for the reason given; accepted in silence.
    Harmless(#[allow(dead_code, reason = "read by people")] &'static str),
    /// Not supported; the text says what to do.
    Refused(&'static str),
}

const LABEL_ONLY: &str = "a name for people";
const MEMORY_ONLY: &str = "how buffers are copied to a device; the answers do not depend on it";
const TENSORRT: &str = "remove it: it is for TensorRT engines";
const STEADY: &str = "export the model with a fixed interface, and remove it";
const RAGGED: &str = "remove it, and pad with [[padding]] in a model.toml instead";
const SCHEDULER: &str = "remove it: instances pull work as they become free";

/// Every field, in the order of the schema.
const VERDICTS: [(&str, Verdict); 63] = [
    ("name", Read),
    ("platform", Read),
    ("backend", Read),
    ("runtime", Refused("remove it: backends are compiled in, not loaded from files")),
    ("version_policy", Read),
    ("max_batch_size", Read),
    ("input.name", Read),
    ("input.data_type", Read),
    ("input.format", Harmless("ONNX models fix their own layout")),
    ("input.dims", Read),
    ("input.reshape", Read),
    ("input.is_shape_tensor", Refused(TENSORRT)),
    ("input.allow_ragged_batch", Refused(RAGGED)),
    ("input.optional", Refused(STEADY)),
    ("input.is_non_linear_format_io", Refused(TENSORRT)),
    ("output.name", Read),
    ("output.data_type", Read),
    ("output.dims", Read),
    ("output.reshape", Read),
    ("output.label_filename", Read),
    ("output.is_shape_tensor", Refused(TENSORRT)),
    ("output.is_non_linear_format_io", Refused(TENSORRT)),
    ("batch_input", Refused(RAGGED)),
    ("batch_output", Refused(RAGGED)),
    ("optimization.graph.level", Refused("remove it: every graph optimization is always on")),
    ("optimization.priority", Harmless("it orders streams of TensorRT and means nothing to ONNX Runtime")),
    ("optimization.cuda", Refused(TENSORRT)),
    (
        "optimization.execution_accelerators",
        Refused("remove it; to run on a GPU, ask for it with instance_group { kind: KIND_GPU }"),
    ),
    ("optimization.input_pinned_memory", Harmless(MEMORY_ONLY)),
    ("optimization.output_pinned_memory", Harmless(MEMORY_ONLY)),
    ("optimization.gather_kernel_buffer_threshold", Harmless(MEMORY_ONLY)),
    (
        "optimization.eager_batching",
        Harmless("when a batch is put together; the answers do not depend on it"),
    ),
    ("dynamic_batching.preferred_batch_size", Read),
    ("dynamic_batching.max_queue_delay_microseconds", Read),
    (
        "dynamic_batching.preserve_ordering",
        Refused("remove it: a client that needs an order waits for each answer"),
    ),
    ("dynamic_batching.priority_levels", Read),
    ("dynamic_batching.default_priority_level", Read),
    (
        "dynamic_batching.default_queue_policy.timeout_action",
        Refused("set it to REJECT or remove it: a request past its deadline is refused"),
    ),
    ("dynamic_batching.default_queue_policy", Read),
    (
        "dynamic_batching.priority_queue_policy",
        Refused("remove it: one default_queue_policy holds for all levels"),
    ),
    (
        "sequence_batching",
        Refused("remove it: requests are independent of each other; keep state in the client"),
    ),
    ("ensemble_scheduling", Refused("remove it: export the steps as one model, or call the models in turn")),
    ("instance_group.name", Harmless(LABEL_ONLY)),
    ("instance_group.kind", Read),
    ("instance_group.count", Read),
    ("instance_group.rate_limiter", Refused(SCHEDULER)),
    ("instance_group.gpus", Read),
    ("instance_group.secondary_devices", Refused(TENSORRT)),
    ("instance_group.profile", Refused(TENSORRT)),
    ("instance_group.passive", Refused(SCHEDULER)),
    (
        "instance_group.host_policy",
        Refused("remove it: pin the whole server with the operating system's means"),
    ),
    ("default_model_filename", Read),
    ("cc_model_filenames", Refused("remove it: one file serves every GPU")),
    ("metric_tags", Refused("remove it: add labels where metrics are collected")),
    ("parameters", Read),
    ("model_warmup.inputs.input_data_file", Refused("use zero_data or random_data, or add golden requests")),
    ("model_warmup", Read),
    ("model_operations", Refused("remove it: custom operators are not loaded")),
    ("model_transaction_policy.decoupled", Refused("remove it: each request has one answer")),
    ("model_repository_agents", Refused("remove it: models are fetched and checked by the registry")),
    ("response_cache.enable", Refused("remove it: every request is computed")),
    ("model_metrics", Refused("remove it: latency histograms are always on")),
    ("optimization.graph", Read),
];

/// Notes every field that is set and not supported.
pub(super) fn check(message: &DynamicMessage, faults: &mut Faults) {
    walk(message, "", "", faults);
}

/// `path` is the place in the schema, `field` the place in this message, with indexes.
fn walk(message: &DynamicMessage, path: &str, field: &str, faults: &mut Faults) {
    for (descriptor, value) in message.fields() {
        let path = join(path, descriptor.name());
        let field = join(field, descriptor.name());
        if let Some(Refused(advice)) = verdict(&path) {
            faults.advise(field, "nothing (Gannet does not support it)", shown(value), advice);
        } else if verdict(&path).is_none() || has_verdict_below(&path) {
            for (place, inner) in messages(value) {
                walk(inner, &path, &format!("{field}{place}"), faults);
            }
        }
    }
}

fn verdict(path: &str) -> Option<Verdict> {
    VERDICTS.iter().find(|(name, _)| *name == path).map(|(_, verdict)| *verdict)
}

/// Whether some field below `path` is judged apart from it.
fn has_verdict_below(path: &str) -> bool {
    VERDICTS.iter().any(|(name, _)| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// The messages in a value, each with its index or key.
fn messages(value: &Value) -> Vec<(String, &DynamicMessage)> {
    match value {
        Value::Message(message) => vec![(String::new(), message)],
        Value::List(list) => {
            let items = list.iter().enumerate();
            items.filter_map(|(index, item)| Some((format!("[{index}]"), item.as_message()?))).collect()
        }
        Value::Map(map) => {
            let items = map.iter().filter_map(|(key, item)| Some((format!("[{key:?}]"), item.as_message()?)));
            items.collect()
        }
        _ => Vec::new(),
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Message(_) | Value::List(_) | Value::Map(_) => return "it".to_owned(),
        Value::EnumNumber(number) => format!("value {number}"),
        value => value.to_string(),
    };
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use prost_reflect::{Kind, MessageDescriptor};

    use super::*;

    #[test]
    fn every_field_of_the_schema_has_a_verdict() {
        let mut seen = Vec::new();
        fn visit(message: &MessageDescriptor, path: &str, seen: &mut Vec<String>) {
            for field in message.fields() {
                let path = join(path, field.name());
                seen.push(path.clone());
                let kind = match field.kind() {
                    Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
                    kind => kind,
                };
                match kind {
                    Kind::Message(inner) if verdict(&path).is_none() || has_verdict_below(&path) => {
                        visit(&inner, &path, seen);
                    }
                    _ => assert!(covered(&path), "{path} has no verdict"),
                }
            }
        }
        /// Whether the field or one that holds it is judged.
        fn covered(path: &str) -> bool {
            let prefixes = path.match_indices('.').map(|(end, _)| &path[..end]);
            prefixes.chain([path]).any(|path| verdict(path).is_some())
        }
        visit(&super::super::descriptor("ModelConfig"), "", &mut seen);
        for (path, _) in VERDICTS {
            assert!(seen.iter().any(|field| field == path), "{path} is not in the schema");
        }
    }
}
