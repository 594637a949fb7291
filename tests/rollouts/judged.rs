//! Which candidates arrive, and which are taken back.

use serde_json::json;

use super::{serve, split, stage, start, until_over, weight};
use crate::support::{
    call::{call, get},
    wait,
};

#[test]
fn a_good_candidate_goes_from_shadow_to_all_by_itself_and_no_request_fails() {
    let (folder, server) = serve("add_one");
    let plan = json!({
        "candidate": "2",
        "stages": [stage("shadow", 1.0, 200), weight(2000, 300), weight(10_000, 300)],
        "guards": [
            { "name": "error_rate", "margin_absolute": 0.05 },
            { "name": "latency", "tolerance": 2.0, "margin": 4.0, "margin_absolute": 0.1 },
            { "name": "disagreement" },
            { "name": "output_drift", "tolerance": 0.5, "margin": 0.5 },
        ],
    });
    let (rollout, loaded, log) = until_over(&folder, &server, &plan, 0);
    assert_eq!(rollout["state"], "promoted", "{rollout:#} {log:#?}");
    assert_eq!(loaded.failed, 0, "of {}: {:?}", loaded.sent, loaded.quotes);
    assert!(loaded.sent > 1000, "{}", loaded.sent);
    assert_eq!(split(&server), json!([{ "version": "2", "weight_bp": 10_000 }]));
    let moves: Vec<bool> = ["advance to stage 1", "advance to stage 2", ": promote"]
        .map(|part| log.iter().any(|line| line.contains(part)))
        .to_vec();
    assert_eq!(moves, [true; 3], "{log:#?}");
    let model = get(server.admin(), "/admin/v1/models/m").ok();
    assert_eq!(model["labels"]["stable"], "2", "the label went along: {model:#}");
    let page = get(server.metrics(), "/metrics/native").text;
    for line in [
        "gannet_rollout_phase{model=\"m\",candidate=\"2\",phase=\"promoted\"} 1",
        "gannet_rollout_decisions_total{model=\"m\",decision=\"advance\"} 2",
        "gannet_rollout_decisions_total{model=\"m\",decision=\"promote\"} 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
    }
}

#[test]
fn a_candidate_that_errs_is_taken_back() {
    let (folder, server) = serve("add_one_fails");
    let plan = json!({
        "candidate": "2",
        "stages": [weight(2000, 100_000), weight(10_000, 1)],
        "guards": [{ "name": "error_rate" }],
        "crashes_max": 1000,
    });
    let (rollout, loaded, log) = until_over(&folder, &server, &plan, 20);
    assert_eq!(rollout["state"], "rolled_back", "{rollout:#} {log:#?}");
    let decision = rollout["decision"].as_str().unwrap();
    assert!(decision.starts_with("roll back: error_rate is worse than tolerated"), "{decision}");
    assert!(log.last().unwrap().contains(decision), "{log:#?}");
    assert_eq!(split(&server), json!([{ "version": "1", "weight_bp": 10_000 }]));
    // a twentieth of a fifth of the requests
    assert!(loaded.failed > 0 && loaded.failed * 20 < loaded.sent, "{} of {}", loaded.failed, loaded.sent);
    assert!(
        loaded.quotes.iter().all(|quote| quote.contains("indices element out of")),
        "{:?}",
        loaded.quotes
    );
}

#[test]
fn a_candidate_that_is_slow_is_taken_back() {
    let (folder, server) = serve("add_one_slow");
    let plan = json!({
        "candidate": "2",
        "stages": [weight(1000, 100_000), weight(10_000, 1)],
        "guards": [{ "name": "error_rate" }, { "name": "latency" }],
    });
    let (rollout, loaded, log) = until_over(&folder, &server, &plan, 0);
    assert_eq!(rollout["state"], "rolled_back", "{rollout:#} {log:#?}");
    let decision = rollout["decision"].as_str().unwrap();
    assert!(decision.starts_with("roll back: latency is worse than tolerated"), "{decision}");
    assert_eq!(loaded.failed, 0, "{:?}", loaded.quotes);
    assert_eq!(split(&server), json!([{ "version": "1", "weight_bp": 10_000 }]));
}

#[test]
fn a_candidate_that_is_subtly_wrong_is_taken_back_before_anybody_sees_it() {
    let (folder, server) = serve("add_a_little_more");
    let plan = json!({
        "candidate": "2",
        "stages": [stage("shadow", 1.0, 100_000), weight(10_000, 1)],
        "guards": [{ "name": "disagreement" }],
    });
    let (rollout, loaded, log) = until_over(&folder, &server, &plan, 0);
    assert_eq!(rollout["state"], "rolled_back", "{rollout:#} {log:#?}");
    let decision = rollout["decision"].as_str().unwrap();
    assert!(decision.starts_with("roll back: disagreement is worse than tolerated"), "{decision}");
    assert_eq!(loaded.failed, 0, "{:?}", loaded.quotes);
    let answered = get(server.http(), "/v2/models/m/versions/2/stats").ok();
    assert_eq!(answered["model_stats"][0]["inference_count"], 0, "nobody was answered by it");
}

#[test]
fn a_candidate_that_crashes_is_taken_back_at_once() {
    let (folder, server) = serve("add_one_crashes");
    let plan = json!({
        "candidate": "2",
        "stages": [weight(1000, 100_000), weight(10_000, 1)],
        "guards": [{ "name": "latency" }],
    });
    // every row has a value that it fails at
    let (rollout, loaded, log) = until_over(&folder, &server, &plan, 1);
    assert_eq!(rollout["state"], "rolled_back", "{rollout:#} {log:#?}");
    let decision = rollout["decision"].as_str().unwrap();
    assert!(decision.contains("the candidate crashed") && decision.contains("in a row"), "{decision}");
    assert!(loaded.failed > 0 && loaded.failed < loaded.sent / 2, "{} of {}", loaded.failed, loaded.sent);
}

#[test]
fn a_candidate_that_does_not_serve_any_more_is_taken_back() {
    let (folder, server) = serve("add_one");
    start(&server, &json!({ "candidate": "2", "stages": [weight(1000, 1)] })).ok();
    folder.remove("m/2");
    let rollout = || get(server.admin(), super::ROLLOUTS).ok()["rollouts"][0].clone();
    wait::until("it is taken back", || rollout()["state"] == "rolled_back");
    let decision = rollout()["decision"].as_str().unwrap().to_owned();
    assert!(decision.starts_with("roll back: the candidate does not serve"), "{decision}");
    let why = start(&server, &json!({ "candidate": "2" })).refused(404);
    assert!(why.contains("there is no version '2'"), "{why}");
    folder.put("m/2", "add_one");
    super::both_serve(&server);
    let why = start(&server, &json!({ "candidate": "2" })).refused(409);
    assert!(why.contains("cool_down_seconds is 3600"), "{why}");
    start(&server, &json!({ "candidate": "2", "cool_down_seconds": 0 })).ok();
}

#[test]
fn metrics_that_are_fed_back_decide() {
    let (_folder, server) = serve("add_two");
    let plan = json!({
        "candidate": "2",
        "stages": [weight(5000, 200), weight(10_000, 1)],
        "guards": [{ "name": "metric:sales", "tolerance": 0.05, "margin": 0.2 }],
    });
    let path = format!("{}/{}", super::ROLLOUTS, start(&server, &plan).ok()["id"]);
    let feedback = |body: serde_json::Value| {
        call(server.http(), "POST /v2/models/m/feedback", &[], body.to_string().as_bytes())
    };
    // requests noted in the second in which counting began count as of before
    let ask = |id: &str| {
        let body = json!({ "id": id, "inputs": [{ "name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1] }] });
        let answer = call(server.http(), "POST /v2/models/m/infer", &[], body.to_string().as_bytes()).ok();
        answer["model_version"].as_str().unwrap().to_owned()
    };
    let mut index = 0;
    let rolled_back = wait::holds_within(wait::BOUND, || {
        let outcomes: Vec<serde_json::Value> = (0..50)
            .map(|_| {
                index += 1;
                let id = format!("order-{index}");
                // the candidate sells a third less
                let sales = if ask(&id) == "1" { 3.0 } else { 2.0 } + f64::from(index % 2) * 0.1;
                json!({ "id": id, "metrics": { "sales": sales } })
            })
            .collect();
        let fed = feedback(json!(outcomes)).ok();
        let is_over = !fed["note"].is_null();
        assert!(is_over || (&fed["accepted"], &fed["unknown_ids"]) == (&json!(50), &json!(0)), "{fed}");
        get(server.admin(), &path).ok()["state"] == "rolled_back"
    });
    let rollout = get(server.admin(), &path).ok();
    assert!(rolled_back, "{rollout:#}");
    assert!(rollout["decision"].as_str().unwrap().contains("metric:sales is worse"), "{rollout:#}");
    let fed = feedback(json!([{ "id": "order-1", "metrics": { "sales": 1.0 } }])).ok();
    assert!(fed["note"].as_str().unwrap().contains("no rollout"), "{fed}");
}

#[test]
fn feedback_that_cannot_be_is_refused_whole() {
    let (_folder, server) = serve("add_one");
    let plan = json!({
        "candidate": "2", "stages": [weight(5000, 1_000_000)], "guards": [{ "name": "metric:sales" }],
    });
    start(&server, &plan).ok();
    let body = json!({ "id": "a", "inputs": [{ "name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1] }] });
    let answer = call(server.http(), "POST /v2/models/m/infer", &[], body.to_string().as_bytes()).ok();
    let answered = answer["model_version"].as_str().unwrap();
    let other = if answered == "1" { "2" } else { "1" };
    let feedback = |model: &str, body: &serde_json::Value| {
        call(server.http(), &format!("POST /v2/models/{model}/feedback"), &[], body.to_string().as_bytes())
    };
    let sales = |version: &str| json!({ "id": "a", "version": version, "metrics": { "sales": 1.0 } });
    let why = feedback("m", &json!([sales(answered), sales(other)])).refused(409);
    assert!(why.contains(&format!("was answered by version '{answered}', got '{other}'")), "{why}");
    assert_eq!(
        feedback("m", &json!([sales(answered)])).ok()["accepted"],
        1,
        "the refused call counted nothing"
    );
    let again = feedback("m", &json!([sales(answered), { "id": "b", "metrics": { "sales": 1.0 } }])).ok();
    assert_eq!((&again["repeated"], &again["unknown_ids"]), (&json!(1), &json!(1)), "{again}");
    let why = feedback("m", &json!({ "id": "a" })).refused(400);
    assert!(why.contains("expected a list such as"), "{why}");
    let why = feedback("m", &json!([{ "id": "a", "label": "cat" }])).refused(400);
    assert!(why.contains("there is no class 'cat'"), "{why}");
    feedback("m", &json!([{ "id": "" }])).refused(400);
    feedback("none", &json!([])).refused(404);
    let page = get(server.metrics(), "/metrics").text;
    for line in [
        "gannet_feedback_total{model=\"m\",outcome=\"accepted\"} 1",
        "gannet_feedback_total{model=\"m\",outcome=\"unknown_id\"} 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
    }
}

#[test]
fn a_route_that_learns_moves_to_the_version_that_earns() {
    let (_folder, server) = serve("add_two");
    let route = |bandit: serde_json::Value| {
        let split = json!([{ "version": "1", "weight_bp": 5000 }, { "version": "2", "weight_bp": 5000 }]);
        let body = json!({ "split": split, "bandit": bandit }).to_string();
        call(server.admin(), &format!("PUT {}", super::TRAFFIC), &[], body.as_bytes())
    };
    let why = route(json!({ "reward": "click", "policy": "greedy" })).refused(400);
    assert!(why.contains("expected thompson or epsilon_greedy"), "{why}");
    route(json!({ "reward": "click" })).ok();
    let mut index = 0;
    let share = || {
        let arms = get(server.admin(), super::TRAFFIC).ok()["arms"].clone();
        arms[1]["weight_bp"].as_u64().unwrap()
    };
    wait::until("version 2 gets almost all", || {
        let outcomes: Vec<serde_json::Value> = (0..40)
            .map(|_| {
                index += 1;
                let body = json!({
                    "id": format!("view-{index}"),
                    "inputs": [{ "name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1] }],
                });
                let answer =
                    call(server.http(), "POST /v2/models/m/infer", &[], body.to_string().as_bytes()).ok();
                let clicked = answer["model_version"] == "2" && index % 2 == 0;
                json!({ "id": format!("view-{index}"), "metrics": { "click": u8::from(clicked) } })
            })
            .collect();
        let fed =
            call(server.http(), "POST /v2/models/m/feedback", &[], json!(outcomes).to_string().as_bytes());
        assert_eq!(fed.ok()["accepted"], 40);
        share() > 9500
    });
    let reward = json!([{ "id": "view-1", "metrics": { "click": 2.0 } }]).to_string();
    let why = call(server.http(), "POST /v2/models/m/feedback", &[], reward.as_bytes()).refused(400);
    assert!(why.contains("expected a reward from 0 to 1"), "{why}");
    let why = start(&server, &json!({ "candidate": "2" })).refused(409);
    assert!(why.contains("learns by itself"), "{why}");
}
