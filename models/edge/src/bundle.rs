//! A bundle: every file that a device's project needs, made of what was compiled. Must not compile.

mod code;
mod glue;
mod project;
pub mod report;
mod verify;

use std::{collections::BTreeMap, fs, path::Path};

use gannet_models::Digest;

use crate::{
    compile::Compiled,
    error::{EdgeError, Result},
    manifest::{Abi, ArenaSizes, Manifest, hex},
    sign::PrivateKey,
};

pub use self::verify::{Verified, verify};

/// The manifest's file, which lists all others.
pub const MANIFEST: &str = "manifest.json";
/// Its detached signature, 64 bytes.
pub const SIGNATURE: &str = "manifest.sig";

/// Whose model it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleInfo {
    /// The model's name in the registry.
    pub model: String,
    /// Its version.
    pub version: String,
    /// Grows with every release.
    pub sequence: u64,
    /// The names of the classes; empty where there are none.
    pub class_names: Vec<String>,
}

/// The files of a bundle, by path with `/`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bundle {
    /// All of them, the manifest included.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A name that C, C++ and file systems take.
#[must_use]
pub fn identifier(model: &str) -> String {
    let plain: String =
        model.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let starts_well = plain.starts_with(|c: char| c.is_ascii_alphabetic());
    if starts_well { plain } else { format!("m_{plain}") }
}

impl Bundle {
    /// Makes the files of what was compiled.
    #[must_use]
    pub fn new(compiled: &Compiled, info: &BundleInfo) -> Self {
        let name = identifier(&info.model);
        let mut bundle = Self::default();
        let mut add = |path: String, bytes: Vec<u8>| {
            bundle.files.insert(path, bytes);
        };
        add("model.tflite".into(), compiled.tflite.clone());
        let golden = serde_json::to_value(&compiled.golden).expect("plain data");
        add("golden.json".into(), golden.to_string().into_bytes());
        let report = report::of(compiled, info);
        add(
            "report.json".into(),
            format!("{:#}\n", serde_json::to_value(&report).expect("plain data")).into_bytes(),
        );
        add("parity.html".into(), report::html(&report).into_bytes());
        let context = code::Context { name: &name, compiled, info };
        for (path, text) in
            code::files(&context).into_iter().chain(glue::files(&context)).chain(project::files(&context))
        {
            add(path, text.into_bytes());
        }
        let arena = ArenaSizes { host64: compiled.host64.required, cortex_m: compiled.cortex_m.required };
        let files =
            bundle.files.iter().map(|(path, bytes)| (path.clone(), hex(&Digest::of(bytes)))).collect();
        let manifest = Manifest {
            schema: 1,
            model: info.model.clone(),
            version: info.version.clone(),
            source_sha256: hex(&compiled.source_digest),
            sequence: info.sequence,
            files,
            abi: Abi::of(&compiled.model, arena),
        };
        bundle.files.insert(MANIFEST.into(), manifest.bytes());
        bundle
    }

    /// The manifest.
    ///
    /// # Errors
    /// [`EdgeError::Malformed`] when there is none.
    pub fn manifest(&self) -> Result<Manifest> {
        let bytes = self
            .files
            .get(MANIFEST)
            .ok_or_else(|| EdgeError::malformed(MANIFEST, "expected it, got no such file"))?;
        Manifest::read(bytes)
    }

    /// Signs the manifest, whose digests cover every other file.
    ///
    /// # Errors
    /// [`EdgeError::Malformed`] when there is no manifest.
    pub fn sign(&mut self, key: &PrivateKey) -> Result<()> {
        let signature = key.sign(&self.manifest()?.bytes());
        self.files.insert(SIGNATURE.into(), signature.to_vec());
        Ok(())
    }

    /// The same files as a newer release, for going back to an old payload; the signature is dropped.
    ///
    /// # Errors
    /// [`EdgeError::Untrusted`] when the sequence does not grow.
    pub fn renumbered(mut self, sequence: u64) -> Result<Self> {
        let mut manifest = self.manifest()?;
        if sequence <= manifest.sequence {
            let fault = format!("expected a sequence above {}, got {sequence}", manifest.sequence);
            return Err(EdgeError::Untrusted { what: MANIFEST.into(), fault });
        }
        manifest.sequence = sequence;
        self.files.insert(MANIFEST.into(), manifest.bytes());
        self.files.remove(SIGNATURE);
        Ok(self)
    }

    /// Writes the files under a folder, which is made.
    ///
    /// # Errors
    /// [`EdgeError::Io`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        for (path, bytes) in &self.files {
            let target = folder.join(path);
            let parent = target.parent().unwrap_or(folder);
            fs::create_dir_all(parent).map_err(EdgeError::io(parent, "make the folder"))?;
            fs::write(&target, bytes).map_err(EdgeError::io(&target, "write"))?;
        }
        Ok(())
    }

    /// Reads the files of a folder: the manifest, its signature and what the manifest lists. Nothing is checked yet.
    ///
    /// # Errors
    /// [`EdgeError::Io`], [`EdgeError::Malformed`], and [`EdgeError::Untrusted`] for a path that leads out.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut bundle = Self::default();
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(EdgeError::io(&path, "read"))
        };
        bundle.files.insert(MANIFEST.into(), read(MANIFEST)?);
        for name in bundle.manifest()?.files.into_keys() {
            let inside = name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
                && !name.contains('\\');
            if !inside {
                return Err(EdgeError::Untrusted {
                    what: name,
                    fault: "expected a path inside of the bundle".into(),
                });
            }
            bundle.files.insert(name.clone(), read(&name)?);
        }
        if folder.join(SIGNATURE).exists() {
            bundle.files.insert(SIGNATURE.into(), read(SIGNATURE)?);
        }
        Ok(bundle)
    }
}
