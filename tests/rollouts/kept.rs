//! What holds over crashes, and between writers; and the shares of a million users.

use std::process::Output;

use gannet_runtime::route::{Route, RouteFile, WeightFile};
use gannet_stats::event_share::{SRM_ALPHA, ShareTest};
use serde_json::{Value, json};

use super::{ROLLOUTS, serve, start, versions, weight};
use crate::support::{
    call::{call, get},
    loadtest::Load,
    server::{Process, command},
    wait,
};

/// The admin address of a process.
fn admin(process: &Process) -> String {
    let line = process.banner.lines().find(|line| line.contains("/admin/")).expect("the banner names it");
    line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address").to_owned()
}

#[track_caller]
fn gannet(arguments: &[&str]) -> (bool, String) {
    let Output { status, stdout, stderr } = command().args(arguments).output().unwrap();
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

#[test]
fn a_rollout_goes_on_where_it_stood_after_a_kill() {
    let folder = versions("add_one");
    let (repository, state) = (folder.path().display().to_string(), folder.beside("state"));
    let process = Process::start(&state, &[&repository]);
    let ready = |process: &Process| {
        wait::until("both versions serve", || {
            ["1", "2"].iter().all(|version| {
                get(process.http.as_str(), &format!("/v2/models/m/versions/{version}/ready")).status == 200
            })
        });
    };
    ready(&process);
    let url = format!("http://{}", admin(&process));
    let started = gannet(&[
        "rollout",
        "start",
        "m",
        "--candidate",
        "2",
        "--baseline",
        "1",
        "--stages",
        "5,20,100",
        "--guard",
        "error_rate",
        "--min-requests",
        "300",
        "--min-users",
        "0",
        "--min-seconds",
        "0",
        "--admin",
        &url,
    ]);
    assert!(started.0 && started.1.contains("rollout 1 of m: 1 -> 2"), "{}", started.1);
    let load = Load::start(&process.http, &process.grpc, &super::rows(&folder, 0));
    let rollout = |process: &Process| get(admin(process), ROLLOUTS).ok()["rollouts"][0].clone();
    wait::until("it goes on once", || rollout(&process)["stage"] == 1);
    // held there, so that it stands at the same stage after the kill
    call(admin(&process), &format!("POST {ROLLOUTS}/1/pause"), &[], b"").ok();
    let loaded = load.stop();
    assert_eq!(loaded.failed, 0, "{:?}", loaded.quotes);
    let before = rollout(&process);
    drop(process);

    let log = state.join("rollouts/1.jsonl");
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, [&whole[..], b"{\"sequence\":"].concat()).unwrap();
    let process = Process::start(&state, &[&repository]);
    ready(&process);
    let after = rollout(&process);
    for field in ["id", "stage", "weight_bp", "state", "candidate", "since"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let arms = get(admin(&process), super::TRAFFIC).ok()["arms"].clone();
    assert_eq!((&arms[0]["weight_bp"], &arms[1]["weight_bp"]), (&json!(8000), &json!(2000)));
    let url = format!("http://{}", admin(&process));
    let (ok, text) = gannet(&["rollout", "resume", "m", "--admin", &url]);
    assert!(ok && text.contains("canary, stage 1, 20 % of the users"), "{text}");
    let load = Load::start(&process.http, &process.grpc, &super::rows(&folder, 0));
    let (ok, text) = gannet(&["rollout", "watch", "m", "--admin", &url]);
    assert!(ok && text.contains("promoted"), "{text}");
    load.stop();
    let (ok, explained) = gannet(&["rollout", "explain", "1", "--admin", &url]);
    assert!(ok && explained.contains("each decided again with the same outcome"), "{explained}");
    for part in
        ["start", "advance to stage 1", "Pause", "Recount", "Resume", "advance to stage 2", ": promote"]
    {
        assert!(explained.contains(part), "{part} is missing in\n{explained}");
    }
    drop(process);

    let (ok, text) = gannet(&["rollout", "explain", "--file", log.to_str().unwrap()]);
    assert!(ok && text == explained, "{text}");
    let forged = std::fs::read_to_string(&log).unwrap().replacen("\"stage\":1", "\"stage\":2", 1);
    std::fs::write(&log, forged).unwrap();
    let (ok, text) = gannet(&["rollout", "explain", "--file", log.to_str().unwrap()]);
    assert!(!ok && text.contains("the log was changed"), "{text}");
    std::fs::write(&log, "{}\n").unwrap();
    let state = state.display().to_string();
    let (ok, text) = gannet(&[
        "--http",
        "127.0.0.1:0",
        "--grpc",
        "off",
        "--metrics",
        "off",
        "--admin",
        "off",
        "--state",
        &state,
        &repository,
    ]);
    assert!(!ok && text.contains("1.jsonl: line 1: expected a rollout's plan"), "{text}");
}

#[test]
fn a_writer_that_comes_late_learns_of_the_other() {
    let (_folder, server) = serve("add_one");
    let plan = json!({ "candidate": "2", "stages": [weight(100, 1000), weight(10_000, 1000)] });
    let begun = start(&server, &plan);
    let tag = |head: &str| {
        let line =
            head.lines().find(|line| line.to_ascii_lowercase().starts_with("etag: ")).expect("an ETag");
        format!("if-match: {}", line.split_once(": ").unwrap().1)
    };
    let (path, known) = (format!("{ROLLOUTS}/{}", begun.ok()["id"]), tag(&begun.head));
    let wish =
        |what: &str, headers: &[&str]| call(server.admin(), &format!("POST {path}/{what}"), headers, b"");
    let promoted = wish("promote", &[&known]);
    assert_eq!(promoted.ok()["state"], "full");
    let why = wish("promote", &[&known]).refused(412);
    assert!(why.contains("it went on meanwhile"), "{why}");
    assert_eq!(get(server.admin(), &path).ok()["state"], "full", "nothing was changed");
    assert_eq!(wish("promote", &[&tag(&promoted.head)]).ok()["state"], "promoted");
    assert_eq!(wish("promote", &[]).ok()["state"], "promoted", "a wish that is fulfilled changes nothing");
    wish("rollback", &[]).refused(409);
}

#[test]
fn plans_that_cannot_be_are_refused_and_nothing_is_changed() {
    let (folder, server) = serve("add_one");
    folder.put("m/3", "gather");
    folder.put("m/4", "add_one");
    folder.write("m/4/model.onnx", "no model");
    wait::until("version 3 serves and 4 is refused", || {
        let versions = get(server.admin(), "/admin/v1/models/m").ok()["versions"].clone();
        versions[2]["state"] == "READY" && versions[3]["state"] == "UNAVAILABLE"
    });
    let before = get(server.admin(), super::TRAFFIC).ok();
    let check = |plan: Value, status: u16, part: &str| {
        let why = start(&server, &plan).refused(status);
        assert!(why.contains(part), "'{part}' is not in '{why}'");
    };
    check(json!({ "candidate": "3" }), 409, "takes other inputs");
    check(json!({ "candidate": "4" }), 409, "is not ready");
    check(json!({ "candidate": "5" }), 404, "there is no version '5'");
    check(json!({ "candidate": "2", "stages": [] }), 400, "stages: expected 1 to 32");
    check(
        json!({ "candidate": "2", "alpha": 3, "guards": [{ "name": "eror_rate" }] }),
        400,
        "did you mean 'error_rate'?",
    );
    check(json!({ "candidate": "2", "gards": [] }), 400, "unknown field `gards`");
    let two =
        json!({ "split": [{ "version": "1", "weight_bp": 9000 }, { "version": "2", "weight_bp": 1000 }] });
    call(server.admin(), &format!("PUT {}", super::TRAFFIC), &[], two.to_string().as_bytes()).ok();
    check(json!({ "candidate": "2" }), 409, "sends requests to other versions");
    let one = json!({ "split": [{ "version": "1", "weight_bp": 10_000 }] });
    call(server.admin(), &format!("PUT {}", super::TRAFFIC), &[], one.to_string().as_bytes()).ok();
    assert_eq!(get(server.admin(), ROLLOUTS).ok()["rollouts"], json!([]));
    assert_eq!(get(server.admin(), super::TRAFFIC).ok()["route"], before["route"]);
}

#[test]
fn the_shares_of_a_million_users_are_what_the_weights_say() {
    let users: u64 = 1_000_000;
    for weights in [[9900, 100], [9500, 500], [5000, 5000]] {
        let split = ["1", "2"].iter().zip(weights);
        let split =
            split.map(|(version, weight_bp)| WeightFile { version: (*version).into(), weight_bp }).collect();
        let file = RouteFile { split, salt: Some("experiment".into()), ..RouteFile::default() };
        let route = Route::new("m", &file).unwrap();
        let candidate =
            (0..users).filter(|user| route.assign(format!("user-{user}").as_bytes()) == 1).count() as u64;
        let mut test = ShareTest::sample_ratio(f64::from(weights[1]) / 10_000.0).unwrap();
        let log_e = test.add(&[users - candidate, candidate]).unwrap();
        assert!(log_e < -SRM_ALPHA.ln(), "{weights:?}: {candidate} of {users}, log e {log_e}");
    }
}
