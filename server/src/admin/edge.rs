//! Compilations for microcontrollers: asked for, watched, called off, fetched. Must not know how a model is compiled.

use gannet_edge::{bundle::Bundle, manifest::Manifest};
use gannet_models::{Artifact, ModelName, Version};
use serde_json::{Value, json};

use super::{
    models,
    router::{Answer, Call, File, Reply},
};
use crate::{
    edge::{EdgeOptions, EdgeOrder, Job, JobState},
    ota::archive,
    respond::{Kind, Refusal},
};

/// Begins to compile a version.
pub(super) async fn start(call: Call) -> Answer {
    let (model, version) = models::target(&call)?;
    let mut options: EdgeOptions = match &call.body[..] {
        [] => EdgeOptions::default(),
        body => serde_json::from_slice(body).map_err(|error| {
            Refusal::invalid(format!(
                "the body: expected nothing, or options such as {{\"sequence\": 2, \"calibrate\": \"baseline\"}}: {error}"
            ))
        })?,
    };
    let state = &call.context.state;
    if options.sequence.is_none() {
        let published = state.ota.as_ref().and_then(|ota| ota.sequence_of(model.as_str()));
        options.sequence = Some(published.map_or(1, |sequence| sequence.saturating_add(1)));
    }
    let artifact = artifact(&call, &model, &version)?;
    let job = state.edge.ask(EdgeOrder { model, version, artifact, options })?;
    Ok(shown(&job))
}

/// How far it is.
pub(super) async fn get(call: Call) -> Answer {
    Ok(shown(&job(&call)?))
}

/// Calls it off, or forgets what it made.
pub(super) async fn cancel(call: Call) -> Answer {
    let (model, version) = models::target(&call)?;
    let job = call.context.state.edge.cancel(&model, &version).ok_or_else(|| no_job(&model, &version))?;
    Ok(shown(&job))
}

/// What it made.
pub(super) async fn bundle(call: Call) -> Result<Reply, Refusal> {
    let job = job(&call)?;
    let (model, version) = (&job.order.model, &job.order.version);
    let JobState::Done(bundle) = &job.state else {
        let state = shown(&job)["state"].clone();
        let message =
            format!("job {} for version '{version}' of '{model}' has no bundle: it is {state}", job.id);
        return Err(Refusal::new(Kind::Conflict, message));
    };
    let name = format!("{}-{}-edge", gannet_edge::bundle::identifier(model.as_str()), version.as_str());
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    let bytes = archive::pack(bundle, &name).map_err(|why| Refusal::new(Kind::Internal, why))?;
    let file = File { name: format!("{name}.tar"), content_type: "application/x-tar", bytes: bytes.into() };
    Ok(Reply { file: Some(file), ..Value::Null.into() })
}

fn job(call: &Call) -> Result<Job, Refusal> {
    let (model, version) = models::target(call)?;
    call.context.state.edge.of(&model, &version).ok_or_else(|| no_job(&model, &version))
}

fn no_job(model: &ModelName, version: &Version) -> Refusal {
    Refusal::new(
        Kind::NotFound,
        format!("version '{version}' of '{model}' was not compiled; POST here begins it"),
    )
}

fn artifact(call: &Call, model: &ModelName, version: &Version) -> Result<Artifact, Refusal> {
    let inventory = call.context.state.repository.inventory();
    let found = inventory.models.get(model).and_then(|known| known.artifacts.get(version));
    found.cloned().ok_or_else(|| {
        let message = format!("the files of version '{version}' of '{model}' are not here; load it first");
        Refusal::new(Kind::Conflict, message)
    })
}

fn shown(job: &Job) -> Value {
    let order = &job.order;
    let mut fields = json!({
        "id": job.id,
        "model": order.model.as_str(),
        "version": order.version.as_str(),
        "options": order.options,
        "digest": order.artifact.digest().to_string(),
        "state": "waiting",
        "progress": null,
        "error": null,
        "bundle": null,
    });
    match &job.state {
        JobState::Waiting => {}
        JobState::Running(progress) => {
            fields["state"] = json!("running");
            fields["progress"] = json!({ "step": progress.step, "done": progress.done, "of": progress.of });
        }
        JobState::Failed(why) => {
            fields["state"] = json!("failed");
            fields["error"] = json!(why);
        }
        JobState::Cancelled => fields["state"] = json!("cancelled"),
        JobState::Done(bundle) => {
            fields["state"] = json!("done");
            fields["bundle"] = made(bundle);
        }
    }
    fields
}

/// The manifest, and what people look at first.
fn made(bundle: &Bundle) -> Value {
    let manifest = bundle.manifest().ok();
    let report: Value = bundle
        .files
        .get("report.json")
        .and_then(|text| serde_json::from_slice(text).ok())
        .unwrap_or_default();
    let parity = &report["parity"];
    json!({
        "files": bundle.files.len(),
        "bytes": bundle.files.values().map(Vec::len).sum::<usize>(),
        "tflite_bytes": bundle.files.get("model.tflite").map(Vec::len),
        "sqnr_db": parity["sqnr_db"],
        "top1_agreement": parity["top1_agreement"],
        "calibrated_on": report["calibrated_on"],
        "manifest": manifest.as_ref().map(of_manifest),
    })
}

pub(super) fn of_manifest(manifest: &Manifest) -> Value {
    json!({
        "model": manifest.model,
        "version": manifest.version,
        "sequence": manifest.sequence,
        "source_sha256": manifest.source_sha256,
        "abi": manifest.abi,
    })
}
