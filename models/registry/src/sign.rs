//! Signatures of packages after OpenSSF Model Signing v1.0, with keys of the operator's own: a Sigstore bundle
//! (`model.sig`) around an in-toto statement that lists every file. Written and read so that PyPI's `model-signing`
//! agrees, in both directions. Must not know who trusts whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gannet_models::{Digest, ModelName, Version};
use p256::{
    SecretKey,
    ecdsa::{
        Signature, SigningKey, VerifyingKey,
        signature::{Signer as _, Verifier as _},
    },
    pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePublicKey as _, LineEnding},
};
use serde::{Deserialize, Serialize};

/// The file beside the package's own.
pub const SIGNATURE_FILE: &str = "model.sig";
/// Bytes of a signature file: a line or two for each file.
const BUNDLE_BYTES_MAX: u64 = 16 << 20;
/// Files below one folder, and folders inside each other.
const FILES_MAX: usize = 100_000;
const DEPTH_MAX: usize = 16;

const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: KeyHint,
    #[serde(default)]
    tlog_entries: Vec<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct KeyHint {
    #[serde(default)]
    hint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<OneSignature>,
}

#[derive(Serialize, Deserialize)]
struct OneSignature {
    sig: String,
    #[serde(default)]
    keyid: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Serialize, Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    allow_symlinks: bool,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

/// A public key (NIST P-256), and what the bundle calls it.
#[derive(Debug, Clone)]
pub struct PublicKey {
    key: VerifyingKey,
    hint: String,
}

impl PublicKey {
    /// Reads PEM (`BEGIN PUBLIC KEY`).
    ///
    /// # Errors
    /// What was expected and got.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let key = VerifyingKey::from_public_key_pem(text.trim()).map_err(|error| {
            format!("expected a public key of the curve P-256 in PEM (BEGIN PUBLIC KEY), got something else: {error}")
        })?;
        Self::of(key)
    }

    fn of(key: VerifyingKey) -> Result<Self, String> {
        let pem = key.to_public_key_pem(LineEnding::LF).map_err(|error| error.to_string())?;
        Ok(Self { key, hint: Digest::of(pem.as_bytes()).to_string() })
    }
}

/// What a statement calls a version: PyPI's tool takes it from the folder's name.
#[must_use]
pub fn subject(model: &ModelName, version: &Version) -> String {
    format!("{model}@{version}")
}

/// Signs every file below `dir` under the name `subject`; the text is the content of [`SIGNATURE_FILE`].
///
/// # Errors
/// A text naming the file or the key.
pub fn sign(dir: &Path, subject: &str, private_key_pem: &str) -> Result<String, String> {
    let pem = private_key_pem.trim();
    let secret = SecretKey::from_pkcs8_pem(pem).or_else(|_| SecretKey::from_sec1_pem(pem)).map_err(|error| {
        format!("expected a private key of the curve P-256 in PEM, without a password, got something else: {error}")
    })?;
    let signing = SigningKey::from(secret);
    let mut resources = Vec::new();
    let mut root = String::new();
    for (name, path) in files(dir)? {
        let digest = Digest::of_file(&path).map_err(|error| error.to_string())?.to_string();
        root.push_str(&digest);
        resources.push(Resource { name, algorithm: "sha256".into(), digest });
    }
    if resources.is_empty() {
        return Err(format!("{}: expected files to sign, got none", dir.display()));
    }
    let statement = Statement {
        kind: STATEMENT_TYPE.into(),
        subject: vec![Subject {
            name: subject.to_owned(),
            digest: [("sha256".to_owned(), Digest::of(&unhex(&root)?).to_string())].into(),
        }],
        predicate_type: PREDICATE_TYPE.into(),
        predicate: Predicate {
            serialization: Serialization {
                method: "files".into(),
                hash_type: "sha256".into(),
                allow_symlinks: false,
                ignore_paths: vec![SIGNATURE_FILE.into()],
            },
            resources,
        },
    };
    let payload = serde_json::to_vec_pretty(&statement).map_err(|error| error.to_string())?;
    let signature: Signature = signing.sign(&encoded(&payload));
    let public = PublicKey::of(*signing.verifying_key())?;
    let bundle = Bundle {
        media_type: BUNDLE_TYPE.into(),
        verification_material: Material {
            public_key: KeyHint { hint: public.hint },
            tlog_entries: Vec::new(),
        },
        dsse_envelope: Envelope {
            payload: STANDARD.encode(&payload),
            payload_type: PAYLOAD_TYPE.into(),
            signatures: vec![OneSignature {
                sig: STANDARD.encode(signature.to_der().as_bytes()),
                keyid: String::new(),
            }],
        },
    };
    serde_json::to_string(&bundle).map_err(|error| error.to_string())
}

/// Checks that one of `keys` signed exactly the files below `dir`, and gives back the name that was signed.
///
/// # Errors
/// A text for people: what differs.
pub fn verify(dir: &Path, keys: &[PublicKey]) -> Result<String, String> {
    let path = dir.join(SIGNATURE_FILE);
    let size =
        fs::metadata(&path).map_err(|_| format!("expected a signature in {SIGNATURE_FILE}, got none"))?.len();
    if size > BUNDLE_BYTES_MAX {
        return Err(format!("{SIGNATURE_FILE}: expected at most {BUNDLE_BYTES_MAX} bytes, got {size}"));
    }
    let text = fs::read(&path).map_err(|error| format!("{SIGNATURE_FILE}: {error}"))?;
    let statement = read(&text, keys)?;
    let bad = |what: String| format!("{SIGNATURE_FILE}: {what}");
    if statement.kind != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE {
        return Err(bad(format!("expected a statement {PREDICATE_TYPE}, got {}", statement.predicate_type)));
    }
    let [subject] = &statement.subject[..] else { return Err(bad("expected one subject".into())) };
    if statement.predicate.serialization.method != "files" {
        let got = &statement.predicate.serialization.method;
        return Err(bad(format!("expected the method 'files', got {got:?}; sign without shards")));
    }
    let mut root = String::new();
    let mut signed = BTreeMap::new();
    for resource in &statement.predicate.resources {
        if resource.algorithm != "sha256" {
            return Err(bad(format!("expected sha256 digests, got {:?}", resource.algorithm)));
        }
        root.push_str(&resource.digest);
        if signed.insert(resource.name.as_str(), resource.digest.as_str()).is_some() {
            return Err(bad(format!("lists '{}' twice", resource.name)));
        }
    }
    let root = Digest::of(&unhex(&root)?).to_string();
    if subject.digest.get("sha256") != Some(&root) {
        return Err(bad("the digest of the whole is not that of the files it lists".into()));
    }
    compare(dir, &signed)?;
    Ok(subject.name.clone())
}

/// The statement, if one of the keys signed it. The statement is parsed only after that.
fn read(text: &[u8], keys: &[PublicKey]) -> Result<Statement, String> {
    let bundle: Bundle = serde_json::from_slice(text).map_err(|error| {
        format!("{SIGNATURE_FILE}: expected a Sigstore bundle signed with a key: {error}")
    })?;
    let envelope = bundle.dsse_envelope;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(format!("{SIGNATURE_FILE}: expected {PAYLOAD_TYPE}, got {:?}", envelope.payload_type));
    }
    let decode = |text: &str| STANDARD.decode(text).map_err(|error| format!("{SIGNATURE_FILE}: {error}"));
    let payload = decode(&envelope.payload)?;
    let message = encoded(&payload);
    let mut signatures = Vec::new();
    for signature in envelope.signatures.iter().take(16) {
        signatures.extend(Signature::from_der(&decode(&signature.sig)?).ok());
    }
    let valid =
        |key: &PublicKey| signatures.iter().any(|signature| key.key.verify(&message, signature).is_ok());
    if !keys.iter().any(valid) {
        let hint = &bundle.verification_material.public_key.hint;
        let known = keys.iter().any(|key| key.hint == *hint);
        return Err(match known {
            true => format!("{SIGNATURE_FILE}: the signature is not valid; what it signs was changed"),
            false => format!(
                "{SIGNATURE_FILE}: expected the signature of a trusted key, got one of the key {hint:?}"
            ),
        });
    }
    serde_json::from_slice(&payload).map_err(|error| format!("{SIGNATURE_FILE}: the statement: {error}"))
}

/// Whether the files below `dir` are those that were signed: every one, and no other.
fn compare(dir: &Path, signed: &BTreeMap<&str, &str>) -> Result<(), String> {
    let mut there = BTreeSet::new();
    for (name, path) in files(dir)? {
        let Some(expected) = signed.get(name.as_str()) else {
            return Err(format!("the file '{name}' was not signed; remove it, or sign the package again"));
        };
        let got = Digest::of_file(&path).map_err(|error| error.to_string())?.to_string();
        if got != **expected {
            return Err(format!("the file '{name}' was changed: signed sha256 {expected}, got {got}"));
        }
        there.insert(name);
    }
    match signed.keys().find(|name| !there.contains(**name)) {
        Some(missing) => Err(format!("the file '{missing}' was signed and is missing")),
        None => Ok(()),
    }
}

/// Every file below a folder but the signature, by its path; anything that is no file or folder is refused.
fn files(dir: &Path) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![(dir.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        for item in fs::read_dir(&folder).map_err(failed)? {
            let item = item.map_err(failed)?;
            let name = item
                .file_name()
                .into_string()
                .map_err(|name| format!("{name:?}: expected a name in UTF-8"))?;
            let name = format!("{prefix}{name}");
            let kind = item.file_type().map_err(failed)?;
            if kind.is_dir() && depth < DEPTH_MAX {
                folders.push((item.path(), format!("{name}/"), depth + 1));
            } else if !kind.is_file() {
                return Err(format!(
                    "'{name}': expected files and folders, got something else or too deep a tree"
                ));
            } else if name != SIGNATURE_FILE {
                found.insert(name, item.path());
            }
            if found.len() > FILES_MAX {
                return Err(format!("{}: expected at most {FILES_MAX} files", dir.display()));
            }
        }
    }
    Ok(found)
}

/// What is signed: the pre-authentication encoding of DSSE v1.
fn encoded(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("{SIGNATURE_FILE}: expected hexadecimal digests");
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(bad());
    }
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| bad());
    (0..text.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
#[path = "sign/tests.rs"]
mod tests;
