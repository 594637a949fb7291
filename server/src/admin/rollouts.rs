//! Rollouts: begin, see, hold, push on, take back. Must not know how anything is decided.

use gannet_runtime::control::rollout::{Command, PlanFile};
use http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    models,
    router::{Answer, Call, Reply},
};
use crate::{
    respond::{Kind, Refusal},
    traffic::{RolloutLog, ShownRollout, Wish, no_rollout},
};

/// Bytes of an actor and of a reason.
const TEXT_BYTES_MAX: usize = 255;

/// Every rollout of every model, the newest first.
pub(super) async fn all(call: Call) -> Answer {
    let shown = call.context.state.traffic.rollouts();
    Ok(json!({ "rollouts": shown.rollouts.iter().map(body).collect::<Vec<_>>() }))
}

/// Every rollout of a model, the newest first.
pub(super) async fn list(call: Call) -> Answer {
    let model = models::model(&call)?;
    let shown = call.context.state.traffic.rollouts();
    let of_model = shown.rollouts.iter().filter(|rollout| rollout.view.model == model.as_str());
    Ok(json!({ "rollouts": of_model.map(body).collect::<Vec<_>>() }))
}

/// Begins one.
pub(super) async fn start(call: Call) -> Result<Reply, Refusal> {
    let model = models::model(&call)?;
    let plan: PlanFile = serde_json::from_slice(&call.body).map_err(|error| {
        Refusal::invalid(format!(
            "the body: expected a plan such as {{\"candidate\": \"2\", \"stages\": [{{\"shadow\": 1.0}}, {{\"weight_bp\": \
             100}}, {{\"weight_bp\": 10000}}], \"guards\": [{{\"name\": \"error_rate\"}}]}}: {error}"
        ))
    })?;
    let actor = actor(&call.headers)?;
    let id = call.context.state.traffic.start_rollout(model, plan, actor).await?;
    show(&call, id)
}

/// One.
pub(super) async fn get(call: Call) -> Result<Reply, Refusal> {
    let id = id(&call)?;
    show(&call, id)
}

/// The log of one: its plan, and every decision with what it was made on.
pub(super) async fn log(call: Call) -> Answer {
    let (model, id) = (models::model(&call)?, id(&call)?);
    let path = call.context.state.traffic.logs().path(id);
    if !path.exists() {
        return Err(no_rollout(&model, id));
    }
    let read = tokio::task::spawn_blocking(move || RolloutLog::read(&path)).await;
    let log = read
        .map_err(|error| error.to_string())
        .and_then(|log| log)
        .map_err(|why| Refusal::new(Kind::Internal, why))?;
    if log.plan.model != model.as_str() {
        return Err(no_rollout(&model, id));
    }
    Ok(json!({ "id": id, "plan": log.plan, "records": log.records }))
}

/// What may come with a wish.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WishBody {
    reason: Option<String>,
}

/// Holds it.
pub(super) async fn pause(call: Call) -> Result<Reply, Refusal> {
    wish(call, |_| Command::Pause).await
}

/// Lets it go on by itself.
pub(super) async fn resume(call: Call) -> Result<Reply, Refusal> {
    wish(call, |_| Command::Resume).await
}

/// Goes to the next stage now, or promotes from the last.
pub(super) async fn promote(call: Call) -> Result<Reply, Refusal> {
    wish(call, |_| Command::Promote).await
}

/// Takes the candidate back.
pub(super) async fn rollback(call: Call) -> Result<Reply, Refusal> {
    wish(call, |reason| Command::RollBack { reason: reason.unwrap_or_else(|| "no reason was given".into()) })
        .await
}

async fn wish(call: Call, command: impl FnOnce(Option<String>) -> Command) -> Result<Reply, Refusal> {
    let (model, id) = (models::model(&call)?, id(&call)?);
    let body: WishBody = match &call.body[..] {
        [] => WishBody::default(),
        body => serde_json::from_slice(body).map_err(|error| {
            Refusal::invalid(format!("the body: expected nothing, or {{\"reason\": \"...\"}}: {error}"))
        })?,
    };
    let reason = body.reason.map(|reason| short("reason", reason)).transpose()?;
    let known = call.headers.get(header::IF_MATCH).map(|tags| tags.to_str().unwrap_or("?").to_owned());
    let known = known.filter(|tags| tags.trim() != "*");
    let known = known.map(|tags| tags.split(',').map(|tag| tag.trim().to_owned()).collect());
    let (actor, command) = (actor(&call.headers)?, command(reason));
    call.context.state.traffic.wish(Wish { model, id, command, actor, known }).await?;
    show(&call, id)
}

/// Who asks, for the log: the header says it, for a token says nothing of its holder.
pub(super) fn actor(headers: &HeaderMap) -> Result<String, Refusal> {
    match headers.get("x-gannet-actor") {
        None => Ok("admin".into()),
        Some(name) => short("header 'x-gannet-actor'", name.to_str().unwrap_or("?").to_owned()),
    }
}

pub(super) fn short(what: &str, text: String) -> Result<String, Refusal> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        let got = text.len();
        return Err(Refusal::invalid(format!("{what}: expected 1 to {TEXT_BYTES_MAX} bytes, got {got}")));
    }
    Ok(text)
}

fn id(call: &Call) -> Result<u64, Refusal> {
    let text = call.parameters.get(1).map_or("", String::as_str);
    text.parse().map_err(|_| Refusal::invalid(format!("the rollout's id: expected a number, got {text:?}")))
}

fn show(call: &Call, id: u64) -> Result<Reply, Refusal> {
    let model = models::model(call)?;
    let shown = call.context.state.traffic.rollouts();
    let of_model = |rollout: &&ShownRollout| rollout.view.id == id && rollout.view.model == model.as_str();
    let rollout = shown.rollouts.iter().find(of_model).ok_or_else(|| no_rollout(&model, id))?;
    Ok(Reply { etag: Some(rollout.etag.clone()), ..body(rollout).into() })
}

fn body(rollout: &ShownRollout) -> Value {
    let mut body = serde_json::to_value(&rollout.view).unwrap_or_default();
    if let Some([stable, candidate]) = &rollout.latencies {
        body["latency"] = json!({ "stable": stable, "candidate": candidate });
    }
    body
}
