//! The API of a real server, against its own description.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::router::{OPENAPI, ROUTES};
use crate::{
    app::{App, Listeners},
    cli::client,
    config::{Config, address::Address},
    repository::ControlMode,
};

/// Bound of everything that is waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);

mod devices;

struct Server {
    app: App,
    state: PathBuf,
    description: Value,
    called: RefCell<BTreeSet<String>>,
}

fn start(name: &str, change: impl FnOnce(&mut Config)) -> Server {
    let state = std::env::temp_dir().join(format!("gannet-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&state);
    let mut config = Config::new(state.clone());
    config.listen.http = None;
    config.listen.grpc = None;
    config.listen.metrics = Some(Address::loopback(0));
    config.listen.admin = Some(Address::loopback(0));
    config.repository.paths = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/zoo")];
    change(&mut config);
    let listeners = Listeners::bind(&config).unwrap();
    let app = App::start(config, listeners).unwrap();
    let until = gannet_runtime::clock::now() + WAIT_MAX;
    while !app.state().is_ready() {
        assert!(gannet_runtime::clock::now() < until, "{:?}", app.state().repository.index(false));
        let _ = crossbeam::channel::after(Duration::from_millis(5)).recv();
    }
    Server { app, state, description: serde_json::from_str(OPENAPI).unwrap(), called: RefCell::default() }
}

impl Server {
    fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let base = format!("http://{}", self.app.addresses().admin.unwrap());
        let answer =
            client::call(&client::Request { method, base: &base, path, body, token: None, actor: None })
                .unwrap();
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    /// Calls the route at `pattern` with these parameters, and checks the answer against its description.
    fn good(&self, method: &str, pattern: &str, parameters: &[&str], body: &str) -> Value {
        let mut path = String::new();
        let mut parameters = parameters.iter();
        for segment in pattern.split('/').skip(1) {
            path.push('/');
            path.push_str(if segment.starts_with('{') { parameters.next().unwrap() } else { segment });
        }
        let (status, answer) = self.call(method, &path, body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
        let operation = &self.description["paths"][pattern][method.to_lowercase()];
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        check(&self.description, schema, &answer, path.as_str());
        self.called.borrow_mut().insert(format!("{method} {pattern}"));
        answer
    }

    fn bad(&self, method: &str, path: &str, body: &str, status: u16, part: &str) {
        let (got, answer) = self.call(method, path, body);
        assert_eq!(got, status, "{method} {path}: {answer}");
        check(&self.description, &json!({ "$ref": "#/components/schemas/Error" }), &answer, path);
        let message = answer["error"].as_str().unwrap();
        assert!(message.contains(part), "{part} is missing in {message}");
    }

    fn page(&self, path: &str) -> String {
        let base = format!("http://{}", self.app.addresses().metrics.unwrap());
        let answer = client::get(&base, path, None).unwrap();
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body).unwrap()
    }

    fn end(self) {
        assert!(self.app.drain(Duration::ZERO, WAIT_MAX));
        let _ = std::fs::remove_dir_all(self.state);
    }
}

/// Checks a value against a schema, as far as the description uses the language; any other word is a fault.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    let is = |kind: &str| match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("{other} is not known here"),
    };
    let fields = value.as_object();
    for (word, rule) in schema.as_object().unwrap() {
        match word.as_str() {
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix('#').unwrap();
                check(document, document.pointer(name).unwrap(), value, at);
            }
            "type" => match rule {
                Value::Array(kinds) => {
                    assert!(kinds.iter().any(|kind| is(kind.as_str().unwrap())), "{at}: {value}")
                }
                kind => assert!(is(kind.as_str().unwrap()), "{at}: expected {kind}, got {value}"),
            },
            "enum" => assert!(rule.as_array().unwrap().contains(value), "{at}: {value}"),
            "oneOf" if value.is_null() => {
                assert!(rule.as_array().unwrap().contains(&json!({ "type": "null" })))
            }
            "oneOf" => check(document, &rule[0], value, at),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(document, rule, item, &format!("{at}[{index}]"));
                }
            }
            "required" => {
                for name in rule.as_array().unwrap() {
                    assert!(fields.unwrap().contains_key(name.as_str().unwrap()), "{at}: {name} is missing");
                }
            }
            "properties" | "additionalProperties" => {
                for (name, field) in fields.unwrap() {
                    let at = format!("{at}.{name}");
                    match (&schema["properties"][name], &schema["additionalProperties"]) {
                        (Value::Null, Value::Bool(false)) => panic!("{at} is not described"),
                        (Value::Null, other) => check(document, other, field, &at),
                        (property, _) => check(document, property, field, &at),
                    }
                }
            }
            "description" => {}
            other => panic!("{at}: the word {other} is not known here"),
        }
    }
}

#[test]
fn answers_are_as_described_and_every_route_answers() {
    let folder = tempfile::tempdir().unwrap();
    let server = start("admin-explicit", |config| {
        devices::configure(config, folder.path());
        config.repository.mode = ControlMode::Explicit;
        config.repository.load_models = vec!["iris".into(), "digits".into()];
        config.registry.allow = vec!["hf://org/*".into(), "http://127.0.0.1:1".into()];
    });
    let version = "/admin/v1/models/{model}/versions/{version}";
    let label = "/admin/v1/models/{model}/labels/{label}";
    let all = server.good("GET", "/admin/v1/models", &[], "");
    assert_eq!(all["ready"], json!(true));
    let names: Vec<&str> =
        all["models"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["breast_cancer", "diabetes", "digits", "iris"]);
    let iris = server.good("GET", "/admin/v1/models/{model}", &["iris"], "");
    assert_eq!(iris["versions"][0]["serving"]["counts"]["ok"], json!(0));
    assert!(
        iris["versions"][0]["digest"].is_string() && iris["versions"][0]["serving"]["costs"][0].is_object()
    );
    let other = server.good("GET", "/admin/v1/models/{model}", &["diabetes"], "");
    assert_eq!((&other["wanted"], &other["versions"][0]["reason"]), (&json!(false), &json!("unloaded")));

    let sources = "/admin/v1/registry/sources";
    let unreachable = r#"{"name":"x","uri":"hf://org/x","endpoint":"http://127.0.0.1:1"}"#;
    assert_eq!(server.good("POST", sources, &[], unreachable)[0]["kind"], json!("hf"));
    server.bad("POST", sources, unreachable, 409, "already");
    server.bad("POST", sources, r#"{"name":"y","uri":"hf://other/y"}"#, 403, "registry.allow");
    assert_eq!(server.good("GET", "/admin/v1/registry", &[], "")[0]["uri"], json!("hf://org/x"));
    assert_eq!(server.good("POST", "/admin/v1/registry/look", &[], ""), json!({ "sources": 1 }));
    assert_eq!(server.good("DELETE", "/admin/v1/registry/sources/{source}", &["x"], ""), json!([]));
    server.bad("DELETE", "/admin/v1/registry/sources/x", "", 404, "no source");
    let labels = server.good("PUT", label, &["iris", "stable"], r#"{"version":"1"}"#);
    assert_eq!(labels["labels"], json!({ "stable": "1" }));
    let labelled = server.good("GET", version, &["iris", "stable"], "");
    assert_eq!(labelled["labels"], json!(["stable"]));
    let before = labelled["serving"]["incarnation"].clone();
    server.bad("PUT", "/admin/v1/models/iris/labels/stable", "{}", 400, "version");
    server.bad("PUT", "/admin/v1/models/iris/labels/stable", r#"{"version":"99"}"#, 404, "99");
    server.bad("PUT", "/admin/v1/models/iris/labels/1", r#"{"version":"1"}"#, 400, "no name of a version");
    let labels = server.good("DELETE", label, &["iris", "stable"], "");
    assert_eq!(labels["labels"], json!({}));
    server.bad("DELETE", "/admin/v1/models/iris/labels/stable", "", 404, "stable");

    let traffic = "/admin/v1/models/{model}/traffic";
    let path = "/admin/v1/models/iris/traffic";
    server.bad("GET", path, "", 404, "has no route");
    server.bad("DELETE", path, "", 404, "has no route");
    server.bad("PUT", path, r#"{"split":[{"version":"1","weight_bp":9000}]}"#, 400, "sum to 9000");
    server.bad("PUT", path, r#"{"split":[{"version":"9","weight_bp":10000}]}"#, 404, "known: 1");
    let route = r#"{"split":[{"version":"1","weight_bp":10000}],"sticky":{"header":"x-user-id"},"salt":"a"}"#;
    let routed = server.good("PUT", traffic, &["iris"], route);
    assert_eq!(routed["route"], serde_json::from_str::<Value>(route).unwrap());
    assert_eq!(server.good("GET", traffic, &["iris"], ""), routed);
    server.bad("PUT", path, &route.replace("sticky", "shadow"), 400, "expected a route");
    let shadow = r#""shadow":[{"version":"1","fraction":0.5,"tolerance":{"label":0.1}}]"#;
    let shadowed = format!(r#"{{"split":[{{"version":"1","weight_bp":10000}}],{shadow}}}"#);
    server.good("PUT", traffic, &["iris"], &shadowed);
    let shadows = server.good("GET", "/admin/v1/models/{model}/shadows", &["iris"], "");
    assert_eq!(shadows["shadows"][0]["fraction"], json!(0.5));
    server.bad("PUT", path, &shadowed.replace("0.5", "0"), 400, "shadow[0].fraction");
    server.bad("PUT", path, &shadowed.replace(r#""1","f"#, r#""9","f"#), 404, "shadow[0].version");
    server.good("DELETE", traffic, &["iris"], "");

    rollouts(&server);
    devices::check(&server);

    let again = server.good("POST", &format!("{version}/reload"), &["iris", "1"], "");
    assert_ne!(again["serving"]["incarnation"], before);
    let gone = server.good("POST", &format!("{version}/unload"), &["iris", "1"], "");
    assert_eq!(gone["serving"], Value::Null);
    assert!(server.app.state().table().resolve("iris", None).is_err());
    server.bad("POST", "/admin/v1/models/iris/versions/1/reload", "", 409, "not wanted");
    let back = server.good("POST", &format!("{version}/load"), &["iris", "1"], "");
    assert_eq!((&back["state"], &back["reason"]), (&json!("READY"), &json!("")));

    server.bad("GET", "/admin/v1/models/nobody", "", 404, "nobody");
    server.bad("GET", "/admin/v1/models/iris/versions/99", "", 404, "known: 1");
    server.bad("GET", "/admin/v2", "", 404, "openapi.json");
    server.bad("PATCH", "/admin/v1/models", "", 405, "use GET");
    server.bad("PUT", "/admin/v1/models/iris/labels/x", &"x".repeat(70_000), 413, "65536");
    server.good("GET", "/admin/v1/config", &[], "");
    let capture = server.good("GET", "/admin/v1/capture", &[], "");
    assert_eq!(capture["enabled"], json!(false));
    let drift = server.good("GET", "/admin/v1/models/{model}/drift", &["iris"], "");
    assert_eq!((&drift["rows"], &drift["version"]), (&json!(0), &json!("1")));
    server.good("GET", "/admin/v1/openapi.json", &[], "");
    let routes: BTreeSet<String> =
        ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(*server.called.borrow(), routes);
    server.end();
}

fn rollouts(server: &Server) {
    let all = "/admin/v1/models/{model}/rollouts";
    let (one, path) = (format!("{all}/{{id}}"), "/admin/v1/models/digits/rollouts");
    let plan = r#"{"candidate":"1","stages":[{"weight_bp":500},{"weight_bp":10000}],"cool_down_seconds":0}"#;
    server.bad("POST", path, "[]", 400, "expected a plan such as");
    server.bad("POST", path, r#"{"candidate":"2"}"#, 400, "is the baseline itself");
    server.bad("POST", path, r#"{"candidate":"9"}"#, 404, "there is no version '9'; known: 1, 2");
    server.bad("POST", "/admin/v1/models/nobody/rollouts", plan, 404, "there is no model");
    let begun = server.good("POST", all, &["digits"], plan);
    assert_eq!(
        (&begun["baseline"], &begun["candidate"], &begun["state"], &begun["weight_bp"]),
        (&json!("2"), &json!("1"), &json!("canary"), &json!(500))
    );
    let id = begun["id"].to_string();
    assert_eq!(server.good("POST", all, &["digits"], plan)["id"], begun["id"], "the same plan once more");
    server.bad("POST", path, r#"{"candidate":"1"}"#, 409, "promote it or roll it back first");
    let route = r#"{"split":[{"version":"1","weight_bp":10000}]}"#;
    server.bad("PUT", "/admin/v1/models/digits/traffic", route, 409, "decides the route");
    let listed = server.good("GET", all, &["digits"], "");
    assert_eq!(
        server.good("GET", "/admin/v1/rollouts", &[], "")["rollouts"][0]["id"],
        listed["rollouts"][0]["id"]
    );
    server.bad("GET", &format!("{path}/99"), "", 404, "has no rollout 99");
    server.bad("GET", &format!("{path}/x"), "", 400, "expected a number");
    server.bad("GET", &format!("/admin/v1/models/iris/rollouts/{id}"), "", 404, "has no rollout");
    let wish = |what: &str, body: &str| server.good("POST", &format!("{one}/{what}"), &["digits", &id], body);
    assert_eq!(wish("pause", "")["state"], "paused");
    assert_eq!(wish("pause", "")["state"], "paused", "a wish that is fulfilled changes nothing");
    assert_eq!(wish("resume", "{}")["state"], "canary");
    assert_eq!(wish("promote", "")["state"], "full");
    server.bad("POST", &format!("{path}/{id}/rollback"), r#"{"why":""}"#, 400, "expected nothing, or");
    let back = wish("rollback", r#"{"reason":"the labels are wrong"}"#);
    assert_eq!(back["decision"], "roll back: by hand: the labels are wrong");
    server.bad("POST", &format!("{path}/{id}/resume"), "", 409, "is over (rolled_back)");
    assert_eq!(server.good("GET", &one, &["digits", &id], "")["state"], "rolled_back");
    let log = server.good("GET", &format!("{one}/log"), &["digits", &id], "");
    assert_eq!(log["records"].as_array().unwrap().len(), 5);
    let split = &server.good("GET", "/admin/v1/models/{model}/traffic", &["digits"], "")["route"]["split"];
    assert_eq!(*split, json!([{ "version": "2", "weight_bp": 10_000 }]));
}

#[test]
fn folders_decide_in_poll_mode_and_the_metrics_are_clean() {
    let server = start("admin-poll", |_| {});
    server.bad("POST", "/admin/v1/models/iris/versions/1/load", "", 409, "--model-control explicit");
    server.bad("POST", "/admin/v1/models/iris/versions/1/unload", "", 409, "take its folder out");
    server.good("POST", "/admin/v1/models/{model}/versions/{version}/reload", &["iris", "1"], "");
    let (native, all) = (server.page("/metrics/native"), server.page("/metrics"));
    assert!(all.contains("nv_inference_count{model=\"iris\",version=\"1\"} 0"), "{all}");
    assert!(!native.contains("nv_") && native.contains("gannet_build_info{"), "{native}");
    let (mut helped, mut families) = (BTreeSet::new(), BTreeSet::new());
    for line in native.lines() {
        match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            ["#", "HELP", name, help] => assert!(helped.insert(name) && !help.is_empty(), "{line}"),
            ["#", "TYPE", name, kind] => {
                assert!(families.insert(name) && helped.contains(name), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            }
            _ => {
                let name = line.split(['{', ' ']).next().unwrap();
                let parts = ["_bucket", "_sum", "_count"];
                let base = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
                assert!(line.is_empty() || families.contains(name) || families.contains(base), "{line}");
            }
        }
    }
    let base = format!("http://{}", server.app.addresses().metrics.unwrap());
    assert_eq!(client::get(&base, "/", None).unwrap().status, 404);
    let state = std::sync::Arc::clone(server.app.state());
    server.end();
    assert!(!state.is_ready());
}

#[test]
fn a_token_file_closes_the_api() {
    let tokens = std::env::temp_dir().join(format!("gannet-admin-tokens-file-{}", std::process::id()));
    std::fs::write(&tokens, "secret\n").unwrap();
    let path = tokens.clone();
    let server = start("admin-token", |config| config.admin_token_file = Some(path));
    server.bad("GET", "/admin/v1/models", "", 401, "Authorization: Bearer");
    let base = format!("http://{}", server.app.addresses().admin.unwrap());
    assert_eq!(client::get(&base, "/admin/v1/models", Some("wrong")).unwrap().status, 401);
    assert_eq!(client::get(&base, "/admin/v1/models", Some("secret")).unwrap().status, 200);
    let _ = std::fs::remove_file(tokens);
    server.end();
}
