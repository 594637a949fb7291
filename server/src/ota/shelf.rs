//! Bundles that may be offered: each was found to be signed by a known release key, on the way in and again at every start.
//! Must not know devices or rollouts.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use gannet_edge::{
    bundle::{Bundle, MANIFEST, SIGNATURE, verify},
    manifest::Manifest,
    sign::PublicKey,
};
use gannet_runtime::drift::{DeviceBundle, DeviceInput};
use sha2::{Digest as _, Sha256};

use super::{archive::BUNDLE_BYTES_MAX, histograms};

/// Bundles on the shelf.
pub const BUNDLES_MAX: usize = 64;
/// The model's file, which is what a device runs.
pub const MODEL: &str = "model.tflite";
/// What devices fetch.
pub const OFFERED: [&str; 3] = [MANIFEST, SIGNATURE, MODEL];

/// A bundle that a release key signed: there is no other way to make one than [`Signed::check`].
#[derive(Debug, Clone)]
pub struct Signed {
    id: String,
    manifest: Manifest,
    files: BTreeMap<&'static str, Bytes>,
    inputs: Vec<DeviceInput>,
    watched: Option<Arc<DeviceBundle>>,
}

impl Signed {
    /// Checks everything: the signature, every file's digest, the device's side of the contract, the golden vectors.
    ///
    /// # Errors
    /// A text: the file, expected and got.
    pub fn check(bundle: &Bundle, keys: &[PublicKey]) -> Result<Self, String> {
        let manifest = bundle.files.get(MANIFEST).ok_or("manifest.json: expected it, got no such file")?;
        let signature = bundle.files.get(SIGNATURE);
        let signature = signature.ok_or(
            "manifest.sig: expected a signature, got none: sign the bundle first (gannet edge sign)",
        )?;
        let key = keys.iter().find(|key| key.verifies(manifest, signature));
        let key = key.ok_or(
            "manifest.sig: expected the signature of a key of ota.keys over this manifest, got another",
        )?;
        let verified = verify(bundle, Some(key)).map_err(|error| error.to_string())?;
        let file = |name: &'static str| Some((name, Bytes::from(bundle.files.get(name)?.clone())));
        let id = id_of(manifest);
        let report = bundle.files.get("report.json").map(Vec::as_slice);
        let inputs = histograms::inputs(&verified.manifest, report);
        Ok(Self {
            id,
            watched: histograms::watched(&verified.manifest, &inputs),
            inputs,
            manifest: verified.manifest,
            files: OFFERED.into_iter().filter_map(file).collect(),
        })
    }

    /// The digest of its manifest, which covers all of it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A file that devices fetch.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&Bytes> {
        self.files.get(name)
    }

    /// The files that devices fetch.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Bytes)> {
        self.files.iter().map(|(name, bytes)| (*name, bytes))
    }

    /// Where the codes of its inputs fell when it was calibrated.
    #[must_use]
    pub fn inputs(&self) -> &[DeviceInput] {
        &self.inputs
    }

    /// What a drift monitor knows it by: it watches its devices for as long as this is kept.
    #[must_use]
    pub fn watched(&self) -> Option<&Arc<DeviceBundle>> {
        self.watched.as_ref()
    }

    /// Bytes of the model.
    #[must_use]
    pub fn model_bytes(&self) -> u64 {
        self.files.get(MODEL).map_or(0, |bytes| bytes.len() as u64)
    }
}

/// The name of a bundle: the digest of its manifest.
fn id_of(manifest: &[u8]) -> String {
    Sha256::digest(manifest).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bundles by their names.
pub type Bundles = BTreeMap<String, Arc<Signed>>;

/// The folder of the bundles.
#[derive(Debug, Clone)]
pub struct Shelf {
    folder: PathBuf,
}

impl Shelf {
    /// A folder, which is made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Every bundle that a key still stands for. What is not whole, or not signed by one of them, is not offered.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn read(&self, keys: &[PublicKey]) -> io::Result<Bundles> {
        let mut bundles = Bundles::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with('.') {
                // what a crash left of a bundle that was being written
                let _ = fs::remove_dir_all(&path);
                continue;
            }
            let signed = Bundle::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|bundle| Signed::check(&bundle, keys))
                .and_then(|signed| {
                    if signed.id == name { Ok(signed) } else { Err("its folder has another name".into()) }
                });
            match signed {
                Ok(signed) if bundles.len() < BUNDLES_MAX => {
                    drop(bundles.insert(signed.id.clone(), Arc::new(signed)))
                }
                Ok(_) => {
                    tracing::error!(bundle = name, "more bundles than {BUNDLES_MAX}: this one is not offered")
                }
                Err(why) => tracing::error!(bundle = name, why, "a bundle is not offered any more"),
            }
        }
        Ok(bundles)
    }

    /// Writes a bundle; it is on the disk as a whole when this returns, or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&self, bundle: &Bundle, signed: &Signed) -> io::Result<()> {
        let place = self.folder.join(&signed.id);
        if place.exists() {
            return Ok(());
        }
        let beside = self.folder.join(format!(".{}", signed.id));
        let _ = fs::remove_dir_all(&beside);
        for (name, bytes) in &bundle.files {
            let path = beside.join(name);
            fs::create_dir_all(path.parent().unwrap_or(&beside))?;
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        File::open(&beside)?.sync_all()?;
        fs::rename(&beside, &place)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Takes a bundle away.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        let gone = self.folder.join(format!(".{id}"));
        let _ = fs::remove_dir_all(&gone);
        fs::rename(self.folder.join(id), &gone)?;
        fs::remove_dir_all(&gone)
    }
}

/// Reads the public keys. A file with a private key is refused: release keys never enter the server.
///
/// # Errors
/// A text for the first key that cannot be read.
pub fn keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>, String> {
    let key = |path: &PathBuf| {
        PublicKey::read_public(Path::new(path)).map_err(|error| format!("ota.keys: {error}"))
    };
    paths.iter().map(key).collect()
}

const _: () = assert!(BUNDLE_BYTES_MAX * BUNDLES_MAX as u64 <= 1 << 30, "all bundles are kept in memory");
