//! From a parsed model configuration to settings. Must not know text formats.

use std::borrow::Cow;

use prost_reflect::{DynamicMessage, MapKey, Value};

use crate::{
    DType, ModelSettings, Version,
    faults::{Faults, FieldNames},
    labels,
    redaction::Method,
    settings::{Batching, Device, TensorDeclaration, VersionPolicy},
};

use super::Origin;

/// How this format calls the fields that are checked against each other.
pub(super) const NAMES: FieldNames = FieldNames {
    max_batch_size: "max_batch_size",
    preferred_batch_sizes: "dynamic_batching.preferred_batch_size",
    queue_delay: "dynamic_batching.max_queue_delay_microseconds",
    priority_levels: "dynamic_batching.priority_levels",
    priority_default: "dynamic_batching.default_priority_level",
    queue_requests_max: "dynamic_batching.default_queue_policy.max_queue_size",
    timeout: "dynamic_batching.default_queue_policy.default_timeout_microseconds",
    instances: "instance_group.count",
    threads: "parameters",
    inputs: "input",
    outputs: "output",
};

/// Platform, backend and model file of each format that this configuration may name.
const PLATFORMS: [(&str, &str, &str); 2] =
    [("onnxruntime_onnx", "onnxruntime", "model.onnx"), ("pytorch_libtorch", "pytorch", "model.pt")];

/// The parameter of Triton's ONNX Runtime backend that says how many threads one run may use.
pub(super) const THREADS_PARAMETER: &str = "intra_op_thread_count";

/// Our own parameter that lets a model be TorchScript, as `allow_torchscript` does in `model.toml`.
const TORCHSCRIPT_PARAMETER: &str = "allow_torchscript";
/// What begins the parameters that redact an input or output by name.
const REDACTION_PARAMETERS: [&str; 2] = ["redaction.inputs.", "redaction.outputs."];

/// The fields of a message by name, defaults included.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a DynamicMessage);

impl<'a> Fields<'a> {
    /// The value of a field that is set.
    fn set(self, name: &str) -> Option<&'a Value> {
        match self.0.get_field_by_name(name) {
            Some(Cow::Borrowed(value)) => Some(value),
            _ => None,
        }
    }

    fn text(self, name: &str) -> &'a str {
        self.set(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Any integer or enumeration field; 0 when unset.
    fn number(self, name: &str) -> i128 {
        self.set(name).map_or(0, number)
    }

    fn boolean(self, name: &str) -> bool {
        self.set(name).and_then(Value::as_bool).unwrap_or(false)
    }

    fn list(self, name: &str) -> &'a [Value] {
        self.set(name).and_then(Value::as_list).unwrap_or_default()
    }

    fn messages(self, name: &str) -> impl Iterator<Item = (usize, Fields<'a>)> {
        self.list(name).iter().filter_map(Value::as_message).map(Fields).enumerate()
    }

    fn message(self, name: &str) -> Option<Fields<'a>> {
        self.0.has_field_by_name(name).then(|| self.set(name)?.as_message().map(Fields)).flatten()
    }
}

fn number(value: &Value) -> i128 {
    match value {
        Value::I32(number) | Value::EnumNumber(number) => (*number).into(),
        Value::I64(number) => (*number).into(),
        Value::U32(number) => (*number).into(),
        Value::U64(number) => (*number).into(),
        _ => 0,
    }
}

/// The settings that a configuration states. Faults are noted, and the defaults stand in for what is faulty.
pub(super) fn settings(message: &DynamicMessage, origin: &Origin<'_>, faults: &mut Faults) -> ModelSettings {
    let config = Fields(message);
    let mut settings = ModelSettings::default();
    let name = config.text("name");
    if let Some(expected) = origin.name.filter(|expected| !name.is_empty() && name != *expected) {
        let advice = "rename the one or the other, or leave the name out";
        faults.advise("name", format!("'{expected}', the folder's name"), format!("'{name}'"), advice);
    }
    settings.backend = backend(config, faults);
    let rows = config.number("max_batch_size");
    let bare = config.list("input").is_empty() && config.list("output").is_empty();
    settings.batching = match usize::try_from(rows) {
        Ok(0) if bare => Batching::Inferred,
        Ok(0) => Batching::Off,
        Ok(rows) => Batching::Stated(rows),
        Err(_) => {
            faults.add("max_batch_size", "a number of rows, or 0 for no batching", rows.to_string());
            Batching::Inferred
        }
    };
    settings.version_policy = version_policy(config, faults);
    settings.inputs = tensors(config, "input", origin, faults);
    settings.outputs = tensors(config, "output", origin, faults);
    if let Some(batching) = config.message("dynamic_batching") {
        dynamic_batching(batching, &mut settings, faults);
    }
    instance_groups(config, &mut settings, faults);
    parameters(config, &mut settings, faults);
    settings.warm_up.enabled |= !config.list("model_warmup").is_empty();
    settings
}

fn backend(config: Fields<'_>, faults: &mut Faults) -> Option<String> {
    let (platform, backend) = (config.text("platform"), config.text("backend"));
    let file = config.text("default_model_filename");
    let fits = |row: &&(&str, &str, &str)| {
        (platform.is_empty() || platform == row.0) && (backend.is_empty() || backend == row.1)
    };
    let named = |row: &&(&str, &str, &str)| fits(row) && row.2 == file;
    let Some(row) = PLATFORMS.iter().find(named).or_else(|| PLATFORMS.iter().find(fits)) else {
        let field = if platform.is_empty() { "backend" } else { "platform" };
        let expected: Vec<String> = PLATFORMS
            .iter()
            .map(|(platform, backend, _)| format!("backend \"{backend}\" (platform \"{platform}\")"))
            .collect();
        let got = format!("backend \"{backend}\", platform \"{platform}\"");
        faults.advise(field, expected.join(" or "), got, "export the model in a supported format");
        return None;
    };
    if !file.is_empty() && file != row.2 {
        let advice = "rename the file, and leave this field out";
        faults.advise("default_model_filename", format!("\"{}\"", row.2), format!("\"{file}\""), advice);
    }
    (!platform.is_empty() || !backend.is_empty()).then(|| row.1.to_owned())
}

fn version_policy(config: Fields<'_>, faults: &mut Faults) -> VersionPolicy {
    let Some(policy) = config.message("version_policy") else { return VersionPolicy::Latest(1) };
    if policy.message("all").is_some() {
        return VersionPolicy::All;
    }
    if let Some(specific) = policy.message("specific") {
        let mut versions = Vec::new();
        for version in specific.list("versions").iter().map(number) {
            match Version::new(&version.to_string()) {
                Ok(version) if !version.as_str().starts_with('-') => versions.push(version),
                _ => faults.add(
                    "version_policy.specific.versions",
                    "numbers of 1 and more",
                    version.to_string(),
                ),
            }
        }
        return VersionPolicy::Specific(versions);
    }
    // No number means one version, as in Triton.
    let count = policy.message("latest").map_or(1, |latest| latest.number("num_versions"));
    VersionPolicy::Latest(usize::try_from(count).unwrap_or(1).max(1))
}

fn tensors(
    config: Fields<'_>,
    group: &str,
    origin: &Origin<'_>,
    faults: &mut Faults,
) -> Vec<TensorDeclaration> {
    let mut tensors = Vec::new();
    for (index, tensor) in config.messages(group) {
        let field = |name: &str| format!("{group}[{index}].{name}");
        let name = tensor.text("name");
        if name.is_empty() {
            faults.add(field("name"), "the tensor's name", "none");
        }
        let dims: Vec<i64> = tensor.list("dims").iter().filter_map(Value::as_i64).collect();
        if let Some(dim) = dims.iter().find(|&&dim| dim == 0 || dim < -1) {
            faults.add(field("dims"), "sizes of 1 and more, or -1 for a variable axis", dim.to_string());
        }
        // Even an empty reshape means something: an axis that requests have and the model has not.
        if let Some(reshape) = tensor.message("reshape") {
            let shape: Vec<i64> = reshape.list("shape").iter().filter_map(Value::as_i64).collect();
            if shape != dims {
                let advice = "export the model with the shape that requests use, and remove it";
                let expected =
                    format!("nothing (Gannet does not support it), or the dims themselves, {dims:?}");
                faults.advise(field("reshape"), expected, format!("{shape:?}"), advice);
            }
        }
        let mut declared_labels = None;
        let file = tensor.text("label_filename");
        if !file.is_empty() {
            match labels::read_named(origin.model_dir, file) {
                Ok(read) => declared_labels = Some(read),
                Err(got) => {
                    faults.add(field("label_filename"), "a readable text file in the model's folder", got);
                }
            }
        }
        tensors.push(TensorDeclaration {
            name: name.to_owned(),
            dtype: data_type(tensor),
            dims: Some(dims).filter(|dims| !dims.is_empty()),
            labels: declared_labels,
        });
    }
    tensors
}

fn data_type(tensor: Fields<'_>) -> Option<DType> {
    let number = i32::try_from(tensor.number("data_type")).ok()?;
    let data_type = super::POOL.get_enum_by_name("inference.DataType")?;
    DType::parse(data_type.get_value(number)?.name())
}

fn dynamic_batching(batching: Fields<'_>, settings: &mut ModelSettings, faults: &mut Faults) {
    for size in batching.list("preferred_batch_size").iter().map(number) {
        match usize::try_from(size) {
            Ok(size) => settings.preferred_batch_rows.push(size),
            Err(_) => faults.add(NAMES.preferred_batch_sizes, "sizes of 1 and more", size.to_string()),
        }
    }
    settings.queue_delay_us_max = unsigned(batching.number("max_queue_delay_microseconds"));
    let level = |name| u32::try_from(batching.number(name)).unwrap_or(u32::MAX);
    settings.priority_levels = level("priority_levels");
    settings.priority_default = level("default_priority_level");
    if let Some(policy) = batching.message("default_queue_policy") {
        settings.timeout_us_default = unsigned(policy.number("default_timeout_microseconds"));
        settings.timeout_override = policy.boolean("allow_timeout_override");
        match usize::try_from(policy.number("max_queue_size")) {
            Ok(0) | Err(_) => {}
            Ok(requests) => settings.queue_requests_max = requests,
        }
    }
}

fn unsigned(number: i128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// One group, or several for the same device: their counts add up. `KIND_GPU` without `gpus` takes the first.
fn instance_groups(config: Fields<'_>, settings: &mut ModelSettings, faults: &mut Faults) {
    const KIND_GPU: i128 = 1;
    const KIND_CPU: i128 = 2;
    const KIND_MODEL: i128 = 3;
    let (mut instances, mut device): (i128, Option<Device>) = (0, None);
    for (index, group) in config.messages("instance_group") {
        let field = |name: &str| format!("instance_group[{index}].{name}");
        let gpus: Vec<i128> = group.list("gpus").iter().map(number).collect();
        let kind = group.number("kind");
        if kind == KIND_MODEL {
            faults.add(field("kind"), "KIND_CPU, KIND_GPU or KIND_AUTO", "KIND_MODEL");
        }
        if gpus.len() > 1 || gpus.iter().any(|&gpu| gpu < 0) || (kind == KIND_CPU && !gpus.is_empty()) {
            let expected = if kind == KIND_CPU { "none with KIND_CPU" } else { "one GPU" };
            faults.advise(field("gpus"), expected, format!("{gpus:?}"), "use one server for each GPU");
        }
        let wanted = match gpus.first() {
            Some(&gpu) => Device::Cuda(usize::try_from(gpu).unwrap_or(0)),
            None if kind == KIND_GPU => Device::Cuda(0),
            None => Device::Cpu,
        };
        if device.is_some_and(|device| device != wanted) {
            let expected = format!("the device of the groups before it, {device:?}");
            faults.advise(field("kind"), expected, format!("{wanted:?}"), "give all groups one device");
        }
        device = device.or(Some(wanted));
        let count = group.number("count");
        if count < 0 {
            faults.add(field("count"), "a number of 1 and more", count.to_string());
        }
        instances += if count == 0 { 1 } else { count };
    }
    if let Some(device) = device {
        settings.device = device;
        settings.instances = usize::try_from(instances).ok();
    }
}

fn parameters(config: Fields<'_>, settings: &mut ModelSettings, faults: &mut Faults) {
    let Some(map) = config.set("parameters").and_then(Value::as_map) else { return };
    for (key, value) in map {
        if let (MapKey::String(key), Some(value)) = (key, value.as_message()) {
            settings.parameters.insert(key.clone(), Fields(value).text("string_value").to_owned());
        }
    }
    for (key, text) in &settings.parameters {
        let [inputs, outputs] = REDACTION_PARAMETERS.map(|start| key.strip_prefix(start));
        let (methods, name) = match (inputs, outputs) {
            (Some(name), _) => (&mut settings.redaction.inputs, name),
            (_, Some(name)) => (&mut settings.redaction.outputs, name),
            _ => continue,
        };
        match Method::parse(text.trim()) {
            Some(method) => drop(methods.insert(name.to_owned(), method)),
            None => {
                faults.add(format!("parameters[\"{key}\"]"), "drop, mask or hash", format!("\"{text}\""));
            }
        }
    }
    if let Some(text) = settings.parameters.get(TORCHSCRIPT_PARAMETER) {
        match text.trim().parse() {
            Ok(allowed) => settings.allow_torchscript = allowed,
            Err(_) => {
                let field = format!("parameters[\"{TORCHSCRIPT_PARAMETER}\"]");
                faults.add(field, "true or false", format!("\"{text}\""));
            }
        }
    }
    if let Some(text) = settings.parameters.get(THREADS_PARAMETER) {
        match text.trim().parse::<usize>() {
            // 0 leaves the number to the server.
            Ok(0) => {}
            Ok(threads) => settings.threads = threads,
            Err(_) => {
                let field = format!("parameters[\"{THREADS_PARAMETER}\"]");
                faults.add(field, "a number of threads", format!("\"{text}\""));
            }
        }
    }
}
