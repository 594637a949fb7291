//! The routes of compilations and deliveries, against their description.

use std::path::Path;

use gannet_edge::{bundle::Bundle, sign::PrivateKey};
use serde_json::{Value, json};

use super::{Server, WAIT_MAX, client};
use crate::{
    config::{Config, address::Address},
    ota::{Device, archive, devices::line},
};

/// A key made for these tests.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";
const EDGE: &str = "/admin/v1/models/{model}/versions/{version}/edge";
/// A device's token.
const TOKEN: &str = "a token of these tests";
const DIGITS: [&str; 2] = ["digits", "1"];

pub(super) fn configure(config: &mut Config, folder: &Path) {
    let (keys, devices) = (folder.join("release.pub.pem"), folder.join("devices"));
    let public = PrivateKey::of_pem(KEY).unwrap().public().to_pem();
    std::fs::write(&keys, public).unwrap();
    let device = Device { id: "sensor-1".into(), class: "esp32".into() };
    std::fs::write(&devices, line(&device, TOKEN)).unwrap();
    config.ota.listen = Some(Address::loopback(0));
    config.ota.keys = vec![keys];
    config.ota.devices_file = Some(devices);
    config.runtime.loader_nice = 0;
}

impl Server {
    /// Calls a route whose body or answer is a file.
    fn file(&self, method: &str, pattern: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let base = format!("http://{}", self.app.addresses().admin.unwrap());
        let request =
            client::Request { method, base: &base, path, body: "", token: None, actor: Some("ada") };
        let answer = client::send(&request, body).unwrap();
        assert_eq!(answer.status, 200, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
        self.called.borrow_mut().insert(format!("{method} {pattern}"));
        answer.body
    }
}

fn bundle(server: &Server) -> Bundle {
    let edge = "/admin/v1/models/digits/versions/1/edge";
    server.bad("POST", edge, "7", 400, "expected nothing, or options");
    server.bad("GET", edge, "", 404, "was not compiled");
    server.good("POST", EDGE, &DIGITS, r#"{"sequence": 4}"#);
    let until = gannet_runtime::clock::now() + WAIT_MAX;
    loop {
        let job = server.good("GET", EDGE, &DIGITS, "");
        match job["state"].as_str() {
            Some("done") => break,
            Some("waiting" | "running") => assert!(gannet_runtime::clock::now() < until, "{job}"),
            _ => panic!("{job}"),
        }
        let _ = crossbeam::channel::after(std::time::Duration::from_millis(5)).recv();
    }
    let packed = server.file("GET", &format!("{EDGE}/bundle"), &format!("{edge}/bundle"), b"");
    server.good("DELETE", EDGE, &DIGITS, "");
    archive::unpack(&packed).unwrap()
}

/// A device reports what it saw, and the drift monitor looks at it.
fn report(server: &Server) {
    let report = json!({
        "model": "digits", "sequence": 4, "window": 1, "inferences": 10, "failures": 0,
        "inputs": { "image": vec![3; 32] },
    });
    let base = format!("http://{}", server.app.addresses().ota.unwrap());
    let (path, body) = ("/ota/v1/report", report.to_string());
    let request =
        client::Request { method: "POST", base: &base, path, body: &body, token: Some(TOKEN), actor: None };
    let answer = client::call(&request).unwrap();
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let until = gannet_runtime::clock::now() + WAIT_MAX;
    loop {
        let drift = server.good("GET", "/admin/v1/models/{model}/drift", &["digits"], "");
        let devices = &drift["devices"][0];
        if (&devices["rows"], &devices["inputs"][0]["reports"]) == (&json!(1), &json!(1)) {
            assert_eq!(devices["sequence"], 4);
            return;
        }
        assert!(gannet_runtime::clock::now() < until, "{drift}");
        let _ = crossbeam::channel::after(std::time::Duration::from_millis(5)).recv();
    }
}

pub(super) fn check(server: &Server) {
    let mut bundle = bundle(server);
    server.bad("POST", "/admin/v1/ota/bundles", "nothing", 400, "the bundle: ");
    bundle.sign(&PrivateKey::of_pem(KEY).unwrap()).unwrap();
    let bundles = "/admin/v1/ota/bundles";
    let published = server.file("POST", bundles, bundles, &archive::pack(&bundle, "b").unwrap());
    let published: Value = serde_json::from_slice(&published).unwrap();
    let schema = json!({ "$ref": "#/components/schemas/OtaBundle" });
    super::check(&server.description, &schema, &published, bundles);
    report(server);
    let plan = json!({ "bundle": published["bundle"], "classes": ["nano33"] });
    server.bad("POST", "/admin/v1/ota/rollouts", "{}", 400, "classes: expected");
    let begun = server.good("POST", "/admin/v1/ota/rollouts", &[], &plan.to_string());
    assert_eq!((&begun["id"], &begun["sequence"]), (&json!(1), &json!(4)));
    let one = "/admin/v1/ota/rollouts/{id}";
    let path = "/admin/v1/ota/rollouts";
    server.bad("GET", &format!("{path}/9"), "", 404, "no delivery 9");
    server.bad("POST", &format!("{path}/x/halt"), "", 400, "expected a number");
    let status = |wish: &str| server.good("POST", &format!("{one}/{wish}"), &["1"], "")["status"].clone();
    assert_eq!([status("pause"), status("resume"), status("halt")], ["paused", "running", "halted"]);
    server.good("GET", one, &["1"], "");
    server.good("GET", "/admin/v1/ota", &[], "");
    server.good("GET", "/admin/v1/ota/models/{model}/inputs", &["digits"], "");
    let log = server.good("GET", "/admin/v1/ota/log", &[], "");
    assert_eq!(log["records"].as_array().unwrap().len(), 5, "{log}");
    assert_eq!(log["records"][0]["actor"], "ada");
    let id = published["bundle"].as_str().unwrap();
    server.good("DELETE", "/admin/v1/ota/bundles/{bundle}", &[id], "");
    server.bad("DELETE", &format!("{bundles}/{id}"), "", 404, "there is no bundle");
}
