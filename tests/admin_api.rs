//! The admin API through a socket: every route, who may call it, and what it answers to what it does not have.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    call::{Answer, Traffic, add, call, get, loads},
    folder::Folder,
    server::Server,
    wait,
};
use gannet_server::repository::ControlMode;

const MODEL: &str = "/admin/v1/models/m";

/// `m` with `add_one` as version 1 and `add_two` as version 2, both served.
fn two_versions() -> Folder {
    let folder = Folder::with_add_one();
    folder.put("m/2", "add_two");
    folder.write("m/model.toml", "versions = \"all\"\n[labels]\nstable = \"1\"\n");
    folder
}

fn serve(folder: &Folder) -> Server {
    let server = Server::start(&folder.path(), |_| {});
    wait::until("both versions serve", || {
        (add(server.http(), "m/versions/1"), add(server.http(), "m/versions/2")) == (Ok(2.0), Ok(3.0))
    });
    server
}

#[track_caller]
fn ask(server: &Server, start: &str, body: &str) -> Answer {
    call(server.admin(), start, &[], body.as_bytes())
}

#[test]
fn models_and_versions_are_described() {
    let folder = two_versions();
    folder.write("bad/1/model.onnx", "text");
    let server = serve(&folder);
    let list = get(server.admin(), "/admin/v1/models").ok();
    assert_eq!(
        (&list["ready"], &list["draining"], &list["stale"]),
        (&json!(true), &json!(false), &Value::Null)
    );
    let names: Vec<&Value> = list["models"].as_array().unwrap().iter().map(|model| &model["name"]).collect();
    assert_eq!(names, ["bad", "m"]);
    let model = get(server.admin(), MODEL).ok();
    assert_eq!(model, list["models"][1]);
    assert_eq!(
        (&model["ready"], &model["wanted"], &model["labels"]),
        (&json!(true), &json!(true), &json!({"stable": "1"}))
    );
    for (path, expected) in [("1", "1"), ("2", "2"), ("stable", "1")] {
        let version = get(server.admin(), &format!("{MODEL}/versions/{path}")).ok();
        assert_eq!((&version["version"], &version["state"]), (&json!(expected), &json!("READY")), "{path}");
        assert_eq!(version["digest"].as_str().unwrap().len(), 64);
        assert_eq!(version["serving"]["signature"]["inputs"][0]["name"], "x");
        assert_eq!(version["loads"], json!({ "ok": 1, "failed": 0, "swaps": version["loads"]["swaps"] }));
    }
    let before = get(server.admin(), &format!("{MODEL}/versions/1")).ok()["serving"]["counts"]["ok"].clone();
    assert_eq!(add(server.http(), "m/versions/1"), Ok(2.0));
    let after = get(server.admin(), &format!("{MODEL}/versions/1")).ok()["serving"]["counts"]["ok"].clone();
    assert_eq!(after.as_u64(), before.as_u64().map(|count| count + 1));
    let bad = get(server.admin(), "/admin/v1/models/bad/versions/1").ok();
    assert_eq!((&bad["state"], &bad["serving"]), (&json!("UNAVAILABLE"), &Value::Null));
    assert!(bad["reason"].as_str().unwrap().contains("bad/1"), "{bad}");
}

#[test]
fn a_reload_swaps_in_a_fresh_copy_and_no_request_fails() {
    let server = serve(&two_versions());
    let traffic = Traffic::start(&server, "m");
    let incarnation = |version: &Value| version["serving"]["incarnation"].as_u64().unwrap();
    let mut before = incarnation(&get(server.admin(), &format!("{MODEL}/versions/2")).ok());
    for count in 2..5 {
        let version = ask(&server, &format!("POST {MODEL}/versions/2/reload"), "").ok();
        assert!(incarnation(&version) > before);
        before = incarnation(&version);
        assert_eq!(version["state"], "READY");
        assert_eq!(loads(&server, "m", "2"), (f64::from(count), 0.0));
    }
    assert_eq!(loads(&server, "m", "1"), (1.0, 0.0));
    traffic.end();
}

#[test]
fn labels_are_given_moved_and_taken_away() {
    let server = serve(&two_versions());
    let put = |label: &str, version: &str| {
        ask(&server, &format!("PUT {MODEL}/labels/{label}"), &json!({ "version": version }).to_string())
    };
    let labelled = put("next", "2").ok();
    assert_eq!(labelled, json!({ "model": "m", "labels": { "next": "2", "stable": "1" } }));
    assert_eq!(add(server.http(), "m/versions/next"), Ok(3.0));
    put("next", "1").ok();
    assert_eq!(add(server.http(), "m/versions/next"), Ok(2.0));
    let left = ask(&server, &format!("DELETE {MODEL}/labels/next"), "").ok();
    assert_eq!(left["labels"], json!({ "stable": "1" }));
    assert_eq!(add(server.http(), "m/versions/next"), Err(404));
    put("next", "9").refused(404);
    put("2", "1").refused(400);
    put("a%20b", "1").refused(400);
    ask(&server, &format!("DELETE {MODEL}/labels/next"), "").refused(404);
    ask(&server, "PUT /admin/v1/models/none/labels/next", "{\"version\": \"1\"}").refused(404);
    for body in
        ["", "{}", "[]", "{\"version\": 1}", "{\"version\": \"1\", \"other\": 1}", "{\"version\": \"../1\"}"]
    {
        ask(&server, &format!("PUT {MODEL}/labels/next"), body).refused(400);
    }
    assert_eq!(add(server.http(), "m/versions/stable"), Ok(2.0));
}

#[test]
fn versions_are_loaded_and_unloaded_by_calls_when_calls_decide() {
    let folder = two_versions();
    let watched = serve(&folder);
    for what in ["load", "unload"] {
        let why = ask(&watched, &format!("POST {MODEL}/versions/2/{what}"), "").refused(409);
        assert!(why.contains("--model-control explicit"), "{why}");
    }
    drop(watched);
    let server = Server::start(&folder.path(), |config| config.repository.mode = ControlMode::Explicit);
    let traffic = Traffic::start(&server, "m");
    ask(&server, &format!("POST {MODEL}/versions/2/unload"), "").ok();
    assert_eq!((add(server.http(), "m"), add(server.http(), "m/versions/2").is_err()), (Ok(2.0), true));
    let loaded = ask(&server, &format!("POST {MODEL}/versions/2/load"), "").ok();
    assert_eq!(loaded["state"], "READY");
    assert_eq!(add(server.http(), "m"), Ok(3.0));
    traffic.end();
    ask(&server, &format!("POST {MODEL}/versions/9/load"), "").refused(404);
    for version in ["1", "2"] {
        ask(&server, &format!("POST {MODEL}/versions/{version}/unload"), "").ok();
    }
    assert!(add(server.http(), "m").is_err());
    ask(&server, &format!("POST {MODEL}/versions/1/load"), "").ok();
    assert_eq!(add(server.http(), "m"), Ok(2.0));
}

#[test]
fn a_version_that_fails_to_load_is_a_conflict_with_its_reason() {
    let folder = Folder::with_add_one();
    folder.write("bad/1/model.onnx", "text");
    let server = Server::start(&folder.path(), |config| config.repository.mode = ControlMode::Explicit);
    for what in ["load", "reload"] {
        let why = ask(&server, &format!("POST /admin/v1/models/bad/versions/1/{what}"), "").refused(409);
        assert!(why.contains("bad/1"), "{why}");
    }
    assert_eq!(add(server.http(), "m"), Ok(2.0));
}

#[test]
fn configuration_and_description_can_be_read() {
    let server = serve(&two_versions());
    let config = get(server.admin(), "/admin/v1/config").ok();
    assert!(config.is_object(), "{config}");
    let description = get(server.admin(), "/admin/v1/openapi.json").ok();
    assert!(description["openapi"].as_str().unwrap().starts_with("3."), "{}", description["openapi"]);
    assert!(description["paths"]["/admin/v1/models/{model}/labels/{label}"]["put"].is_object());
}

#[test]
fn paths_and_verbs_that_are_not_there_are_named() {
    let server = serve(&two_versions());
    for path in
        ["/", "/admin", "/admin/v1/", "/admin/v1/nothing", "/v2", "/metrics", "/admin/v1/models/m/versions"]
    {
        let why = get(server.admin(), path).refused(404);
        assert!(why.contains("openapi.json"), "{why}");
    }
    get(server.admin(), "/admin/v1/models/none").refused(404);
    get(server.admin(), "/admin/v1/models/m/versions/9").refused(404);
    for (start, allowed) in [
        ("POST /admin/v1/models", "GET"),
        ("DELETE /admin/v1/config", "GET"),
        ("GET /admin/v1/models/m/versions/1/reload", "POST"),
        ("GET /admin/v1/models/m/labels/stable", "PUT, DELETE"),
    ] {
        let answer = ask(&server, start, "");
        answer.refused(405);
        let line = format!("allow: {allowed}");
        assert!(answer.head.to_lowercase().contains(&line.to_lowercase()), "{}", answer.head);
    }
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let server = serve(&two_versions());
    let body = "x".repeat((64 << 10) + 1);
    let why = ask(&server, &format!("PUT {MODEL}/labels/next"), &body).refused(413);
    assert!(why.contains("65536"), "{why}");
    assert_eq!(get(server.admin(), "/admin/v1/models").status, 200);
}

#[test]
fn web_pages_from_elsewhere_are_refused() {
    let server = serve(&two_versions());
    for address in [server.admin(), server.metrics()] {
        let path = if address == server.admin() { "/admin/v1/models" } else { "/metrics" };
        let check = |headers: &[&str], expected: u16| {
            let answer = call(address, &format!("GET {path}"), headers, b"");
            assert_eq!(answer.status, expected, "{headers:?}: {answer:?}");
        };
        check(&[], 200);
        check(&["host: 127.0.0.1:8003"], 200);
        check(&["host: evil.example"], 403);
        check(&["host: localhost.evil.example"], 403);
        check(&["host: localhost", "origin: http://localhost:3000"], 200);
        check(&["host: localhost", "origin: http://evil.example"], 403);
        check(&["host: localhost", "origin: null"], 403);
    }
    let answer = call(
        server.admin(),
        &format!("POST {MODEL}/versions/2/reload"),
        &["origin: http://evil.example"],
        b"",
    );
    answer.refused(403);
    assert_eq!(loads(&server, "m", "2"), (1.0, 0.0));
}

#[test]
fn a_token_is_wanted_where_a_file_of_tokens_is_named() {
    let folder = Folder::with_add_one();
    let tokens = folder.beside("tokens");
    fs::write(&tokens, "# ours\nfirst\nsecond\n").unwrap();
    let server = Server::start(&folder.path(), |config| config.admin_token_file = Some(tokens.clone()));
    let status = |token: &str| {
        let header = format!("authorization: Bearer {token}");
        call(server.admin(), "GET /admin/v1/models", &[&header], b"").status
    };
    let answer = get(server.admin(), "/admin/v1/models");
    assert!(answer.refused(401).contains("Authorization: Bearer"), "{answer:?}");
    assert!(answer.head.to_lowercase().contains("www-authenticate: bearer"), "{answer:?}");
    assert_eq!(get(server.admin(), "/admin/v1/nothing").status, 401, "nothing is told without a token");
    assert_eq!((status("first"), status("second"), status("third"), status("")), (200, 200, 401, 401));
    fs::write(&tokens, "third\n").unwrap();
    assert_eq!((status("first"), status("third")), (401, 200), "the file is read again");
    fs::remove_file(&tokens).unwrap();
    assert_eq!(status("third"), 401, "without the file nobody comes in");
    assert_eq!(add(server.http(), "m"), Ok(2.0), "inference takes no token");
}
