//! Deliveries over the air: publish a signed bundle, send it, watch, hold, stop. Must not know how a fleet is judged.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    rollouts::{actor, short},
    router::{Answer, Call},
};
use crate::{
    ota::{CommandKind, Ota, Plan, archive::BUNDLE_BYTES_MAX, view},
    respond::{Kind, Refusal},
};

/// Bytes of an archive: a bundle and the heads of its files.
pub(super) const UPLOAD_BYTES_MAX: usize = BUNDLE_BYTES_MAX as usize + (256 << 10);

/// Everything.
pub(super) async fn status(call: Call) -> Answer {
    Ok(view::all(&ota(&call)?.shown()))
}

/// Puts a bundle on the shelf.
pub(super) async fn publish(call: Call) -> Answer {
    let (ota, actor) = (Arc::clone(ota(&call)?), actor(&call.headers)?);
    let (checker, archive) = (Arc::clone(&ota), call.body.clone());
    // it computes the golden vectors
    let checked = tokio::task::spawn_blocking(move || checker.check(&archive)).await;
    let (bundle, signed) = checked.map_err(|_| Refusal::new(Kind::Internal, "the check failed"))??;
    let signed = ota.publish(bundle, signed, actor).await?;
    Ok(view::bundle(&signed))
}

/// Takes a bundle off the shelf.
pub(super) async fn remove(call: Call) -> Answer {
    let id = call.parameters.first().cloned().unwrap_or_default();
    ota(&call)?.remove(id.clone(), actor(&call.headers)?).await?;
    Ok(json!({ "bundle": id }))
}

/// Begins to send a bundle.
pub(super) async fn start(call: Call) -> Answer {
    let ota = ota(&call)?;
    let id = ota.begin(Plan::read(&call.body)?, actor(&call.headers)?).await?;
    shown(ota, id)
}

/// One.
pub(super) async fn one(call: Call) -> Answer {
    shown(ota(&call)?, id(&call)?)
}

/// Offers it to nobody new.
pub(super) async fn pause(call: Call) -> Answer {
    command(call, CommandKind::Pause).await
}

/// Lets it go on.
pub(super) async fn resume(call: Call) -> Answer {
    command(call, CommandKind::Resume).await
}

/// Offers it to nobody any more.
pub(super) async fn halt(call: Call) -> Answer {
    command(call, CommandKind::Halt).await
}

/// Where the inputs of devices fall.
pub(super) async fn inputs(call: Call) -> Answer {
    let model = call.parameters.first().map(String::as_str).unwrap_or_default();
    let of_sequence = |(sequence, inputs): (u64, std::collections::BTreeMap<String, _>)| {
        let inputs: Vec<Value> = inputs.iter().map(|(name, seen)| view::seen(name, seen)).collect();
        json!({ "sequence": sequence, "inputs": inputs })
    };
    let sequences: Vec<Value> = ota(&call)?.inputs(model).into_iter().map(of_sequence).collect();
    Ok(json!({ "model": model, "sequences": sequences }))
}

/// The last records of the audit log.
pub(super) async fn log(call: Call) -> Answer {
    Ok(json!({ "records": ota(&call)?.shown().audit }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wish {
    reason: Option<String>,
}

async fn command(call: Call, kind: CommandKind) -> Answer {
    let (ota, id) = (ota(&call)?, id(&call)?);
    let wish: Wish = match &call.body[..] {
        [] => Wish::default(),
        body => serde_json::from_slice(body).map_err(|error| {
            Refusal::invalid(format!("the body: expected nothing, or {{\"reason\": \"...\"}}: {error}"))
        })?,
    };
    let reason = wish.reason.map(|reason| short("reason", reason)).transpose()?;
    let reason = reason.unwrap_or_else(|| "no reason was given".into());
    ota.command(id, kind, actor(&call.headers)?, reason).await?;
    shown(ota, id)
}

fn shown(ota: &Ota, id: u64) -> Answer {
    let shown = ota.shown();
    let found = shown.rollouts.iter().find(|rollout| rollout.id == id);
    let found = found.ok_or_else(|| crate::ota::no_rollout(id))?;
    Ok(view::rollout(found, &shown))
}

fn id(call: &Call) -> Result<u64, Refusal> {
    let text = call.parameters.first().map_or("", String::as_str);
    text.parse().map_err(|_| Refusal::invalid(format!("the delivery's id: expected a number, got {text:?}")))
}

fn ota(call: &Call) -> Result<&Arc<Ota>, Refusal> {
    call.context.state.ota.as_ref().ok_or_else(|| {
        Refusal::new(
            Kind::Conflict,
            "nothing is delivered from here; set ota.listen, ota.keys and ota.devices_file in gannet.toml",
        )
    })
}
