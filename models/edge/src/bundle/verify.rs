//! Whether a bundle is what its manifest says, and computes what its golden vectors say. Must not trust any file.

use gannet_models::Digest;

use super::{Bundle, MANIFEST, SIGNATURE};
use crate::{
    arena::{Target, arena},
    compile::Golden,
    error::{EdgeError, Result},
    integer::{IntegerExecutor, Values},
    lite,
    manifest::{Abi, ArenaSizes, Manifest, hex},
    sign::PublicKey,
};

/// What was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The manifest.
    pub manifest: Manifest,
    /// Whether a key was given, and signed it.
    pub signed: bool,
    /// Golden rows that came out right.
    pub golden_rows: usize,
}

fn untrusted(what: impl Into<String>, fault: impl Into<String>) -> EdgeError {
    EdgeError::Untrusted { what: what.into(), fault: fault.into() }
}

/// Checks a bundle: its signature where a key is given, every file's digest, the device's side of the contract, and
/// the golden vectors.
///
/// # Errors
/// [`EdgeError::Untrusted`] names the file and what differs.
pub fn verify(bundle: &Bundle, key: Option<&PublicKey>) -> Result<Verified> {
    let manifest = bundle.manifest()?;
    let raw = &bundle.files[MANIFEST];
    if *raw != manifest.bytes() {
        return Err(untrusted(MANIFEST, "expected the canonical spelling (RFC 8785)"));
    }
    if let Some(key) = key {
        let signature = bundle
            .files
            .get(SIGNATURE)
            .ok_or_else(|| untrusted(SIGNATURE, "expected a signature, got none"))?;
        if !key.verifies(raw, signature) {
            return Err(untrusted(SIGNATURE, "the signature is not this key's over this manifest"));
        }
    }
    for (path, expected) in &manifest.files {
        let bytes = bundle.files.get(path).ok_or_else(|| untrusted(path, "it is listed, but missing"))?;
        let got = hex(&Digest::of(bytes));
        if got != *expected {
            return Err(untrusted(path, format!("expected sha256 {expected}, got {got}")));
        }
    }
    let bytes = bundle.files.get("model.tflite").ok_or_else(|| untrusted("model.tflite", "it is missing"))?;
    let model = lite::read(bytes)?;
    let arena = ArenaSizes {
        host64: arena(&model, Target::Host64).required,
        cortex_m: arena(&model, Target::CortexM).required,
    };
    if Abi::of(&model, arena) != manifest.abi {
        return Err(untrusted(MANIFEST, "its abi is not that of model.tflite"));
    }
    let golden = bundle.files.get("golden.json").ok_or_else(|| untrusted("golden.json", "it is missing"))?;
    let golden: Vec<Golden> = serde_json::from_slice(golden)
        .map_err(|error| EdgeError::malformed("golden.json", error.to_string()))?;
    let executor = IntegerExecutor::new(&model)?;
    for (row, golden) in golden.iter().enumerate() {
        let inputs: Vec<Values> = golden.inputs.iter().cloned().map(Values::Int8).collect();
        let expected: Vec<Values> = golden.outputs.iter().cloned().map(Values::Int8).collect();
        if executor.run(&inputs)? != expected {
            return Err(untrusted("golden.json", format!("row {row} is not what model.tflite computes")));
        }
    }
    Ok(Verified { manifest, signed: key.is_some(), golden_rows: golden.len() })
}
