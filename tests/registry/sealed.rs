//! MLflow and folders keep no digests: who says there what the bytes of a version are, and what becomes of other bytes.
//! Must not know any API beyond what people call.

use gannet_models::Digest;
use gannet_server::config::SourceConfig;
use serde_json::Value;

use crate::support::{
    call,
    flips::{every_flip_is_refused, files_below},
    folder::{Folder, model_bytes},
    mlflow::Mlflow,
    registries::{faults, follow, pull, ready, source, until},
    server::{Server, command, fixture},
    wait,
};

const SEAL: &str = "serving.sha256";

fn at(mlflow: &Mlflow, name: &str, target: &str) -> SourceConfig {
    let mut source = source(name, target);
    source.endpoint = Some(mlflow.base());
    source
}

/// What `tags` say that the bytes are.
fn seal(tags: Vec<(String, String)>) -> Option<String> {
    tags.into_iter().find(|(key, _)| key == SEAL).map(|(_, digest)| digest)
}

#[test]
fn what_changed_since_it_was_first_fetched_is_refused() {
    let mlflow = Mlflow::start(false);
    let run = mlflow.told["run"].as_str().expect("a run").to_owned();
    let id = |version: usize| mlflow.told["iris"][version]["model_id"].as_str().expect("an id").to_owned();
    let wide = mlflow.logged_by(&run, "wide");
    mlflow.log_as_before(&id(0), &run, "as-before");
    let sources = || {
        vec![
            at(&mlflow, "registered", "models:/iris@champion"),
            at(&mlflow, "logged", &format!("models:/{}", id(1))),
            at(&mlflow, "by-run", &format!("runs:/{run}/wide")),
            at(&mlflow, "as-before", &format!("runs:/{run}/as-before")),
        ]
    };
    let seals = || {
        let of_run = wide.iter().find_map(|id| seal(mlflow.logged_tags(id)));
        [seal(mlflow.tags("iris", "1")), seal(mlflow.logged_tags(&id(1))), of_run]
    };
    let versions = ["1".to_owned(), id(1), run.clone(), run.clone()];
    let names = ["registered", "logged", "by-run", "as-before"];
    let all_ready = |server: &Server| {
        names.iter().zip(&versions).for_each(|(name, version)| ready(server, name, version));
    };
    assert_eq!(seals(), [None, None, None]);
    let server = follow(sources(), |_| {});
    all_ready(&server);
    wait::until("all are sealed", || seals().iter().all(Option::is_some));
    drop(server);
    // another server finds the same
    let sealed = seals();
    let server = follow(sources(), |_| {});
    all_ready(&server);
    drop(server);
    assert_eq!(seals(), sealed);
    // nothing is written into the training run
    let training = mlflow.ask("GET", &format!("runs/get?run_id={run}"), &Value::Null, None).ok();
    assert!(!training.to_string().contains("serving."), "{training}");

    let by_run = wide.iter().find(|id| seal(mlflow.logged_tags(id)).is_some()).expect("one is sealed");
    for flipped in [&id(0), &id(1), by_run] {
        mlflow.flip(flipped, "model.onnx");
    }
    let server = follow(sources(), |_| {});
    for (name, digest) in names.iter().zip(&sealed) {
        let state = until(&server, name, "it is refused", |state| !faults(state).is_empty());
        let (why, digest) = (faults(&state), digest.as_deref().expect("a digest"));
        let way = "delete it if the files were changed on purpose";
        assert!(why.contains(digest) && why.contains(way), "{name}: {why}");
    }
}

#[test]
fn a_bit_that_turned_over_is_seen_anywhere() {
    let mlflow = Mlflow::start(false);
    let id = mlflow.told["iris"][0]["model_id"].as_str().expect("an id").to_owned();
    let registered = format!("mlflow+{}/iris/1", mlflow.base());
    let said = pull(&registered, &["--seal"]).expect("it is sealed");
    assert!(said.contains("(sealed)"), "{said}");
    let digest = seal(mlflow.tags("iris", "1")).expect("a seal");
    assert!(said.contains(&digest), "{said}: {digest}");
    let again = pull(&registered, &["--seal"]).expect("it is as it was");
    assert!(!again.contains("(sealed)"), "{again}");
    every_flip_is_refused(&files_below(&mlflow.folder_of(&id)), || pull(&registered, &[]));
    let logged = format!("models:/{id}");
    let endpoint = mlflow.base();
    let options = ["--endpoint", &*endpoint, "--seal"];
    pull(&logged, &options).expect("it is sealed");
    assert_eq!(seal(mlflow.logged_tags(&id)).as_ref(), Some(&digest));
    let model = [mlflow.folder_of(&id).join("model.onnx")];
    every_flip_is_refused(&model, || pull(&logged, &options[..2]));
}

#[test]
fn where_digests_are_required_nothing_unsealed_is_fetched() {
    let mlflow = Mlflow::start(false);
    let run = mlflow.told["run"].as_str().expect("a run").to_owned();
    let id = mlflow.told["iris"][1]["model_id"].as_str().expect("an id").to_owned();
    mlflow.log_as_before(&id, &run, "as-before");
    let server = follow(
        vec![
            at(&mlflow, "iris", "models:/iris@champion"),
            at(&mlflow, "second", "models:/iris/2"),
            at(&mlflow, "as-before", &format!("runs:/{run}/as-before")),
        ],
        |config| config.registry.limits.require_digest = true,
    );
    for name in ["iris", "second", "as-before"] {
        let why = faults(&until(&server, name, "it is refused", |state| !faults(state).is_empty()));
        for part in ["nobody has said what its bytes are", "gannet pull --seal", "nothing was fetched"] {
            assert!(why.contains(part), "{part}: {why}");
        }
    }
    // as the pipeline does that logged it
    let registered = |version: &str| format!("mlflow+{}/iris/{version}", mlflow.base());
    pull(&registered("1"), &["--seal"]).expect("it is sealed");
    ready(&server, "iris", "1");
    // and bytes that changed before the server ever fetched them
    pull(&registered("2"), &["--seal"]).expect("it is sealed");
    mlflow.flip(&id, "model.onnx");
    drop(server);
    let server = follow(vec![at(&mlflow, "second", "models:/iris/2")], |config| {
        config.registry.limits.require_digest = true;
    });
    let why = faults(&until(&server, "second", "it is refused", |state| !faults(state).is_empty()));
    assert!(why.contains(&seal(mlflow.tags("iris", "2")).expect("a seal")), "{why}");
    // files of a training run are nobody's to write to
    let endpoint = mlflow.base();
    let refused = pull(&format!("runs:/{run}/as-before"), &["--endpoint", &endpoint, "--seal"]);
    let why = refused.expect_err("nothing to note it down in");
    assert!(why.contains("files of a training run, which are never written to"), "{why}");
}

#[test]
fn what_was_pushed_to_a_folder_is_held_to_the_list_beside_it() {
    let folder = Folder::new();
    let target = format!("file://{}/m/1", folder.path().display());
    let output =
        command().arg("push").arg(fixture("add_one")).arg(&target).output().expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let server = Server::start(&folder.path(), |_| {});
    assert_eq!(call::add(server.http(), "m"), Ok(2.0));
    let mut bytes = model_bytes("add_one");
    bytes[20] ^= 1;
    folder.write("m/1/model.onnx", &bytes);
    let told = |part: &str| call::get(server.admin(), "/admin/v1/models").text.contains(part);
    wait::until("it is refused", || told("expected 'model.onnx' of sha256") && told(".1.manifest.json"));
    assert_eq!(call::add(server.http(), "m"), Ok(2.0), "the copy from before serves");
    // changed on purpose
    folder.put("m/1", "add_two");
    wait::until("the other bytes are refused too", || told(&Digest::of(&model_bytes("add_two")).to_string()));
    folder.remove("m/.1.manifest.json");
    wait::until("the change is served", || call::add(server.http(), "m") == Ok(3.0));
}
