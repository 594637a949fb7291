//! What a fleet sees, through the server's own listener for devices: a fleet that sees something else than its calibration
//! is an alarm that everybody is told of, and as many reports of one that does not are none.

use gannet_edge::{bundle::Bundle, compile::CODE_BINS};
use gannet_server::config::Credentials;
use serde_json::{Value, json};

use super::{
    bundle,
    fleet::{Fleet, door},
    publish, serve_with,
};
use crate::support::{
    call::{call, get, sample},
    folder::Folder,
    promtool,
    random::Random,
    receiver::Receiver,
    server::{Server, command},
    wait,
};

const DEVICES: usize = 1000;
/// Images that a device saw since its last report, of 64 codes each.
const IMAGES: u64 = 20;
/// Bins by which a sensor that is off moves what it sees.
const OFF: usize = 2;

/// Counts of a device's codes, drawn of where those of the calibration fell.
fn codes(calibration: &[u64], device: usize, moved: usize) -> Vec<u64> {
    let mut random = Random::new(device as u64);
    let mut counts = vec![0; CODE_BINS];
    for _ in 0..IMAGES * 64 {
        let mut left = random.below(calibration.iter().sum());
        let bin = calibration.iter().position(|count| {
            let is_here = left < *count;
            left = left.saturating_sub(*count);
            is_here
        });
        counts[(bin.expect("it is below the sum") + moved).min(CODE_BINS - 1)] += 1;
    }
    counts
}

/// What the server says of a fleet whose every device reported once.
fn heard(server: &Server, bundle: &Bundle, fleet: &mut Fleet, moved: usize) -> Value {
    let report: Value = serde_json::from_slice(&bundle.files["report.json"]).unwrap();
    let calibration: Vec<u64> = serde_json::from_value(report["input_codes"][0].clone()).unwrap();
    let worth = report["effective_codes"][0].as_u64().unwrap();
    assert!((8..=8 * 64).contains(&worth), "eight images of 64 codes: {worth}");
    publish(server, bundle);
    fleet.report(door(server), |device| codes(&calibration, device, moved));
    wait::until("every report is looked at and counted", || {
        let devices = devices(server);
        devices["rows"] == DEVICES && devices["inputs"][0]["reports"] == DEVICES
    });
    let answer = get(server.admin(), "/admin/v1/models/digits/drift").ok();
    assert_eq!((&answer["version"], &answer["devices_dropped"]), (&Value::Null, &json!(0)), "{answer:#}");
    let devices = &answer["devices"][0];
    assert_eq!((&devices["source"], &devices["sequence"]), (&json!("devices"), &json!(1)));
    assert_eq!((&devices["version"], &devices["baseline"]), (&json!("1"), &json!("calibration")));
    assert_eq!((&devices["baseline_rows"], &devices["sources"]), (&json!(worth), &json!(1)));
    devices.clone()
}

fn devices(server: &Server) -> Value {
    get(server.admin(), "/admin/v1/models/digits/drift").ok()["devices"][0].clone()
}

/// What the terminal shows, and whether an alarm is on.
fn shown(server: &Server) -> (String, bool) {
    let admin = format!("http://{}", server.admin());
    let output = command().args(["drift", "digits", "--admin", &admin]).output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code() == Some(1))
}

fn state(server: &Server, state: &str) -> Option<f64> {
    let labels =
        format!("model=\"digits\",version=\"1\",source=\"devices\",sequence=\"1\",state=\"{state}\"");
    sample(server, &format!("gannet_drift_state{{{labels}}}"))
}

#[test]
fn a_fleet_that_sees_something_else_is_an_alarm_and_as_many_reports_of_another_are_none() {
    let bundle = bundle(1);
    let folder = Folder::with_add_one();
    let secret = folder.beside("secret");
    std::fs::write(&secret, b"a secret of the test").unwrap();
    let start = |receiver: &Receiver, fleet: &Fleet| {
        serve_with(&folder, fleet, |config| {
            config.drift.watch.cpu_ratio_max = 1.0;
            config.drift.webhook_url = Some(format!("http://{}/drift", receiver.address));
            config.drift.webhook_secret = Some(Credentials::File(secret.clone()));
            config.registry.server_name = "test".into();
        })
    };
    let mut fleet = Fleet::new(DEVICES, &bundle);
    let (quiet, told) = (Receiver::start(0), Receiver::start(0));

    let server = start(&quiet, &fleet);
    let report = heard(&server, &bundle, &mut fleet, 0);
    assert_eq!((&report["state"], &report["alarms"]), (&json!("ok"), &json!(0)), "{report:#}");
    assert_eq!((state(&server, "ok"), state(&server, "alarm")), (Some(1.0), Some(0.0)));
    let (text, alarmed) = shown(&server);
    assert!(!alarmed && text.contains("digits version 1 on devices (sequence 1): ok"), "{text}");

    let mut fleet = Fleet::new(DEVICES, &bundle);
    let server = start(&told, &fleet);
    let report = heard(&server, &bundle, &mut fleet, OFF);
    assert_eq!((&report["state"], &report["alarms"]), (&json!("alarm"), &json!(1)), "{report:#}");
    assert_eq!(report["alarm"]["culprits"], json!(["image"]));
    println!("an alarm after {} reports", report["alarm"]["rows"]);
    assert_eq!((state(&server, "ok"), state(&server, "alarm")), (Some(0.0), Some(1.0)));
    let page = get(server.metrics(), "/metrics/native").text;
    promtool::check(&page);
    assert!(page.contains("\ngannet_drift_dropped_total{source=\"devices\"} 0\n"), "{page}");
    let feature = "source=\"devices\",sequence=\"1\",feature=\"image\",side=\"input\"} 1";
    assert!(page.contains(feature) && !page.contains("gannet_drift_sampling_ratio{"), "{page}");
    let (text, alarmed) = shown(&server);
    assert!(
        alarmed && text.contains("ALARM: image") && text.contains("a device's report is one row"),
        "{text}"
    );
    wait::until("the webhook took the event", || told.deliveries().iter().any(|delivery| delivery.taken));
    let event: Value = serde_json::from_slice(&told.deliveries()[0].body).unwrap();
    assert_eq!(
        (&event["type"], &event["subject"], &event["data"]["source"], &event["data"]["sequence"]),
        (&json!("dev.gannet.drift.alarm"), &json!("digits/1"), &json!("devices"), &json!(1))
    );
    assert_eq!(event["id"], "test/digits/1/devices/1/1/dev.gannet.drift.alarm");
    assert_eq!(event["data"]["features"][0]["name"], "image", "{event}");
    assert!(quiet.deliveries().is_empty(), "nobody was told of the other fleet");

    // what is withdrawn is no longer watched; what its devices saw is still known
    let id = get(server.admin(), "/admin/v1/ota").ok()["bundles"][0]["bundle"].as_str().unwrap().to_owned();
    call(server.admin(), &format!("DELETE /admin/v1/ota/bundles/{id}"), &[], b"").ok();
    wait::until("its watch ends", || state(&server, "alarm").is_none());
    let inputs = get(server.admin(), "/admin/v1/ota/models/digits/inputs").ok();
    let input = &inputs["sequences"][0]["inputs"][0];
    assert_eq!((&input["name"], &input["reports"]), (&json!("image"), &json!(DEVICES)));
    assert!(input["psi"].as_f64().unwrap() > 0.1 && input.get("alarm").is_none(), "{input}");
}
