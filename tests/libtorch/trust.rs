//! TorchScript is code: who may bring it, and what a file does that was made to do harm.

use std::time::Duration;

use gannet_registry::TrustMode;
use gannet_server::config::{Config, TrustConfig};

use super::super::{repository, script, settings};
use crate::support::{
    call::{add, get, index, refusal},
    folder::Folder,
    server::{Server, command},
    wait,
};

/// The program that is started for first loads (this one is the test), at a priority that other tests do not starve.
fn with_program(config: &mut Config) {
    config.runtime.loader_nice = 0;
    config.repository.rehearsal_program = Some(command().get_program().into());
}

fn ready(server: &Server, version: &str) {
    wait::until(&format!("version {version} is ready"), || {
        index(server.http(), "m").iter().any(|line| line.0 == version && line.1 == "READY")
    });
}

#[test]
fn it_is_loaded_only_from_who_is_trusted() {
    let folder = repository("add_one.pt", false);
    let server = Server::start_unready(&folder.path(), with_program);
    let reason = refusal(&server, "m", "1");
    assert!(reason.contains("model.pt is a program") && reason.contains("allow_torchscript"), "{reason}");
    // the permission alone is enough, and takes effect without a restart
    folder.write("m/model.toml", settings(true));
    ready(&server, "1");
    assert_eq!(add(server.http(), "m"), Ok(2.0));
    let metadata = get(server.http(), "/v2/models/m").ok();
    assert_eq!(metadata["platform"], "pytorch_libtorch", "{metadata}");
    assert_eq!(metadata["outputs"][0]["shape"], serde_json::json!([-1, 3]), "{metadata}");
    let config = get(server.http(), "/v2/models/m/config").ok();
    assert_eq!(
        (&config["backend"], &config["default_model_filename"]),
        (&"pytorch".into(), &"model.pt".into())
    );

    let whole = Server::start(&repository("add_one.mar", false).path(), |config| {
        with_program(config);
        config.repository.allow_torchscript = true;
    });
    assert_eq!(add(whole.http(), "m"), Ok(2.0));
}

#[test]
fn a_file_that_crashes_its_loader_is_refused_and_the_server_goes_on() {
    let folder = repository("add_one.pt", true);
    let server = Server::start(&folder.path(), with_program);
    folder.write("m/2/model.pt", script("crashes.pt"));
    let reason = refusal(&server, "m", "2");
    assert!(reason.contains("its first load crashed") && reason.contains("was killed by signal"), "{reason}");
    assert_eq!(add(server.http(), "m"), Ok(2.0));
    // what comes after it is loaded as ever
    folder.write("m/3/model.pt", script("add_two.pt"));
    ready(&server, "3");
    assert_eq!(add(server.http(), "m"), Ok(3.0));
}

#[test]
fn a_file_that_never_ends_is_ended() {
    let folder = Folder::new();
    folder.write("m/1/model.pt", script("endless.pt"));
    folder.write("m/model.toml", settings(true));
    let server = Server::start_unready(&folder.path(), |config| {
        with_program(config);
        config.repository.rehearsal = Duration::from_secs(8);
    });
    let reason = refusal(&server, "m", "1");
    assert!(reason.contains("did not end within 8000 ms"), "{reason}");
}

#[test]
fn what_a_first_load_refuses_says_why() {
    let folder = repository("state_dict.pt", true);
    let server = Server::start_unready(&folder.path(), with_program);
    let reason = refusal(&server, "m", "1");
    assert!(reason.contains("weights alone"), "{reason}");
}

#[test]
fn a_signature_of_a_trusted_key_is_permission_too() {
    let folder = repository("add_one.pt", false);
    let (key, public) = (folder.beside("key.pem"), folder.beside("key.pub"));
    let openssl = |arguments: &[&str]| {
        let output = std::process::Command::new("openssl").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let (key_path, public_path) = (key.display().to_string(), public.display().to_string());
    let curve = "ec_paramgen_curve:P-256";
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", &key_path]);
    openssl(&["pkey", "-in", &key_path, "-pubout", "-out", &public_path]);
    let trusting = |config: &mut Config| {
        with_program(config);
        let keys = vec![public.clone()];
        config.registry.trust = vec![TrustConfig { models: "m".into(), keys, mode: TrustMode::Warn }];
    };
    let server = Server::start_unready(&folder.path(), trusting);
    let reason = refusal(&server, "m", "1");
    assert!(reason.contains("model.pt is a program"), "{reason}");
    drop(server);
    let version = folder.path().join("m/1").display().to_string();
    let sign = ["package", "sign", &version, "--model", "m", "--version", "1", "--key", &key_path];
    let signed = command().args(sign).output().unwrap();
    assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    let server = Server::start_unready(&folder.path(), trusting);
    ready(&server, "1");
    assert_eq!(add(server.http(), "m"), Ok(2.0));
}
