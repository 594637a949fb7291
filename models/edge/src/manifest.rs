//! What a bundle says of itself: whose model it is, what every file hashes to, and what a device must have to run it.
//! Must not know how files are written.

use std::collections::BTreeMap;

use gannet_models::Digest;
use serde::{Deserialize, Serialize};

use crate::{
    canonical::canonical,
    error::{EdgeError, Result},
    lite::{Model, Tensor},
};

/// An input or an output of the device's model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The name in the source.
    pub name: String,
    /// Axes as they are stored: channels last.
    pub shape: Vec<usize>,
    /// The type of the codes.
    pub dtype: String,
    /// The value of one code.
    pub scale: f64,
    /// The code of zero.
    pub zero_point: i32,
}

/// Memory that the device must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArenaSizes {
    /// On a 64-bit host.
    pub host64: usize,
    /// On a Cortex-M.
    pub cortex_m: usize,
}

/// What a device must have: it refuses what differs from its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abi {
    /// What goes in.
    pub inputs: Vec<Port>,
    /// What comes out.
    pub outputs: Vec<Port>,
    /// The operators that are used, sorted.
    pub operators: Vec<String>,
    /// Memory.
    pub arena: ArenaSizes,
}

/// The manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1.
    pub schema: u32,
    /// The model's name in the registry.
    pub model: String,
    /// Its version.
    pub version: String,
    /// Of the ONNX file.
    pub source_sha256: String,
    /// Grows with every release: a device takes nothing that is not higher than what it has.
    pub sequence: u64,
    /// Every other file of the bundle.
    pub files: BTreeMap<String, String>,
    /// What a device must have.
    pub abi: Abi,
}

/// The hexadecimal digits of a digest.
pub(crate) fn hex(digest: &Digest) -> String {
    let text = digest.to_string();
    text.rsplit(':').next().unwrap_or(&text).to_owned()
}

fn port(tensor: &Tensor) -> Port {
    let (scale, zero_point) = tensor.scale();
    let (name, shape, dtype) = (tensor.name.clone(), tensor.shape.clone(), tensor.kind.name().to_lowercase());
    Port { name, shape, dtype, scale: f64::from(scale), zero_point }
}

impl Abi {
    /// What a model asks of a device.
    #[must_use]
    pub fn of(model: &Model, arena: ArenaSizes) -> Self {
        let mut operators: Vec<String> = model.nodes.iter().map(|node| node.op.name()).collect();
        operators.sort();
        operators.dedup();
        let ports = |list: &[usize]| list.iter().map(|id| port(&model.tensors[*id])).collect();
        Self { inputs: ports(&model.inputs), outputs: ports(&model.outputs), operators, arena }
    }
}

impl Manifest {
    /// The bytes that are written and signed (RFC 8785).
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).expect("a manifest is plain data");
        canonical(&value).into_bytes()
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`EdgeError::Malformed`] when it is none, or of another schema.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| EdgeError::malformed("manifest.json", error.to_string()))?;
        if manifest.schema != 1 {
            return Err(EdgeError::malformed(
                "manifest.json",
                format!("expected schema 1, got {}", manifest.schema),
            ));
        }
        Ok(manifest)
    }
}
