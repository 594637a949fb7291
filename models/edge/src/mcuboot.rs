//! Wraps a model as an image that MCUboot's tool accepts (`imgtool verify -k`), so that the bootloader's own update
//! path can carry it. Must not know bundles.

use sha2::{Digest as _, Sha256};

use crate::sign::PrivateKey;

const MAGIC: u32 = 0x96f3_b83d;
/// The header is padded to this, as linkers of slots expect.
const HEADER_BYTES: u16 = 0x20;
const TLV_MAGIC: u16 = 0x6907;
const TLV_KEY_HASH: u16 = 0x01;
const TLV_SHA256: u16 = 0x10;
const TLV_ED25519: u16 = 0x24;

/// The version of an image, which the bootloader compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageVersion {
    /// First number.
    pub major: u8,
    /// Second number.
    pub minor: u8,
    /// Third number.
    pub revision: u16,
    /// Build number: the manifest's sequence.
    pub build: u32,
}

/// The bytes of a signed image.
#[must_use]
pub fn image(payload: &[u8], version: ImageVersion, key: &PrivateKey) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("models are below the limit of elements");
    let mut image = Vec::with_capacity(payload.len() + 256);
    image.extend(MAGIC.to_le_bytes());
    image.extend(0u32.to_le_bytes());
    image.extend(HEADER_BYTES.to_le_bytes());
    image.extend(0u16.to_le_bytes());
    image.extend(size.to_le_bytes());
    image.extend(0u32.to_le_bytes());
    image.extend([version.major, version.minor]);
    image.extend(version.revision.to_le_bytes());
    image.extend(version.build.to_le_bytes());
    image.extend(0u32.to_le_bytes());
    image.extend(payload);
    let digest: [u8; 32] = Sha256::digest(&image).into();
    let name: [u8; 32] = Sha256::digest(key.public().der()).into();
    let signature = key.sign(&digest);
    let mut entries = Vec::new();
    for (kind, value) in [(TLV_SHA256, &digest[..]), (TLV_KEY_HASH, &name[..]), (TLV_ED25519, &signature[..])]
    {
        entries.extend(kind.to_le_bytes());
        entries.extend(u16::try_from(value.len()).expect("64 bytes").to_le_bytes());
        entries.extend(value);
    }
    image.extend(TLV_MAGIC.to_le_bytes());
    image.extend(u16::try_from(entries.len() + 4).expect("few entries").to_le_bytes());
    image.extend(entries);
    image
}
