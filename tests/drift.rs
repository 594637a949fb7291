//! Drift through a real server: what changed is named, what did not change raises nothing, and everybody who is to know
//! is told: people, Prometheus and Alertmanager, a webhook, a tracking server.

pub(crate) mod rows;
mod told;

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use self::rows::{Rows, send, send_binary};
use crate::support::{
    call::get,
    folder::Folder,
    promtool,
    random::Random,
    server::{Server, command, root},
    wait,
};

/// Every request is looked at, in windows of so many rows.
pub(crate) fn watched(folder: &Folder) -> Server {
    Server::start(&folder.path(), |config| {
        config.drift.watch.rate = 1.0;
        config.drift.watch.cpu_ratio_max = 1.0;
        config.drift.watch.window_rows = 500;
    })
}

/// The zoo's model of tumours.
pub(crate) fn tumours() -> (Folder, Rows) {
    let folder = Folder::new();
    let from = root().join("models/zoo/breast_cancer/1");
    for file in ["model.onnx", "labels.txt", "baseline.json"] {
        folder.write(&format!("breast_cancer/1/{file}"), fs::read(from.join(file)).unwrap());
    }
    let rows = Rows::of_baseline(&from.join("baseline.json"), "features");
    (folder, rows)
}

pub(crate) fn drift(server: &Server, model: &str) -> Value {
    get(server.admin(), &format!("/admin/v1/models/{model}/drift")).ok()
}

/// The report once so many rows were looked at.
#[track_caller]
pub(crate) fn after(server: &Server, model: &str, rows: u64) -> Value {
    wait::until(&format!("{rows} rows are looked at"), || {
        let report = drift(server, model);
        assert_eq!(report["dropped"], 0, "{report:#}");
        report["rows"].as_u64() >= Some(rows)
    });
    drift(server, model)
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

const COUNT: u64 = 2000;

#[test]
fn shifted_traffic_is_an_alarm_that_names_what_changed_and_other_traffic_is_none() {
    let (folder, rows) = tumours();
    let server = watched(&folder);
    send(&server, &rows, COUNT, |_| {});
    let report = after(&server, "breast_cancer", COUNT);
    assert_eq!(
        (&report["state"], &report["alarms"], &report["baseline"]),
        (&json!("ok"), &json!(0), &json!("package"))
    );
    assert_eq!(
        report["features"].as_array().unwrap().len(),
        33,
        "30 values, their distance, score and class"
    );
    let estimate = report["estimate"]["accuracy"].as_f64().unwrap();
    assert!(estimate > 0.95 && report["estimate"]["note"].as_str().unwrap().contains("estimate"), "{report}");

    // as many again; two features of thirty are measured in another way
    let shifted = ["mean texture", "worst smoothness"];
    let server = watched(&folder);
    send(&server, &rows, COUNT, |row| {
        for name in shifted {
            rows.shift(row, name, 0.8);
        }
    });
    let report = after(&server, "breast_cancer", COUNT);
    assert_eq!(report["state"], "alarm", "{}", report["alarm"]);
    let culprits = texts(&report["alarm"]["culprits"]);
    for name in shifted {
        assert!(culprits.contains(&name), "{name} is missing in {culprits:?}");
    }
    let inputs: Vec<&&str> =
        culprits.iter().filter(|name| rows.names.iter().any(|known| known == **name)).collect();
    assert_eq!(inputs.len(), shifted.len(), "no other input changed: {culprits:?}");
    let rows_before = report["alarm"]["rows"].as_u64().unwrap();
    assert!(rows_before <= 700, "it took {rows_before} rows");
    println!("an alarm after {rows_before} rows: {culprits:?}");
    let page = get(server.metrics(), "/metrics").text;
    promtool::check(&get(server.metrics(), "/metrics/native").text);
    for part in [
        "gannet_drift_state{model=\"breast_cancer\",version=\"1\",state=\"alarm\"} 1",
        "feature=\"mean texture\",side=\"input\"} 1",
        "gannet_drift_dropped_total 0",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    let series = page.lines().filter(|line| line.starts_with("gannet_drift_feature_")).count();
    assert_eq!(series, 4 * 32, "four for each of 32 features");
    shown(&server);
}

#[test]
fn values_that_are_none_or_beyond_all_that_was_known_are_told_apart() {
    let (folder, rows) = tumours();
    let server = watched(&folder);
    let at = |name: &str| rows.names.iter().position(|known| known == name).unwrap();
    let rare = [
        ("mean radius", f64::NAN, "not_finite"),
        ("mean texture", f64::INFINITY, "not_finite"),
        ("mean area", 1e30, "above_range"),
        ("worst area", -1e30, "below_range"),
    ];
    // each in one row of twenty
    send_binary(&server, &rows, COUNT, |index, row| {
        let place = usize::try_from(index % 20).unwrap();
        if let Some((name, value, _)) = rare.get(place) {
            row[at(name)] = *value;
        }
    });
    let report = after(&server, "breast_cancer", COUNT);
    assert_eq!(report["state"], "alarm", "{}", report["alarm"]);
    let culprits = texts(&report["alarm"]["culprits"]);
    for (name, _, kind) in rare {
        assert!(culprits.contains(&name), "{name} is missing in {culprits:?}");
        let feature = report["features"].as_array().unwrap().iter().find(|feature| feature["name"] == name);
        let feature = feature.expect("it is watched");
        assert!(texts(&feature["rare"]).contains(&kind), "{name}: {}", feature["rare"]);
    }
    assert!(!culprits.contains(&"mean symmetry"), "what did not change is none: {culprits:?}");
}

/// In the terminal and as a page.
fn shown(server: &Server) {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("drift.html");
    let admin = format!("http://{}", server.admin());
    let run = |arguments: &[&str]| {
        command().args(["drift", "breast_cancer", "--admin", &admin]).args(arguments).output().unwrap()
    };
    let output = run(&[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "an alarm is on: {text}");
    for part in
        ["ALARM: ", "mean texture (input, numeric)  <- ALARM", "then |", "more features, without a sign"]
    {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert_eq!(run(&["--html", page.to_str().unwrap()]).status.code(), Some(1));
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.matches("<svg").count() == 33);
    let other = command().args(["drift", "nobody", "--admin", &admin]).output().unwrap();
    assert_eq!(other.status.code(), Some(1));
}

#[test]
fn the_first_rows_are_a_baseline_and_newcomers_are_named() {
    let folder = Folder::new();
    folder.put("cities/1", "identity_string");
    // of another model: it is told of and not used
    let wrong = fs::read(root().join("models/zoo/iris/1/baseline.json")).unwrap();
    folder.write("cities/1/baseline.json", wrong);
    let server = watched(&folder);
    let mut random = Random::new(5);
    let name = get(server.http(), "/v2/models/cities").ok()["inputs"][0]["name"].as_str().unwrap().to_owned();
    let mut ask = |count: u64, cities: &[&str]| {
        let rows: Vec<Value> = (0..count)
            .map(|_| {
                let city = cities[usize::try_from(random.below(cities.len() as u64)).unwrap()];
                json!({ "inputs": [{ "name": name, "shape": [1, 1], "datatype": "BYTES", "data": [city] }] })
            })
            .collect();
        rows::send_all(&server, "cities", &rows);
    };
    ask(400, &["Oslo", "Bern"]);
    assert_eq!(after(&server, "cities", 400)["state"], "learning");
    ask(500, &["Oslo", "Bern"]);
    let report = after(&server, "cities", 900);
    assert_eq!((&report["state"], &report["baseline"]), (&json!("ok"), &json!("first rows")), "{report:#}");
    ask(1000, &["Oslo", "Bern", "Bern", "Rome"]);
    let report = after(&server, "cities", 1900);
    assert_eq!(report["state"], "alarm", "{report:#}");
    let feature = &report["features"][0];
    assert!(texts(&feature["rare"]).contains(&"unknown_category") || feature["alarm"] == true, "{feature:#}");
    let features = report["features"].as_array().unwrap();
    assert!(features.iter().any(|feature| feature["newcomers"][0]["value"] == "Rome"), "{report:#}");
}

#[test]
fn labels_that_come_later_say_how_good_it_really_is() {
    let (folder, rows) = tumours();
    let server = watched(&folder);
    let classes = send(&server, &rows, 1200, |_| {});
    after(&server, "breast_cancer", 1200);
    let feed = |range: std::ops::Range<usize>, wrong_every: usize| {
        let outcomes: Vec<Value> = range
            .map(|at| {
                let wrong = at % wrong_every == 0;
                json!({ "id": format!("row-{at}"), "label": classes[at] ^ u64::from(wrong) })
            })
            .collect();
        let body = json!(outcomes).to_string();
        crate::support::call::call(
            server.http(),
            "POST /v2/models/breast_cancer/feedback",
            &[],
            body.as_bytes(),
        )
        .ok();
    };
    feed(0..600, 50);
    wait::until("labels are counted", || drift(&server, "breast_cancer")["feedback"]["labels"] == 600);
    let fed = drift(&server, "breast_cancer")["feedback"].clone();
    assert!((fed["accuracy"].as_f64().unwrap() - 0.98).abs() < 1e-9 && fed["alarm"] == false, "{fed}");
    assert!(fed["brier"].as_f64().unwrap() < 0.1 && fed["calibration_error"].is_number(), "{fed}");
    feed(0..600, 50);
    feed(600..1200, 2);
    wait::until("labels are counted once", || drift(&server, "breast_cancer")["feedback"]["labels"] == 1200);
    let report = drift(&server, "breast_cancer");
    assert_eq!(
        (&report["feedback"]["alarm"], &report["state"]),
        (&json!(true), &json!("alarm")),
        "{report:#}"
    );
    assert_eq!(texts(&report["alarm"]["culprits"]), ["errors"]);
}

#[test]
fn a_baseline_is_made_of_a_data_set() {
    let (folder, rows) = tumours();
    let mut csv = rows.names.join(",");
    for row in &rows.rows {
        let values: Vec<String> = row.iter().map(ToString::to_string).collect();
        csv.push('\n');
        csv.push_str(&values.join(","));
    }
    let data = folder.beside("rows.csv");
    fs::write(&data, csv).unwrap();
    let made = folder.beside("made.json");
    let make = |arguments: &[&str]| {
        let version = folder.path().join("breast_cancer/1");
        let output = command().args(["baseline", "make"]).arg(version).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let paths: [PathBuf; 2] = [data, made.clone()];
    let [data, out] = paths.each_ref().map(|path| path.to_str().unwrap());
    let (code, said) = make(&["--data", data, "--samples", "426", "--out", out]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("33 features of 426 rows"), "{said}");
    let read =
        |path: &std::path::Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let shipped = read(&root().join("models/zoo/breast_cancer/1/baseline.json"));
    assert_eq!(read(&made)["inputs"], shipped["inputs"], "the zoo's is made of the same rows");
    let (code, said) = make(&["--data", "/nonexistent.csv"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot be read"), "{said}");
}

#[test]
fn the_alert_rules_pass_their_own_tests() {
    promtool::test_rules(&root().join("server/alerts/gannet.rules.test.yml"));
}
