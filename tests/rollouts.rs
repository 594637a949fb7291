//! Rollouts through a real server under the load tester's traffic, over HTTP and gRPC: good candidates arrive by
//! themselves, bad ones are taken back, and the log says why; also over a crash.

mod judged;
mod kept;

use serde_json::{Value, json};

use crate::support::{
    call::{Answer, call, get},
    folder::Folder,
    loadtest::{Load, Loaded},
    server::Server,
    wait,
};
use gannet_runtime::control::rollout::{Plan, audit};

const ROLLOUTS: &str = "/admin/v1/models/m/rollouts";
const TRAFFIC: &str = "/admin/v1/models/m/traffic";

/// `m` with `add_one` as version 1 and `candidate` as version 2, of which version 1 serves.
fn serve(candidate: &str) -> (Folder, Server) {
    let folder = versions(candidate);
    let server = Server::start(&folder.path(), |_| {});
    both_serve(&server);
    let route = json!({ "split": [{ "version": "1", "weight_bp": 10_000 }] });
    call(server.admin(), &format!("PUT {TRAFFIC}"), &[], route.to_string().as_bytes()).ok();
    (folder, server)
}

fn versions(candidate: &str) -> Folder {
    let folder = Folder::with_add_one();
    folder.put("m/2", candidate);
    folder.write("m/model.toml", "versions = \"all\"\n[labels]\nstable = \"1\"\n");
    folder
}

fn both_serve(server: &Server) {
    wait::until("both versions serve", || {
        ["1", "2"].iter().all(|version| {
            get(server.http(), &format!("/v2/models/m/versions/{version}/ready")).status == 200
        })
    });
}

/// Rows for the load: first values 1 to 7, and with `bad` above 0 every so many rows an 8.
fn rows(folder: &Folder, bad: usize) -> std::path::PathBuf {
    let path = folder.beside("rows.csv");
    let row = |index: usize| {
        let first = if bad > 0 && index % bad == bad / 2 { 8 } else { 1 + index % 7 };
        format!("{first},{},{}\n", index % 13, index % 5)
    };
    std::fs::write(&path, (0..400).map(row).collect::<String>()).unwrap();
    path
}

#[track_caller]
fn start(server: &Server, plan: &Value) -> Answer {
    call(server.admin(), &format!("POST {ROLLOUTS}"), &["x-gannet-actor: ada"], plan.to_string().as_bytes())
}

fn stage(stage: &str, value: f64, requests: u64) -> Value {
    json!({ stage: value, "min_requests": requests, "min_users": 0, "min_seconds": 0 })
}

fn weight(weight_bp: u32, requests: u64) -> Value {
    json!({ "weight_bp": weight_bp, "min_requests": requests, "min_users": 0, "min_seconds": 0 })
}

/// Loads the server until the rollout is over; the rollout, the load, and the log decided again.
#[track_caller]
fn until_over(folder: &Folder, server: &Server, plan: &Value, bad: usize) -> (Value, Loaded, Vec<String>) {
    let load = Load::start(&server.http().to_string(), &server.grpc().to_string(), &rows(folder, bad));
    let begun = start(server, plan).ok();
    let path = format!("{ROLLOUTS}/{}", begun["id"]);
    let mut rollout = begun;
    let over = wait::holds_within(wait::BOUND * 2, || {
        rollout = get(server.admin(), &path).ok();
        rollout["state"] == "promoted" || rollout["state"] == "rolled_back"
    });
    let loaded = load.stop();
    assert!(over, "it is not over: {rollout:#}");
    let log = get(server.admin(), &format!("{path}/log")).ok();
    let plan: Plan = serde_json::from_value(log["plan"].clone()).unwrap();
    let records: Vec<audit::Record> = serde_json::from_value(log["records"].clone()).unwrap();
    assert_eq!(records[0].actor, "ada");
    let lines = audit::explain(&plan, &records).unwrap();
    (rollout, loaded, lines)
}

fn split(server: &Server) -> Value {
    get(server.admin(), TRAFFIC).ok()["route"]["split"].clone()
}
