//! Routes through a real server: who answers whom, over HTTP and gRPC, while versions come and go, after a restart,
//! and in two processes; and what a wrong route is answered with.

use std::{collections::BTreeMap, net::ToSocketAddrs};

use serde_json::{Value, json};

use crate::support::{
    call::{Answer, Traffic, add, call, get, sample},
    folder::Folder,
    grpc::{Client, InferParameter, MODEL_INFER, ModelInferRequest, Tensor, frame},
    server::{Process, Server},
    wait,
};
use gannet_server::repository::ControlMode;

const TRAFFIC: &str = "/admin/v1/models/m/traffic";

/// `m` with `add_one` as version 1 and `add_two` as version 2 and, another copy, as version 3.
fn versions() -> Folder {
    let folder = Folder::with_add_one();
    folder.put("m/2", "add_two");
    folder.put("m/3", "add_two");
    folder.write("m/model.toml", "versions = \"all\"\n[labels]\nstable = \"1\"\n");
    folder
}

fn all_serve(address: impl ToSocketAddrs + Copy) -> bool {
    let answers = ["m/versions/1", "m/versions/2", "m/versions/3"].map(|path| add(address, path));
    answers == [Ok(2.0), Ok(3.0), Ok(3.0)]
}

fn serve() -> (Folder, Server) {
    let folder = versions();
    let server = Server::start(&folder.path(), |_| {});
    wait::until("all versions serve", || all_serve(server.http()));
    (folder, server)
}

/// A route by the header `x-user-id`.
fn by_user(split: &[(&str, u32)]) -> Value {
    let split: Vec<Value> =
        split.iter().map(|(version, weight)| json!({ "version": version, "weight_bp": weight })).collect();
    json!({ "split": split, "sticky": { "header": "x-user-id" } })
}

#[track_caller]
fn put(admin: impl ToSocketAddrs, route: &Value) -> Answer {
    call(admin, &format!("PUT {TRAFFIC}"), &[], route.to_string().as_bytes())
}

/// Asks as one user: the answer's version and arm, which its header, its body and its value agree on.
#[track_caller]
fn ask(address: impl ToSocketAddrs, user: &str) -> (String, Option<String>) {
    let body = json!({ "inputs": [{ "name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1] }] });
    let header = format!("x-user-id: {user}");
    let answer = call(address, "POST /v2/models/m/infer", &[&header], body.to_string().as_bytes());
    let ok = answer.ok();
    let arm = answer.head.lines().find_map(|line| line.strip_prefix("x-gannet-arm: ")).map(str::to_owned);
    assert_eq!(ok["parameters"]["gannet_arm"].as_str(), arm.as_deref(), "{answer:?}");
    let version = ok["model_version"].as_str().unwrap().to_owned();
    let expected = if version == "1" { 2.0 } else { 3.0 };
    assert_eq!(ok["outputs"][0]["data"][0].as_f64(), Some(expected), "the value is of the version named");
    (version, arm)
}

/// Who answers each of some users.
fn assigned(address: impl ToSocketAddrs + Copy) -> Vec<String> {
    (0..200).map(|user| ask(address, &format!("user-{user}")).0).collect()
}

#[test]
fn users_stay_with_their_version_and_a_higher_weight_only_adds_users() {
    let (_folder, server) = serve();
    assert_eq!(ask(server.http(), "anna"), ("3".into(), None), "without a route the highest version answers");
    let mut before = vec!["1".to_owned(); 200];
    for weight in [500, 2500, 5000, 10_000] {
        put(server.admin(), &by_user(&[("1", 10_000 - weight), ("2", weight)])).ok();
        let now = assigned(server.http());
        assert_eq!(now, assigned(server.http()), "asked twice");
        for (before, now) in before.iter().zip(&now) {
            assert!(before == now || (before == "1" && now == "2"), "{before} -> {now} at {weight}");
        }
        let share = now.iter().filter(|version| *version == "2").count() * 10_000 / 200;
        // 200 users: five standard deviations of a half are 18 %
        assert!(share.abs_diff(weight as usize) < 1800, "{share} of {weight}");
        before = now;
    }
    call(server.admin(), &format!("DELETE {TRAFFIC}"), &[], b"").ok();
    assert_eq!(ask(server.http(), "anna"), ("3".into(), None));
}

#[test]
fn a_request_that_names_a_version_or_a_label_is_in_no_arm() {
    let (_folder, server) = serve();
    put(server.admin(), &by_user(&[("2", 10_000)])).ok();
    assert_eq!(ask(server.http(), "anna"), ("2".into(), Some("2".into())));
    for (path, value) in [("m/versions/3", 3.0), ("m/versions/stable", 2.0), ("m/versions/1", 2.0)] {
        let body =
            json!({ "inputs": [{ "name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1] }] });
        let start = format!("POST /v2/models/{path}/infer");
        let answer = call(server.http(), &start, &[], body.to_string().as_bytes());
        assert_eq!(answer.ok()["outputs"][0]["data"][0], value);
        assert!(!answer.head.contains("x-gannet-arm") && answer.json()["parameters"].is_null(), "{answer:?}");
    }
    let arms = get(server.admin(), TRAFFIC).ok()["arms"].clone();
    assert_eq!(arms[0]["requests"], 1, "{arms}");
    let metadata = get(server.http(), "/v2/models/m/ready").ok();
    assert_eq!(metadata["ready"], true);
}

#[test]
fn a_request_without_its_key_is_refused_unless_the_route_does_without() {
    let (_folder, server) = serve();
    put(server.admin(), &by_user(&[("1", 5000), ("2", 5000)])).ok();
    assert_eq!(add(server.http(), "m"), Err(400));
    let mut route = by_user(&[("1", 5000), ("2", 5000)]);
    route["sticky"]["required"] = json!(false);
    put(server.admin(), &route).ok();
    let infer = |id: Option<&str>| {
        let mut body =
            json!({ "inputs": [{ "name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1] }] });
        if let Some(id) = id {
            body["id"] = json!(id);
        }
        let answer = call(server.http(), "POST /v2/models/m/infer", &[], body.to_string().as_bytes()).ok();
        (answer["id"].as_str().unwrap().to_owned(), answer["model_version"].clone())
    };
    let mut versions = BTreeMap::new();
    for _ in 0..40 {
        let (id, version) = infer(None);
        assert_eq!(infer(Some(&id)).1, version, "the id that was made is the key");
        *versions.entry(version.to_string()).or_insert(0) += 1;
    }
    assert_eq!(versions.len(), 2, "{versions:?}");
}

#[test]
fn parameters_and_metadata_carry_keys_over_grpc_too() {
    let (_folder, server) = serve();
    let split = json!([{ "version": "1", "weight_bp": 5000 }, { "version": "2", "weight_bp": 5000 }]);
    let client = Client::open(server.grpc());
    let request = |parameters| ModelInferRequest {
        model_name: "m".into(),
        parameters,
        inputs: vec![Tensor::typed("x", &[1, 3], &[1.0; 3])],
        ..ModelInferRequest::default()
    };
    put(server.admin(), &json!({ "split": split, "sticky": { "header": "x-user-id" } })).ok();
    let mut over_http = Vec::new();
    for user in 0..40 {
        let user = format!("user-{user}");
        let body = frame(&request([].into()));
        let response = client.call(MODEL_INFER, &[("x-user-id", &user)], body).response();
        let arm = response.parameters["gannet_arm"].string_param.clone();
        assert_eq!(arm, Some(response.model_version.clone()));
        assert_eq!(ask(server.http(), &user), (response.model_version, arm));
        over_http.push(ask(server.http(), &user).0);
    }
    assert_eq!(client.infer(&request([].into())).code, 3, "without its key it is invalid");
    let stream = "/inference.GRPCInferenceService/ModelStreamInfer";
    for (headers, part) in [(&[("x-user-id", "user-0")][..], "gannet_arm"), (&[], "which the request lacks")]
    {
        let ended = client.call(stream, headers, frame(&request([].into())));
        let text = String::from_utf8_lossy(&ended.body).into_owned();
        assert!(ended.code == 0 && text.contains(part), "{part}: {ended:?}");
    }
    put(server.admin(), &json!({ "split": split, "sticky": { "parameter": "user" } })).ok();
    for (user, expected) in over_http.iter().enumerate() {
        let user = format!("user-{user}");
        let parameter = InferParameter { string_param: Some(user.clone()), ..InferParameter::default() };
        let response = client.infer(&request([("user".to_owned(), parameter)].into())).response();
        assert_eq!(response.model_version, *expected, "the same key, wherever it is");
        let body = json!({
            "parameters": { "user": user },
            "inputs": [{ "name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1] }],
        });
        let answer = call(server.http(), "POST /v2/models/m/infer", &[], body.to_string().as_bytes()).ok();
        assert_eq!(answer["model_version"], **expected);
    }
}

#[test]
fn a_version_that_goes_is_stood_in_for_and_no_request_fails() {
    let folder = versions();
    let server = Server::start(&folder.path(), |config| config.repository.mode = ControlMode::Explicit);
    wait::until("all versions serve", || all_serve(server.http()));
    let split = json!([
        { "version": "1", "weight_bp": 4000 },
        { "version": "2", "weight_bp": 5000 },
        { "version": "3", "weight_bp": 1000 }
    ]);
    put(server.admin(), &json!({ "split": split })).ok();
    let traffic = Traffic::start(&server, "m");
    let change = |version: &str, what: &str| {
        call(server.admin(), &format!("POST /admin/v1/models/m/versions/{version}/{what}"), &[], b"").ok();
        traffic.go_on();
    };
    for _ in 0..2 {
        change("2", "unload");
        change("1", "unload");
        change("1", "load");
        change("2", "load");
        change("2", "reload");
    }
    change("2", "unload");
    put(server.admin(), &json!({ "split": [{ "version": "1", "weight_bp": 10_000 }] })).ok();
    traffic.end();
    change_is_counted(&server);
}

fn change_is_counted(server: &Server) {
    let arms = get(server.admin(), TRAFFIC).ok()["arms"].clone();
    let count = |name: &str| arms[0][name].as_f64().unwrap();
    assert!(count("requests") > count("fallbacks") && count("fallbacks") > 0.0, "{arms}");
    let series = |name: &str| sample(server, &format!("gannet_route_{name}{{model=\"m\",version=\"1\"}}"));
    let counts = ["requests_total", "fallbacks_total", "weight_ratio"].map(series);
    assert_eq!(counts, [Some(count("requests")), Some(count("fallbacks")), Some(1.0)]);
}

#[test]
fn of_two_writers_one_learns_of_the_other() {
    let (_folder, server) = serve();
    let put_if = |condition: &str, weight: u32| {
        let route = by_user(&[("1", 10_000 - weight), ("2", weight)]);
        call(server.admin(), &format!("PUT {TRAFFIC}"), &[condition], route.to_string().as_bytes())
    };
    let etag = |answer: &Answer| {
        let line = answer.head.lines().find_map(|line| line.strip_prefix("etag: "));
        line.unwrap_or_else(|| panic!("no ETag: {answer:?}")).to_owned()
    };
    put_if("if-match: *", 100).refused(412);
    let first = put_if("if-none-match: *", 100);
    first.ok();
    assert!(put_if("if-none-match: *", 200).refused(412).contains(&etag(&first)));
    let same = put_if(&format!("if-match: {}", etag(&first)), 100);
    assert_eq!(etag(&same), etag(&first), "the same once more changes nothing");
    let second = put_if(&format!("if-match: {}", etag(&first)), 200);
    assert_ne!(etag(&second), etag(&first));
    let why = put_if(&format!("if-match: {}", etag(&first)), 300).refused(412);
    assert!(why.contains("somebody else changed it"), "{why}");
    let now = get(server.admin(), TRAFFIC);
    assert_eq!((etag(&now), &now.ok()["route"]["split"][1]["weight_bp"]), (etag(&second), &json!(200)));
    let condition = format!("if-match: {}", etag(&first));
    call(server.admin(), &format!("DELETE {TRAFFIC}"), &[&condition], b"").refused(412);
    let condition = format!("if-match: {}", etag(&second));
    call(server.admin(), &format!("DELETE {TRAFFIC}"), &[&condition], b"").ok();
    call(server.admin(), &format!("DELETE {TRAFFIC}"), &[], b"").refused(404);
    let third = put_if("if-none-match: *", 200);
    assert_ne!(etag(&third), etag(&second), "a revision never comes twice");
    put_if("if-match: 7", 200).refused(400);
}

#[test]
fn a_wrong_route_is_named_and_changes_nothing() {
    let folder = versions();
    folder.put("m/4", "add_sub");
    folder.write("m/5/model.onnx", "no model");
    let server = Server::start(&folder.path(), |_| {});
    wait::until("the good versions serve", || {
        all_serve(server.http()) && get(server.http(), "/v2/models/m/versions/4/ready").status == 200
    });
    let good = put(server.admin(), &by_user(&[("1", 9000), ("2", 1000)])).ok();
    let check = |body: &Value, status: u16, part: &str| {
        let why = put(server.admin(), body).refused(status);
        assert!(why.contains(part), "{part} is missing in {why}");
    };
    check(&by_user(&[("1", 9000), ("2", 2000)]), 400, "sum to 11000, expected 10000");
    check(&by_user(&[]), 400, "split: expected 1 to 16 versions");
    check(
        &by_user(&[("1", 9000), ("9", 1000)]),
        404,
        "split[1].version: there is no version '9'; known: 1, 2",
    );
    check(&by_user(&[("stable", 10_000)]), 404, "it is a label, which may move; name the version, '1'");
    check(&by_user(&[("1", 9000), ("5", 1000)]), 409, "'5' is not ready");
    check(&by_user(&[("1", 9000), ("4", 1000)]), 409, "takes other inputs than '1'");
    let sticky =
        |sticky: Value| json!({ "split": [{ "version": "1", "weight_bp": 10_000 }], "sticky": sticky });
    check(&sticky(json!({})), 400, "expected either 'header' or 'parameter'");
    check(&sticky(json!({ "header": "not a header" })), 400, "sticky.header");
    check(&sticky(json!({ "parameter": "priority" })), 400, "has a meaning of its own");
    check(&json!({ "split": [], "weights": [] }), 400, "unknown field `weights`");
    check(&json!({ "split": [{ "version": "1", "weight_bp": -1 }] }), 400, "weight_bp");
    assert_eq!(get(server.admin(), TRAFFIC).ok(), good);
    let route = by_user(&[("1", 10_000)]).to_string();
    call(server.admin(), "PUT /admin/v1/models/none/traffic", &[], route.as_bytes()).refused(404);
}

#[test]
fn every_server_assigns_users_alike_and_another_salt_is_another_split() {
    let (_folder, first) = serve();
    let (_other_folder, second) = serve();
    let mut route = by_user(&[("1", 5000), ("2", 3000), ("3", 2000)]);
    put(first.admin(), &route).ok();
    put(second.admin(), &route).ok();
    let assigned_first = assigned(first.http());
    assert_eq!(assigned(second.http()), assigned_first);
    route["salt"] = json!("another");
    put(second.admin(), &route).ok();
    let moved = assigned(second.http()).iter().zip(&assigned_first).filter(|(a, b)| a != b).count();
    // independent splits agree on 38 % of the users; five standard deviations of 200 are 17 %
    assert!((90..=158).contains(&moved), "{moved} of 200 users moved");
}

/// The admin address of a process.
fn admin(process: &Process) -> String {
    let line = process.banner.lines().find(|line| line.contains("/admin/")).expect("the banner names it");
    line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address").to_owned()
}

#[test]
fn routes_and_labels_hold_after_a_kill_and_in_another_process() {
    let folder = versions();
    let (repository, state) = (folder.path().display().to_string(), folder.beside("state"));
    let process = Process::start(&state, &[&repository]);
    wait::until("all versions serve", || all_serve(process.http.as_str()));
    let set = put(admin(&process), &by_user(&[("1", 6000), ("2", 3000), ("3", 1000)])).ok();
    let label = "PUT /admin/v1/models/m/labels/next";
    call(admin(&process), label, &[], b"{\"version\": \"2\"}").ok();
    call(admin(&process), "DELETE /admin/v1/models/m/labels/stable", &[], b"").ok();
    let before = assigned(process.http.as_str());
    // dropping it kills it with no chance to say goodbye
    drop(process);
    let process = Process::start(&state, &[&repository]);
    wait::until("all versions serve again", || all_serve(process.http.as_str()));
    assert_eq!(assigned(process.http.as_str()), before);
    let again = get(admin(&process), TRAFFIC).ok();
    assert_eq!((&again["route"], &again["revision"]), (&set["route"], &set["revision"]));
    assert_eq!(add(process.http.as_str(), "m/versions/next"), Ok(3.0));
    assert_eq!(add(process.http.as_str(), "m/versions/stable"), Err(404));

    let second = Process::start(&state, &[&repository]);
    wait::until("the second process serves", || all_serve(second.http.as_str()));
    assert_eq!(assigned(second.http.as_str()), before, "it follows what it found");
    let why = put(admin(&second), &by_user(&[("1", 10_000)])).refused(409);
    assert!(why.contains("another process") && why.contains("--state"), "{why}");
    put(admin(&process), &by_user(&[("1", 9000), ("2", 1000)])).ok();
    drop(process);
    let last = put(admin(&second), &by_user(&[("1", 5000), ("2", 5000)])).ok();
    assert!(last["revision"].as_u64() > again["revision"].as_u64().map(|r| r + 1), "{last}: it took over");
    assert_eq!(add(second.http.as_str(), "m/versions/next"), Ok(3.0));
}

#[test]
fn a_damaged_state_folder_stops_the_start() {
    let folder = versions();
    let state = folder.beside("state");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(state.join("traffic.json"), "{\"format\": 1, \"rev").unwrap();
    let output = crate::support::server::command()
        .args(["--http", "127.0.0.1:0", "--grpc", "off", "--metrics", "off", "--admin", "off", "--state"])
        .arg(&state)
        .arg(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("traffic.json") && text.contains("put back a copy that is whole"), "{text}");
}
