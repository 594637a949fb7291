//! Signatures of manifests and of images: Ed25519 with keys as OpenSSL and MCUboot's tool write them. Release keys stay
//! with whoever releases: nothing here talks to a server. Must not know what is signed.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};

use crate::error::{EdgeError, Result};

/// PKCS#8 of an Ed25519 private key, before its 32 bytes (RFC 8410).
const PRIVATE_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// The same of a public key.
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A release key.
#[derive(Debug)]
pub struct PrivateKey(SigningKey);

/// What a release key's signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

fn bad(what: &str, expected: &str) -> EdgeError {
    EdgeError::malformed(what, format!("expected {expected}"))
}

/// The bytes between the lines of a PEM file.
fn pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let from = text.split(&format!("-----BEGIN {label}-----")).nth(1)?;
    let body: String = from.split("-----END").next()?.split_whitespace().collect();
    STANDARD.decode(body).ok()
}

impl PrivateKey {
    /// Reads a PEM file with a PKCS#8 Ed25519 key (`openssl genpkey -algorithm ed25519`).
    ///
    /// # Errors
    /// [`EdgeError::Malformed`] when it holds no such key.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(EdgeError::io(path, "read"))?;
        Self::of_pem(&text).ok_or_else(|| {
            bad(
                &path.display().to_string(),
                "an Ed25519 private key in PEM (openssl genpkey -algorithm ed25519)",
            )
        })
    }

    /// From the text of a PEM file.
    #[must_use]
    pub fn of_pem(text: &str) -> Option<Self> {
        let der = pem(text, "PRIVATE KEY")?;
        let seed: [u8; 32] = der.strip_prefix(&PRIVATE_PREFIX)?.get(..32)?.try_into().ok()?;
        Some(Self(SigningKey::from_bytes(&seed)))
    }

    /// Signs bytes.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
    }

    /// What its signatures are checked with.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }
}

impl PublicKey {
    /// Reads a PEM file with a public key, or with a private key, whose public half is taken.
    ///
    /// # Errors
    /// [`EdgeError::Malformed`] when it holds no such key.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(EdgeError::io(path, "read"))?;
        Self::of_public_pem(&text).or_else(|| PrivateKey::of_pem(&text).map(|key| key.public())).ok_or_else(
            || {
                bad(
                    &path.display().to_string(),
                    "an Ed25519 public key in PEM (openssl pkey -in KEY -pubout)",
                )
            },
        )
    }

    /// Reads a PEM file with a public key, and refuses one that holds a private key: for those who only check, and
    /// where no release key may ever be.
    ///
    /// # Errors
    /// [`EdgeError::Malformed`] when it holds no public key, or more than one.
    pub fn read_public(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(EdgeError::io(path, "read"))?;
        let what = path.display().to_string();
        if text.contains("PRIVATE KEY") {
            return Err(bad(
                &what,
                "the public key alone, got a private key, which must not be on this machine",
            ));
        }
        Self::of_public_pem(&text)
            .ok_or_else(|| bad(&what, "an Ed25519 public key in PEM (openssl pkey -in KEY -pubout)"))
    }

    /// From the text of a PEM file with a public key.
    #[must_use]
    pub fn of_public_pem(text: &str) -> Option<Self> {
        let der = pem(text, "PUBLIC KEY")?;
        let bytes: [u8; 32] = der.strip_prefix(&PUBLIC_PREFIX)?.try_into().ok()?;
        VerifyingKey::from_bytes(&bytes).ok().map(Self)
    }

    /// The key as OpenSSL writes it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(self.der()))
    }

    /// Whether a signature is this key's, over these bytes.
    #[must_use]
    pub fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.0.verify(bytes, &signature).is_ok())
    }

    /// The key as DER, which MCUboot hashes to name it.
    #[must_use]
    pub fn der(&self) -> Vec<u8> {
        [PUBLIC_PREFIX.as_slice(), self.0.as_bytes()].concat()
    }
}
