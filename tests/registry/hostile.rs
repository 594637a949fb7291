//! A registry that means harm, or is about to fall over: what it says is refused, nothing is written outside of the
//! store, nobody else is told our credentials, and what serves goes on. Must not know what is sound.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use gannet_server::config::Credentials;
use serde_json::json;

use crate::support::{
    answers::{Answers, Reply},
    folder::model_bytes,
    registries::{faults, follow, ready, source, state, until},
    s3::{BUCKET, KEY, S3, SECRET},
    server::{Server, command},
    wait,
};

const VERSION: &str =
    r#"{"model_version": {"name": "m", "version": "1", "source": "models:/m-1", "status": "READY"}}"#;

/// A tracking server with one version whose files are `files` (JSON) in `root`.
fn tracking(root: &str, files: &str) -> Answers {
    let (uri, files) = (json!({ "artifact_uri": root }).to_string(), format!("{{\"files\": {files}}}"));
    Answers::start(move |head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path {
            _ if path.contains("registered-models/alias") => Reply::new("200 OK", VERSION),
            _ if path.contains("get-download-uri") => Reply::new("200 OK", uri.clone()),
            _ if path.contains("artifacts?path=") => Reply::new("200 OK", files.clone()),
            _ if path.ends_with("/MLmodel") => Reply::new("200 OK", "flavors:\n  onnx: {data: model.onnx}\n"),
            _ => Reply::new("200 OK", model_bytes("add_one")),
        }
    })
}

fn refused(answers: &Answers) -> (Server, String) {
    let server = follow(vec![source("m", &format!("mlflow+{}/m@live", answers.base()))], |config| {
        config.registry.limits.package.bytes_max = 1 << 20;
        config.registry.limits.package.files_max = 10;
    });
    let state = until(&server, "m", "it is refused", |state| !faults(state).is_empty());
    let why = faults(&state);
    (server, why)
}

#[test]
fn names_and_sizes_of_a_hostile_registry_are_refused() {
    let model = r#"{"path": "MLmodel", "file_size": 40}, {"path": "model.onnx", "file_size": 150}"#;
    let outside = Path::new("/tmp/gannet-evil");
    let many: Vec<String> = (0..20).map(|n| format!(r#"{{"path": "f{n}", "file_size": 1}}"#)).collect();
    for (root, files, part) in [
        ("mlflow-artifacts:/1/a", format!(r#"[{model}, {{"path": "..", "file_size": 1}}]"#), "steps through"),
        ("mlflow-artifacts:/1/a", format!(r#"[{model}, {{"path": "x\u0000y", "file_size": 1}}]"#), "got"),
        ("mlflow-artifacts:/1/a", format!(r#"[{model}, {{"path": "..", "is_dir": true}}]"#), "steps through"),
        (
            "mlflow-artifacts:/1/a",
            format!(r#"[{model}, {{"path": "big", "file_size": 1000000000000000000}}]"#),
            "max_package_bytes",
        ),
        ("mlflow-artifacts:/1/a", format!("[{model}, {}]", many.join(", ")), "files"),
        ("mlflow-artifacts:/1/a", format!(r#"[{model}, {{"path": "model.onnx", "file_size": 1}}]"#), "twice"),
        ("mlflow-artifacts:/../../etc", "[]".to_owned(), "'.' and '..'"),
        ("mlflow-artifacts://other.example:5000/1/a", "[]".to_owned(), "another server"),
        ("file:///etc", "[]".to_owned(), "artifacts_dir"),
        ("ftp://h/x", "[]".to_owned(), "expected artifacts"),
    ] {
        let answers = tracking(root, &files);
        let (_server, why) = refused(&answers);
        assert!(why.contains(part), "{root} {files}: {part}: {why}");
        let strange = answers.asked().into_iter().find(|head| head.contains("..") || head.contains("%2e"));
        assert_eq!(strange, None, "{root}");
    }
    assert!(!outside.exists());
}

#[test]
fn a_file_that_is_longer_than_listed_is_refused() {
    let files = r#"[{"path": "MLmodel", "file_size": 36}, {"path": "model.onnx", "file_size": 10}]"#;
    let (_server, why) = refused(&tracking("mlflow-artifacts:/1/a", files));
    assert!(why.contains("expected 10 bytes, got more") || why.contains("expected 36 bytes"), "{why}");
}

#[test]
fn redirects_carry_no_credentials() {
    let thief = Answers::start(|_| Reply::new("200 OK", VERSION));
    let to = format!("location: {}/stolen", thief.base());
    let registry = Answers::start(move |_| Reply::new("302 Found", "").with(&to));
    let secrets = tempfile::tempdir().expect("a folder");
    let login = secrets.path().join("login");
    fs::write(&login, "user:secret").expect("a file");
    let mut m = source("m", &format!("mlflow+{}/m@live", registry.base()));
    m.credentials = Some(Credentials::File(login));
    let _server = follow(vec![m], |_| {});
    wait::until("the redirect is followed", || !thief.asked().is_empty());
    let told =
        |answers: &Answers| answers.asked().iter().any(|head| head.to_lowercase().contains("authorization:"));
    assert!(told(&registry));
    assert!(!told(&thief));
}

#[test]
fn a_registry_in_trouble_is_left_alone_and_what_serves_goes_on() {
    // sound at first; then busy, half and wrong answers in turn
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let files = format!(
        r#"{{"files": [{{"path": "MLmodel", "file_size": 36}}, {{"path": "model.onnx", "file_size": {}}}]}}"#,
        model_bytes("add_one").len()
    );
    let answers = Answers::start(move |head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path {
            _ if path.contains("registered-models/alias") => match ASKED.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => Reply::new("200 OK", VERSION),
                2 => Reply::new("200 OK", VERSION).broken_off(),
                3 => Reply::new("500 Internal Server Error", "<html>"),
                4 => Reply::new("200 OK", "{}"),
                _ => Reply::new("429 Too Many Requests", "slow down").with("retry-after: 3600"),
            },
            _ if path.contains("get-download-uri") => {
                Reply::new("200 OK", r#"{"artifact_uri": "mlflow-artifacts:/1/a"}"#)
            }
            _ if path.contains("artifacts?path=") => Reply::new("200 OK", files.clone()),
            _ if path.ends_with("/MLmodel") => Reply::new("200 OK", "flavors:\n  onnx: {data: model.onnx}\n"),
            _ => Reply::new("200 OK", model_bytes("add_one")),
        }
    });
    let server = follow(vec![source("m", &format!("mlflow+{}/m@live", answers.base()))], |_| {});
    ready(&server, "m", "1");
    let busy = until(&server, "m", "it is asked for patience", |state| faults(state).contains("429"));
    assert_eq!(busy["state"], "stale");
    // no storm: whoever asks for an hour gets it, five minutes at least
    let asked = ASKED.load(Ordering::SeqCst);
    let still =
        wait::holds_within(std::time::Duration::from_secs(2), || ASKED.load(Ordering::SeqCst) > asked);
    assert!(!still, "it was asked again");
    assert_eq!(state(&server, "m")["aspired"][0]["versions"], json!(["1"]));
    assert_eq!(crate::support::call::add(server.http(), "m"), Ok(2.0));
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let model = model_bytes("add_one");
    let half = model.len() / 2;
    let files = format!(
        r#"{{"files": [{{"path": "MLmodel", "file_size": 36}}, {{"path": "model.onnx", "file_size": {}}}]}}"#,
        model.len()
    );
    let answers = Answers::start(move |head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let range = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
        let start = range.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
        match (path, start) {
            _ if path.contains("registered-models/alias") => Reply::new("200 OK", VERSION),
            _ if path.contains("get-download-uri") => {
                Reply::new("200 OK", r#"{"artifact_uri": "mlflow-artifacts:/1/a"}"#)
            }
            _ if path.contains("artifacts?path=") => Reply::new("200 OK", files.clone()),
            _ if path.ends_with("/MLmodel") => Reply::new("200 OK", "flavors:\n  onnx: {data: model.onnx}\n"),
            (_, None) => Reply::new("200 OK", &model[..half]).with("etag: \"x\"").broken_off(),
            (_, Some(start)) => Reply::new("206 Partial Content", &model[start..])
                .with("etag: \"x\"")
                .with(&format!("content-range: bytes {start}-{}/{}", model.len() - 1, model.len())),
        }
    });
    let server = follow(vec![source("m", &format!("mlflow+{}/m@live", answers.base()))], |_| {});
    ready(&server, "m", "1");
    let asked = answers.asked();
    let models: Vec<&String> = asked.iter().filter(|head| head.contains("/model.onnx ")).collect();
    assert_eq!(models.len(), 2, "{models:?}");
    let second = models[1].to_lowercase();
    assert!(
        second.contains(&format!("range: bytes={half}-")) && second.contains("if-range: \"x\""),
        "{second}"
    );
}

#[test]
fn artifacts_may_be_in_a_folder_that_the_operator_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let logged = folder.path().join("1/model");
    fs::create_dir_all(&logged).expect("a folder");
    fs::write(logged.join("MLmodel"), "flavors:\n  onnx: {data: model.onnx}\n").expect("a file");
    fs::write(logged.join("model.onnx"), model_bytes("add_two")).expect("a file");
    let answers = tracking(&format!("file://{}", logged.display()), "[]");
    let mut m = source("m", &format!("mlflow+{}/m@live", answers.base()));
    m.artifacts_dir = Some(folder.path().to_owned());
    let server = follow(vec![m], |_| {});
    ready(&server, "m", "1");
    assert_eq!(crate::support::call::add(server.http(), "m"), Ok(3.0));
}

#[test]
fn artifacts_may_be_in_an_object_store() {
    let store = S3::start();
    let logged = store.path("logged/1");
    fs::create_dir_all(&logged).expect("a folder");
    fs::write(logged.join("MLmodel"), "flavors:\n  onnx: {data: model.onnx}\n").expect("a file");
    fs::write(logged.join("model.onnx"), model_bytes("add_two")).expect("a file");
    let answers = tracking(&format!("s3://{BUCKET}/logged/1"), "[]");
    let into = tempfile::tempdir().expect("a folder");
    let mut command = command();
    command.arg("pull").arg(format!("mlflow+{}/m@live", answers.base())).arg(into.path());
    command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
    command.env("AWS_ENDPOINT_URL", store.endpoint()).env("AWS_REGION", "us-east-1");
    let output = command.output().expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(into.path().join("m/1/model.onnx")).expect("it is here"), model_bytes("add_two"));
}
