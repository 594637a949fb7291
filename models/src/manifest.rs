//! `model.toml`: settings as people write them. Must not know the other formats.
//!
//! The document is walked by hand rather than derived, because a derived reader stops at the first fault and this
//! one reports all of them, each with its line. Keys that nobody knows are faults too.
//!
//! ```toml
//! backend = "onnxruntime"
//! max_batch_size = 32          # 0: no batching; absent: inferred from the model
//! versions = "latest:2"        # or "all", or ["1", "3"]
//! allow_torchscript = true     # TorchScript is code: from whom it may come is the operator's to say
//!
//! [batching]
//! queue_delay_us_max = 500
//! preferred_batch_sizes = [8, 32]
//!
//! [priority]
//! levels = 2
//! default = 2
//!
//! [limits]
//! queue_requests_max = 256
//! timeout_us_default = 50_000
//! timeout_override = true
//! memory_bytes = 100_000_000
//!
//! [instances]
//! count = 2
//! threads = 1
//! device = "cpu"               # or "cuda:0"
//!
//! [labels]
//! stable = "1"
//!
//! [warm_up]
//! enabled = true
//! ms_max = 2000
//!
//! [drift]
//! rate = 0.05                  # share of the requests that is sampled
//!
//! [[padding]]
//! axis = "sequence"
//! buckets = [32, 64, 128]
//! value = 0
//!
//! [[outputs]]                  # likewise [[inputs]]; only the name is required
//! name = "probabilities"
//! dtype = "FP32"
//! dims = [3]                   # without the batch axis; -1: variable
//! label_file = "labels.txt"    # outputs only; in the model's folder
//! ```

mod table;

use std::{cell::RefCell, path::Path, sync::Arc};

use toml::de::DeTable;

use crate::{
    DType, ModelSettings, Version,
    error::{Fault, ModelError},
    faults::{self, Faults, FieldNames},
    labels,
    settings::{Batching, Device, Padding, TensorDeclaration, VersionPolicy},
};

use self::table::{Lines, Table};

/// The largest integer that TOML can hold, for fields that have no smaller limit of their own.
const INTEGER_MAX: u64 = i64::MAX as u64;

/// How this format calls the fields that are checked against each other.
const NAMES: FieldNames = FieldNames {
    max_batch_size: "max_batch_size",
    preferred_batch_sizes: "batching.preferred_batch_sizes",
    queue_delay: "batching.queue_delay_us_max",
    priority_levels: "priority.levels",
    priority_default: "priority.default",
    queue_requests_max: "limits.queue_requests_max",
    timeout: "limits.timeout_us_default",
    instances: "instances.count",
    threads: "instances.threads",
    inputs: "inputs",
    outputs: "outputs",
};

/// Reads the text of a `model.toml`. `path` names it in messages; label files are looked for beside it.
///
/// # Errors
/// [`ModelError::Settings`] with every fault.
pub fn parse(text: &str, path: &Path) -> Result<ModelSettings, ModelError> {
    let lines = Lines::of(text);
    let faults = RefCell::new(Faults::default());
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            faults.borrow_mut().push(Fault {
                line: error.span().map(|span| lines.at(span.start)),
                field: String::new(),
                expected: "valid TOML".to_owned(),
                got: error.message().replace('\n', ", "),
                advice: String::new(),
            });
        }
        return faults.into_inner().finish(path, ModelSettings::default());
    }
    let mut settings = ModelSettings::default();
    let model_dir = path.parent().unwrap_or(Path::new(""));
    read(Table::root(root.get_ref(), &lines, &faults), model_dir, &mut settings);
    let mut faults = faults.into_inner();
    faults::check(&mut settings, &NAMES, &mut faults);
    faults.finish(path, settings)
}

fn read(mut root: Table<'_>, model_dir: &Path, settings: &mut ModelSettings) {
    settings.backend = root.string("backend");
    match root.integer("max_batch_size", 0, faults::BATCH_ROWS_MAX as u64) {
        None => {}
        Some(0) => settings.batching = Batching::Off,
        Some(rows) => settings.batching = Batching::Stated(rows as usize),
    }
    if let Some(policy) =
        root.value("versions", "\"latest:2\", \"all\" or a list such as [\"1\", \"3\"]", versions)
    {
        settings.version_policy = policy;
    }
    set(&mut settings.allow_torchscript, root.boolean("allow_torchscript"));
    read_scheduling(&mut root, settings);
    read_instances(&mut root, settings);
    if let Some(mut table) = root.table("labels") {
        let expected = "a version, such as \"1\"";
        for label in table.keys() {
            let version = table.value(&label, expected, |value| version(value.as_str()?));
            settings.labels.extend(version.map(|version| (label, version)));
        }
        table.finish();
    }
    read_drift(&mut root, settings);
    settings.padding = root.tables("padding").into_iter().filter_map(read_padding).collect();
    let tensors = |tables: Vec<Table<'_>>, labelled| {
        tables.into_iter().filter_map(|table| read_tensor(table, labelled, model_dir)).collect()
    };
    settings.inputs = tensors(root.tables("inputs"), false);
    settings.outputs = tensors(root.tables("outputs"), true);
    root.finish();
}

fn read_scheduling(root: &mut Table<'_>, settings: &mut ModelSettings) {
    if let Some(mut table) = root.table("batching") {
        set(
            &mut settings.queue_delay_us_max,
            table.integer("queue_delay_us_max", 0, faults::DURATION_US_MAX),
        );
        let sizes = table.integers("preferred_batch_sizes", 1, faults::BATCH_ROWS_MAX as i64);
        settings.preferred_batch_rows =
            sizes.unwrap_or_default().into_iter().map(|size| size as usize).collect();
        table.finish();
    }
    if let Some(mut table) = root.table("priority") {
        let max = u64::from(faults::PRIORITY_LEVELS_MAX);
        let levels = table.integer("levels", 0, max).unwrap_or(0) as u32;
        settings.priority_levels = levels;
        // Left out, it is the last level: who names none does not overtake who does.
        settings.priority_default = table.integer("default", 0, max).map_or(levels, |level| level as u32);
        table.finish();
    }
    if let Some(mut table) = root.table("limits") {
        let max = faults::QUEUE_REQUESTS_LIMIT as u64;
        let queue = table.integer("queue_requests_max", 1, max);
        set(&mut settings.queue_requests_max, queue.map(|requests| requests as usize));
        set(
            &mut settings.timeout_us_default,
            table.integer("timeout_us_default", 0, faults::DURATION_US_MAX),
        );
        set(&mut settings.timeout_override, table.boolean("timeout_override"));
        settings.memory_bytes = table.integer("memory_bytes", 1, INTEGER_MAX);
        table.finish();
    }
}

fn read_instances(root: &mut Table<'_>, settings: &mut ModelSettings) {
    if let Some(mut table) = root.table("instances") {
        let count = table.integer("count", 1, crate::settings::INSTANCES_MAX as u64);
        settings.instances = count.map(|count| count as usize).or(settings.instances);
        let threads = table.integer("threads", 1, faults::THREADS_MAX as u64);
        set(&mut settings.threads, threads.map(|threads| threads as usize));
        let device = table.value("device", "\"cpu\" or \"cuda:0\"", |value| device(value.as_str()?));
        set(&mut settings.device, device);
        table.finish();
    }
    if let Some(mut table) = root.table("warm_up") {
        set(&mut settings.warm_up.enabled, table.boolean("enabled"));
        set(&mut settings.warm_up.ms_max, table.integer("ms_max", 0, faults::DURATION_US_MAX / 1000));
        table.finish();
    }
}

fn read_drift(root: &mut Table<'_>, settings: &mut ModelSettings) {
    if let Some(mut table) = root.table("drift") {
        settings.drift_rate = table.number("rate").filter(|rate| {
            let fits = (0.0..=1.0).contains(rate);
            if !fits {
                table.fault("rate", "a share from 0 to 1", &rate.to_string());
            }
            fits
        });
        table.finish();
    }
}

fn read_padding(mut table: Table<'_>) -> Option<Padding> {
    let axis = table.required("axis", |table| table.string("axis"));
    let buckets = table.required("buckets", |table| table.integers("buckets", 1, i64::MAX));
    let value = table.number("value").unwrap_or(0.0);
    table.finish();
    let mut buckets: Vec<usize> = buckets?.into_iter().map(|size| size as usize).collect();
    buckets.sort_unstable();
    buckets.dedup();
    Some(Padding { axis: Arc::from(axis?), buckets, value })
}

fn read_tensor(mut table: Table<'_>, labelled: bool, model_dir: &Path) -> Option<TensorDeclaration> {
    let name = table.required("name", |table| table.string("name"));
    let dtype =
        table.value("dtype", "an element type, such as \"FP32\"", |value| DType::parse(value.as_str()?));
    let dims = table.integers("dims", -1, i64::MAX);
    if dims.iter().flatten().any(|&dim| dim == 0) {
        table.fault("dims", "sizes of 1 and more, or -1 for a variable axis", "0");
    }
    let mut labels = None;
    if labelled && let Some(file) = table.string("label_file") {
        match labels::read_named(model_dir, &file) {
            Ok(read) => labels = Some(read),
            Err(got) => table.fault("label_file", "a readable text file in the model's folder", &got),
        }
    }
    table.finish();
    Some(TensorDeclaration { name: name?, dtype, dims, labels })
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn versions(value: &toml::de::DeValue<'_>) -> Option<VersionPolicy> {
    if let Some(list) = value.as_array() {
        let version = |item: &toml::Spanned<toml::de::DeValue<'_>>| match item.get_ref().as_integer() {
            Some(number) => version(number.as_str()),
            None => version(item.get_ref().as_str()?),
        };
        return list.iter().map(version).collect::<Option<Vec<_>>>().map(VersionPolicy::Specific);
    }
    let text = value.as_str()?;
    if text == "all" {
        return Some(VersionPolicy::All);
    }
    let count = text.strip_prefix("latest:")?.trim().parse().ok().filter(|&count: &usize| count > 0)?;
    Some(VersionPolicy::Latest(count))
}

fn version(text: &str) -> Option<Version> {
    Version::new(text).ok()
}

fn device(text: &str) -> Option<Device> {
    match text {
        "cpu" => Some(Device::Cpu),
        "cuda" => Some(Device::Cuda(0)),
        _ => text.strip_prefix("cuda:")?.parse().ok().map(Device::Cuda),
    }
}

#[cfg(test)]
mod tests;
