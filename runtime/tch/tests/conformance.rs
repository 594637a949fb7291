//! LibTorch keeps the suite that every backend keeps. Alone in its process: a case reads the process' size.

#![cfg(feature = "torch")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path, sync::Arc};

use gannet_conformance::{Model, Subject};
use gannet_runtime::backend::Backend;
use gannet_tch::TorchBackend;

struct LibTorch(TorchBackend);

impl Subject for LibTorch {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.0)
    }

    fn model(&self, model: &Model) -> Option<Vec<u8>> {
        let file = match model.name.as_str() {
            "add_one" | "fixed" | "scalar" => "add_one",
            "pair" => "pair",
            "picky" => "picky",
            // its type is the input's
            name if name.starts_with("identity_") => "identity",
            _ => return None,
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        Some(fs::read(folder.join(file).with_extension("pt")).unwrap())
    }

    fn exceptions(&self) -> &'static [(&'static str, &'static str)] {
        const UNSIGNED: &str = "the wrapper of LibTorch has no unsigned integers beyond 8 bits";
        &[
            ("elements of UINT16", UNSIGNED),
            ("elements of UINT32", UNSIGNED),
            ("elements of UINT64", UNSIGNED),
            ("elements of BYTES", "LibTorch has no tensors of texts"),
        ]
    }
}

#[test]
fn it_conforms() {
    let backend = TorchBackend::start(gannet_ort::release_memory).unwrap();
    println!("{}", gannet_conformance::run(&LibTorch(backend)).unwrap_or_else(|faults| panic!("{faults}")));
}
