//! What following many models costs, from a folder and from an object store: requests, processor time and seconds, cold
//! and idle. Prints its figures; holds only the counts of requests, which do not depend on the machine. Must not know
//! how models are loaded: none is.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use gannet_runtime::clock;
use gannet_server::config::Config;

use crate::support::{
    call,
    folder::model_bytes,
    mlflow::free_port,
    proof::scaled,
    s3::{BUCKET, KEY, S3, SECRET},
    server::command,
    wait,
};

const VERSIONS: usize = 3;
/// How often an idle source is looked at here.
const POLL_S: u64 = 2;
/// Nothing is loaded unless it is asked for.
const UNASKED: [&str; 4] = ["--model-control", "explicit", "--load-model", "nothing"];

/// Processor time of a process, in seconds.
fn processor_s(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process that runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("a number");
    // user and system, in hundredths of a second
    (ticks(11) + ticks(12)) / 100.0
}

/// Waits for a while in which nothing is expected to happen.
fn pass(time: Duration) {
    let _ = wait::holds_within(time, || false);
}

/// A server that serves nothing of what it knows. Killed when dropped.
struct Idle {
    child: Child,
    port: u16,
}

impl Idle {
    fn start(state: &Path, arguments: &[&str]) -> Self {
        let port = free_port();
        let mut command = command();
        command.args(["--set", "log.level=off"]);
        command.args([
            "--http",
            &format!("127.0.0.1:{port}"),
            "--grpc",
            "off",
            "--metrics",
            "off",
            "--admin",
            "off",
        ]);
        command.arg("--state").arg(state).args(arguments).stdout(Stdio::null());
        Self { child: command.spawn().expect("the server starts"), port }
    }

    /// Versions that it knows.
    fn count(&self) -> usize {
        let answer = call::try_call(("127.0.0.1", self.port), "POST /v2/repository/index", &[], b"{}");
        answer.map_or(0, |answer| answer.json().as_array().map_or(0, Vec::len))
    }

    fn processor_s(&self) -> f64 {
        processor_s(self.child.id())
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_thousand_models_are_followed_at_little_cost() {
    // time that idle costs are measured for
    let idle_time = Duration::from_secs(scaled(4, 20));
    let models = usize::try_from(scaled(20, 1000)).expect("a count");
    let wanted = models * VERSIONS;
    let mut store = S3::start();
    let work = tempfile::tempdir().expect("a folder");
    let secret = work.path().join("login");
    fs::write(&secret, format!("{KEY}:{SECRET}")).expect("a file");
    // as `gannet push` lays them out
    let bytes = model_bytes("add_one");
    let package = tempfile::tempdir().expect("a folder");
    fs::write(package.path().join("model.onnx"), &bytes).expect("a file");
    store.stop();
    let manifest = manifest(&bytes);
    for model in 0..models {
        for version in 1..=VERSIONS {
            let folder = store.path(&format!("many/m{model:04}/{version}"));
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join("model.onnx"), &bytes).expect("a file");
            fs::write(folder.join("manifest.json"), &manifest).expect("a file");
        }
    }
    store.run();
    let config = work.path().join("gannet.toml");
    let text = format!(
        "[[models.source]]\nname = \"many\"\nuri = \"s3://{BUCKET}/many\"\nversions = \"all\"\npoll_s = {POLL_S}\n\
         endpoint = \"{}\"\ncredentials = \"file:{}\"\n",
        store.endpoint(),
        secret.display()
    );
    fs::write(&config, text).expect("a file");
    let config = config.display().to_string();
    let started = clock::now();
    let process = Idle::start(&work.path().join("state"), &[&["--config", &config], &UNASKED[..]].concat());
    let bound = Duration::from_secs(900);
    let done = wait::holds_within(bound, || {
        pass(Duration::from_millis(100));
        process.count() == wanted
    });
    assert!(done, "{} of {wanted} versions", process.count());
    let cold = (store.requests(), process.processor_s(), clock::now() - started);
    pass(Duration::from_secs(1));
    let before = (store.requests(), process.processor_s());
    pass(idle_time);
    let idle = (store.requests() - before.0, process.processor_s() - before.1);
    // the cold start looks once, and takes a list and a file for each version
    let lists = cold.0.saturating_sub(2 * wanted as u64).max(1);
    let looks = (idle.0 as f64 / lists as f64).max(1.0);
    println!(
        "{models} models of {VERSIONS} versions, object store: cold {} requests, {:.2} s of one core, {:.2} s; idle, a look: \
         {} requests, {:.4} s of one core",
        cold.0,
        cold.1,
        cold.2.as_secs_f64(),
        lists,
        idle.1 / looks,
    );
    // a page lists a thousand objects; on a slow machine there was a second look already
    assert!(lists as usize <= 3 * (wanted * 2 / 1000 + 1), "{lists} lists");
    assert!(idle.0 <= lists * (idle_time.as_secs() / POLL_S + 2), "{} requests", idle.0);
    drop(process);

    // a watched folder whose settings choose none of its versions
    for model in 0..models {
        fs::write(store.path(&format!("many/m{model:04}/model.toml")), "versions = [\"none\"]\n")
            .expect("a file");
    }
    let folder = store.path("many").display().to_string();
    let started = clock::now();
    let process = Idle::start(&work.path().join("folder"), &[&folder]);
    let done = wait::holds_within(bound, || {
        pass(Duration::from_millis(100));
        process.count() == models
    });
    assert!(done, "{} of {models}", process.count());
    let cold = (process.processor_s(), clock::now() - started);
    let before = process.processor_s();
    pass(idle_time);
    let looks = idle_time.as_secs_f64() / Config::new("/".into()).repository.scan.as_secs_f64();
    println!(
        "{models} models of {VERSIONS} versions, folder: cold {:.2} s of one core, {:.2} s; idle, a look: {:.4} s of one core",
        cold.0,
        cold.1.as_secs_f64(),
        (process.processor_s() - before) / looks,
    );
}

/// The list of a package that holds one model file.
fn manifest(bytes: &[u8]) -> String {
    use gannet_models::{Digest, digest::FileEntry};
    let digest = Digest::of(bytes);
    let size = bytes.len() as u64;
    let whole = Digest::of_tree(&[FileEntry { path: "model.onnx".into(), size, digest }]);
    let file = serde_json::json!({ "path": "model.onnx", "size": size, "sha256": digest.to_string() });
    let list =
        serde_json::json!({ "format": "gannet-package/1", "digest": whole.to_string(), "files": [file] });
    list.to_string()
}
