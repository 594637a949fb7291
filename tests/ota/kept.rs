//! What holds over a crash, what operators hold and stop, and the command line.

use std::process::Output;

use serde_json::json;

use super::{
    begin, bundle,
    fleet::{Fleet, door},
    plan, publish, resigned, rollout, serve,
};
use crate::{
    edge::key,
    support::{
        call::{call, get, try_call},
        folder::Folder,
        server::{Process, command},
        wait,
    },
};

#[track_caller]
fn gannet(arguments: &[&str]) -> (bool, String) {
    let Output { status, stdout, stderr } = command().args(arguments).output().unwrap();
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// A port that is free now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_delivery_goes_on_where_it_stood_after_a_kill() {
    let old = bundle(1);
    let fleet = Fleet::new(60, &old);
    let folder = Folder::with_add_one();
    let at = |name: &str| folder.beside(name).display().to_string();
    std::fs::write(at("devices"), fleet.lines()).unwrap();
    std::fs::write(at("release.pub.pem"), key().public().to_pem()).unwrap();
    for (name, of) in [("old", &old), ("new", &resigned(&old, 2)), ("back", &resigned(&old, 3))] {
        of.write(&folder.beside(name)).unwrap();
    }
    let port = free_port();
    let settings = [
        format!("ota.listen=127.0.0.1:{port}"),
        format!("ota.devices_file={}", at("devices")),
        format!("ota.keys={}", at("release.pub.pem")),
    ];
    let repository = folder.path().display().to_string();
    let mut arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    arguments.push(&repository);
    let start = || Process::start(&folder.beside("state"), &arguments);
    let admin = |process: &Process| {
        let line = process.banner.lines().find(|line| line.contains("/admin/")).expect("the banner names it");
        line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address").to_owned()
    };
    let process = start();
    let url = format!("http://{}", admin(&process));
    let (ok, said) = gannet(&[
        "ota",
        "publish",
        &at("new"),
        "--class",
        "nano33",
        "--stages",
        "50,100",
        "--seconds-min",
        "0",
        "--fallback",
        &at("back"),
        "--admin",
        &url,
    ]);
    assert!(ok && said.contains("delivery 1: digits sequence 2, running, 50 % of 60 devices"), "{said}");
    let counted = |process: &Process| get(admin(process), "/admin/v1/ota/rollouts/1").ok()["devices"].clone();
    let address = format!("127.0.0.1:{port}");
    // ten devices take it and report, one of them badly
    let mut sent = 0;
    for device in &fleet.devices {
        let call = |start: &str, body: &serde_json::Value| {
            let token = format!("authorization: Bearer {}", device.token);
            try_call(&address, start, &[&token], body.to_string().as_bytes()).unwrap()
        };
        let update = call("POST /ota/v1/check", &fleet.ask(1)).ok()["update"].clone();
        let Some(id) = update["bundle"].as_str().filter(|_| sent < 10) else { continue };
        assert_eq!(call(&format!("GET /ota/v1/bundles/{id}/model.tflite"), &json!(null)).status, 200);
        let failures = if sent == 0 { 500 } else { 0 };
        let report =
            json!({ "model": "digits", "sequence": 2, "window": 1, "inferences": 500, "failures": failures });
        assert_eq!(call("POST /ota/v1/report", &report).ok()["taken"], true);
        sent += 1;
    }
    wait::until("the votes are counted", || counted(&process)["voted"] == 10);
    let before = counted(&process);
    drop(process);

    let votes = folder.beside("state/ota/devices.jsonl");
    let whole = std::fs::read(&votes).unwrap();
    std::fs::write(&votes, [&whole[..], b"{\"device\":\"to"].concat()).unwrap();
    let process = start();
    assert_eq!(counted(&process), before);
    assert_eq!((&before["bad"], &before["failing"]), (&json!(1), &json!(1)), "{before}");
    let url = format!("http://{}", admin(&process));
    let (ok, said) = gannet(&["ota", "pause", "digits", "--admin", &url]);
    assert!(ok && said.contains("paused"), "{said}");
    let (ok, said) = gannet(&["ota", "halt", "1", "--reason", "the field test failed", "--admin", &url]);
    assert!(ok && said.contains("halted") && said.contains("the field test failed"), "{said}");
    let (ok, said) = gannet(&["ota", "watch", "digits", "--admin", &url]);
    assert!(!ok && said.contains("by hand"), "{said}");
    let (ok, said) = gannet(&["ota", "resume", "digits", "--admin", &url]);
    assert!(!ok && said.contains("is over (halted)"), "{said}");
    // who has it is offered the old payload as a newer release, nobody else anything
    let device = &fleet.devices[0];
    let ask = |sequence: u64| {
        let token = format!("authorization: Bearer {}", device.token);
        let body = fleet.ask(sequence).to_string();
        try_call(&address, "POST /ota/v1/check", &[&token], body.as_bytes()).unwrap().ok()["update"]["sequence"].clone()
    };
    assert_eq!((ask(1), ask(2), ask(3)), (json!(null), json!(3), json!(null)));
    drop(process);
    // a bundle that was changed on the disk is not offered any more
    let shelf = folder.beside("state/ota/bundles");
    for entry in std::fs::read_dir(&shelf).unwrap() {
        std::fs::write(entry.unwrap().path().join("model.tflite"), b"changed").unwrap();
    }
    let process = start();
    assert_eq!(get(admin(&process), "/admin/v1/ota").ok()["bundles"], json!([]));
    assert_eq!(ask(2), json!(null));
    let (ok, said) =
        gannet(&["ota", "token", "sensor-1", "--class", "nano33", "--devices-file", &at("devices")]);
    let token = said.trim();
    assert!(ok && token.len() == 64, "{said}");
    let header = format!("authorization: Bearer {token}");
    let answer =
        try_call(&address, "POST /ota/v1/check", &[&header], fleet.ask(1).to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "the file is read again: {answer:?}");
}

#[test]
fn sequences_rise_and_one_bundle_goes_at_a_time() {
    let old = bundle(5);
    let fleet = Fleet::new(1, &old);
    let folder = Folder::with_add_one();
    let server = serve(&folder, &fleet);
    let (first, second, third) =
        (publish(&server, &old), publish(&server, &resigned(&old, 6)), publish(&server, &resigned(&old, 7)));
    assert_eq!(begin(&server, &plan(&second)).ok()["id"], 1);
    assert_eq!(begin(&server, &plan(&second)).ok()["id"], 1, "the same once more");
    assert!(begin(&server, &plan(&third)).refused(409).contains("rollout 1 of 'digits' goes on"));
    let remove = |id: &str| call(server.admin(), &format!("DELETE /admin/v1/ota/bundles/{id}"), &[], b"");
    assert!(remove(&second).refused(409).contains("rollout 1"));
    let halt = call(server.admin(), "POST /admin/v1/ota/rollouts/1/halt", &[], b"").ok();
    assert_eq!(halt["status"], "halted");
    assert!(begin(&server, &plan(&first)).refused(409).contains("expected a sequence above 6, got 5"));
    let mut back = plan(&third);
    back["fallback"] = json!(first);
    assert!(
        begin(&server, &back)
            .refused(409)
            .contains("the fallback: expected 'digits' with a sequence above 7")
    );
    assert_eq!(begin(&server, &plan(&third)).ok()["id"], 2);
    remove(&second).ok();
    // a device that cannot run it is told why
    let mut ask = fleet.ask(5);
    ask["abi"]["operators"] = json!([]);
    wait::until("it reaches all", || rollout(&server, 2)["percent"] == 100.0);
    let answer = fleet.devices[0].call(door(&server), "POST /ota/v1/check", &ask).ok();
    let why = answer["why"].as_str().unwrap();
    assert!(
        answer["update"].is_null() && why.contains("sequence 7 does not fit: it needs the operator"),
        "{answer}"
    );
    assert_eq!(get(server.admin(), "/admin/v1/ota/rollouts/9").status, 404);
}
