//! Devices that lie, and operators who slip: what is not signed is never offered, and a vote counts once.

use std::sync::Arc;

use gannet_edge::sign::PrivateKey;
use gannet_runtime::drift::{Drift, DriftConfig};
use gannet_server::ota::Ota;
use serde_json::{Value, json};

use super::{
    begin, bundle,
    fleet::{Effect, Fleet, door},
    plan, publish, resigned, rollout, serve, upload,
};
use crate::support::{
    call::{call, get, try_call},
    folder::Folder,
    wait,
};

/// Another key (`openssl genpkey -algorithm ed25519`).
const OTHER_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIB8eHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgEA\n-----END PRIVATE KEY-----\n";

#[test]
fn what_is_not_signed_is_not_taken() {
    let good = bundle(1);
    let folder = Folder::with_add_one();
    let server = serve(&folder, &Fleet::new(1, &good));
    let mut unsigned = good.clone();
    unsigned.files.remove("manifest.sig");
    assert!(upload(&server, &unsigned).refused(400).contains("sign the bundle first"));
    let mut forged = good.clone();
    forged.sign(&PrivateKey::of_pem(OTHER_KEY).unwrap()).unwrap();
    assert!(upload(&server, &forged).refused(400).contains("the signature of a key of ota.keys"));
    let mut changed = good.clone();
    changed.files.get_mut("model.tflite").unwrap()[100] ^= 1;
    assert!(upload(&server, &changed).refused(400).contains("model.tflite: expected sha256"));
    let nothing = call(server.admin(), "POST /admin/v1/ota/bundles", &[], b"nothing");
    assert!(nothing.refused(400).contains("the bundle: expected"));
    assert_eq!(get(server.admin(), "/admin/v1/ota").ok()["bundles"], json!([]));
    assert!(begin(&server, &plan(&"ab".repeat(32))).refused(404).contains("there is no bundle"));
    // the file on the disk is changed behind its back: it is not offered after the next start
    let id = publish(&server, &good);
    assert_eq!(publish(&server, &good), id, "the same once more");
    let twin = resigned(&resigned(&good, 2), 3);
    publish(&server, &twin);
    assert!(begin(&server, &json!({ "bundle": id })).refused(400).contains("classes: expected"));
}

#[test]
fn a_private_key_is_not_let_in() {
    let good = bundle(1);
    let folder = Folder::with_add_one();
    let (devices, key) = (folder.beside("devices"), folder.beside("release.pem"));
    std::fs::write(&devices, Fleet::new(1, &good).lines()).unwrap();
    std::fs::write(&key, crate::edge::KEY).unwrap();
    let config =
        gannet_server::config::OtaConfig { listen: None, devices_file: Some(devices), keys: vec![key] };
    let (drift, thread) = Drift::start(DriftConfig::default()).unwrap();
    let why = Ota::start(&config, &folder.beside("state"), Arc::clone(&drift)).err().unwrap();
    drift.stop();
    thread.join().unwrap();
    assert!(
        why.contains("release.pem") && why.contains("private key, which must not be on this machine"),
        "{why}"
    );
}

#[test]
fn lies_change_nothing() {
    let old = bundle(1);
    let mut fleet = Fleet::new(200, &old);
    let folder = Folder::with_add_one();
    let server = serve(&folder, &fleet);
    publish(&server, &old);
    let new = publish(&server, &resigned(&old, 2));
    fleet.turn(door(&server), &[]);
    let mut plan = plan(&new);
    plan["stages"] = json!([10, 100]);
    let id = begin(&server, &plan).ok()["id"].as_u64().unwrap();
    let counts = |what: &str| rollout(&server, id)["devices"][what].as_u64().unwrap();
    let reached = counts("reached");
    assert!((8..=35).contains(&reached), "{reached}");

    // credentials
    let refused =
        |headers: &[&str]| try_call(door(&server), "POST /ota/v1/check", headers, b"{}").unwrap().status;
    assert_eq!(refused(&[]), 401);
    assert_eq!(refused(&["authorization: Bearer wrong"]), 401);
    let stored = fleet.lines().lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(refused(&[&format!("authorization: Bearer {stored}")]), 401);
    // the admin port does not answer devices, and this one no operators
    let admin = try_call(door(&server), "GET /admin/v1/ota", &[], b"").unwrap();
    assert_eq!(admin.status, 401);
    let first = fleet.devices[0].clone();
    let mut ask = fleet.ask(1);
    ask["class"] = json!("esp32");
    let refused = first.call(door(&server), "POST /ota/v1/check", &ask).refused(403);
    assert!(refused.contains("this credential is for"), "{refused}");

    // every device that was not offered it votes against it, over and over
    let outside: Vec<_> = fleet
        .devices
        .iter()
        .filter(|device| {
            device.call(door(&server), "POST /ota/v1/check", &fleet.ask(1)).ok()["update"].is_null()
        })
        .cloned()
        .collect();
    assert_eq!(outside.len() as u64, 200 - reached);
    let report = |sequence: u64, window: u64, failures: u64| json!({ "model": "digits", "sequence": sequence, "window": window, "inferences": 1000, "failures": failures });
    for device in &outside {
        let fetched =
            device.call(door(&server), &format!("GET /ota/v1/bundles/{new}/model.tflite"), &Value::Null);
        assert_eq!(fetched.status, 404, "it is not offered to this one");
        for window in 1..4 {
            let answer = device.call(door(&server), "POST /ota/v1/report", &report(2, window, 1000)).ok();
            assert_eq!(answer["taken"], false, "it did not get it");
        }
    }
    // absurd reports, and one for what nobody delivered
    for (body, status) in [
        (report(2, 9, 2000), 400),
        (report(u64::MAX, 9, 0), 400),
        (json!({ "model": "other", "sequence": 1, "window": 9, "inferences": 1, "failures": 0 }), 404),
        (json!([1, 2, 3]), 400),
    ] {
        assert_eq!(first.call(door(&server), "POST /ota/v1/report", &body).status, status, "{body}");
    }
    let large = json!({ "model": "digits", "log": ["x".repeat(20_000)] });
    assert_eq!(first.call(door(&server), "POST /ota/v1/report", &large).status, 413);
    let now = rollout(&server, id);
    assert_eq!((counts("voted"), counts("bad"), &now["status"]), (0, 0, &json!("running")), "{now}");

    // one that was offered it shouts: it is one bad vote, however often it comes
    let inside =
        fleet.devices.iter().find(|device| !outside.iter().any(|other| other.id == device.id)).unwrap();
    let fetched =
        inside.call(door(&server), &format!("GET /ota/v1/bundles/{new}/model.tflite"), &Value::Null);
    assert_eq!(fetched.status, 200);
    let taken = |window: u64| {
        let answer = inside.call(door(&server), "POST /ota/v1/report", &report(2, window, 1000)).ok();
        answer["taken"].as_bool().unwrap()
    };
    assert!(taken(1));
    for _ in 0..20 {
        assert!(!taken(1), "a replay");
    }
    for window in 2..20 {
        assert!(taken(window));
    }
    wait::until("the vote is counted", || counts("bad") == 1);
    assert_eq!((counts("voted"), rollout(&server, id)["status"].clone()), (1, json!("running")));
    let liar = inside.id.clone();
    for device in fleet.devices.iter_mut().filter(|device| device.id == liar) {
        device.lied = true;
    }
    // and the fleet goes on without it
    let over = super::fleet::play(&server, &mut fleet, id, &[(2, Effect::Good, 1.0)]);
    assert_eq!(over["status"], "done", "{over}");
}
