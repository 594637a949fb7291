//! From the running server's admin API to a bundle that verifies: the zoo's digits, compiled as a job.

use std::path::Path;

use gannet_edge::{
    bundle::{Bundle, verify},
    mcuboot::{ImageVersion, image},
    sign::PrivateKey,
};
use gannet_server::ota::archive::unpack;
use serde_json::{Value, json};

use crate::support::{
    call::{call, get},
    folder::Folder,
    http,
    server::{Server, command, zoo},
    wait,
};

/// A release key made for these tests, and its public half.
pub(crate) const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";

pub(crate) fn key() -> PrivateKey {
    PrivateKey::of_pem(KEY).expect("a key")
}

fn path(version: &str) -> String {
    format!("/admin/v1/models/digits/versions/{version}/edge")
}

#[track_caller]
fn compiled(server: &Server, version: &str, options: &Value) -> Value {
    let begun =
        call(server.admin(), &format!("POST {}", path(version)), &[], options.to_string().as_bytes()).ok();
    assert!(["waiting", "running", "done"].contains(&begun["state"].as_str().unwrap()), "{begun}");
    let mut job = Value::Null;
    wait::until("it is compiled", || {
        job = get(server.admin(), &path(version)).ok();
        !["waiting", "running"].contains(&job["state"].as_str().unwrap())
    });
    job
}

#[track_caller]
fn fetched(server: &Server, version: &str) -> Bundle {
    let reply = http::get(server.admin(), &format!("{}/bundle", path(version)));
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/x-tar")));
    assert!(reply.header("content-disposition").unwrap().contains(&format!("digits-{version}-edge.tar")));
    unpack(&reply.body).unwrap()
}

#[test]
fn the_zoos_digits_become_a_bundle_that_verifies() {
    let server = Server::start(&zoo(), |_| {});
    let admin = server.admin();
    assert!(get(admin, &path("1")).refused(404).contains("POST here begins it"));
    assert!(get(admin, &format!("{}/bundle", path("1"))).refused(404).contains("not compiled"));
    for (version, options) in
        [("1", json!({ "sequence": 7 })), ("2", json!({ "calibrate": "baseline", "range": "minmax" }))]
    {
        let job = compiled(&server, version, &options);
        assert_eq!((&job["state"], &job["error"]), (&json!("done"), &Value::Null), "{job}");
        let bundle = fetched(&server, version);
        let verified = verify(&bundle, None).unwrap();
        let manifest = &verified.manifest;
        assert_eq!((manifest.model.as_str(), manifest.version.as_str()), ("digits", version));
        assert_eq!(manifest.sequence, options["sequence"].as_u64().unwrap_or(1));
        assert!(verified.golden_rows > 0 && !verified.signed);
        assert_eq!(job["bundle"]["manifest"]["abi"], serde_json::to_value(&manifest.abi).unwrap());
        assert!(job["bundle"]["sqnr_db"].as_f64().unwrap() > 25.0, "{job}");
        assert_eq!(bundle, fetched(&server, version));
    }
    // the same once more makes the same bytes
    let first = fetched(&server, "1");
    call(admin, &format!("DELETE {}", path("1")), &[], b"").ok();
    assert!(get(admin, &format!("{}/bundle", path("1"))).refused(409).contains("cancelled"));
    compiled(&server, "1", &json!({ "sequence": 7 }));
    assert_eq!(fetched(&server, "1"), first);
    // signed where the release key is, verified by the command, wrapped for a bootloader
    offline(&first);
}

/// What happens to a bundle after it left the server.
fn offline(bundle: &Bundle) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    bundle.write(Path::new(&at("bundle"))).unwrap();
    std::fs::write(at("release.pem"), KEY).unwrap();
    std::fs::write(at("release.pub.pem"), key().public().to_pem()).unwrap();
    let gannet = |arguments: &[&str]| {
        let output = command().args(arguments).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (verified, said) = gannet(&["edge", "verify", &at("bundle"), "--key", &at("release.pub.pem")]);
    assert!(!verified && said.contains("manifest.sig"), "{said}");
    let (signed, said) =
        gannet(&["edge", "sign", &at("bundle"), "--key", &at("release.pem"), "--mcuboot", &at("image.bin")]);
    assert!(signed, "{said}");
    let (verified, said) = gannet(&["edge", "verify", &at("bundle"), "--key", &at("release.pub.pem")]);
    assert!(verified && said.contains("signed by this key"), "{said}");
    let version = ImageVersion { major: 1, minor: 0, revision: 0, build: 7 };
    let signed = Bundle::read(Path::new(&at("bundle"))).unwrap();
    let expected = image(&signed.files["model.tflite"], version, &key());
    assert_eq!(std::fs::read(at("image.bin")).unwrap(), expected);
}

#[test]
fn what_cannot_be_compiled_says_why() {
    let folder = Folder::with_add_one();
    let server = Server::start(&folder.path(), |_| {});
    let path = "/admin/v1/models/m/versions/1/edge";
    let post = |body: &str| call(server.admin(), &format!("POST {path}"), &[], body.as_bytes());
    assert!(post("{\"calibrate\": \"tea leaves\"}").refused(400).contains("unknown variant"));
    assert!(post("{\"more\": 1}").refused(400).contains("unknown field"));
    let unknown = call(server.admin(), "POST /admin/v1/models/m/versions/9/edge", &[], b"");
    assert!(unknown.refused(404).contains("no version '9'"));
    post("").ok();
    let mut job = Value::Null;
    wait::until("it is over", || {
        job = get(server.admin(), path).ok();
        job["state"] == "failed"
    });
    let why = job["error"].as_str().unwrap();
    assert!(why.contains(';') && why.len() > 20, "{why}");
    let refused = get(server.admin(), &format!("{path}/bundle")).refused(409);
    assert!(refused.contains("failed"), "{refused}");
    assert_eq!(call(server.admin(), &format!("PUT {path}"), &[], b"").status, 405);
}
