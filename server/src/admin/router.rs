//! The table of the admin API: one line for each method and path. Must not know what any of them does.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

use super::{
    Context, capture, config_view, drift, edge, labels, models, ota, registry, rollouts, shadows, traffic,
};
use crate::respond::Refusal;

/// One call of a route.
pub(super) struct Call {
    pub(super) context: Arc<Context>,
    /// The path's variable segments, in its order, decoded.
    pub(super) parameters: Vec<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// An answer that has more than a body.
pub(super) struct Reply {
    pub(super) body: Value,
    /// Of the thing that was asked for, in quotes.
    pub(super) etag: Option<String>,
    /// In place of the body.
    pub(super) file: Option<File>,
}

/// An answer that is a file to keep.
pub(super) struct File {
    pub(super) name: String,
    pub(super) content_type: &'static str,
    pub(super) bytes: Bytes,
}

impl From<Value> for Reply {
    fn from(body: Value) -> Self {
        Self { body, etag: None, file: None }
    }
}

pub(super) type Answer = Result<Value, Refusal>;
type Running = Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send>>;
pub(super) type Run = fn(Call) -> Running;

fn plain(answer: impl Future<Output = Answer> + Send + 'static) -> Running {
    Box::pin(async { answer.await.map(Reply::from) })
}

/// One line of the table.
pub(super) struct Route {
    pub(super) method: Method,
    /// With `{name}` for a variable segment.
    pub(super) path: &'static str,
    run: Run,
    body_bytes_max: usize,
}

const fn route(method: Method, path: &'static str, run: Run) -> Route {
    Route { method, path, run, body_bytes_max: BODY_BYTES_MAX }
}

/// A route that takes a file.
const fn upload(method: Method, path: &'static str, run: Run, body_bytes_max: usize) -> Route {
    Route { method, path, run, body_bytes_max }
}

/// Bytes of a body where no file is expected; the largest that means anything is a rollout's plan.
const BODY_BYTES_MAX: usize = 64 << 10;

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/admin/v1/models", |call| plain(models::list(call))),
    route(Method::GET, "/admin/v1/models/{model}", |call| plain(models::one(call))),
    route(Method::GET, "/admin/v1/models/{model}/versions/{version}", |call| plain(models::version(call))),
    route(Method::POST, "/admin/v1/models/{model}/versions/{version}/load", |call| plain(models::load(call))),
    route(Method::POST, "/admin/v1/models/{model}/versions/{version}/unload", |call| {
        plain(models::unload(call))
    }),
    route(Method::POST, "/admin/v1/models/{model}/versions/{version}/reload", |call| {
        plain(models::reload(call))
    }),
    route(Method::GET, EDGE, |call| plain(edge::get(call))),
    route(Method::POST, EDGE, |call| plain(edge::start(call))),
    route(Method::DELETE, EDGE, |call| plain(edge::cancel(call))),
    route(Method::GET, "/admin/v1/models/{model}/versions/{version}/edge/bundle", |call| {
        Box::pin(edge::bundle(call))
    }),
    route(Method::GET, "/admin/v1/ota", |call| plain(ota::status(call))),
    upload(Method::POST, "/admin/v1/ota/bundles", |call| plain(ota::publish(call)), ota::UPLOAD_BYTES_MAX),
    route(Method::DELETE, "/admin/v1/ota/bundles/{bundle}", |call| plain(ota::remove(call))),
    route(Method::POST, "/admin/v1/ota/rollouts", |call| plain(ota::start(call))),
    route(Method::GET, "/admin/v1/ota/rollouts/{id}", |call| plain(ota::one(call))),
    route(Method::POST, "/admin/v1/ota/rollouts/{id}/pause", |call| plain(ota::pause(call))),
    route(Method::POST, "/admin/v1/ota/rollouts/{id}/resume", |call| plain(ota::resume(call))),
    route(Method::POST, "/admin/v1/ota/rollouts/{id}/halt", |call| plain(ota::halt(call))),
    route(Method::GET, "/admin/v1/ota/models/{model}/inputs", |call| plain(ota::inputs(call))),
    route(Method::GET, "/admin/v1/ota/log", |call| plain(ota::log(call))),
    route(Method::PUT, "/admin/v1/models/{model}/labels/{label}", |call| plain(labels::put(call))),
    route(Method::DELETE, "/admin/v1/models/{model}/labels/{label}", |call| plain(labels::delete(call))),
    route(Method::GET, TRAFFIC, |call| Box::pin(traffic::get(call))),
    route(Method::PUT, TRAFFIC, |call| Box::pin(traffic::put(call))),
    route(Method::DELETE, TRAFFIC, |call| Box::pin(traffic::delete(call))),
    route(Method::GET, "/admin/v1/models/{model}/shadows", |call| plain(shadows::get(call))),
    route(Method::GET, "/admin/v1/capture", |call| plain(capture::get(call))),
    route(Method::GET, "/admin/v1/models/{model}/drift", |call| plain(drift::get(call))),
    route(Method::GET, "/admin/v1/rollouts", |call| plain(rollouts::all(call))),
    route(Method::GET, ROLLOUTS, |call| plain(rollouts::list(call))),
    route(Method::POST, ROLLOUTS, |call| Box::pin(rollouts::start(call))),
    route(Method::GET, "/admin/v1/models/{model}/rollouts/{id}", |call| Box::pin(rollouts::get(call))),
    route(Method::GET, "/admin/v1/models/{model}/rollouts/{id}/log", |call| plain(rollouts::log(call))),
    route(Method::POST, "/admin/v1/models/{model}/rollouts/{id}/pause", |call| {
        Box::pin(rollouts::pause(call))
    }),
    route(Method::POST, "/admin/v1/models/{model}/rollouts/{id}/resume", |call| {
        Box::pin(rollouts::resume(call))
    }),
    route(Method::POST, "/admin/v1/models/{model}/rollouts/{id}/promote", |call| {
        Box::pin(rollouts::promote(call))
    }),
    route(Method::POST, "/admin/v1/models/{model}/rollouts/{id}/rollback", |call| {
        Box::pin(rollouts::rollback(call))
    }),
    route(Method::GET, "/admin/v1/registry", |call| plain(registry::list(call))),
    route(Method::POST, "/admin/v1/registry/sources", |call| plain(registry::add(call))),
    route(Method::DELETE, "/admin/v1/registry/sources/{source}", |call| plain(registry::remove(call))),
    route(Method::POST, "/admin/v1/registry/look", |call| plain(registry::look(call))),
    route(Method::GET, "/admin/v1/config", |call| plain(config_view::get(call))),
    route(Method::GET, "/admin/v1/openapi.json", |_| plain(async { openapi() })),
];

const EDGE: &str = "/admin/v1/models/{model}/versions/{version}/edge";
const TRAFFIC: &str = "/admin/v1/models/{model}/traffic";
const ROLLOUTS: &str = "/admin/v1/models/{model}/rollouts";

/// The description of everything above.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

fn openapi() -> Answer {
    serde_json::from_str(OPENAPI).map_err(|error| {
        Refusal::new(crate::respond::Kind::Internal, format!("the description is no JSON: {error}"))
    })
}

/// What the table says of a request.
pub(super) enum Found {
    Route {
        run: Run,
        parameters: Vec<String>,
        /// Bytes of a body.
        body_bytes_max: usize,
    },
    /// The path is known with these methods, separated by commas.
    OtherMethods(String),
    Nothing,
}

pub(super) fn find(method: &Method, path: &str) -> Found {
    let mut others = Vec::new();
    for route in ROUTES {
        let Some(parameters) = match_path(route.path, path) else { continue };
        if route.method == *method {
            return Found::Route { run: route.run, parameters, body_bytes_max: route.body_bytes_max };
        }
        others.push(route.method.as_str());
    }
    if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others.join(", ")) }
}

/// The variable segments of `path`, decoded, if it has the pattern's form.
fn match_path(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut parameters = Vec::new();
    let (mut expected, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (expected.next(), given.next()) {
            (None, None) => return Some(parameters),
            (Some(name), Some(segment)) if name.starts_with('{') => parameters.push(decode(segment)?),
            (Some(fixed), Some(segment)) if fixed == segment => {}
            _ => return None,
        }
    }
}

/// A segment with its `%xx` undone; `None` when it is empty or wrong.
fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let mut byte = *first;
        if byte == b'%' {
            let [high, low, tail @ ..] = rest else { return None };
            rest = tail;
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            byte = digit(*high)? << 4 | digit(*low)?;
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_routes() {
        let check = |method: Method, path: &str, expected: &str| {
            let got = match find(&method, path) {
                Found::Route { parameters, .. } => format!("route {}", parameters.join("|")),
                Found::OtherMethods(methods) => format!("use {methods}"),
                Found::Nothing => "nothing".into(),
            };
            assert_eq!(got, expected, "{method} {path}");
        };
        check(Method::GET, "/admin/v1/models", "route ");
        check(Method::GET, "/admin/v1/models/iris", "route iris");
        check(Method::GET, "/admin/v1/models/a%20b%2Fc/versions/2", "route a b/c|2");
        check(Method::POST, "/admin/v1/models/iris/versions/2/load", "route iris|2");
        check(Method::DELETE, "/admin/v1/models/iris/labels/stable", "route iris|stable");
        check(Method::POST, "/admin/v1/models", "use GET");
        check(Method::GET, "/admin/v1/models/iris/labels/stable", "use PUT, DELETE");
        check(Method::GET, "/admin/v1/models/", "nothing");
        check(Method::GET, "/admin/v1/models/%zz", "nothing");
        check(Method::GET, "/admin/v1/models/%f", "nothing");
        check(Method::GET, "/admin/v1/models/%ff", "nothing");
        check(Method::GET, "/", "nothing");
    }

    #[test]
    fn the_table_and_the_description_name_the_same_routes() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let mut described = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let methods = methods.as_object().unwrap().keys().filter(|key| *key != "parameters");
            described.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
        }
        let mut routed: Vec<String> =
            ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        described.sort();
        routed.sort();
        assert_eq!(described, routed);
    }
}
