//! From serving back to training: captured requests are joined with what became of them, a model is trained of that and
//! registered, its alias moves, and a rollout begins here. Must not know how the script trains.

use std::{fs, path::Path, process::Command, time::Duration};

use gannet_registry::OnAliasMove;
use gannet_server::config::{Root, SourceConfig};

use super::{gannet, table, written};
use crate::{
    drift::{rows::send, tumours},
    support::{
        call,
        environment::{Environment, bounded},
        mlflow::Mlflow,
        registries::{follow, ready, source},
        server::root,
        wait,
    },
};

/// Time to train and to register, imports included.
const TRAIN_BOUND: Duration = Duration::from_secs(240);

#[test]
fn what_was_captured_trains_the_next_version_which_is_rolled_out() {
    let mlflow = Mlflow::start(false);
    let pushed = root().join("models/zoo/breast_cancer/1").display().to_string();
    let target = format!("mlflow+{}/breast_cancer@live", mlflow.base());
    let (code, said, why) = gannet(&["push", &pushed, &target]);
    assert_eq!(code, Some(0), "{said} {why}");

    let place = tempfile::tempdir().expect("a folder");
    let followed = SourceConfig { on_alias_move: OnAliasMove::Rollout, ..source("breast_cancer", &target) };
    let server = follow(vec![followed], |config| {
        config.runtime.loader_nice = 0;
        config.capture.root = Some(Root::Folder(place.path().to_owned()));
        config.capture.tap.rate = 1.0;
        config.capture.flush = Duration::from_millis(100);
    });
    ready(&server, "breast_cancer", "1");
    let (_folder, rows) = tumours();
    let classes = send(&server, &rows, 200, |_| {});
    written(&server, 200);

    // the version that the registry has answers as it did
    let at = place.path().display().to_string();
    let candidate = format!("mlflow+{}/breast_cancer@live", mlflow.base());
    let (code, said, why) = gannet(&["replay", &at, "--model", "breast_cancer", "--candidate", &candidate]);
    assert_eq!(code, Some(0), "{said} {why}");

    // what became of most of them
    let labels = place.path().join("outcomes.csv");
    let lines: String =
        classes.iter().take(180).enumerate().map(|(at, class)| format!("row-{at},{class}\n")).collect();
    fs::write(&labels, format!("request_id,label\n{lines}")).expect("a file");

    let mut python = Command::new(Environment::Mlflow.python());
    let capture = Environment::Capture.python();
    let readers =
        capture.parent().and_then(Path::parent).expect("it lies in bin").join("lib/python3.11/site-packages");
    python.env("PYTHONPATH", readers).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(place.path());
    python.arg(root().join("tests/peers/retrain.py"));
    python.arg("--table").arg(table(place.path(), "breast_cancer")).arg("--labels").arg(&labels);
    python.args(["--tracking", &mlflow.base(), "--model", "breast_cancer", "--alias", "live"]);
    let (passed, output) = bounded(python, TRAIN_BOUND);
    assert!(passed && output.contains("200 captured, 180 with a label"), "{output}");

    let rollouts =
        || call::get(server.admin(), "/admin/v1/models/breast_cancer/rollouts").ok()["rollouts"][0].clone();
    wait::until("a rollout of the new version begins", || rollouts()["candidate"] == "2");
    assert_eq!(rollouts()["baseline"], "1");
    // the version that served goes on until the other one has earned it
    assert_eq!(send(&server, &rows, 20, |_| {}).len(), 20);
}
