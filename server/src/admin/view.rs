//! What there is to know of models and versions, as JSON. Shared by the admin API and the command line. Must not
//! know paths or status codes.

use std::{collections::BTreeMap, iter};

use gannet_models::{
    ModelSettings, Signature, TensorSpec, Version,
    settings::{Batching, Device},
};
use gannet_runtime::{
    batch::{cost::ShapeCosts, queue::GroupKey},
    control::lifecycle::State as VersionState,
    metrics::Outcome,
    servable::Servable,
    table::ModelEntry,
};
use serde_json::{Map, Value, json};

use crate::repository::KnownModel;

/// A model with all its versions, as far as the table or the repository knows it.
pub(crate) fn model(name: &str, entry: Option<&ModelEntry>, known: Option<&KnownModel>) -> Value {
    let versions: Vec<Value> =
        versions(entry, known).iter().map(|v| version(name, v, entry, known)).collect();
    let labels = entry.map(|entry| &entry.labels).or_else(|| known.map(|known| &known.settings.labels));
    let labels: Map<String, Value> = labels
        .into_iter()
        .flatten()
        .map(|(label, version)| (label.clone(), json!(version.as_str())))
        .collect();
    json!({
        "name": name,
        "ready": entry.is_some_and(|entry| entry.primary().is_some()),
        "wanted": known.is_some_and(|known| known.wanted),
        "problems": known.map(|known| known.problems.clone()).unwrap_or_default(),
        "labels": labels,
        "versions": versions,
    })
}

/// Every version that the table or the repository knows, ascending.
pub(crate) fn versions(entry: Option<&ModelEntry>, known: Option<&KnownModel>) -> Vec<Version> {
    let held = entry.into_iter().flat_map(|entry| entry.versions.iter().map(|v| v.status.version.clone()));
    let found = known.into_iter().flat_map(|known| known.versions.iter().cloned());
    let mut all: Vec<Version> = held.chain(found).collect();
    all.sort();
    all.dedup();
    all
}

/// One version, whether it serves or not.
pub(crate) fn version(
    model: &str,
    version: &Version,
    entry: Option<&ModelEntry>,
    known: Option<&KnownModel>,
) -> Value {
    let held = entry.and_then(|entry| entry.versions.iter().find(|v| v.status.version == *version));
    let (state, reason) = match held {
        Some(held) => (held.status.state, held.status.reason.clone()),
        None => {
            let problems = known.map(|known| known.problems.join("; ")).unwrap_or_default();
            (VersionState::Unavailable, if problems.is_empty() { "unloaded".into() } else { problems })
        }
    };
    let labels = entry.map(|entry| &entry.labels).into_iter().flatten();
    let labels: Vec<&str> = labels.filter(|(_, v)| *v == version).map(|(label, _)| label.as_str()).collect();
    let loads = entry.and_then(|entry| entry.loads.get(version.as_str())).cloned().unwrap_or_default();
    let digest =
        known.and_then(|known| known.artifacts.get(version)).map(|artifact| artifact.digest().to_string());
    // what is known of its answers: compared with golden ones before it served, or not
    let proof = known
        .and_then(|known| known.artifacts.get(version))
        .map(|artifact| if artifact.golden_files().is_empty() { "unproven" } else { "golden" });
    let mut fields = json!({
        "model": model,
        "version": version.as_str(),
        "state": state.index_name(),
        "reason": reason,
        "digest": digest,
        "proof": proof,
        "labels": labels,
        "loads": { "ok": loads.ok, "failed": loads.failed, "swaps": loads.swaps },
        "serving": null,
    });
    if let Some(servable) = held.and_then(|held| held.servable.as_ref()) {
        fields["serving"] = serving(servable);
    }
    fields
}

/// What a loaded copy says of itself.
fn serving(servable: &Servable) -> Value {
    let stats = servable.stats.snapshot();
    let mut requests: Map<String, Value> =
        Outcome::ALL.iter().map(|&outcome| (outcome.label().into(), json!(stats.outcome(outcome)))).collect();
    requests.insert("rows".into(), json!(stats.batch_rows.sum));
    requests.insert("batches".into(), json!(stats.batch_rows.count()));
    json!({
        "incarnation": servable.incarnation,
        "platform": servable.engine.platform,
        "signature": signature(&servable.signature),
        "batching": batching(&servable.settings, servable.rows_max()),
        "instances": servable.instances(),
        "threads": servable.settings.threads,
        "device": device(servable.settings.device),
        "costs": costs(&servable.costs),
        "waiting": servable.waiting(),
        "inflight": servable.inflight(),
        "counts": requests,
        "last_inference_ms": stats.last_ms,
    })
}

/// Inputs and outputs.
pub(crate) fn signature(signature: &Signature) -> Value {
    let tensors = |specs: &[TensorSpec]| -> Vec<Value> {
        let tensor = |spec: &TensorSpec| {
            let shape = spec.wire_shape();
            let mut fields = json!({ "name": spec.name, "datatype": spec.dtype.to_string(), "shape": shape });
            if let Some(labels) = &spec.labels {
                fields["labels"] = json!(&labels[..]);
            }
            fields
        };
        specs.iter().map(tensor).collect()
    };
    json!({
        "batched": signature.batched,
        "inputs": tensors(&signature.inputs),
        "outputs": tensors(&signature.outputs),
    })
}

/// How requests are put together.
pub(crate) fn batching(settings: &ModelSettings, rows_max: usize) -> Value {
    let decided = match settings.batching {
        Batching::Inferred => "inferred",
        Batching::Off => "off",
        Batching::Stated(_) => "stated",
    };
    json!({
        "decided": decided,
        "rows_max": rows_max,
        "queue_delay_us_max": settings.queue_delay_us_max,
        "preferred_rows": settings.preferred_batch_rows,
        "queue_requests_max": settings.queue_requests_max,
    })
}

/// `cpu` or `cuda:0`.
pub(crate) fn device(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        Device::Cuda(index) => format!("cuda:{index}"),
    }
}

/// Learned costs: by volume of the variable axes (the power of two at or below it), then by rows up to which the
/// cost holds.
pub(crate) fn costs(costs: &ShapeCosts) -> Vec<Value> {
    let mut all = Vec::new();
    for power in 0..usize::BITS / 2 {
        let volume = 1usize << power;
        let group: GroupKey = iter::once(volume).collect();
        all.extend(costs.table(&group).rows().map(|(rows, median_ns, upper_ns)| {
            json!({ "axes_volume": volume, "rows_max": rows, "median_ns": median_ns, "upper_ns": upper_ns })
        }));
    }
    all
}

/// All models of both, by name.
pub(crate) fn names<'a>(
    table: impl Iterator<Item = &'a str>,
    inventory: impl Iterator<Item = &'a str>,
) -> Vec<&'a str> {
    table.chain(inventory).map(|name| (name, ())).collect::<BTreeMap<_, _>>().into_keys().collect()
}
