//! Files that the real DVC tracks, in a folder and in an object store, and a hub that the real client of Hugging Face
//! accepts. Must not know their formats beyond what the hub answers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{
    answers::{Answers, Reply},
    call,
    environment::Environment,
    flips::{every_flip_is_refused, files_below},
    folder::model_bytes,
    registries::{faults, follow, pull, source, until},
    s3::{BUCKET, KEY, S3, SECRET},
    server::fixture,
    wait,
};

#[track_caller]
fn dvc(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new(Environment::Registries.python());
    command.args(["-m", "dvc"]).args(arguments).current_dir(folder);
    command.env("DVC_NO_ANALYTICS", "1").env("DVC_SITE_CACHE_DIR", folder.join("site"));
    command
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_DEFAULT_REGION", "us-east-1");
    let output = command.output().expect("dvc runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_dvc_tracks_is_served_from_both_remotes() {
    let store = S3::start();
    let work = tempfile::tempdir().expect("a folder");
    let repository = work.path().join("repository");
    fs::create_dir(&repository).expect("a folder");
    let remote = work.path().join("remote").display().to_string();
    dvc(&repository, &["init", "--no-scm"]);
    dvc(&repository, &["remote", "add", "-d", "local", &remote]);
    fs::copy(fixture("add_one").join("model.onnx"), repository.join("adder.onnx")).expect("a file");
    let folder = repository.join("package");
    fs::create_dir_all(folder.join("golden")).expect("a folder");
    fs::copy(fixture("add_two").join("model.onnx"), folder.join("model.onnx")).expect("a file");
    fs::write(folder.join("notes.txt"), "a file beside").expect("a file");
    dvc(&repository, &["add", "adder.onnx", "package"]);
    dvc(&repository, &["push"]);
    let uri = |name: &str| format!("dvc+file://{}", repository.join(name).display());
    let server =
        follow(vec![source("file", &uri("adder.onnx.dvc")), source("tree", &uri("package.dvc"))], |_| {});
    wait::until("the file is served", || call::add(server.http(), "file") == Ok(2.0));
    wait::until("the folder is served", || call::add(server.http(), "tree") == Ok(3.0));
    // the pointer moves, as with a checkout of another commit
    fs::copy(fixture("add_two").join("model.onnx"), repository.join("adder.onnx")).expect("a file");
    dvc(&repository, &["add", "adder.onnx"]);
    dvc(&repository, &["push"]);
    wait::until("the new content is served", || call::add(server.http(), "file") == Ok(3.0));

    let login = work.path().join("login");
    fs::write(&login, format!("{KEY}:{SECRET}")).expect("a file");
    dvc(&repository, &["remote", "add", "-d", "-f", "s3", &format!("s3://{BUCKET}/dvc")]);
    dvc(&repository, &["remote", "modify", "s3", "endpointurl", &store.endpoint()]);
    dvc(&repository, &["push"]);
    let mut stored = source("stored", &uri("package.dvc"));
    stored.credentials = Some(gannet_server::config::Credentials::File(login.clone()));
    let server = follow(vec![stored.clone()], |_| {});
    wait::until("the store is read", || call::add(server.http(), "stored") == Ok(3.0));
    drop(server);
    // of the objects of the folder each is needed
    let objects: Vec<PathBuf> = files_below(&store.path("dvc"))
        .into_iter()
        .filter(|path| fs::read(path).is_ok_and(|bytes| bytes != model_bytes("add_one")))
        .collect();
    let login = format!("file:{}", login.display());
    every_flip_is_refused(&objects, || pull(&uri("package.dvc"), &["--credentials", &login]));
    // and what is refused says why
    let model = objects.iter().find(|path| fs::read(path).is_ok_and(|bytes| bytes == model_bytes("add_two")));
    let mut bytes = model_bytes("add_two");
    bytes[20] ^= 1;
    fs::write(model.expect("the model"), bytes).expect("a file");
    let server = follow(vec![stored], |_| {});
    let refused = until(&server, "stored", "it is refused", |state| !faults(state).is_empty());
    assert!(faults(&refused).contains("expected md5"), "{refused}");
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub of one repository, whose files lie in a folder, as far as its own client asks.
fn hub(folder: &Path) -> Answers {
    let folder = folder.to_owned();
    fs::write(folder.join("model.onnx"), model_bytes("add_one")).expect("a file");
    fs::write(folder.join("config.json"), "{}").expect("a file");
    Answers::start(move |head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let read = |name: &str| fs::read(folder.join(name)).expect("a file");
        let (model, config) = (read("model.onnx"), read("config.json"));
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        // of the files as they came
        let model_digest = hex(&Sha256::digest(model_bytes("add_one")));
        // git hash-object of {}
        let config_digest = "9e26dfeeb6e641a33dae4961196235bdb965b21b".to_owned();
        if path.starts_with("/api/models/org/adder/revision/") {
            let siblings = json!([{ "rfilename": "model.onnx" }, { "rfilename": "config.json" }]);
            let body = json!({ "id": "org/adder", "modelId": "org/adder", "sha": COMMIT, "siblings": siblings,
                               "private": false, "tags": [], "downloads": 0, "likes": 0 });
            return Reply::new("200 OK", body.to_string()).with("content-type: application/json");
        }
        if path.starts_with(&format!("/api/models/org/adder/tree/{COMMIT}")) {
            let body = json!([
                { "type": "file", "oid": "0".repeat(40), "size": model.len(), "path": "model.onnx",
                  "lfs": { "oid": model_digest, "size": model.len(), "pointerSize": 130 } },
                { "type": "file", "oid": config_digest, "size": 2, "path": "config.json" },
            ]);
            return Reply::new("200 OK", body.to_string()).with("content-type: application/json");
        }
        let file = match path.strip_prefix(&format!("/org/adder/resolve/{COMMIT}/")) {
            Some("model.onnx") => Reply::new("200 OK", model.clone())
                .with(&format!("x-linked-etag: \"{model_digest}\""))
                .with(&format!("x-linked-size: {}", model.len()))
                .with(&format!("etag: \"{model_digest}\"")),
            Some("config.json") => Reply::new("200 OK", config).with(&format!("etag: \"{config_digest}\"")),
            _ => return Reply::new("404 Not Found", "{}").with("x-error-code: EntryNotFound"),
        };
        file.with(&format!("x-repo-commit: {COMMIT}")).with("accept-ranges: bytes")
    })
}

#[test]
fn a_hub_that_its_own_client_accepts_is_followed() {
    let files = tempfile::tempdir().expect("a folder");
    let hub = hub(files.path());
    let work = tempfile::tempdir().expect("a folder");
    let python = "import huggingface_hub as h, sys; print(h.snapshot_download('org/adder', token='hf_x'))";
    let output = Command::new(Environment::Registries.python())
        .args(["-c", python])
        .env("HF_ENDPOINT", hub.base())
        .env("HF_HOME", work.path())
        .env("HF_HUB_DISABLE_XET", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .output()
        .expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut adder = source("adder", "hf://org/adder");
    adder.endpoint = Some(hub.base());
    let server = follow(vec![adder], |_| {});
    wait::until("the model is served", || call::add(server.http(), "adder") == Ok(2.0));
    drop(server);
    let base = hub.base();
    every_flip_is_refused(&files_below(files.path()), || pull("hf://org/adder", &["--endpoint", &base]));
    // the cache that the client left, while the hub cannot be reached
    let state = tempfile::tempdir().expect("a folder");
    let mut command = crate::support::server::command();
    command.args(["pull", "hf://org/adder"]).arg(state.path().join("models"));
    command.args(["--endpoint", "http://127.0.0.1:1"]).env("HF_HOME", work.path());
    let output = command.output().expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pulled = state.path().join("models/adder").join(&COMMIT[..12]).join("model.onnx");
    assert_eq!(fs::read(pulled).expect("it is here"), model_bytes("add_one"));
}
