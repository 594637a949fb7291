//! TorchScript through the server: who may bring it, what a file that crashes does, swaps with ONNX under load, and
//! how fast it is served. A binary of its own, because it needs LibTorch. Must not know how the engine runs a file.

#![expect(clippy::unwrap_used, reason = "a test ends where its world is not as it must be")]

#[expect(dead_code, reason = "shared with the other binary")]
mod support;

mod libtorch {
    pub(crate) mod logged;

    pub(crate) mod trust;

    pub(crate) mod swap;

    pub(crate) mod throughput;
}

use std::{fs, path::Path};

use crate::support::{folder::Folder, server::root};

/// What every fixture here takes and gives, without the permission.
const STATED: &str = "[[inputs]]\nname = \"x\"\ndtype = \"FP32\"\ndims = [3]\n[[outputs]]\nname = \"y\"\n";

/// A TorchScript fixture.
fn script(name: &str) -> Vec<u8> {
    let path = root().join("runtime/tch/tests/fixtures").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A repository whose model `m` is the fixture, with or without permission.
fn repository(name: &str, allowed: bool) -> Folder {
    let folder = Folder::new();
    let extension = Path::new(name).extension().unwrap().to_str().unwrap();
    folder.write(&format!("m/1/model.{extension}"), script(name));
    folder.write("m/model.toml", settings(allowed));
    folder
}

fn settings(allowed: bool) -> String {
    if allowed { format!("allow_torchscript = true\n{STATED}") } else { STATED.to_owned() }
}
