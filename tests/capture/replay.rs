//! Captured requests sent to a running server once more: answers are compared, ids have a prefix, what is late or fails is
//! told, and what cannot be sent is refused. When requests are due is a function, tested where it stands.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{capturing, gannet, read, table, written};
use crate::{
    drift::rows::send_all,
    support::{
        call,
        certificates::Authority,
        folder::Folder,
        server::{Server, command},
        wait,
    },
};

/// What a server captured of `m`, and the folder where it lies.
struct Capture {
    place: TempDir,
    _server: Server,
}

impl Capture {
    /// So many requests with the ids `row-0` and so on; the first value of each is its number.
    fn of_add_one(count: u64) -> Self {
        let folder = Folder::with_add_one();
        let place = tempfile::tempdir().expect("a folder");
        let server = capturing(&folder, place.path());
        let body = |number: u64| {
            json!({ "id": format!("row-{number}"), "inputs": [
                { "name": "x", "shape": [1, 3], "datatype": "FP32", "data": [number, 0.5, -1] },
            ] })
        };
        send_all(&server, "m", &(0..count).map(body).collect::<Vec<Value>>());
        written(&server, count);
        Self { place, _server: server }
    }

    fn at(&self) -> String {
        self.place.path().display().to_string()
    }

    /// Replays it against a server: the exit code, and the report.
    #[track_caller]
    fn replay(&self, server: &Server, more: &[&str]) -> (Option<i32>, Value) {
        let (at, url) = (self.at(), url(server));
        let mut arguments = vec!["replay", &at, "--model", "m", "--against", &url, "--json"];
        arguments.extend(more);
        let (code, said, why) = gannet(&arguments);
        (code, serde_json::from_str(&said).unwrap_or_else(|_| panic!("{code:?} {said} {why}")))
    }
}

fn url(server: &Server) -> String {
    format!("http://{}", server.http())
}

/// A server whose `m` has both versions.
fn both_versions(place: &TempDir) -> Server {
    let folder = Folder::with_add_one();
    folder.put("m/2", "add_two");
    folder.write("m/model.toml", "versions = \"all\"\n");
    capturing(&folder, place.path())
}

#[test]
fn a_server_behind_tls_and_a_token_is_asked_too() {
    let capture = Capture::of_add_one(20);
    let authority = Authority::new("the authority");
    let signed = authority.sign("server");
    let token = capture.place.path().join("token");
    std::fs::write(&token, "t0ken\n").expect("a file");
    let server = Server::start(&Folder::with_add_one().path(), |config| {
        (config.tls.certificate, config.tls.key) = (Some(signed.certificate), Some(signed.key));
        config.inference_token_file = Some(token.clone());
    });
    let replay = |trusted: &Authority, more: &[&str]| {
        let mut command = command();
        command.args(["replay", &capture.at(), "--model", "m", "--against"]);
        command.arg(format!("https://localhost:{}", server.http().port())).args(more);
        let output = command.env("SSL_CERT_FILE", trusted.certificate()).output().expect("the command runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), said)
    };
    let token = token.display().to_string();
    let shown = ["--against-token-file", &token];
    let (code, said) = replay(&authority, &shown);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = replay(&authority, &[]);
    assert!(code == Some(2) && said.contains("Bearer <token>"), "{said}");
    let (code, said) = replay(&Authority::new("another"), &shown);
    assert!(code == Some(2) && said.contains("certificate"), "{said}");
    let (code, said) = replay(&authority, &["--against-token-file", "/nonexistent"]);
    assert!(code == Some(2) && said.contains("--against-token-file: /nonexistent"), "{said}");
}

#[test]
fn captured_requests_are_answered_by_another_server_and_compared() {
    let capture = Capture::of_add_one(200);
    let place = tempfile::tempdir().expect("a folder");
    let server = both_versions(&place);
    let (code, report) = capture.replay(&server, &["--against-version", "1"]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(
        (&report["within"], &report["compared"], &report["disagreed"], &report["failed"]),
        (&json!(true), &json!(200), &json!(0), &json!(0)),
        "{report}"
    );
    let replay = &report["replay"];
    assert_eq!(
        (&replay["versions"], &replay["failures"], &report["interrupted"]),
        (&json!({ "1": 200 }), &json!({}), &json!(false)),
        "{report}"
    );
    for latency in ["captured", "captured_compute", "from_due", "from_sent", "late"] {
        let figures = &replay["latency_ms"][latency];
        let [p50, p99, max] = ["p50", "p99", "max"].map(|figure| figures[figure].as_f64());
        assert!(p50.is_some() && p50 <= p99 && p99 <= max, "{latency}: {replay}");
    }
    // the second server captured them too, and takes none for a first one
    written(&server, 200);
    let found = read(&table(place.path(), "m"));
    let ids: Vec<&str> =
        found["ids"].as_array().expect("ids").iter().map(|id| id.as_str().expect("a text")).collect();
    assert!(ids.len() == 200 && ids.iter().all(|id| id.starts_with("replay-row-")), "{ids:?}");

    // another version, as fast as it goes, and only some
    let more = ["--against-version", "2", "--speed", "max", "--requests", "50", "--id-prefix", "again-"];
    let (code, report) = capture.replay(&server, &more);
    assert_eq!(
        (code, &report["within"], &report["compared"], &report["disagreed"]),
        (Some(1), &json!(false), &json!(50), &json!(50)),
        "{report}"
    );
    let worst = report["worst"].as_array().expect("a list");
    assert!(
        worst.iter().all(|worst| worst["id"].as_str().is_some_and(|id| id.starts_with("row-"))),
        "{report}"
    );
    assert!(worst[0]["what"].as_str().is_some_and(|what| what.contains("output 'y'")), "{report}");
    assert_eq!(report["replay"]["latency_ms"]["from_due"], Value::Null, "nothing is due: {report}");
    let (code, report) = capture.replay(&server, &["--against-version", "2", "--differing-max", "1"]);
    assert_eq!(code, Some(0), "{report}");

    let at = capture.at();
    let (code, said, why) = gannet(&["replay", &at, "--model", "m", "--against", &url(&server)]);
    assert_eq!(code, Some(1), "{said} {why}");
    for part in
        ["m at http://127.0.0.1:", "200 requests, 200 answered otherwise", "answered by version 2: 200"]
    {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
    assert!(said.contains("replayed, from when it was due") && said.contains("MORE THAN"), "{said}");
}

#[test]
fn all_models_are_replayed_at_once_with_texts_and_flags() {
    let folder = Folder::with_add_one();
    folder.put("texts/1", "identity_string");
    folder.put("flags/1", "identity_bool");
    let place = tempfile::tempdir().expect("a folder");
    let first = capturing(&folder, place.path());
    let body = |model: &str, datatype: &str, data: Value| {
        let name = call::get(first.http(), &format!("/v2/models/{model}")).ok()["inputs"][0]["name"].clone();
        let shape = [1, data.as_array().expect("a list").len()];
        json!({ "inputs": [{ "name": name, "shape": shape, "datatype": datatype, "data": data }] })
    };
    let texts = body("texts", "BYTES", json!(["ü", "", "a\"b"]));
    let flags = body("flags", "BOOL", json!([true, false, true]));
    for _ in 0..10 {
        call::add(first.http(), "m").expect("an answer");
        call::post(first.http(), "/v2/models/texts/infer", &texts).ok();
        call::post(first.http(), "/v2/models/flags/infer", &flags).ok();
    }
    written(&first, 30);
    let second = Server::start(&folder.path(), |_| {});
    let (at, url) = (place.path().display().to_string(), url(&second));
    let (code, said, why) = gannet(&["replay", &at, "--against", &url, "--speed", "10", "--json"]);
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said} {why}"));
    assert_eq!(
        (code, &report["compared"], &report["against"]["models"]),
        (Some(0), &json!(30), &json!(["flags", "m", "texts"])),
        "{report}"
    );
}

#[test]
fn what_is_late_is_told_and_nothing_is_left_out() {
    let capture = Capture::of_add_one(40);
    let folder = Folder::new();
    folder.put("m/1", "add_one_slow");
    let server = Server::start(&folder.path(), |_| {});
    // all are due at once, and one at a time is let go
    let (code, report) = capture.replay(&server, &["--speed", "1000000", "--concurrency", "1"]);
    assert_eq!((code, &report["compared"]), (Some(0), &json!(40)), "{report}");
    let replay = &report["replay"];
    assert!(replay["late"].as_u64() > Some(20), "{replay}");
    let ms = |latency: &str, figure: &str| replay["latency_ms"][latency][figure].as_f64().expect("a number");
    // a user would have waited for those before too
    assert!(ms("from_due", "p50") > 3.0 * ms("from_sent", "p50"), "{replay}");
    assert!(ms("late", "max") > 100.0, "{replay}");
}

#[test]
fn requests_that_a_server_fails_are_told_by_why() {
    let capture = Capture::of_add_one(20);
    let folder = Folder::new();
    // fails what begins with eight or more
    folder.put("m/1", "add_one_fails");
    let server = Server::start(&folder.path(), |_| {});
    let (code, report) = capture.replay(&server, &[]);
    assert_eq!(
        (code, &report["compared"], &report["failed"], &report["replay"]["failures"]),
        (Some(1), &json!(8), &json!(12), &json!({ "status 400": 12 })),
        "{report}"
    );
    let (code, report) = capture.replay(&server, &["--failing-max", "0.6"]);
    assert_eq!(code, Some(0), "{report}");
}

#[test]
fn an_interrupted_replay_tells_what_it_found() {
    let capture = Capture::of_add_one(100);
    let folder = Folder::with_add_one();
    let server = Server::start(&folder.path(), |_| {});
    let (at, url) = (capture.at(), url(&server));
    let mut command = command();
    // a millisecond takes a quarter of an hour
    command.args(["replay", &at, "--model", "m", "--against", &url, "--speed", "0.000001", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let series = "gannet_requests_total{model=\"m\",version=\"1\",outcome=\"ok\"}";
    wait::until("a request was answered", || call::sample(&server, series) > Some(0.0));
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a number")).expect("a process");
    kill_process(pid, Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!((output.status.code(), &report["interrupted"]), (Some(0), &json!(true)), "{report}");
    let compared = report["compared"].as_u64().expect("a number");
    assert!((1..100).contains(&compared), "{report}");
}

#[test]
fn what_cannot_be_sent_is_refused_before_anything_is() {
    let capture = Capture::of_add_one(1);
    let folder = Folder::new();
    folder.put("other/1", "add_one");
    let server = Server::start(&folder.path(), |_| {});
    let (at, url) = (capture.at(), url(&server));
    let check = |more: &[&str], code: i32, part: &str| {
        let mut arguments = vec!["replay", &at];
        arguments.extend(more);
        let (found, said, why) = gannet(&arguments);
        assert!(found == Some(code) && why.contains(part), "{more:?}: {found:?} {said} {why}");
    };
    let nobody = format!("http://127.0.0.1:{}", crate::support::mlflow::free_port());
    check(&["--against", &url], 2, "expected the model 'm', got none: status 404");
    check(&["--against", &nobody], 2, "Connection refused");
    check(&["--against", "ftp://host"], 2, "--against: expected http://HOST:PORT");
    check(&["--against", &url, "--against-version", "1"], 2, "expected --model with it");
    check(&[], 2, "--candidate");
    check(&["--against", &url, "--candidate", "x"], 2, "cannot be used with");
    check(&["--candidate", "x", "--speed", "2"], 2, "cannot be used with '--speed <X|max>'");
    check(&["--against", &url, "--speed", "fast"], 2, "expected a number above 0");
    check(&["--against", &url, "--concurrency", "0"], 2, "1..=4096");
    check(&["--against", &url, "--pause-max=-1"], 2, "expected seconds from 0 to 86400");

    let folder = Folder::with_add_one();
    folder.write("m/model.toml", "[redaction.inputs]\nx = \"mask\"\n");
    let place = tempfile::tempdir().expect("a folder");
    let first = capturing(&folder, place.path());
    call::add(first.http(), "m").expect("an answer");
    written(&first, 1);
    let at = place.path().display().to_string();
    let (code, _, why) = gannet(&["replay", &at, "--against", &url]);
    assert!(code == Some(2) && why.contains("redacted ones (x)"), "{why}");
}
