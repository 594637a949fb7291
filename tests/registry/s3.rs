//! An object store that checks signatures: push, follow, change, break, and what following a thousand models costs.
//! Must not know its protocol.

use std::{fs, path::Path};

use gannet_server::config::{Credentials, SourceConfig};
use serde_json::json;

use crate::support::{
    call::{self, Traffic},
    flips::{every_flip_is_refused, files_below},
    registries::{faults, follow, pull, ready, source, state, until},
    s3::{BUCKET, KEY, S3, SECRET},
    server::{command, fixture},
    wait,
};

fn login(folder: &Path) -> Credentials {
    let path = folder.join("login");
    fs::write(&path, format!("{KEY}:{SECRET}")).expect("a file");
    Credentials::File(path)
}

fn at(store: &S3, name: &str, prefix: &str, login: &Credentials) -> SourceConfig {
    let mut source = source(name, &format!("s3://{BUCKET}/{prefix}"));
    source.endpoint = Some(store.endpoint());
    source.credentials = Some(login.clone());
    source
}

/// Pushes or pulls; what the command said.
#[track_caller]
fn gannet(store: &S3, login: &Credentials, arguments: &[&str], good: bool) -> String {
    let mut command = command();
    command.args(arguments).args(["--endpoint", &store.endpoint(), "--credentials", &login.to_string()]);
    let output = command.output().expect("the command runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.success(), good, "{arguments:?}: {said}");
    said
}

fn folder_of(name: &str) -> String {
    fixture(name).display().to_string()
}

#[test]
fn what_is_pushed_is_served_and_a_store_that_breaks_harms_nothing() {
    let mut store = S3::start();
    let work = tempfile::tempdir().expect("a folder");
    let login = login(work.path());
    let uri = |version: &str| format!("s3://{BUCKET}/prod/m/{version}");
    gannet(&store, &login, &["push", &folder_of("add_one"), &uri("1")], true);
    assert!(store.path("prod/m/1/manifest.json").exists());
    let again = gannet(&store, &login, &["push", &folder_of("add_one"), &uri("1")], true);
    assert!(again.contains("was there already"), "{again}");
    let other = gannet(&store, &login, &["push", &folder_of("add_two"), &uri("1")], false);
    assert!(other.contains("a version never changes"), "{other}");

    let server = follow(vec![at(&store, "prod", "prod", &login)], |_| {});
    ready(&server, "m", "1");
    let traffic = Traffic::start(&server, "m");
    gannet(&store, &login, &["push", &folder_of("add_two"), &uri("2")], true);
    ready(&server, "m", "2");
    wait::until("the second version answers", || call::add(server.http(), "m") == Ok(3.0));

    // one flipped byte in an artifact whose digest is known
    gannet(&store, &login, &["push", &folder_of("add_one"), &uri("3")], true);
    let damaged = store.path("prod/m/4");
    fs::create_dir(&damaged).expect("a folder");
    for name in ["model.onnx", "manifest.json"] {
        fs::copy(store.path("prod/m/3").join(name), damaged.join(name)).expect("a file");
    }
    let mut bytes = fs::read(damaged.join("model.onnx")).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(damaged.join("model.onnx"), bytes).expect("a file");
    let refused = until(&server, "prod", "it is refused", |state| faults(state).contains("version 4"));
    assert!(faults(&refused).contains("expected sha256"), "{refused}");
    traffic.go_on();

    // without a manifest, two looks that saw the same
    fs::create_dir_all(store.path("prod/plain/7")).expect("a folder");
    fs::copy(fixture("add_one").join("model.onnx"), store.path("prod/plain/7/model.onnx")).expect("a file");
    ready(&server, "plain", "7");
    // which is not enough for those who want to know what the bytes are
    let sources = vec![at(&store, "pushed", "prod/m/3", &login), at(&store, "plain", "prod/plain/7", &login)];
    let strict = follow(sources, |config| config.registry.limits.require_digest = true);
    wait::until("what was pushed answers", || call::add(strict.http(), "pushed") == Ok(2.0));
    let unknown = until(&strict, "plain", "it is refused", |state| faults(state).contains("require_digest"));
    assert!(faults(&unknown).contains("nobody has said what its bytes are"), "{unknown}");
    drop(strict);

    store.stop();
    until(&server, "prod", "it is stale", |state| state["state"] == "stale");
    traffic.go_on();
    store.run();
    until(&server, "prod", "it is healthy again", |state| state["state"] == "healthy");
    // a prefix that is suddenly empty is no wish
    fs::rename(store.path("prod"), store.path("moved")).expect("it moves");
    let stale = until(&server, "prod", "it is stale", |state| state["state"] == "stale");
    assert!(faults(&stale).contains("no objects"), "{stale}");
    traffic.go_on();
    fs::rename(store.path("moved"), store.path("prod")).expect("it moves back");
    traffic.end();

    let pulled = work.path().join("pulled");
    let said = gannet(&store, &login, &["pull", &uri("2"), &pulled.display().to_string()], true);
    let lies = pulled.join("m/2/model.onnx");
    assert_eq!(
        fs::read(&lies).expect("it is here"),
        fs::read(fixture("add_two").join("model.onnx")).expect("a file"),
        "{said}"
    );
}

#[test]
fn a_bit_that_turned_over_is_seen_anywhere() {
    let store = S3::start();
    let work = tempfile::tempdir().expect("a folder");
    let login = login(work.path());
    let package = work.path().join("package");
    fs::create_dir_all(package.join("golden")).expect("a folder");
    fs::copy(fixture("add_one").join("model.onnx"), package.join("model.onnx")).expect("a file");
    fs::write(package.join("golden/notes.txt"), "a file beside").expect("a file");
    let uri = format!("s3://{BUCKET}/prod/m/1");
    gannet(&store, &login, &["push", &package.display().to_string(), &uri], true);
    let files = files_below(&store.path("prod"));
    assert_eq!(files.len(), 3, "{files:?}");
    let (endpoint, login) = (store.endpoint(), login.to_string());
    every_flip_is_refused(&files, || pull(&uri, &["--endpoint", &endpoint, "--credentials", &login]));
}

#[test]
fn a_wrong_key_is_told_and_a_start_without_the_store_serves_what_was_here() {
    let mut store = S3::start();
    let work = tempfile::tempdir().expect("a folder");
    let good = login(work.path());
    gannet(&store, &good, &["push", &folder_of("add_one"), &format!("s3://{BUCKET}/m/1")], true);
    let wrong = work.path().join("wrong");
    fs::write(&wrong, format!("{KEY}:other")).expect("a file");
    let server = follow(vec![at(&store, "m", "m", &Credentials::File(wrong))], |_| {});
    let denied = until(&server, "m", "it is denied", |state| !faults(state).is_empty());
    assert!(faults(&denied).contains("SignatureDoesNotMatch"), "{denied}");
    drop(server);

    let state_dir = work.path().join("state");
    let start = |store: &S3| {
        follow(vec![at(store, "m", "m", &good)], |config| config.state_dir.clone_from(&state_dir))
    };
    let server = start(&store);
    ready(&server, "m", "1");
    drop(server);
    store.stop();
    let server = start(&store);
    ready(&server, "m", "1");
    assert_eq!(call::add(server.http(), "m"), Ok(2.0));
    let stale = until(&server, "m", "it is stale", |state| state["state"] == "stale");
    assert!(stale["stale_since"].is_u64(), "{stale}");
}

#[test]
fn sources_come_and_go_while_the_server_runs() {
    let store = S3::start();
    let work = tempfile::tempdir().expect("a folder");
    let login = login(work.path());
    gannet(&store, &login, &["push", &folder_of("add_one"), &format!("s3://{BUCKET}/first/1")], true);
    gannet(&store, &login, &["push", &folder_of("add_two"), &format!("s3://{BUCKET}/second/1")], true);
    let server = follow(vec![at(&store, "first", "first", &login)], |config| {
        config.registry.allow = vec![format!("s3://{BUCKET}/*"), store.endpoint()];
    });
    ready(&server, "first", "1");
    let admin = format!("http://{}", server.admin());
    let status =
        command().args(["registry", "status", "--admin", &admin]).output().expect("the command runs");
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    for part in ["first", "healthy", &format!("s3://{BUCKET}/first"), "first 1"] {
        assert!(status.status.success() && said.contains(part), "{part}: {said}");
    }
    let add = |body: &serde_json::Value| call::post(server.admin(), "/admin/v1/registry/sources", body);
    let mut second = json!({ "name": "second", "uri": format!("s3://{BUCKET}/second"), "poll_s": 1,
                             "endpoint": store.endpoint(), "credentials": login.to_string() });
    add(&second).ok();
    ready(&server, "second", "1");
    assert_eq!(call::add(server.http(), "second"), Ok(3.0));
    assert!(add(&second).refused(409).contains("already"));
    for (key, value, status) in [
        ("uri", "s3://others/x", 403),
        ("uri", "file:///etc", 403),
        ("endpoint", "http://127.0.0.1:1", 403),
        ("credentials", "file:/etc/passwd", 403),
        ("colour", "blue", 400),
    ] {
        second["name"] = json!("third");
        let mut body = second.clone();
        body[key] = json!(value);
        assert!(!add(&body).refused(status).is_empty(), "{key}");
    }
    let gone = call::try_call(server.admin(), "DELETE /admin/v1/registry/sources/second", &[], b"")
        .expect("an answer");
    assert_eq!(gone.status, 200);
    wait::until("it is no longer served", || call::add(server.http(), "second").is_err());
    assert_eq!(call::add(server.http(), "first"), Ok(2.0));
    let requests = state(&server, "first")["requests"].as_u64().expect("a count");
    wait::until("looks go on", || state(&server, "first")["requests"].as_u64() > Some(requests));
}

#[test]
fn earlier_versions_make_room() {
    let store = S3::start();
    let work = tempfile::tempdir().expect("a folder");
    let login = login(work.path());
    let package = work.path().join("package");
    fs::create_dir(&package).expect("a folder");
    fs::copy(fixture("add_one").join("model.onnx"), package.join("model.onnx")).expect("a file");
    let push = |version: u8| {
        // each another content of the same size
        fs::write(package.join("ballast"), vec![version; 100_000]).expect("a file");
        let uri = format!("s3://{BUCKET}/m/{version}");
        gannet(&store, &login, &["push", &package.display().to_string(), &uri], true);
    };
    push(1);
    let state_dir = work.path().join("state");
    let server = follow(vec![at(&store, "m", "m", &login)], |config| {
        config.state_dir.clone_from(&state_dir);
        // two and a half of them
        config.registry.limits.disk_budget_bytes = Some(250_000);
    });
    for version in 1..=4 {
        if version > 1 {
            push(version);
        }
        ready(&server, "m", &version.to_string());
    }
    let trees = || fs::read_dir(state_dir.join("store/sha256")).expect("a folder").count();
    wait::until("two are left", || trees() <= 2);
    // a package that could never fit leaves everything as it is
    fs::write(package.join("more"), vec![0; 300_000]).expect("a file");
    push(5);
    let full = until(&server, "m", "there is no room", |state| faults(state).contains("disk_budget_bytes"));
    assert_eq!(full["aspired"][0]["versions"], json!(["4"]));
    assert_eq!(call::add(server.http(), "m"), Ok(2.0));
}

#[test]
fn what_fails_its_golden_requests_never_enters_the_store() {
    let store = S3::start();
    let work = tempfile::tempdir().expect("a folder");
    let login = login(work.path());
    let state_dir = work.path().join("state");
    let push = |version: u8, answer: f64| {
        let package = work.path().join(format!("package-{version}"));
        fs::create_dir_all(package.join("golden")).expect("a folder");
        fs::copy(fixture("add_one").join("model.onnx"), package.join("model.onnx")).expect("a file");
        let tensor = |name: &str, value: f64| json!([{ "name": name, "shape": [1, 3], "datatype": "FP32", "data": [value, value, value] }]);
        let (request, response) =
            (json!({ "inputs": tensor("x", 1.0) }), json!({ "outputs": tensor("y", answer) }));
        let golden = json!({ "request": request, "response": response });
        fs::write(package.join("golden/sum.json"), golden.to_string()).expect("a file");
        let uri = format!("s3://{BUCKET}/m/{version}");
        gannet(&store, &login, &["push", &package.display().to_string(), &uri], true);
    };
    let places = || {
        let names = |place: &str| {
            let items = fs::read_dir(state_dir.join("store").join(place)).expect("a folder").flatten();
            items.map(|item| item.file_name()).collect::<Vec<_>>()
        };
        (names("sha256"), names("unproven"))
    };
    push(1, 2.0);
    let server = follow(vec![at(&store, "m", "m", &login)], |config| config.state_dir.clone_from(&state_dir));
    ready(&server, "m", "1");
    wait::until("it is in the store", || places().0.len() == 1);
    let proved = places().0;
    push(2, 7.0);
    let why = call::refusal(&server, "m", "2");
    assert!(why.contains("golden/sum.json"), "{why}");
    let (kept, unproven) = places();
    assert_eq!(kept, proved, "only the first has proved itself");
    assert!(unproven.iter().any(|name| *name != proved[0]), "{unproven:?}");
    assert_eq!(call::add(server.http(), "m"), Ok(2.0));
}
