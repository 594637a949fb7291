//! The server is killed between any two steps of a fetch: the next start finds everything sound, serves what served,
//! and ends the fetch. Must not know the steps' order.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{
    call,
    s3::{BUCKET, KEY, S3, SECRET},
    server::{Process, command, fixture},
    wait,
};

/// Every point, and how often it is passed before the kill.
const POINTS: [&str; 15] = [
    "planned:1",
    "reserved:1",
    "piece:1",
    "file:1",
    "downloaded:1",
    "unpacked:1",
    "trusted:1",
    "shaped:1",
    "admit-moved:1",
    "admit-hashed:1",
    "admit-renamed:1",
    "stored:1",
    "stating:1",
    "catalogue-written:1",
    "proved:1",
];

fn push(store: &S3, login: &str, name: &str, version: &str) {
    let mut command = command();
    command.arg("push").arg(fixture(name)).arg(format!("s3://{BUCKET}/m/{version}"));
    command.args(["--endpoint", &store.endpoint(), "--credentials", login]);
    let output = command.output().expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success());
}

#[test]
fn a_kill_between_any_two_steps_loses_nothing() {
    let store = S3::start();
    let work = tempfile::tempdir().expect("a folder");
    let secret = work.path().join("login");
    fs::write(&secret, format!("{KEY}:{SECRET}")).expect("a file");
    let login = format!("file:{}", secret.display());
    let config = work.path().join("gannet.toml");
    let text = format!(
        "[[models.source]]\nname = \"m\"\nuri = \"s3://{BUCKET}/m\"\npoll_s = 1\nendpoint = \"{}\"\n\
         credentials = \"{login}\"\n",
        store.endpoint()
    );
    fs::write(&config, text).expect("a file");
    let config = config.display().to_string();
    push(&store, &login, "add_one", "1");
    let first = work.path().join("first");
    {
        let process = Process::start(&first, &["--config", &config]);
        wait::until("the first version answers", || call::add(&*process.http, "m") == Ok(2.0));
        // noted down, too
        wait::until("the catalogue is written", || first.join("registry/catalogue/m.json").exists());
    }
    push(&store, &login, "add_two", "2");
    for point in POINTS {
        let state = work.path().join(point.replace(':', "-"));
        copy(&first, &state);
        let mut command = command();
        command.args(["--config", &config, "--set", "log.level=error"]);
        for port in ["--http", "--grpc", "--metrics", "--admin"] {
            command.args([port, "127.0.0.1:0"]);
        }
        command.arg("--state").arg(&state).env("FAULT_POINT", point);
        let mut child = command.stdout(Stdio::null()).spawn().expect("the server starts");
        let mut status = None;
        let ended = wait::holds_within(wait::BOUND, || {
            status = child.try_wait().expect("a child of this process");
            status.is_some()
        });
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
        }
        assert_eq!(status.and_then(|status| status.signal()), Some(9), "{point}: it was not passed");
        let process = Process::start(&state, &["--config", &config]);
        // whatever answers until then is the one or the other
        wait::until(&format!("{point}: the second version answers"), || {
            match call::try_add(&*process.http, "m").map(|answer| (answer.status, answer.text)) {
                Ok((200, text)) => {
                    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                    let value = json["outputs"][0]["data"][0].as_f64();
                    assert!(matches!(value, Some(2.0 | 3.0)), "{point}: {text}");
                    value == Some(3.0)
                }
                _ => false,
            }
        });
        drop(process);
        let left = fs::read_dir(state.join("registry/partial")).expect("a folder").flatten();
        let left: Vec<_> =
            left.flat_map(|item| fs::read_dir(item.path()).expect("a folder").flatten()).collect();
        assert!(left.is_empty(), "{point}: {left:?}");
        for tree in fs::read_dir(state.join("store/sha256")).expect("a folder").flatten() {
            assert!(tree.path().join("model.onnx").exists(), "{point}: {tree:?}");
        }
    }
}
