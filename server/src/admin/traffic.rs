//! A model's route: how its requests are split among versions. Must not know how a route is followed or kept.

use gannet_runtime::{
    route::{ArmCounts, RouteFile, Weight},
    table::RouteEntry,
};
use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::{
    models,
    router::{Call, Reply},
};
use crate::{
    respond::Refusal,
    traffic::{Condition, no_route},
};

/// The route, with what happened on it.
pub(super) async fn get(call: Call) -> Result<Reply, Refusal> {
    show(&call)
}

/// Gives the model a route; the same one once more changes nothing.
pub(super) async fn put(call: Call) -> Result<Reply, Refusal> {
    let model = models::model(&call)?;
    let condition = condition(&call.headers)?;
    let file: RouteFile = serde_json::from_slice(&call.body).map_err(|error| {
        Refusal::invalid(format!(
            "the body: expected a route such as {{\"split\": [{{\"version\": \"1\", \"weight_bp\": 9000}}, \
             {{\"version\": \"2\", \"weight_bp\": 1000}}], \"sticky\": {{\"header\": \"x-user-id\"}}}}: {error}"
        ))
    })?;
    call.context.state.traffic.set_route(model, Some(file), condition).await?;
    show(&call)
}

/// Takes the route away.
pub(super) async fn delete(call: Call) -> Result<Reply, Refusal> {
    let model = models::model(&call)?;
    let condition = condition(&call.headers)?;
    call.context.state.traffic.set_route(model.clone(), None, condition).await?;
    Ok(json!({ "model": model.as_str() }).into())
}

fn show(call: &Call) -> Result<Reply, Refusal> {
    let model = models::model(call)?;
    let state = &call.context.state;
    let saved = state.traffic.saved();
    let Some(kept) = saved.models.get(&model).and_then(|kept| kept.route.as_ref()) else {
        return Err(no_route(&model));
    };
    let table = state.table().snapshot();
    let entry = table.model(model.as_str());
    let is_ready = |weight: &Weight| {
        entry
            .and_then(|entry| entry.version_entry(&weight.version))
            .is_some_and(|found| found.servable.is_some())
    };
    let arm = |weight: &Weight, counts: &ArmCounts| {
        json!({
            "version": weight.version.as_str(),
            "weight_bp": weight.weight_bp,
            "ready": is_ready(weight),
            "requests": counts.requests(),
            "fallbacks": counts.fallbacks(),
        })
    };
    let live = entry.and_then(|entry| entry.route.as_ref()).map(|RouteEntry { live, .. }| live);
    let arms: Vec<Value> = live
        .into_iter()
        .flat_map(|live| live.route.split().iter().zip(&live.counts))
        .map(|(weight, counts)| arm(weight, counts))
        .collect();
    let body = json!({
        "model": model.as_str(),
        "revision": kept.revision,
        "route": kept.route,
        "arms": arms,
    });
    Ok(Reply { etag: Some(format!("\"{}\"", kept.revision)), ..body.into() })
}

/// What the writer knows, from the headers `If-Match` and `If-None-Match`.
fn condition(headers: &HeaderMap) -> Result<Condition, Refusal> {
    let text = |name| headers.get(name).map(|value: &http::HeaderValue| value.to_str().unwrap_or("?").trim());
    let wrong = |name: &str, expected: &str, got: &str| {
        Err(Refusal::invalid(format!("header '{name}': expected {expected}, got {got:?}")))
    };
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::Always),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(other)) => wrong("If-None-Match", "* (there is no route yet)", other),
        (Some("*"), None) => Ok(Condition::Present),
        (Some(tags), None) => {
            // a tag that is none of ours is one that no route has
            let tags = tags.split(',').map(str::trim);
            let tag =
                |tag: &str| tag.strip_prefix('"')?.strip_suffix('"').map(|tag| tag.parse().unwrap_or(0));
            match tags.map(tag).collect() {
                Some(revisions) => Ok(Condition::Revision(revisions)),
                None => wrong(
                    "If-Match",
                    "ETags in quotes, separated by commas, or *",
                    text(header::IF_MATCH).unwrap_or("?"),
                ),
            }
        }
        (Some(_), Some(_)) => {
            Err(Refusal::invalid("headers 'If-Match' and 'If-None-Match': expected one of the two"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read() {
        let check = |lines: &[(&'static str, &'static str)], expected: &str| {
            let lines = lines.iter().map(|&(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            });
            let got = match condition(&lines.collect()) {
                Ok(condition) => format!("{condition:?}"),
                Err(refusal) => refusal.message.into_owned(),
            };
            assert!(got.starts_with(expected), "{got}");
        };
        check(&[], "Always");
        check(&[("if-match", "\"7\"")], "Revision([7])");
        check(&[("if-match", "\"7\", \"abc\"")], "Revision([7, 0])");
        check(&[("if-match", "*")], "Present");
        check(&[("if-none-match", "*")], "Absent");
        check(&[("if-match", "7")], "header 'If-Match': expected ETags in quotes");
        check(&[("if-none-match", "\"7\"")], "header 'If-None-Match': expected *");
        check(&[("if-match", "*"), ("if-none-match", "*")], "headers 'If-Match' and 'If-None-Match'");
    }
}
