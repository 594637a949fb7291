//! A real MLflow: aliases, webhooks, flavours, write-back, and what serves while it breaks. Must not know its API
//! beyond what people call.

use std::{fs, time::Duration};

use gannet_registry::OnAliasMove;
use gannet_runtime::clock;
use gannet_server::config::{Credentials, SourceConfig, address::Address};
use serde_json::{Value, json};

use crate::support::{
    call::{self, Traffic},
    mlflow::{ADMIN, Mlflow},
    registries::{faults, follow, ready, source, state, until},
    server::{Server, command, fixture},
    wait,
};

fn at(mlflow: &Mlflow, name: &str, target: &str) -> SourceConfig {
    source(name, &format!("mlflow+{}/{target}", mlflow.base()))
}

/// Pushes a fixture as the next version of a registered model, and points the alias to it.
#[track_caller]
fn push(mlflow: &Mlflow, fixture_name: &str, target: &str) {
    let folder = fixture(fixture_name).display().to_string();
    let output = command().args(["push", &folder, &format!("mlflow+{}/{target}", mlflow.base())]).output();
    let output = output.expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_people_log_is_served_or_refused_with_the_way_out() {
    let mlflow = Mlflow::start(false);
    let run = mlflow.told["run"].as_str().expect("a run").to_owned();
    let logged = mlflow.told["iris"][1]["model_id"].as_str().expect("an id").to_owned();
    let server = follow(
        vec![
            at(&mlflow, "iris", "iris@champion"),
            at(&mlflow, "newest", "iris"),
            at(&mlflow, "second", "iris/2"),
            at(&mlflow, "logged", &format!("models:/{logged}")),
            at(&mlflow, "by-run", &format!("runs:/{run}/wide")),
            at(&mlflow, "staged", "iris?stage=Production"),
            at(&mlflow, "pickled", "pickled@champion"),
            at(&mlflow, "exported", "exported@champion"),
            at(&mlflow, "module", "module@champion"),
        ],
        |_| {},
    );
    for (model, version) in
        [("iris", "1"), ("newest", "2"), ("second", "2"), ("logged", &logged), ("by-run", &run)]
    {
        ready(&server, model, version);
    }
    let expected = &mlflow.told["iris"][0];
    let body = json!({ "inputs": [
        { "name": "X", "shape": [2, 4], "datatype": "FP32", "data": expected["input"] },
    ] });
    let answer = call::post(server.http(), "/v2/models/iris/infer", &body).ok();
    let outputs = answer["outputs"].as_array().expect("outputs");
    let found = outputs.iter().find(|output| output["name"] == "probabilities").expect("probabilities");
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().expect("numbers").iter().map(|number| number.as_f64().expect("a number")).collect()
    };
    for (got, wanted) in numbers(&found["data"]).iter().zip(numbers(&expected["probabilities"])) {
        assert!((got - wanted).abs() < 1e-5, "{got} {wanted}");
    }
    // it came with an example, which was run, and with no answers to compare
    let version = call::get(server.admin(), "/admin/v1/models/iris/versions/1").ok();
    assert_eq!(version["proof"], "unproven", "{version}");

    let pickled = faults(&until(&server, "pickled", "it is refused", |state| !faults(state).is_empty()));
    for part in ["pickle", "mlflow.onnx.log_model", "skl2onnx"] {
        assert!(pickled.contains(part), "{part}: {pickled}");
    }
    let exported = faults(&until(&server, "exported", "it is refused", |state| !faults(state).is_empty()));
    assert!(exported.contains("pt2") && exported.contains("mlflow.onnx.log_model"), "{exported}");
    let module = faults(&until(&server, "module", "it is refused", |state| !faults(state).is_empty()));
    for part in ["pickled torch.nn.Module", "mlflow.onnx.log_model", "torch.jit.script"] {
        assert!(module.contains(part), "{part}: {module}");
    }
    assert!(faults(&state(&server, "staged")).contains("has no version in stage 'Production'"));
    let body =
        json!({ "name": "iris", "version": "1", "stage": "Production", "archive_existing_versions": true });
    mlflow.ask("POST", "model-versions/transition-stage", &body, None).ok();
    ready(&server, "staged", "1");

    let is_ready = ("serving.test.state".to_owned(), "ready".to_owned());
    wait::until("the registry is told", || mlflow.tags("iris", "1").contains(&is_ready));
    wait::until("a logged model is told", || mlflow.logged_tags(&logged).contains(&is_ready));

    // values go into a run of their own, linked to the model and not to its training run
    let registry = server.app().state().repository.registry().expect("it follows").clone();
    let (iris, one) = ("iris".parse().expect("a name"), "1".parse().expect("a version"));
    let values = vec![
        ("serving.requests".to_owned(), 7.0),
        ("drift.psi.max".to_owned(), 0.31),
        ("x".into(), f64::NAN),
    ];
    registry.metrics(iris, one, values);
    let search = json!({ "experiment_ids": ["1"], "filter": "tags.`serving.server` = 'test'" });
    let mut found = Value::Null;
    wait::until("a run of its own is begun", || {
        found = mlflow.ask("POST", "runs/search", &search, None).ok()["runs"][0].clone();
        found["data"]["metrics"].is_array()
    });
    let metrics = found["data"]["metrics"].as_array().expect("values");
    assert_eq!(metrics.len(), 2, "{found}");
    assert_ne!(found["info"]["run_id"], json!(run));
    let id = mlflow.told["iris"][0]["model_id"].as_str().expect("an id").to_owned();
    let linked = mlflow.ask("GET", &format!("logged-models/{id}"), &Value::Null, None).ok();
    assert!(linked.to_string().contains("drift.psi.max"), "{linked}");
}

#[test]
fn an_alias_moves_traffic_and_a_broken_registry_harms_nothing() {
    let mut mlflow = Mlflow::start(false);
    push(&mlflow, "add_one", "adder@live");
    let mut adder = at(&mlflow, "adder", "adder@live");
    // long beside what a look, a fetch and a swap take
    let poll = Duration::from_secs(2);
    adder.poll = poll;
    let server = follow(vec![adder, at(&mlflow, "wide", "wide@champion")], |config| {
        // slow enough that the large version is under way for some seconds
        config.registry.limits.bytes_per_s_max = Some(12 << 20);
    });
    ready(&server, "adder", "1");
    ready(&server, "wide", "1");
    let traffic = Traffic::start(&server, "adder");
    push(&mlflow, "add_two", "adder");
    let moved = clock::now();
    mlflow.point("adder", "live", "2");
    wait::until("the second version answers", || call::add(server.http(), "adder") == Ok(3.0));
    let took = clock::now() - moved;
    // without a webhook, as soon after the next look as with one
    assert!(took < poll + Duration::from_secs(2), "{took:?} after the alias moved");
    traffic.go_on();

    // killed in the middle of a download
    mlflow.point("wide", "champion", "2");
    until(&server, "wide", "the download is under way", |state| {
        state["fetching"][0]["bytes_done"].as_u64().is_some_and(|bytes| bytes > 1 << 20)
    });
    mlflow.kill();
    let stale = until(&server, "adder", "it is stale", |state| state["state"] == "stale");
    assert!(stale["stale_since"].as_u64() >= stale["last_success"].as_u64(), "{stale}");
    assert!(stale["last_error"].as_str().is_some_and(|why| why.contains("cannot be reached")), "{stale}");
    traffic.go_on();
    assert_eq!(call::add(server.http(), "adder"), Ok(3.0));
    mlflow.run();
    ready(&server, "wide", "2");
    until(&server, "adder", "it is healthy again", |state| state["state"] == "healthy");

    // a version whose model is rubbish, an alias to nothing, a version that is gone
    let rubbish = tempfile::tempdir().expect("a folder");
    fs::write(rubbish.path().join("model.onnx"), "no model").expect("a file");
    let target = format!("mlflow+{}/adder@live", mlflow.base());
    let pushed =
        command().args(["push", &rubbish.path().display().to_string(), &target]).output().expect("it runs");
    assert!(pushed.status.success());
    let why = call::refusal(&server, "adder", "3");
    assert!(why.contains("model.onnx was refused"), "{why}");
    assert_eq!(call::add(server.http(), "adder"), Ok(3.0));
    // one byte of a file that MLflow hands out without a digest: the list that was pushed beside it has one
    push(&mlflow, "add_one", "adder");
    mlflow.flip("", "model.onnx");
    mlflow.point("adder", "live", "4");
    let flipped =
        until(&server, "adder", "the flipped byte is seen", |state| faults(state).contains("sha256"));
    assert!(faults(&flipped).contains("model.onnx"), "{flipped}");
    assert_eq!(call::add(server.http(), "adder"), Ok(3.0));
    mlflow.point("adder", "live", "2");
    wait::until("it points to the second again", || {
        state(&server, "adder")["aspired"][0]["versions"] == json!(["2"])
    });
    let body = json!({ "name": "adder", "alias": "live" });
    mlflow.ask("DELETE", "registered-models/alias", &body, None).ok();
    let gone = until(&server, "adder", "the alias is missed", |state| state["state"] == "stale");
    assert!(faults(&gone).contains("alias live not found"), "{gone}");
    for version in ["2", "1"] {
        let body = json!({ "name": "adder", "version": version });
        mlflow.ask("DELETE", "model-versions/delete", &body, None).ok();
    }
    traffic.go_on();
    assert_eq!(call::add(server.http(), "adder"), Ok(3.0));
    traffic.end();
}

#[test]
fn a_webhook_moves_traffic_at_once() {
    let mlflow = Mlflow::start(false);
    let secrets = tempfile::tempdir().expect("a folder");
    let secret = secrets.path().join("secret");
    fs::write(&secret, "s3cr3t\n").expect("a file");
    let mut hooked = at(&mlflow, "hooked", "hooked@live");
    hooked.poll = Duration::from_secs(3600);
    let server = follow(vec![hooked], |config| {
        config.webhook.listen = Some(Address::loopback(0));
        config.webhook.secret = Some(Credentials::File(secret));
    });
    let hooks = server.addresses.webhook.expect("it listens");
    let events = json!([{ "entity": "MODEL_VERSION_ALIAS", "action": "CREATED" },
                        { "entity": "MODEL_VERSION_TAG", "action": "SET" }]);
    let body = json!({ "name": "gannet", "url": format!("http://{hooks}/hooks/mlflow"), "events": events,
                       "secret": "s3cr3t", "status": "ACTIVE" });
    let created = mlflow.ask("POST", "webhooks", &body, None).ok();
    let id = created["webhook"]["webhook_id"].as_str().expect("an id").to_owned();
    let tested = mlflow.ask("POST", &format!("webhooks/{id}/test"), &json!({}), None).ok();
    assert_eq!(tested["result"]["response_status"], 204, "{tested}");
    // it remembers for a second whom to tell of an event: only now may there be one
    push(&mlflow, "add_one", "hooked@live");
    ready(&server, "hooked", "1");
    let requests = |server: &Server| state(server, "hooked")["requests"].as_u64().expect("a count");
    let traffic = Traffic::start(&server, "hooked");
    push(&mlflow, "add_two", "hooked");
    let before = requests(&server);
    mlflow.point("hooked", "live", "2");
    let moved = clock::now();
    wait::until("the second version answers", || call::add(server.http(), "hooked") == Ok(3.0));
    let took = clock::now() - moved;
    assert!(took < Duration::from_secs(2), "{took:?} after the alias moved");
    traffic.end();
    // what we write ourselves comes back as webhooks, and makes nobody look
    let told = || {
        mlflow.tags("hooked", "2").iter().any(|(key, value)| key == "serving.test.state" && value == "ready")
    };
    wait::until("the registry is told", told);
    assert!(requests(&server) < before + 40, "{} requests", requests(&server) - before);

    let refused = |headers: &[&str], body: &str| {
        call::try_call(hooks, "POST /hooks/mlflow", headers, body.as_bytes()).expect("an answer").status
    };
    assert_eq!(refused(&[], "{}"), 401);
    let old = [
        "x-mlflow-delivery-id: 95a7cd82-53ed-4f8c-b7ba-32448083d9ec",
        "x-mlflow-timestamp: 1795301132",
        "x-mlflow-signature: v1,HrnCl37BiGeaAzyzCXKBFoM+Qbld+cuolgQc8+OGIRs=",
    ];
    assert_eq!(refused(&old, "{}"), 401);
}

#[test]
fn users_are_asked_for_and_readers_change_nothing() {
    let mlflow = Mlflow::start(true);
    let body = json!({ "username": "reader", "password": "inferpassword12" });
    mlflow.ask("POST", "users/create", &body, Some(ADMIN)).ok();
    let secrets = tempfile::tempdir().expect("a folder");
    let login = secrets.path().join("login");
    fs::write(&login, "reader:wrong").expect("a file");
    let mut iris = at(&mlflow, "iris", "iris@champion");
    iris.credentials = Some(Credentials::File(login.clone()));
    let server = follow(vec![iris], |_| {});
    let denied = until(&server, "iris", "it is denied", |state| !faults(state).is_empty());
    assert!(faults(&denied).contains("answered 401"), "{denied}");
    // the file is read anew
    fs::write(&login, "reader:inferpassword12").expect("a file");
    ready(&server, "iris", "1");
    // what may not be written is not, and nothing else suffers
    wait::until("requests go on", || state(&server, "iris")["state"] == "healthy");
    assert!(!mlflow.tags("iris", "1").iter().any(|(key, _)| key.starts_with("serving.")));
}

#[test]
fn an_alias_that_moves_begins_a_rollout_and_is_told_how_it_ended() {
    let mlflow = Mlflow::start(false);
    push(&mlflow, "add_one", "rolled@live");
    let rolled = SourceConfig { on_alias_move: OnAliasMove::Rollout, ..at(&mlflow, "rolled", "rolled@live") };
    let server = follow(vec![rolled], |_| {});
    ready(&server, "rolled", "1");
    let traffic = Traffic::start(&server, "rolled");
    let rollouts = "/admin/v1/models/rolled/rollouts";
    let newest = || call::get(server.admin(), rollouts).ok()["rollouts"][0].clone();
    let wish = |what: &str, body: &Value| {
        let path = format!("POST {rollouts}/{}/{what}", newest()["id"]);
        call::call(server.admin(), &path, &[], body.to_string().as_bytes()).ok()
    };
    push(&mlflow, "add_two", "rolled");
    mlflow.point("rolled", "live", "2");
    wait::until("the rollout begins", || newest()["candidate"] == "2");
    let begun = newest();
    assert_eq!((&begun["baseline"], &begun["state"]), (&json!("1"), &json!("shadow")), "{begun}");
    traffic.go_on();
    assert_eq!(call::add(server.http(), "rolled"), Ok(2.0), "the pointer moved, the traffic did not");

    wish("rollback", &json!({ "reason": "sales fell" }));
    let told = |state: &str| {
        let tags = mlflow.tags("rolled", "2");
        tags.contains(&("serving.test.state".into(), state.into()))
    };
    wait::until("the registry is told", || told("rolled_back"));
    wait::until("version 2 goes", || {
        call::get(server.http(), "/v2/models/rolled/versions/2/ready").status != 200
    });
    traffic.go_on();
    assert_eq!(call::add(server.http(), "rolled"), Ok(2.0));

    mlflow.point("rolled", "live", "1");
    ready(&server, "rolled", "1");
    let before = newest()["id"].clone();
    let look = || state(&server, "rolled")["last_success"].as_u64();
    let looked = look();
    wait::until("the registry was looked at", || look() > looked);
    mlflow.point("rolled", "live", "2");
    wait::until("another one begins", || newest()["id"] != before);
    for _ in 0..6 {
        wish("promote", &json!({}));
    }
    assert_eq!(newest()["state"], "promoted");
    wait::until("version 1 goes", || {
        call::get(server.http(), "/v2/models/rolled/versions/1/ready").status != 200
    });
    traffic.go_on();
    assert_eq!(call::add(server.http(), "rolled"), Ok(3.0));
    wait::until("the registry is told", || told("ready"));
}
