//! The server's image: made twice it is the same, a tool for images unpacks it, and a runtime for containers runs it, with
//! nothing writable but its state, until it is told to end. Must not know how it is made.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{
    call, debian,
    mlflow::free_port,
    server::{root, zoo},
    wait,
};

/// Time for the server to come up and to go.
const BOUND: Duration = Duration::from_secs(60);

/// Makes an image of the program under test; what the script said.
#[track_caller]
fn build(arguments: &[&str], good: bool) -> String {
    let mut command = Command::new(root().join("server/image/build"));
    let output = command.args(arguments).output().expect("the script runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.success(), good, "{arguments:?}: {said}");
    said
}

/// Runs a tool to its end.
#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
}

/// A container, and what ends it for certain.
struct Container {
    child: Child,
    /// The runtime, and where it keeps what it knows.
    runc: Option<(PathBuf, PathBuf)>,
}

impl Container {
    fn start(bundle: &Path, state: PathBuf) -> Self {
        let runc = debian::program(include_str!("support/runc.lock"), "runc");
        let mut command = Command::new(&runc);
        command.arg("--root").arg(&state).args(["run", "--bundle"]).arg(bundle).arg("gannet");
        Self { child: spawn(&mut command, bundle), runc: Some((runc, state)) }
    }

    /// The image's files alone, with nothing else to be seen: for machines that let nobody make containers.
    fn of_files(bundle: &Path, process: &Value) -> Self {
        let texts = |value: &Value| -> Vec<String> {
            let list = value.as_array().expect("a list");
            list.iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
        };
        let mut command = Command::new("/usr/sbin/chroot");
        command.arg("--userspec=65532:65532").arg(bundle.join("rootfs")).args(texts(&process["args"]));
        command.env_clear();
        for pair in texts(&process["env"]) {
            let (name, value) = pair.split_once('=').expect("a pair");
            command.env(name, value);
        }
        Self { child: spawn(&mut command, bundle), runc: None }
    }

    fn is_gone(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_some()
    }

    fn terminate(&self) {
        match &self.runc {
            Some((runc, state)) => {
                run(Command::new(runc).arg("--root").arg(state).args(["kill", "gannet", "TERM"]))
            }
            None => {
                let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
                kill_process(pid, Signal::TERM).expect("it is there");
            }
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some((runc, state)) = &self.runc {
            let _ =
                Command::new(runc).arg("--root").arg(state).args(["delete", "--force", "gannet"]).output();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &mut Command, bundle: &Path) -> Child {
    let output = fs::File::create(bundle.join("output")).expect("a file");
    command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
    command.spawn().expect("it starts")
}

/// What the image says how it is run, with a port of our own, on this machine's network, and nothing writable but the
/// server's state: as it was, and as it is run.
fn adjust(bundle: &Path, port: u16) -> (Value, Value) {
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    let said = config["process"].clone();
    config["process"]["terminal"] = json!(false);
    let arguments = config["process"]["args"].as_array_mut().expect("a list");
    let http = format!("127.0.0.1:{port}");
    arguments
        .extend(["--http", &http, "--grpc", "off", "--metrics", "off", "--admin", "off"].map(Value::from));
    config["root"]["readonly"] = json!(true);
    let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
    namespaces.retain(|namespace| namespace["type"] != "network");
    let mounts = config["mounts"].as_array_mut().expect("a list");
    let state = json!({ "destination": "/var/lib/gannet", "type": "tmpfs", "source": "tmpfs",
                        "options": ["nosuid", "nodev", "uid=65532", "gid=65532"] });
    mounts.push(state);
    fs::write(path, config.to_string()).expect("a file");
    (said, config["process"].clone())
}

#[test]
fn the_image_is_the_same_each_time_and_runs() {
    let work = tempfile::tempdir().expect("a folder");
    let program = env!("CARGO_BIN_EXE_gannet-under-test");
    let layout = work.path().join("layout");
    let first = build(&["--program", program, "--tag", "gannet:test", &layout.display().to_string()], true);
    let archive = work.path().join("gannet.tar").display().to_string();
    let second = build(&["--program", program, "--tag", "gannet:test", &archive], true);
    let digest =
        |said: &str| said.split_whitespace().find(|word| word.starts_with("sha256:")).map(str::to_owned);
    assert!(digest(&first).is_some() && digest(&first) == digest(&second), "{first}{second}");

    let umoci = debian::program(include_str!("support/umoci.lock"), "umoci");
    let bundle = work.path().join("bundle");
    let image = format!("{}:test", layout.display());
    run(Command::new(umoci).args(["unpack", "--image", &image]).arg(&bundle));
    let port = free_port();
    run(Command::new("cp").arg("-r").arg(zoo().join(".")).arg(bundle.join("rootfs/models")));
    let (said, process) = adjust(&bundle, port);
    assert_eq!(said["user"], json!({ "uid": 65532, "gid": 65532 }), "{said}");
    assert_eq!(said["args"], json!(["/usr/bin/gannet"]), "{said}");

    let output = || fs::read_to_string(bundle.join("output")).unwrap_or_default();
    let ready = || {
        let asked = call::try_call(("127.0.0.1", port), "GET /v2/health/ready", &[], b"");
        asked.is_ok_and(|answer| answer.status == 200)
    };
    let mut container = Container::start(&bundle, work.path().join("state"));
    wait::until("it is ready, or gone", || ready() || container.is_gone());
    if container.is_gone() && output().contains("runc create failed") {
        println!("no container can be made here, only its files are run: {}", output());
        container = Container::of_files(&bundle, &process);
    }
    assert!(wait::holds_within(BOUND, ready), "{}", output());
    let body = json!({ "inputs": [
        { "name": "input", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2] },
    ] });
    let answer = call::post(("127.0.0.1", port), "/v2/models/iris/infer", &body).ok();
    assert_eq!(answer["outputs"][0]["data"], json!([0]), "{answer}");
    container.terminate();
    let mut ended = None;
    wait::until("it ends", || {
        ended = container.child.try_wait().expect("a status");
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{}", output());
}

#[test]
fn what_is_missing_is_told() {
    let place = tempfile::tempdir().expect("a folder");
    let at = place.path().display().to_string();
    let program = env!("CARGO_BIN_EXE_gannet-under-test");
    for (arguments, part) in [
        (vec![], "expected a place for the image, such as gannet.tar"),
        (vec!["--program", "/nonexistent", "x.tar"], "--program: /nonexistent: expected a program, got none"),
        (vec!["--programm", "x"], "unknown option --programm"),
        (vec!["--program", program, "a", "b"], "expected one place for the image, got a and b"),
    ] {
        let said = build(&arguments, false);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    let said = build(&["--program", program, &at], false);
    assert!(said.contains("expected a place where nothing is"), "{said}");
    assert!(build(&["--help"], true).contains("docker load"));
}
