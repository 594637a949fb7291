//! Paths into what they ask for. A pure function. Must not know what an endpoint does.

use std::borrow::Cow;

use http::Method;

use crate::respond::{Kind, Refusal};

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the protocol's own calls")]
pub enum Route<'a> {
    ServerMetadata,
    Live,
    Ready,
    AllStatistics,
    Infer { model: Cow<'a, str>, version: Option<Cow<'a, str>> },
    ModelMetadata { model: Cow<'a, str>, version: Option<Cow<'a, str>> },
    ModelReady { model: Cow<'a, str>, version: Option<Cow<'a, str>> },
    ModelConfig { model: Cow<'a, str>, version: Option<Cow<'a, str>> },
    ModelStatistics { model: Cow<'a, str>, version: Option<Cow<'a, str>> },
    Feedback { model: Cow<'a, str> },
    RepositoryIndex,
    RepositoryLoad { model: Cow<'a, str> },
    RepositoryUnload { model: Cow<'a, str> },
}

/// What `method` on `path` asks for.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::MethodNotAllowed`], and [`Kind::Unsupported`] for extensions that are not offered.
pub fn parse<'a>(method: &Method, path: &'a str) -> Result<Route<'a>, Refusal> {
    let (route, verb) = route(path)?;
    let allowed = *method == verb || (verb == Method::GET && *method == Method::HEAD);
    if allowed { Ok(route) } else { Err(Refusal::new(Kind::MethodNotAllowed, "Method Not Allowed")) }
}

fn route(path: &str) -> Result<(Route<'_>, Method), Refusal> {
    let not_found = || Refusal::new(Kind::NotFound, "Not Found");
    if let Some(model) = path.strip_prefix("/v2/models/").and_then(|rest| rest.strip_suffix("/infer"))
        && !model.contains('/')
    {
        // by far the most frequent one
        return Ok((Route::Infer { model: decode(model)?, version: None }, Method::POST));
    }
    let rest = path.strip_prefix("/v2").ok_or_else(not_found)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let mut segments = rest.split('/');
    // the part before the first slash is empty
    if segments.next() != Some("") {
        return Err(not_found());
    }
    let segments: smallvec::SmallVec<[&str; 8]> = segments.take(8).collect();
    let get = |route| Ok((route, Method::GET));
    let post = |route| Ok((route, Method::POST));
    match segments[..] {
        [] => get(Route::ServerMetadata),
        ["health", "live"] => get(Route::Live),
        ["health", "ready"] => get(Route::Ready),
        ["models", "stats"] => get(Route::AllStatistics),
        ["models", model] => get(Route::ModelMetadata { model: decode(model)?, version: None }),
        ["models", model, "versions", version] => {
            get(Route::ModelMetadata { model: decode(model)?, version: Some(decode(version)?) })
        }
        ["models", model, call] => model_call(decode(model)?, None, call),
        ["models", model, "versions", version, call] => {
            model_call(decode(model)?, Some(decode(version)?), call)
        }
        ["repository", "index"] => post(Route::RepositoryIndex),
        ["repository", "models", model, "load"] => post(Route::RepositoryLoad { model: decode(model)? }),
        ["repository", "models", model, "unload"] => post(Route::RepositoryUnload { model: decode(model)? }),
        ["repository", _, "index"] | ["repository", _, "models", _, "load" | "unload"] => {
            Err(Refusal::new(Kind::Unsupported, "'repository_name' specification is not supported"))
        }
        ["systemsharedmemory" | "cudasharedmemory" | "trace" | "logging", ..] => Err(Refusal::new(
            Kind::Unsupported,
            format!("the extension of {path} is not offered by this server"),
        )),
        _ => Err(not_found()),
    }
}

fn model_call<'a>(
    model: Cow<'a, str>,
    version: Option<Cow<'a, str>>,
    call: &str,
) -> Result<(Route<'a>, Method), Refusal> {
    match call {
        "infer" => Ok((Route::Infer { model, version }, Method::POST)),
        "ready" => Ok((Route::ModelReady { model, version }, Method::GET)),
        "config" => Ok((Route::ModelConfig { model, version }, Method::GET)),
        "stats" => Ok((Route::ModelStatistics { model, version }, Method::GET)),
        "feedback" if version.is_none() => Ok((Route::Feedback { model }, Method::POST)),
        "generate" | "generate_stream" | "trace" => Err(Refusal::new(
            Kind::Unsupported,
            format!("'{call}' is not offered by this server; use 'infer'"),
        )),
        _ => Err(Refusal::new(Kind::NotFound, "Not Found")),
    }
}

/// A path segment without its percent signs.
fn decode(segment: &str) -> Result<Cow<'_, str>, Refusal> {
    if !segment.contains('%') {
        return Ok(Cow::Borrowed(segment));
    }
    percent_encoding::percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| Refusal::invalid(format!("the path segment '{segment}' is not UTF-8 after decoding")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, expected: &str) {
        let text = match parse(&method.parse().unwrap(), path) {
            Ok(route) => format!("{route:?}"),
            Err(refusal) => format!("{}: {}", refusal.kind.status().as_u16(), refusal.message),
        };
        assert!(text.starts_with(expected), "{method} {path}: {text}");
    }

    #[test]
    fn paths_of_the_protocol() {
        check("GET", "/v2", "ServerMetadata");
        check("GET", "/v2/", "ServerMetadata");
        check("GET", "/v2/health/live", "Live");
        check("HEAD", "/v2/health/ready", "Ready");
        check("GET", "/v2/models/stats", "AllStatistics");
        check("GET", "/v2/models/iris", "ModelMetadata { model: \"iris\", version: None }");
        check("POST", "/v2/models/iris/infer", "Infer { model: \"iris\", version: None }");
        check(
            "POST",
            "/v2/models/a%20b/versions/v10/infer",
            "Infer { model: \"a b\", version: Some(\"v10\") }",
        );
        check("GET", "/v2/models/iris/versions/stable/ready", "ModelReady");
        check("GET", "/v2/models/iris/config", "ModelConfig");
        check("GET", "/v2/models/iris/stats", "ModelStatistics");
        check("POST", "/v2/models/iris/feedback", "Feedback { model: \"iris\" }");
        check("POST", "/v2/repository/index", "RepositoryIndex");
        check("POST", "/v2/repository/models/iris/load", "RepositoryLoad");
        check("POST", "/v2/repository/models/iris/unload", "RepositoryUnload");
    }

    #[test]
    fn wrong_verbs_paths_and_extensions() {
        check("GET", "/v2/repository/index", "405: Method Not Allowed");
        check("GET", "/v2/models/iris/infer", "405");
        check("POST", "/v2/models/iris", "405");
        check("POST", "/v2/repository/other/models/iris/load", "501: 'repository_name'");
        check("GET", "/v2/systemsharedmemory/status", "501");
        check("POST", "/v2/models/iris/generate", "501");
        for path in
            ["/", "/v1", "/v2x", "/v2/models", "/v2/models/a/b/c/d/e/f/g/h/i", "/v2/models/iris/nothing"]
        {
            check("GET", path, "404: Not Found");
        }
        check("GET", "/v2/models/%ff/config", "400");
    }
}
