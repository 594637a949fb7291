//! Who decides what is served: load and unload calls, with their overrides and uploads, or the first look alone.

use serde_json::{Value, json};

use crate::support::{
    call::{Answer, Traffic, add, get, index, loads, post, try_add},
    folder::{Folder, model_bytes},
    server::Server,
    wait,
};
use gannet_server::{
    config::{RepositoryApi, address::Address},
    repository::ControlMode,
};

/// `a` is `add_one`, `b` is `add_two`.
fn two_models() -> Folder {
    let folder = Folder::new();
    folder.put("a/1", "add_one");
    folder.put("b/1", "add_two");
    folder
}

fn explicit(folder: &Folder, load_models: &[&str]) -> Server {
    Server::start(&folder.path(), |config| {
        config.repository.mode = ControlMode::Explicit;
        config.repository.load_models = load_models.iter().map(|&name| name.to_owned()).collect();
    })
}

#[track_caller]
fn load(server: &Server, model: &str, parameters: &Value) -> Answer {
    let body = json!({ "parameters": parameters });
    post(server.http(), &format!("/v2/repository/models/{model}/load"), &body)
}

#[track_caller]
fn unload(server: &Server, model: &str) -> Answer {
    post(server.http(), &format!("/v2/repository/models/{model}/unload"), &json!({}))
}

fn line(version: &str, state: &str, reason: &str) -> (String, String, String) {
    (version.into(), state.into(), reason.into())
}

/// Bytes in base64, as RFC 4648 has it.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let four = |chunk: &[u8]| {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let letter = |index: usize| char::from(LETTERS[(bits >> (18 - 6 * index)) as usize & 63]);
        (0..4).map(move |index| if index <= chunk.len() { letter(index) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(four).collect()
}

#[test]
fn explicit_control_loads_all_at_the_start_and_then_what_calls_say() {
    let folder = two_models();
    let server = explicit(&folder, &[]);
    assert_eq!((add(server.http(), "a"), add(server.http(), "b")), (Ok(2.0), Ok(3.0)));
    folder.put("a/2", "add_two");
    folder.put("c/1", "add_one");
    unload(&server, "b").ok();
    wait::until("it is unloaded", || index(server.http(), "b") == [line("1", "UNAVAILABLE", "unloaded")]);
    let answer = try_add(server.http(), "b").unwrap();
    assert!([404, 503].contains(&answer.status), "{answer:?}");
    assert!(answer.text.contains("Request for unknown model: 'b'"), "{answer:?}");
    load(&server, "b", &json!({})).ok();
    assert_eq!(index(server.http(), "b"), [line("1", "READY", "")]);
    assert_eq!(add(server.http(), "b"), Ok(3.0));
    assert_eq!(add(server.http(), "a"), Ok(2.0), "nobody asked for its new version");
    wait::until("the new files have settled", || load(&server, "c", &json!({})).status == 200);
    assert_eq!(add(server.http(), "c"), Ok(2.0));
    let traffic = Traffic::start(&server, "a");
    load(&server, "a", &json!({})).ok();
    assert_eq!(add(server.http(), "a"), Ok(3.0));
    traffic.end();
}

#[test]
fn only_the_models_that_are_named_are_loaded_at_the_start() {
    let folder = two_models();
    let server = explicit(&folder, &["b"]);
    assert_eq!(add(server.http(), "b"), Ok(3.0));
    assert!(add(server.http(), "a").is_err());
    assert_eq!(index(server.http(), "a"), [line("1", "UNAVAILABLE", "unloaded")]);
    let ready = post(server.http(), "/v2/repository/index", &json!({ "ready": true })).ok();
    assert_eq!(ready, json!([{ "name": "b", "version": "1", "state": "READY" }]));
    load(&server, "a", &json!({})).ok();
    assert_eq!(add(server.http(), "a"), Ok(2.0));
}

#[test]
fn loads_of_what_is_not_there_or_broken_say_why() {
    let folder = two_models();
    folder.write("broken/1/model.onnx", "text");
    let server = explicit(&folder, &["a"]);
    let why = load(&server, "nothing", &json!({})).refused(400);
    assert!(why.contains("failed to load 'nothing'") && why.contains("a, b, broken"), "{why}");
    let why = load(&server, "broken", &json!({})).refused(400);
    assert!(why.contains("failed to load 'broken'") && why.contains("broken/1"), "{why}");
    let why = unload(&server, "nothing").refused(400);
    assert!(why.contains("unknown model"), "{why}");
    assert_eq!(get(server.http(), "/v2/health/ready").status, 200);
    assert_eq!(add(server.http(), "a"), Ok(2.0));
}

#[test]
fn a_load_may_bring_its_own_configuration() {
    let folder = two_models();
    folder.put("a/2", "add_two");
    let server = explicit(&folder, &[]);
    assert_eq!(add(server.http(), "a"), Ok(3.0));
    let config = json!({ "backend": "onnxruntime", "max_batch_size": 7 }).to_string();
    load(&server, "a", &json!({ "config": config })).ok();
    assert_eq!(get(server.http(), "/v2/models/a/config").ok()["max_batch_size"], 7);
    assert_eq!(loads(&server, "a", "2"), (2.0, 0.0));
    let specific = |version: &str| {
        let policy = json!({ "specific": { "versions": [version] } });
        json!({ "config": json!({ "max_batch_size": 7, "version_policy": policy }).to_string() })
    };
    load(&server, "a", &specific("2")).ok();
    assert_eq!(add(server.http(), "a"), Ok(3.0));
    load(&server, "a", &specific("1")).ok();
    assert_eq!(
        add(server.http(), "a"),
        Ok(2.0),
        "versions that the folder's own settings leave out can be had"
    );
    load(&server, "a", &json!({})).ok();
    assert_eq!(add(server.http(), "a"), Ok(3.0), "a load without a configuration takes the folder's");
    let why = load(&server, "a", &specific("9")).refused(400);
    assert!(why.contains("version policy") && why.contains("1, 2"), "{why}");
    assert_eq!(add(server.http(), "a"), Ok(3.0), "what served still serves");
    let why = load(&server, "a", &json!({ "config": "{\"max_batch_size\": \"many\"}" })).refused(400);
    assert!(why.contains("'config' parameter") && why.contains("column"), "{why}");
    assert_eq!(add(server.http(), "a"), Ok(3.0));
}

#[test]
fn a_load_may_bring_its_own_files() {
    let folder = two_models();
    let server = explicit(&folder, &["a"]);
    let config = json!({ "max_batch_size": 8 }).to_string();
    let upload = |version: u32, name: &str| json!({ "config": config, format!("file:{version}/model.onnx"): base64(&model_bytes(name)) });
    load(&server, "sent", &upload(1, "add_one")).ok();
    assert_eq!(add(server.http(), "sent"), Ok(2.0));
    load(&server, "sent", &upload(1, "add_two")).ok();
    assert_eq!(add(server.http(), "sent"), Ok(3.0), "the same version, with other content");
    load(&server, "a", &upload(5, "add_two")).ok();
    assert_eq!(add(server.http(), "a"), Ok(3.0));
    wait::until("the folder's versions are not used", || {
        index(server.http(), "a") == [line("5", "READY", "")]
    });
    unload(&server, "sent").ok();
    wait::until("nothing is left of it", || add(server.http(), "sent") == Err(404));
    load(&server, "a", &json!({})).ok();
    assert_eq!(add(server.http(), "a"), Ok(2.0));
}

#[test]
fn uploads_that_cannot_be_are_refused() {
    let folder = two_models();
    let state = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path(), |config| {
        config.repository.mode = ControlMode::Explicit;
        config.state_dir = state.path().join("inner");
    });
    let content = base64(&model_bytes("add_two"));
    let check = |parameters: Value, expected: &str| {
        let why = load(&server, "a", &parameters).refused(400);
        assert!(why.contains(expected), "{parameters:.80}: {why}");
        assert_eq!(add(server.http(), "a"), Ok(2.0));
    };
    for path in ["../x", "1/../../x", "../../../x/1/model.onnx", "/etc/x", "1//x", "model.onnx", "1/"] {
        check(json!({ "config": "{}", format!("file:{path}"): content }), "<version>/<file>");
    }
    check(json!({ "file:1/model.onnx": content }), "without a configuration");
    check(json!({ "config": "{}", "file:1/model.onnx": "no base64!" }), "base64");
    check(json!({ "config": "{}", "file:1/model.onnx": 5 }), "base64");
    check(json!({ "config": 5 }), "as a string");
    check(json!({ "confg": "{}" }), "'confg' is not known");
    check(json!({ "config": "{}", "file:1/model.onnx": base64(b"text") }), "failed to load 'a'");
    let none = json!({ "version_policy": { "specific": { "versions": ["3"] } } }).to_string();
    check(json!({ "config": none, "file:1/model.onnx": content }), "version policy");
    let names = std::fs::read_dir(state.path()).unwrap().map(|item| item.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["inner"], "nothing was written outside");
}

#[test]
fn a_watched_repository_takes_no_calls() {
    let folder = two_models();
    let server = Server::start(&folder.path(), |_| {});
    for answer in [load(&server, "a", &json!({})), unload(&server, "a")] {
        let why = answer.refused(403);
        let expected = "explicit model load / unload is not allowed if polling is enabled";
        assert!(why.starts_with(expected) && why.contains("--model-control explicit"), "{why}");
    }
    assert_eq!(add(server.http(), "a"), Ok(2.0));
}

#[test]
fn without_control_the_first_look_is_the_last() {
    let folder = two_models();
    let server = Server::start(&folder.path(), |config| config.repository.mode = ControlMode::None);
    assert_eq!((add(server.http(), "a"), add(server.http(), "b")), (Ok(2.0), Ok(3.0)));
    folder.put("a/2", "add_two");
    folder.remove("b");
    let why = load(&server, "a", &json!({})).refused(403);
    assert!(why.contains("--model-control none"), "{why}");
    assert_eq!((add(server.http(), "a"), add(server.http(), "b")), (Ok(2.0), Ok(3.0)));
}

#[test]
fn the_data_ports_may_be_kept_from_loading() {
    let folder = two_models();
    let closed = |api, http: Option<Address>| {
        Server::start(&folder.path(), |config| {
            config.repository.mode = ControlMode::Explicit;
            config.repository.api = api;
            config.listen.http = http.or(config.listen.http.take());
        })
    };
    let anywhere = || Address::parse("0.0.0.0:0");
    for server in [closed(RepositoryApi::Index, None), closed(RepositoryApi::Auto, anywhere())] {
        for answer in [load(&server, "a", &json!({})), unload(&server, "a")] {
            let why = answer.refused(403);
            assert!(why.contains("--repository-api full"), "{why}");
        }
        assert_eq!(index(server.http(), "a"), [line("1", "READY", "")]);
    }
    let server = closed(RepositoryApi::Full, anywhere());
    unload(&server, "a").ok();
    assert!(add(server.http(), "a").is_err());
}
