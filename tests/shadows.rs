//! Shadows through a real server: nobody sees their answers, and their differences can be read.

use serde_json::{Value, json};

use crate::support::{
    call::{Answer, call, get, sample},
    folder::Folder,
    server::Server,
    wait,
};

const TRAFFIC: &str = "/admin/v1/models/m/traffic";
const SHADOWS: &str = "/admin/v1/models/m/shadows";

/// `m` with `add_one` as versions 1 and 3, and `add_two` as version 2.
fn serve() -> (Folder, Server) {
    let folder = Folder::with_add_one();
    folder.put("m/2", "add_two");
    folder.put("m/3", "add_one");
    folder.write("m/model.toml", "versions = \"all\"\n");
    let server = Server::start(&folder.path(), |_| {});
    wait::until("all versions serve", || {
        ["1", "2", "3"].iter().all(|version| {
            get(server.http(), &format!("/v2/models/m/versions/{version}/ready")).status == 200
        })
    });
    (folder, server)
}

#[track_caller]
fn route(server: &Server, shadow: &Value) -> Answer {
    let body = json!({ "split": [{ "version": "1", "weight_bp": 10_000 }], "shadow": shadow });
    call(server.admin(), &format!("PUT {TRAFFIC}"), &[], body.to_string().as_bytes())
}

#[track_caller]
fn ask(server: &Server, id: &str) {
    let body = json!({
        "id": id,
        "inputs": [{ "name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3] }],
    });
    let answer = call(server.http(), "POST /v2/models/m/infer", &[], body.to_string().as_bytes()).ok();
    assert_eq!(
        (&answer["model_version"], &answer["outputs"][0]["data"]),
        (&json!("1"), &json!([2.0, 3.0, 4.0]))
    );
}

/// The shadow at `index` once it has looked at so many copies.
#[track_caller]
fn looked(server: &Server, index: usize, count: u64) -> Value {
    let shadow = || get(server.admin(), SHADOWS).ok()["shadows"][index].clone();
    wait::until("the copies are looked at", || {
        shadow()["compared"].as_u64().zip(shadow()["dropped"].as_u64()).is_some_and(|(a, b)| a + b >= count)
    });
    shadow()
}

#[test]
fn several_shadows_are_compared_and_nobody_sees_their_answers() {
    let (_folder, server) = serve();
    route(&server, &json!([{ "version": "2", "fraction": 1.0 }, { "version": "3", "fraction": 1.0 }])).ok();
    for index in 0..40 {
        ask(&server, &format!("id-{index}"));
    }
    let other = looked(&server, 0, 40);
    assert_eq!(
        (&other["compared"], &other["disagreed"], &other["failed"]),
        (&json!(40), &json!(40), &json!(0))
    );
    assert_eq!((&other["best_same"], &other["rank_correlation"]), (&json!(1.0), &json!(1.0)), "{other}");
    assert!(other["latency_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{other}");
    let worst = other["worst"].as_array().unwrap();
    assert_eq!(worst.len(), 16, "no more are kept");
    assert_eq!(worst[0]["id"], "id-0");
    assert!(worst[0]["what"].as_str().unwrap().contains("at 0: 3, was 2"), "{}", worst[0]);
    let same = looked(&server, 1, 40);
    assert_eq!((&same["disagreed"], &same["worst"]), (&json!(0), &json!([])));
    let series = |version: &str, outcome: &str| {
        let labels = format!("model=\"m\",version=\"{version}\",outcome=\"{outcome}\"");
        sample(&server, &format!("gannet_shadow_requests_total{{{labels}}}"))
    };
    assert_eq!((series("2", "disagreed"), series("3", "agreed")), (Some(40.0), Some(40.0)));
    let counted = get(server.admin(), "/admin/v1/models/m/versions/2").ok();
    assert_eq!(counted["serving"]["counts"]["ok"], 0, "copies are no requests of the version");
}

#[test]
fn a_tolerance_and_a_fraction_are_followed() {
    let (_folder, server) = serve();
    let output = get(server.http(), "/v2/models/m").ok()["outputs"][0]["name"].as_str().unwrap().to_owned();
    route(&server, &json!([{ "version": "2", "fraction": 0.5, "tolerance": { output: 2.0 } }])).ok();
    for index in 0..200 {
        ask(&server, &format!("id-{index}"));
    }
    // 100 on average; five standard deviations are 35
    let shadow = looked(&server, 0, 65);
    assert_eq!(shadow["disagreed"], 0, "one more is within a tolerance of two");
    let seen = shadow["compared"].as_u64().unwrap() + shadow["dropped"].as_u64().unwrap();
    assert!((65..=135).contains(&seen), "{seen}");
}

#[test]
fn a_shadow_takes_over_only_when_it_is_told_to() {
    let (folder, server) = serve();
    route(&server, &json!([{ "version": "3", "fraction": 1.0 }, { "version": "2", "fraction": 1.0 }])).ok();
    let set = get(server.admin(), TRAFFIC).ok();
    assert_eq!(set["route"]["shadow"][0]["version"], "3");
    for shadow in [json!([{ "version": "9", "fraction": 1.0 }]), json!([{ "version": "2", "fraction": 2.0 }])]
    {
        assert!((400..500).contains(&route(&server, &shadow).status));
    }
    assert_eq!(get(server.admin(), TRAFFIC).ok(), set, "a wrong one changes nothing");
    folder.remove("m/1");
    wait::until("the first version is gone", || {
        get(server.http(), "/v2/models/m/versions/1/ready").status != 200
    });
    let answer = get(server.http(), "/v2/models/m/ready");
    assert_eq!(answer.status, 503, "who is to be watched only does not answer: {answer:?}");
}
