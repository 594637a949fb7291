//! What a source has brought here, on the disk beside the store, so that a start without the registry serves what was
//! served before. Written whole and renamed; read with every digest checked. Must not know sources.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use gannet_models::{Digest, ModelError, ModelName, Store, Version, fault};
use serde::{Deserialize, Serialize};

use crate::{
    RemoteError,
    board::{Followed, Held},
    fetch::create,
    follow::served::settings_for,
};

/// Bytes of a catalogue.
const BYTES_MAX: u64 = 256 << 20;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Page {
    uri: String,
    models: BTreeMap<ModelName, Model>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Model {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settings_file: Option<(String, String)>,
    aspired: Vec<Version>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Version>,
    versions: Vec<Entry>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    rolled_back: BTreeMap<Version, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    version: Version,
    tag: String,
    digest: String,
    fetched_ms: u64,
}

/// The file of one source.
#[derive(Debug, Clone)]
pub(crate) struct Catalogue {
    path: PathBuf,
}

impl Catalogue {
    pub(crate) fn new(dir: &Path, source: &str) -> Self {
        Self { path: dir.join(format!("{source}.json")) }
    }

    /// What was here, as far as it is sound and of the same URI.
    pub(crate) fn load(&self, uri: &str, store: &Store) -> BTreeMap<ModelName, Followed> {
        let page = match self.read() {
            Ok(Some(page)) if page.uri == uri => page,
            Ok(_) => return BTreeMap::new(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the list of what a source brought cannot be read; it is fetched again");
                return BTreeMap::new();
            }
        };
        let mut models = BTreeMap::new();
        for (name, model) in page.models {
            let mut held = BTreeMap::new();
            for Entry { version, tag, digest, fetched_ms } in model.versions {
                let artifact = digest.parse::<Digest>().ok().map(|digest| store.get(&digest));
                match artifact {
                    Some(Ok(Some(artifact))) => {
                        drop(held.insert(version, Held { tag, artifact, fetched_ms }))
                    }
                    Some(Err(error)) => {
                        tracing::warn!(model = %name, %version, %error, "it is fetched again")
                    }
                    _ => tracing::debug!(model = %name, %version, "no longer in the store"),
                }
            }
            let aspired: Vec<Version> = model.aspired.into_iter().filter(|v| held.contains_key(v)).collect();
            let mut followed = Followed {
                settings_file: model.settings_file,
                target: model.target.filter(|target| held.contains_key(target)),
                aspired,
                held,
                rolled_back: model.rolled_back,
                ..Followed::default()
            };
            settings_for(&mut followed);
            if !followed.held.is_empty() {
                models.insert(name, followed);
            }
        }
        models
    }

    fn read(&self) -> Result<Option<Page>, String> {
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
            Ok(found) if found.len() > BYTES_MAX => {
                return Err(format!("it has more than {BYTES_MAX} bytes"));
            }
            Ok(_) => {}
        }
        let text = fs::read(&self.path).map_err(|error| error.to_string())?;
        serde_json::from_slice(&text).map(Some).map_err(|error| error.to_string())
    }

    /// Writes what is here now.
    pub(crate) fn save(&self, uri: &str, models: &BTreeMap<ModelName, Followed>) -> Result<(), RemoteError> {
        let model = |followed: &Followed| Model {
            settings_file: followed.settings_file.clone(),
            aspired: followed.aspired.clone(),
            target: followed.target.clone(),
            versions: followed
                .held
                .iter()
                .map(|(version, held)| Entry {
                    version: version.clone(),
                    tag: held.tag.clone(),
                    digest: held.artifact.digest().to_string(),
                    fetched_ms: held.fetched_ms,
                })
                .collect(),
            rolled_back: followed.rolled_back.clone(),
        };
        let page = Page {
            uri: uri.to_owned(),
            models: models.iter().map(|(name, followed)| (name.clone(), model(followed))).collect(),
        };
        let text = serde_json::to_vec(&page).map_err(|error| RemoteError::Local(error.to_string()))?;
        write_whole(&self.path, &text)
    }

    /// Forgets the source.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes a file beside, and renames it over the old one.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), RemoteError> {
    let parent = path.parent().unwrap_or(Path::new(""));
    create(parent)?;
    let beside = path.with_extension("new");
    let mut file = File::create(&beside).map_err(ModelError::io(&beside, "create"))?;
    file.write_all(content).map_err(ModelError::io(&beside, "write"))?;
    file.sync_all().map_err(ModelError::io(&beside, "write out"))?;
    fault::point("catalogue-written");
    fs::rename(&beside, path).map_err(ModelError::io(path, "replace"))?;
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(ModelError::io(parent, "write out"))?;
    fault::point("catalogue-renamed");
    Ok(())
}
