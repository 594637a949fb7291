//! Who is told of an alarm: a real Prometheus with its Alertmanager, a webhook, a real MLflow.

use gannet_server::config::Credentials;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{rows, rows::send, tumours};
use crate::{
    ota::{
        self,
        fleet::{Fleet, door},
    },
    support::{
        call,
        folder::Folder,
        mlflow::Mlflow,
        prometheus::Prometheus,
        receiver::Receiver,
        registries::{follow, ready, source},
        server::Server,
        wait,
    },
};

const SECRET: &[u8] = b"a secret of the test";

#[test]
fn an_alarm_reaches_prometheus_alertmanager_and_a_webhook() {
    let (folder, rows) = tumours();
    let secret = folder.beside("secret");
    std::fs::write(&secret, SECRET).unwrap();
    // the first two deliveries are refused: it is sent again
    let receiver = Receiver::start(2);
    let server = Server::start(&folder.path(), |config| {
        config.drift.watch.rate = 1.0;
        config.drift.watch.cpu_ratio_max = 1.0;
        config.drift.webhook_url = Some(format!("http://{}/drift", receiver.address));
        config.drift.webhook_secret = Some(Credentials::File(secret));
        config.registry.server_name = "test".into();
    });
    let prometheus = Prometheus::start(server.metrics());
    let is_scraped = || prometheus.query("up")["data"]["result"][0]["value"][1] == "1";
    wait::until("the page is scraped", is_scraped);
    wait::until("nobody is alarmed", || prometheus.alerts() == json!([]));
    send(&server, &rows, 1200, |row| rows.shift(row, "mean texture", 1.0));
    wait::until("Alertmanager holds the alert", || {
        let alerts = prometheus.alerts();
        let alerts = alerts.as_array().cloned().unwrap_or_default();
        alerts.iter().any(|alert| {
            alert["labels"]["alertname"] == "GannetDrift" && alert["labels"]["model"] == "breast_cancer"
        })
    });
    wait::until("the webhook took the event", || receiver.deliveries().iter().any(|delivery| delivery.taken));
    let deliveries = receiver.deliveries();
    assert_eq!(deliveries.iter().map(|delivery| delivery.taken).collect::<Vec<_>>(), [false, false, true]);
    let delivery = &deliveries[2];
    assert_eq!(delivery.header("content-type"), "application/cloudevents+json; charset=utf-8");
    let event: Value = serde_json::from_slice(&delivery.body).unwrap();
    assert_eq!(
        (&event["specversion"], &event["type"], &event["source"], &event["subject"]),
        (&json!("1.0"), &json!("dev.gannet.drift.alarm"), &json!("/gannet/test"), &json!("breast_cancer/1"))
    );
    assert_eq!(event["id"], delivery.header("webhook-id"));
    assert_eq!(event["data"]["features"][0]["name"], event["data"]["alarm"]["culprits"][0]);
    let culprits = event["data"]["alarm"]["culprits"].as_array().unwrap();
    assert!(culprits.contains(&json!("mean texture")), "{event}");
    let signed = [
        delivery.header("webhook-id").as_bytes(),
        b".",
        delivery.header("webhook-timestamp").as_bytes(),
        b".",
        &delivery.body,
    ]
    .concat();
    assert_eq!(delivery.header("webhook-signature"), format!("v1,{}", base64(&hmac(SECRET, &signed))));
}

/// RFC 2104, apart from what the server uses.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with).to_vec();
    let inner = Sha256::digest([pad(0x36), message.to_vec()].concat());
    Sha256::digest([pad(0x5c), inner.to_vec()].concat()).to_vec()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[test]
fn drift_is_told_to_mlflow_where_the_model_came_from() {
    let mlflow = Mlflow::start(false);
    let uri = format!("mlflow+{}/iris@champion", mlflow.base());
    // devices that run a bundle of the same version
    let (folder, bundle) = (Folder::new(), ota::bundle_of("iris", 1));
    let mut fleet = Fleet::new(3, &bundle);
    let server = follow(vec![source("iris", &uri)], |config| {
        ota::deliver(config, &folder, &fleet);
        config.drift.watch.rate = 1.0;
        config.drift.watch.cpu_ratio_max = 1.0;
        config.drift.watch.window_rows = 500;
    });
    ready(&server, "iris", "1");
    let input = mlflow.told["iris"][0]["input"].as_array().unwrap().clone();
    let bodies: Vec<Value> = (0..700)
        .map(|index| {
            // two rows were told of: noise about them
            let row: Vec<f64> = (0..4)
                .map(|at| input[at].as_f64().unwrap() + f64::from((index * 7 + at as u32 * 13) % 29) / 29.0)
                .collect();
            json!({ "inputs": [{ "name": "X", "shape": [1, 4], "datatype": "FP32", "data": row }] })
        })
        .collect();
    rows::send_all(&server, "iris", &bodies);
    ota::publish(&server, &bundle);
    fleet.report(door(&server), |_| vec![3; 32]);
    let metrics = || -> Vec<(String, f64)> {
        let search = json!({ "experiment_ids": experiments(&mlflow), "max_results": 50 });
        let runs = mlflow.ask("POST", "runs/search", &search, None).ok();
        let lists = runs["runs"].as_array().cloned().unwrap_or_default();
        let all = lists.iter().filter_map(|run| run["data"]["metrics"].as_array()).flatten();
        all.map(|metric| {
            (metric["key"].as_str().unwrap_or("").to_owned(), metric["value"].as_f64().unwrap_or(0.0))
        })
        .collect()
    };
    wait::until("MLflow holds what was found", || {
        let metrics = metrics();
        let value = |key: &str| metrics.iter().find(|(known, _)| known == key).map(|(_, value)| *value);
        let of_devices = value("drift.devices.rows").is_some_and(|rows| (1.0..=3.0).contains(&rows));
        of_devices && value("drift.rows").is_some_and(|rows| rows >= 1.0) && value("drift.alarm").is_some()
    });
    drop(call::get(server.admin(), "/admin/v1/models/iris/drift").ok());
}

fn experiments(mlflow: &Mlflow) -> Vec<String> {
    let found = mlflow.ask("POST", "experiments/search", &json!({ "max_results": 100 }), None).ok();
    let list = found["experiments"].as_array().cloned().unwrap_or_default();
    list.iter().map(|experiment| experiment["experiment_id"].as_str().unwrap_or("").to_owned()).collect()
}
