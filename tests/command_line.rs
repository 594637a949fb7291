//! The `gannet` command: what it prints, how it ends, and what it says when something is wrong.

use std::{fs, net::TcpListener, process::Output};

use serde_json::Value;

use crate::support::{
    call::call,
    folder::{Folder, model_bytes},
    server::{Process, command, fixture, zoo},
};

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Runs the command to its end.
fn run(arguments: &[&str]) -> Ended {
    command().args(arguments).output().unwrap().into()
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

/// Arguments that start a server on free ports.
fn serve_arguments<'a>(state: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let free = "127.0.0.1:0";
    let mut all = vec!["--http", free, "--grpc", free, "--metrics", free, "--admin", free, "--state", state];
    all.extend(rest);
    all
}

#[test]
fn help_and_version() {
    let help = run(&["--help"]);
    assert_eq!(help.code, Some(0));
    contains(
        &help.out,
        &["Usage: gannet", "check", "models", "--http", "--model-control", "Examples:", "Exit codes:"],
    );
    assert!(help.err.is_empty(), "{}", help.err);
    for command in ["serve", "check", "models"] {
        let help = run(&[command, "--help"]);
        assert_eq!(help.code, Some(0));
        contains(&help.out, &["Usage: gannet", "Examples:"]);
    }
    let version = run(&["--version"]);
    assert_eq!(
        (version.code, version.out.as_str()),
        (Some(0), concat!("gannet ", env!("CARGO_PKG_VERSION"), "\n"))
    );
    let unknown = run(&["--htpp", "x"]);
    assert_eq!(unknown.code, Some(64));
    contains(&unknown.err, &["--htpp", "--http"]);
}

#[test]
fn all_faults_of_a_configuration_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gannet.toml");
    fs::write(&file, "[listen]\nhttp = 5\nhtpp = \"x\"\n\n[repository]\nmodel_control = \"sometimes\"\n")
        .unwrap();
    let file = file.display().to_string();
    let mut command = command();
    command.args(["--config", &file, "--grpc", "nowhere", "--set", "limits.body_bytes_max=lots"]);
    command.args(["--set", "nonsense", "/nonexistent/models"]);
    let ended: Ended = command.env("GANNET_RUNTIME_IO_THREADS", "0").output().unwrap().into();
    assert_eq!(ended.code, Some(64), "{}", ended.err);
    assert!(ended.out.is_empty(), "{}", ended.out);
    let lines = |number: u32| format!("{file}:{number}");
    contains(&ended.err, &[&lines(2), &lines(3), &lines(6), "htpp", "sometimes", "poll, explicit or none"]);
    contains(&ended.err, &["--grpc", "nowhere", "lots", "nonsense", "GANNET_RUNTIME_IO_THREADS"]);
}

#[test]
fn an_admin_port_for_all_wants_a_token_file() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().display().to_string();
    let mut arguments = serve_arguments(&state, &[]);
    arguments.retain(|argument| *argument != "--admin");
    let ended = run(&["--admin", "0.0.0.0:0", "--state", &state]);
    assert_eq!(ended.code, Some(64));
    contains(&ended.err, &["--admin", "0.0.0.0:0", "--admin-token-file"]);
}

#[test]
fn a_model_that_would_be_served_passes_the_check() {
    let path = zoo().join("iris").display().to_string();
    let ended = run(&["check", &path]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    contains(
        &ended.out,
        &["model", "batch axis", "iris", "ok", "input FP32[-1,4]", "3 of 3", "everything would be served"],
    );
    let ended = run(&["check", &path, "--json"]);
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((ended.code, &report["ok"]), (Some(0), &Value::Bool(true)));
    assert_eq!(report["versions"][0]["serving"]["golden"]["passed"], 3);
}

#[test]
fn a_model_that_would_be_refused_fails_the_check() {
    let folder = Folder::with_add_one();
    let bytes = model_bytes("add_two");
    folder.write("bad/1/model.onnx", &bytes[..bytes.len() / 2]);
    let ended = run(&["check", &folder.path().display().to_string()]);
    assert_eq!(ended.code, Some(1));
    contains(&ended.out, &["REFUSED", "bad/1", "1 of 2 versions load", "not everything would be served"]);
    let ended = run(&["check", "/nonexistent/model.onnx"]);
    assert_eq!(ended.code, Some(1));
    contains(&ended.err, &["/nonexistent/model.onnx"]);
}

#[test]
fn the_banner_shows_a_request_that_works() {
    let state = tempfile::tempdir().unwrap();
    let server = Process::start(state.path(), &[]);
    contains(&server.banner, &["Gannet ", "serving", "iris 1", "models/zoo"]);
    let line = server.banner.lines().find(|line| line.contains("curl ")).unwrap().trim();
    let rest = line.strip_prefix("curl http://").unwrap();
    let (url, body) = rest.split_once(" -d ").unwrap();
    let (address, path) = url.split_once('/').unwrap();
    let body = body.strip_prefix('\'').and_then(|body| body.strip_suffix('\'')).unwrap();
    // what curl sends with -d
    let headers = ["content-type: application/x-www-form-urlencoded", "accept: */*"];
    let answer = call(address, &format!("POST /{path}"), &headers, body.as_bytes());
    assert!(answer.ok()["outputs"][0]["data"].is_array(), "{answer:?}");
}

/// The address in a line of the banner, such as that of `admin`.
fn address<'a>(server: &'a Process, name: &str) -> &'a str {
    let line = server.banner.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
    line.split("http://").nth(1).unwrap().split('/').next().unwrap()
}

#[test]
fn a_running_server_can_be_asked_for_its_models() {
    let folder = Folder::with_add_one();
    folder.write("bad/1/model.onnx", "text");
    let state = tempfile::tempdir().unwrap();
    let server = Process::start(state.path(), &[&folder.path().display().to_string()]);
    let admin = format!("http://{}", address(&server, "admin"));
    let ended = run(&["models", "--admin", &admin]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    contains(&ended.out, &["model", "state", "m ", "READY", "bad", "UNAVAILABLE", "bad/1"]);
    let ended = run(&["models", "--admin", &admin, "--json"]);
    let list: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(list["models"][1]["name"], "m");
    let config = call(address(&server, "admin"), "GET /admin/v1/config", &[], b"").ok();
    assert_eq!(config["listen.http"]["source"], "--http");
    assert_eq!(config["repository.paths"]["source"], "PATH");
    assert_eq!(config["limits.body_bytes_max"]["source"], "default");
    drop(server);
    let ended = run(&["models", "--admin", &admin]);
    assert_eq!(ended.code, Some(69));
    contains(&ended.err, &[&admin, "--admin"]);
}

#[test]
fn a_library_of_the_engine_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let bad = folder.path().join("libonnxruntime.so");
    fs::write(&bad, "no library").unwrap();
    for path in [bad, folder.path().join("missing.so")] {
        let path = path.display().to_string();
        let model = fixture("add_one").join("model.onnx").display().to_string();
        for arguments in [serve_arguments(&state, &[&model]), vec!["check", &model]] {
            let ended: Ended =
                command().env("ORT_DYLIB_PATH", &path).args(arguments).output().unwrap().into();
            assert_eq!(ended.code, Some(69), "{}", ended.err);
            contains(&ended.err, &[&path, "ORT_DYLIB_PATH"]);
        }
    }
}

#[test]
fn a_port_in_use_is_told_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let state = tempfile::tempdir().unwrap();
    let state = state.path().display().to_string();
    let mut arguments = serve_arguments(&state, &[]);
    arguments[1] = &address;
    let ended = run(&arguments);
    assert_eq!(ended.code, Some(1));
    contains(&ended.err, &["listen.http", "--http", &address, "another port"]);
}
