//! Signatures: made here and checked by PyPI's tool, made there and checked here, and what is refused without. Must not
//! know formats.

use std::{fs, path::Path, process::Command};

use gannet_registry::TrustMode;
use gannet_server::config::TrustConfig;

use crate::support::{
    call,
    environment::Environment,
    folder::Folder,
    server::{Server, command, fixture},
};

/// Runs a command that must end as `good` says; what it printed.
#[track_caller]
fn run(command: &mut Command, good: bool) -> String {
    let output = command.output().expect("the command runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.success(), good, "{command:?}: {said}");
    said
}

struct Keys {
    folder: tempfile::TempDir,
}

impl Keys {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let python = "from cryptography.hazmat.primitives.asymmetric import ec\n\
                      from cryptography.hazmat.primitives import serialization as s\n\
                      import pathlib, sys\n\
                      at = pathlib.Path(sys.argv[1]); key = ec.generate_private_key(ec.SECP256R1())\n\
                      at.joinpath('key').write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))\n\
                      at.joinpath('key.pub').write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))\n";
        run(Command::new(Environment::Registries.python()).args(["-c", python]).arg(folder.path()), true);
        Self { folder }
    }

    fn private(&self) -> String {
        self.folder.path().join("key").display().to_string()
    }

    fn public(&self) -> String {
        self.folder.path().join("key.pub").display().to_string()
    }
}

fn package(at: &Path) {
    fs::create_dir_all(at.join("golden")).expect("a folder");
    fs::copy(fixture("add_one").join("model.onnx"), at.join("model.onnx")).expect("a file");
    fs::write(at.join("golden/notes.txt"), "a file beside").expect("a file");
}

#[test]
fn signatures_are_understood_both_ways() {
    let keys = Keys::new();
    let work = tempfile::tempdir().expect("a folder");
    let ours = work.path().join("ours");
    package(&ours);
    let folder = ours.display().to_string();
    let signed = ["package", "sign", &folder, "--model", "iris", "--version", "3", "--key", &keys.private()];
    run(command().args(signed), true);
    let signature = ours.join("model.sig").display().to_string();
    let tool = || {
        let mut command = Command::new(Environment::Registries.python());
        command.args(["-m", "model_signing"]);
        command
    };
    let verify = ["verify", "key", &folder, "--signature", &signature, "--public_key", &keys.public()];
    run(tool().args(verify), true);
    fs::write(ours.join("more"), "x").expect("a file");
    run(tool().args(verify), false);
    run(command().args(["package", "verify", &folder, "--key", &keys.public()]), false);

    // the tool signs the folder's own name
    let theirs = work.path().join("iris@3");
    package(&theirs);
    let folder = theirs.display().to_string();
    let signature = theirs.join("model.sig").display().to_string();
    run(
        tool().args(["sign", "key", &folder, "--signature", &signature, "--private_key", &keys.private()]),
        true,
    );
    let bound = ["package", "verify", &folder, "--key", &keys.public(), "--model", "iris", "--version"];
    run(command().args(bound).arg("3"), true);
    let said = run(command().args(bound).arg("4"), false);
    assert!(said.contains("expected a signature of 'iris@4', got one of 'iris@3'"), "{said}");
    let other = Keys::new();
    run(command().args(["package", "verify", &folder, "--key", &other.public()]), false);
}

#[test]
fn without_a_valid_signature_nothing_is_served() {
    let keys = Keys::new();
    let folder = Folder::new();
    folder.put("m/1", "add_one");
    let version = folder.path().join("m/1").display().to_string();
    run(
        command().args([
            "package",
            "sign",
            &version,
            "--model",
            "m",
            "--version",
            "1",
            "--key",
            &keys.private(),
        ]),
        true,
    );
    let server = Server::start(&folder.path(), |config| {
        let keys = vec![keys.public().into()];
        config.registry.trust = vec![TrustConfig { models: "*".into(), keys, mode: TrustMode::Require }];
    });
    assert_eq!(call::add(server.http(), "m"), Ok(2.0));
    // the signature of version 1 beside another model
    folder.put("m/2", "add_two");
    fs::copy(folder.path().join("m/1/model.sig"), folder.path().join("m/2/model.sig")).expect("a file");
    let why = call::refusal(&server, "m", "2");
    assert!(why.contains("'model.onnx' was changed"), "{why}");
    folder.put("other/1", "add_two");
    let why = call::refusal(&server, "other", "1");
    assert!(why.contains("expected a signature in model.sig, got none"), "{why}");
    assert_eq!(call::add(server.http(), "m"), Ok(2.0));
}
