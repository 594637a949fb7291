//! Captured requests: other people's readers open the tables, a crash loses little and leaves a gap, redacted values are
//! nowhere, and what was captured is replayed, judged and erased. Must not know how tables are written.

mod events;
mod replay;
mod retrain;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use gannet_server::config::{Credentials, Root};
use serde_json::{Value, json};

use crate::{
    drift::{
        rows::{Rows, send, send_all},
        tumours,
    },
    support::{
        call,
        environment::{Environment, bounded},
        folder::Folder,
        random::Random,
        s3::{BUCKET, KEY, S3, SECRET},
        server::{Process, Server, command, root},
        wait,
    },
};

/// Time for a reader of another language.
const READ_BOUND: Duration = Duration::from_secs(120);

fn capturing(folder: &Folder, place: &Path) -> Server {
    capturing_as("", folder, place)
}

/// As a server of that name.
fn capturing_as(name: &str, folder: &Folder, place: &Path) -> Server {
    Server::start(&folder.path(), |config| {
        config.capture.root = Some(Root::Folder(place.to_owned()));
        config.capture.tap.rate = 1.0;
        config.capture.flush = Duration::from_millis(100);
        config.registry.server_name = name.into();
    })
}

fn status(server: &Server) -> Value {
    call::get(server.admin(), "/admin/v1/capture").ok()
}

#[track_caller]
fn written(server: &Server, rows: u64) {
    wait::until(&format!("{rows} rows are written"), || status(server)["counts"]["rows"] == rows);
}

/// The one table of a model.
fn table(place: &Path, model: &str) -> PathBuf {
    let found: Vec<PathBuf> = fs::read_dir(place.join(model))
        .expect("the model's folder")
        .map(|item| item.expect("one").path())
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// What deltalake and DuckDB find in a table.
fn read(table: &Path) -> Value {
    let mut python = Command::new(Environment::Capture.python());
    python.arg(root().join("tests/peers/capture_reader.py")).arg(table);
    let (passed, output) = bounded(python, READ_BOUND);
    assert!(passed, "{output}");
    let line = output.lines().rev().find(|line| line.starts_with('{')).expect("a line of JSON");
    let found: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(found["duckdb"][0], found["rows"], "both find the same: {found}");
    found
}

/// Runs a command: its exit code, what it printed, and what it complained of.
fn gannet(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command().args(arguments).output().expect("the command runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn sequences(found: &Value) -> Vec<u64> {
    found["sequences"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|number| number.as_u64().expect("one"))
        .collect()
}

#[test]
fn what_is_captured_is_read_replayed_judged_and_erased() {
    let (folder, rows) = tumours();
    let place = tempfile::tempdir().expect("a folder");
    let server = capturing(&folder, place.path());
    let classes = send(&server, &rows, 300, |_| {});
    written(&server, 300);
    let shown = status(&server);
    assert_eq!((&shown["enabled"], &shown["counts"]["dropped_queue_full"]), (&json!(true), &json!(0)));
    assert_eq!(shown["tables"][0]["model"], "breast_cancer", "{shown}");
    let metrics = call::get(server.metrics(), "/metrics").text;
    assert!(metrics.contains("gannet_capture_rows_total 300"), "{metrics}");

    let table = table(place.path(), "breast_cancer");
    let found = read(&table);
    assert_eq!(found["rows"], 300);
    assert_eq!(sequences(&found), (0..300).collect::<Vec<u64>>());
    let ids: BTreeSet<&str> =
        found["ids"].as_array().expect("ids").iter().map(|id| id.as_str().expect("a text")).collect();
    assert!(ids.len() == 300 && ids.contains("row-0") && ids.contains("row-299"));
    // times have microseconds: of one in a thousand they happen to be 0
    assert!(found["fine_times"].as_u64() > Some(250), "{found}");
    let first = &found["first"];
    assert_eq!(
        (&first["version"], &first["probability"], &first["rows"]),
        (&json!("1"), &json!(1.0), &json!(1))
    );
    assert_eq!(first["in_features_shape"], json!([1, 30]), "{first}");
    assert_eq!(first["in_features"].as_array().map(Vec::len), Some(30));
    assert!(
        first["compute_ns"].as_u64() > Some(0) && first["total_ns"].as_u64() > first["compute_ns"].as_u64()
    );

    let at = place.path().display().to_string();
    let (code, listed, why) = gannet(&["capture", "ls", &at, "--json"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!((code, &listed[0]["rows"]), (Some(0), &json!(300)), "{why}");

    // the same version answers the same; one that answers otherwise is found out
    let same = root().join("models/zoo/breast_cancer/1").display().to_string();
    let replay = |candidate: &str| {
        gannet(&["replay", &at, "--model", "breast_cancer", "--candidate", candidate, "--json"])
    };
    let (code, said, why) = replay(&same);
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said} {why}"));
    assert_eq!(
        (code, &report["compared"], &report["disagreed"]),
        (Some(0), &json!(300), &json!(0)),
        "{report}"
    );
    let other = root().join("models/zoo/iris/1").display().to_string();
    let (code, said, _) = replay(&other);
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &report["failed"]), (Some(1), &json!(300)), "{report}");
    assert_eq!(replay("/nonexistent").0, Some(2));

    // labels as they were answered, but for a tenth
    let labels = place.path().join("labels.csv");
    let lines = classes.iter().enumerate().map(|(at, class)| {
        let label = if at % 10 == 0 { 1 - class } else { *class };
        format!("row-{at},{label}\n")
    });
    fs::write(&labels, format!("request_id,label\n{}", lines.collect::<String>())).expect("a file");
    let labels = labels.display().to_string();
    let (code, said, why) =
        gannet(&["evaluate", &at, "--model", "breast_cancer", "--labels", &labels, "--json"]);
    let judged: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said} {why}"));
    let version = &judged[0]["versions"][0];
    let accuracy = version["accuracy"].as_f64().expect("an accuracy");
    assert!(code == Some(0) && (accuracy - 0.9).abs() < 1e-9, "{judged}");
    assert!(version["brier"].is_number() && version["calibration_error"].is_number(), "{judged}");

    let (code, said, why) = gannet(&["capture", "erase", &at, "--request-id", "row-5"]);
    assert!(code == Some(0) && said.starts_with("1 rows"), "{said} {why}");
    let found = read(&table);
    assert_eq!(found["rows"], 299);
    assert!(!found["ids"].as_array().expect("ids").contains(&json!("row-5")));
    assert!(!holds(&table, b"row-5\0") && !in_any_file(&table, "row-5,"), "nowhere");
    // capturing goes on beside
    send(&server, &rows, 20, |_| {});
    written(&server, 320);
    assert_eq!(read(&table)["rows"], 319);
}

#[test]
fn small_files_are_joined_and_every_row_stays() {
    let (folder, rows) = tumours();
    let place = tempfile::tempdir().expect("a folder");
    let server = capturing(&folder, place.path());
    for sent in 1..=30_u64 {
        send(&server, &rows, 1, |_| {});
        written(&server, sent);
    }
    let table = table(place.path(), "breast_cancer");
    let (at, found) = (place.path().display().to_string(), read(&table));
    // eight at a time, and those that came since
    assert_eq!(
        (&found["rows"], &found["duckdb"][0], sequences(&found)),
        (&json!(30), &json!(30), (0..30).collect::<Vec<u64>>()),
        "{found}"
    );
    assert!(found["files"].as_u64() < Some(12), "{found}");
    drop(server);
    // what two others left, who are not yet at eight, is joined by hand
    for name in ["a", "b"] {
        let server = capturing_as(name, &folder, place.path());
        for sent in 1..=5_u64 {
            send(&server, &rows, 1, |_| {});
            written(&server, sent);
        }
    }
    let (code, said, why) = gannet(&["capture", "join", &at]);
    assert!(code == Some(0) && said.contains("files became 1"), "{said}{why}");
    let after = read(&table);
    assert_eq!((&after["rows"], &after["duckdb"][0]), (&json!(40), &json!(40)), "{after}");
    assert!(after["files"].as_u64() < Some(10), "{after}");
    let (code, said, why) = gannet(&["capture", "erase", &at, "--request-id", "row-0"]);
    assert!(code == Some(0) && said.starts_with("40 rows"), "{said} {why}");
    assert!(!in_any_file(&table, "row-0,"), "nowhere");
}

/// Whether a file below holds these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).expect("a folder").flatten().any(|item| {
        let path = item.path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        fs::read(&path).expect("a file").windows(bytes.len()).any(|window| window == bytes)
    })
}

fn in_any_file(folder: &Path, text: &str) -> bool {
    holds(folder, text.as_bytes())
}

#[test]
fn a_killed_server_leaves_a_table_that_opens_and_a_gap() {
    let (folder, rows) = tumours();
    let place = tempfile::tempdir().expect("a folder");
    let state = folder.beside("state");
    let root = format!("capture.root={}", place.path().display());
    let repository = folder.path().display().to_string();
    let arguments = [
        "--repository",
        &repository,
        "--set",
        &root,
        "--set",
        "capture.rate=1",
        "--set",
        "capture.flush_ms=200",
    ];
    let start = || {
        let process = Process::start(&state, &arguments);
        let path = "/v2/models/breast_cancer/ready";
        wait::until("it is ready", || call::get(&*process.http, path).status == 200);
        process
    };
    let ask = |process: &Process, rows: &Rows, id: &str| {
        let row = &rows.rows[0];
        let body = json!({ "id": id, "inputs": [
            { "name": rows.input, "shape": [1, row.len()], "datatype": "FP32", "data": row },
        ] });
        call::post(&*process.http, "/v2/models/breast_cancer/infer", &body).ok();
    };
    let mut process = start();
    let files = || match fs::read_dir(place.path().join("breast_cancer")) {
        Ok(tables) => tables.flatten().filter(|table| holds(&table.path(), b"PAR1")).count(),
        Err(_) => 0,
    };
    let mut asked = 0;
    wait::until("some rows are written", || {
        ask(&process, &rows, &format!("before-{asked}"));
        asked += 1;
        files() > 0
    });
    for more in 0..50 {
        ask(&process, &rows, &format!("last-{more}"));
    }
    process.child.kill().expect("it runs");
    process.child.wait().expect("it ended");
    let table = table(place.path(), "breast_cancer");
    let found = read(&table);
    let kept = sequences(&found);
    // what was written is whole and without a gap
    assert_eq!(kept, (0..kept.len() as u64).collect::<Vec<u64>>());
    assert!(!kept.is_empty() && kept.len() as u64 <= asked + 50);

    let again = start();
    for more in 0..20 {
        ask(&again, &rows, &format!("after-{more}"));
    }
    let count = || sequences(&read(&table)).len();
    wait::until("the rows after the crash are written", || count() == kept.len() + 20);
    let after = sequences(&read(&table));
    assert!(after[kept.len()] > kept[kept.len() - 1] + 1, "the crash is a gap: {after:?}");
    assert!(after[kept.len()..].windows(2).all(|pair| pair[1] == pair[0] + 1), "{after:?}");
}

#[test]
fn two_servers_write_one_table() {
    let (folder, rows) = tumours();
    let place = tempfile::tempdir().expect("a folder");
    let servers = ["a", "b"].map(|name| {
        Server::start(&folder.path(), |config| {
            config.capture.root = Some(Root::Folder(place.path().to_owned()));
            config.capture.tap.rate = 1.0;
            config.capture.flush = Duration::from_millis(20);
            config.registry.server_name = name.into();
        })
    });
    std::thread::scope(|scope| {
        for server in &servers {
            let rows = &rows;
            scope.spawn(move || {
                for round in 1..=15 {
                    send(server, rows, 20, |_| {});
                    written(server, 20 * round);
                }
            });
        }
    });
    let found = read(&table(place.path(), "breast_cancer"));
    assert_eq!(found["rows"], 600);
    assert!(found["version"].as_u64() > Some(10), "checkpoints were read: {}", found["version"]);
}

#[test]
fn redacted_values_are_nowhere_and_cannot_be_replayed() {
    let folder = Folder::with_add_one();
    let place = tempfile::tempdir().expect("a folder");
    folder.write("m/model.toml", "[redaction.inputs]\nx = \"mask\"\n");
    let server = capturing(&folder, place.path());
    call::add(server.http(), "m").expect("an answer");
    written(&server, 1);
    assert_eq!(status(&server)["tables"][0]["redacted"], json!(["x"]));
    let found = read(&table(place.path(), "m"));
    assert_eq!(
        (&found["first"]["in_x"], &found["first"]["in_x_shape"]),
        (&Value::Null, &json!([1, 3])),
        "{found}"
    );
    let at = place.path().display().to_string();
    let model = folder.path().join("m").display().to_string();
    let (code, _, why) = gannet(&["replay", &at, "--model", "m", "--candidate", &model]);
    assert!(code == Some(2) && why.contains("redacted ones (x)"), "{why}");
    folder.write("m/model.toml", "[redaction.inputs]\ny = \"mask\"\n");
    let message = "the redaction names input 'y', the model has: x";
    wait::until("a name that is none is told", || {
        call::index(server.http(), "m").iter().any(|line| line.2.contains(message))
    });
}

#[test]
fn tables_lie_in_an_object_store_too() {
    let (folder, rows) = tumours();
    let store = S3::start();
    let login = folder.beside("login");
    fs::write(&login, format!("{KEY}:{SECRET}")).expect("a file");
    let server = Server::start(&folder.path(), |config| {
        config.capture.root = Root::parse(&format!("s3://{BUCKET}/captured"));
        config.capture.tap.rate = 1.0;
        config.capture.flush = Duration::from_millis(100);
        config.capture.endpoint = Some(store.endpoint());
        config.capture.credentials = Some(Credentials::File(login.clone()));
    });
    send(&server, &rows, 100, |_| {});
    written(&server, 100);
    let folder = store.path("captured");
    assert_eq!(read(&table(&folder, "breast_cancer"))["rows"], 100);
    let at = format!("s3://{BUCKET}/captured");
    let (endpoint, login) = (store.endpoint(), format!("file:{}", login.display()));
    let (code, said, why) =
        gannet(&["capture", "ls", &at, "--endpoint", &endpoint, "--credentials", &login, "--json"]);
    assert_eq!(code, Some(0), "{why}");
    let listed: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(listed[0]["rows"], 100, "{listed}");
}

#[test]
fn an_object_store_that_overwrites_is_refused_at_the_start() {
    let folder = Folder::with_add_one();
    let store = S3::start_careless();
    let login = folder.beside("login");
    fs::write(&login, format!("{KEY}:{SECRET}")).expect("a file");
    let any = "127.0.0.1:0";
    let mut server = command();
    server.args(["serve", "--http", any, "--grpc", any, "--metrics", any, "--admin", any, "--state"]);
    server.arg(folder.beside("state")).arg("--repository").arg(folder.path());
    for (key, value) in [
        ("capture.root", format!("s3://{BUCKET}/captured")),
        ("capture.endpoint", store.endpoint()),
        ("capture.credentials", format!("file:{}", login.display())),
    ] {
        server.arg("--set").arg(format!("{key}={value}"));
    }
    let (passed, output) = bounded(server, READ_BOUND);
    assert!(!passed, "{output}");
    for part in ["capture.root", "s3://models/captured", "expected a store in which a write can be refused"] {
        assert!(output.contains(part), "{part:?} is missing in\n{output}");
    }
    assert!(!output.contains("was still running"), "{output}");
    let left = store.path("captured");
    assert!(!left.exists() || fs::read_dir(&left).expect("a folder").next().is_none(), "the probe is gone");
}

#[test]
fn captured_traffic_calibrates_a_model_for_a_microcontroller() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = Folder::new();
    folder.write(
        "digits/1/model.onnx",
        fs::read(root().join("models/zoo/digits/1/model.onnx")).expect("a model"),
    );
    let server = capturing(&folder, place.path());
    let mut random = Random::new(7);
    let bodies: Vec<Value> = (0..60)
        .map(|_| {
            let image: Vec<u64> = (0..64).map(|_| random.below(17)).collect();
            json!({ "inputs": [{ "name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": image }] })
        })
        .collect();
    send_all(&server, "digits", &bodies);
    written(&server, 60);
    let table = table(place.path(), "digits").display().to_string();
    let out = folder.beside("bundle").display().to_string();
    let model = folder.path().join("digits/1/model.onnx").display().to_string();
    let (code, said, why) = gannet(&["edge", "compile", &model, "--calibrate", &table, "--out", &out]);
    assert_eq!(code, Some(0), "{said} {why}");
    let (code, said, why) = gannet(&["edge", "verify", &out]);
    assert_eq!(code, Some(0), "{said} {why}");
}
