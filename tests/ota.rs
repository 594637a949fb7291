//! Deliveries to a simulated fleet over real HTTP: a good bundle reaches every device, a bad one is stopped in its first
//! stage, and devices that lie change nothing. Must not know how a fleet is judged.

mod drifting;
pub(crate) mod fleet;
mod hostile;
mod kept;

use gannet_edge::{
    bundle::{Bundle, BundleInfo},
    compile::{CompileOptions, Data, compile, graph_of},
    data::Samples,
    package::{Golden, SampleSource as _},
};
use gannet_server::{config::Config, ota::archive::pack};
use serde_json::{Value, json};

use self::fleet::Fleet;
use crate::{
    edge::key,
    support::{
        call::{Answer, call, get},
        folder::Folder,
        server::{Server, zoo},
    },
};

/// The zoo's digits as a bundle of that sequence, signed.
fn bundle(sequence: u64) -> Bundle {
    bundle_of("digits", sequence)
}

/// The same in another model's name.
pub(crate) fn bundle_of(model: &str, sequence: u64) -> Bundle {
    let folder = zoo().join("digits/1");
    let onnx = std::fs::read(folder.join("model.onnx")).unwrap();
    let golden = std::fs::read(folder.join("golden/eight_rows.json")).unwrap();
    let calibrate: Vec<Samples> = Golden(vec![golden]).samples(&graph_of(&onnx).unwrap()).unwrap();
    let data = Data { calibrate, compare: None };
    let compiled = compile(&onnx, &data, &CompileOptions::default(), &mut |_| true).unwrap();
    let info = BundleInfo { model: model.into(), version: "1".into(), sequence, class_names: Vec::new() };
    let mut bundle = Bundle::new(&compiled, &info);
    bundle.sign(&key()).unwrap();
    bundle
}

/// The same payload under another sequence, signed anew.
fn resigned(bundle: &Bundle, sequence: u64) -> Bundle {
    let mut newer = bundle.clone().renumbered(sequence).unwrap();
    newer.sign(&key()).unwrap();
    newer
}

/// A server that delivers to a fleet.
fn serve(folder: &Folder, fleet: &Fleet) -> Server {
    serve_with(folder, fleet, |_| {})
}

/// The same, otherwise configured.
fn serve_with(folder: &Folder, fleet: &Fleet, adjust: impl FnOnce(&mut Config)) -> Server {
    Server::start(&folder.path(), |config| {
        deliver(config, folder, fleet);
        adjust(config);
    })
}

/// Lets a server deliver to a fleet.
pub(crate) fn deliver(config: &mut Config, folder: &Folder, fleet: &Fleet) {
    let (devices, public) = (folder.beside("devices"), folder.beside("release.pub.pem"));
    std::fs::write(&devices, fleet.lines()).unwrap();
    std::fs::write(&public, key().public().to_pem()).unwrap();
    config.ota.listen = gannet_server::config::address::Address::parse("127.0.0.1:0");
    config.ota.devices_file = Some(devices);
    config.ota.keys = vec![public];
}

fn upload(server: &Server, bundle: &Bundle) -> Answer {
    call(server.admin(), "POST /admin/v1/ota/bundles", &[], &pack(bundle, "bundle").unwrap())
}

/// Publishes a bundle and gives its name.
#[track_caller]
pub(crate) fn publish(server: &Server, bundle: &Bundle) -> String {
    upload(server, bundle).ok()["bundle"].as_str().unwrap().to_owned()
}

fn begin(server: &Server, plan: &Value) -> Answer {
    call(server.admin(), "POST /admin/v1/ota/rollouts", &["x-gannet-actor: ada"], plan.to_string().as_bytes())
}

/// A plan in three stages without waits.
fn plan(bundle: &str) -> Value {
    json!({ "bundle": bundle, "classes": ["nano33"], "stages": [5, 25, 100], "seconds_min": 0 })
}

fn rollout(server: &Server, id: u64) -> Value {
    get(server.admin(), &format!("/admin/v1/ota/rollouts/{id}")).ok()
}
