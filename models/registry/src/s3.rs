//! Models in an object store that speaks S3: a repository of models, one model, or one version below a prefix. A
//! version counts when its `manifest.json`, which is written last, is there; without one, when two looks saw the same.
//! Must not know when to look.

mod objects;

use std::collections::{BTreeMap, HashMap};

use gannet_models::{Digest, ModelName, SETTINGS_FILES, Version, scan::is_ignored};

pub(crate) use self::objects::{Object, Objects, S3Options};
use crate::{
    RemoteError,
    listing::{ListedModel, ListedVersion, Listing},
    opened::Opened,
    package::{Check, MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest, Plan, PlannedFile, check_path},
};

/// Objects below one prefix.
const OBJECTS_MAX: usize = 1_000_000;
/// Bytes of a settings file.
const SETTINGS_BYTES_MAX: usize = 4 << 20;
/// Models below one prefix.
const MODELS_MAX: usize = 10_000;
/// Files that make a folder a version's.
const MODEL_FILES: [&str; 3] = ["model.onnx", "model.pt", "MLmodel"];

/// Objects below a prefix.
pub(crate) struct S3 {
    name: ModelName,
    objects: Objects,
    prefix: String,
    /// What each version without a manifest looked like at the look before.
    before: HashMap<String, String>,
    /// Settings files that were read: by key, what they looked like, and their text.
    settings: HashMap<String, (String, String)>,
    /// The objects of each version, from the last look.
    files: HashMap<String, Vec<Object>>,
}

/// The objects of one version.
#[derive(Default)]
struct Group {
    objects: Vec<Object>,
    manifest: Option<Object>,
}

type Groups = BTreeMap<String, BTreeMap<String, Group>>;

impl S3 {
    pub(crate) fn new(
        name: &ModelName,
        bucket: &str,
        prefix: &str,
        options: &S3Options,
    ) -> Result<Self, RemoteError> {
        Ok(Self {
            name: name.clone(),
            objects: Objects::new(bucket, options)?,
            prefix: prefix.to_owned(),
            before: HashMap::new(),
            settings: HashMap::new(),
            files: HashMap::new(),
        })
    }

    pub(crate) async fn list(&mut self) -> Result<Listing, RemoteError> {
        let found = self.objects.list(&self.prefix, OBJECTS_MAX).await?;
        if found.is_empty() {
            return Err(RemoteError::Missing(format!("there are no objects below '{}'", self.prefix)));
        }
        let mut listing = Listing::default();
        let (groups, settings) = self.group(found, &mut listing.problems);
        if groups.len() > MODELS_MAX {
            return Err(RemoteError::Unusable(format!(
                "expected at most {MODELS_MAX} models below '{}'",
                self.prefix
            )));
        }
        let (mut before, mut files) = (HashMap::new(), HashMap::new());
        for (model, versions) in groups {
            let name = match ModelName::new(&model) {
                Ok(name) => name,
                Err(error) => {
                    listing.problems.push(format!("'{}': {error}", model.escape_debug()));
                    continue;
                }
            };
            let mut listed = Vec::new();
            for (version, group) in versions {
                let Ok(version) = Version::new(&version) else { continue };
                let locator = format!("{model}/{version}");
                let tag = tag(&group);
                let rested = group.manifest.is_some() || self.before.get(&locator) == Some(&tag);
                if group.manifest.is_none() {
                    before.insert(locator.clone(), tag.clone());
                }
                if rested {
                    files.insert(locator.clone(), group.manifest.into_iter().chain(group.objects).collect());
                    listed.push(ListedVersion { version, tag, locator, seal: None });
                } else {
                    listing.settling = true;
                }
            }
            listed.sort_by(|a, b| a.version.cmp(&b.version));
            let settings = match settings.get(&model) {
                None => None,
                Some(object) => Some(self.read_settings(object).await?),
            };
            if !listed.is_empty() || settings.is_some() {
                listing.models.push(ListedModel { name, settings, pointed_to: false, versions: listed });
            }
        }
        (self.before, self.files) = (before, files);
        Ok(listing)
    }

    /// Sorts objects into models and versions, and finds the models' settings files.
    fn group(&self, found: Vec<Object>, problems: &mut Vec<String>) -> (Groups, BTreeMap<String, Object>) {
        let relative = |object: &Object| -> Option<String> {
            let rest = object.key.strip_prefix(self.prefix.as_str())?;
            Some(rest.trim_start_matches('/').to_owned()).filter(|rest| !rest.is_empty())
        };
        let depth = depth(found.iter().filter_map(relative));
        let (mut groups, mut settings) = (Groups::new(), BTreeMap::new());
        for object in found {
            let Some(path) = relative(&object) else { continue };
            if path.ends_with('/') || path.split('/').any(is_ignored) {
                continue;
            }
            if let Err(error) = check_path(&path) {
                problems.push(error.to_string());
                continue;
            }
            let own = self.name.as_str().to_owned();
            let mut parts = path.splitn(depth + 1, '/').map(str::to_owned);
            let (model, version, file) = match depth {
                0 => (own, Some(self.own_version()), parts.next()),
                1 => (own, parts.next(), parts.next()),
                _ => (parts.next().unwrap_or_default(), parts.next(), parts.next()),
            };
            match (version, file) {
                (Some(version), Some(file)) => {
                    let group = groups.entry(model).or_default().entry(version).or_default();
                    if file == MANIFEST_FILE {
                        group.manifest = Some(Object { path: file, ..object });
                    } else {
                        group.objects.push(Object { path: file, ..object });
                    }
                }
                (Some(file), None) | (None, Some(file)) if SETTINGS_FILES.contains(&file.as_str()) => {
                    settings.insert(model, object);
                }
                _ => {}
            }
        }
        (groups, settings)
    }

    /// The version's name where the prefix is that of one version: its last part, if that is a number.
    fn own_version(&self) -> String {
        let last = self.prefix.rsplit('/').next().unwrap_or_default();
        let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { last.to_owned() } else { "1".to_owned() }
    }

    async fn read_settings(&mut self, object: &Object) -> Result<(String, String), RemoteError> {
        let name = object.key.rsplit('/').next().unwrap_or_default().to_owned();
        let stamp = object.stamp();
        if let Some((known, text)) = self.settings.get(&object.key)
            && *known == stamp
        {
            return Ok((name, text.clone()));
        }
        let bytes = self.objects.get(&object.key, SETTINGS_BYTES_MAX).await?;
        let text = String::from_utf8(bytes.to_vec())
            .map_err(|_| RemoteError::Unusable(format!("{}: expected text in UTF-8", object.key)))?;
        self.settings.insert(object.key.clone(), (stamp, text.clone()));
        Ok((name, text))
    }

    pub(crate) async fn plan(&self, version: &ListedVersion) -> Result<Plan, RemoteError> {
        let objects = self.files.get(&version.locator).map(Vec::as_slice).unwrap_or_default();
        if let [manifest, ..] = objects
            && manifest.path == MANIFEST_FILE
        {
            let folder = manifest.key.strip_suffix(MANIFEST_FILE).unwrap_or_default().to_owned();
            let bytes = self.objects.get(&manifest.key, MANIFEST_BYTES_MAX).await?;
            return Manifest::read(&bytes, |path| format!("{folder}{path}"));
        }
        let file = |object: &Object| PlannedFile {
            path: object.path.clone(),
            size: Some(object.size),
            check: Check::Size,
            locator: object.key.clone(),
        };
        Ok(Plan { files: objects.iter().map(file).collect(), ..Plan::default() })
    }

    pub(crate) async fn open(&self, key: &str, offset: u64) -> Result<Opened, RemoteError> {
        self.objects.open(key, offset).await
    }
}

/// How many folders a version lies below the prefix: 0 (it is one version), 1 (one model), 2 (a repository).
fn depth(paths: impl Iterator<Item = String>) -> usize {
    let mut depth = 2;
    for path in paths {
        let mut segments = path.split('/');
        let file = segments.next_back().unwrap_or_default();
        let is_version = MODEL_FILES.contains(&file) || file == MANIFEST_FILE;
        if is_version {
            depth = depth.min(segments.count());
        }
    }
    depth
}

/// What a version looks like: its manifest alone, where it has one.
fn tag(group: &Group) -> String {
    let mut text = String::new();
    match &group.manifest {
        Some(manifest) => text.push_str(&manifest.stamp()),
        None => {
            group.objects.iter().for_each(|object| text.extend([&object.path, " ", &object.stamp(), "\n"]))
        }
    }
    Digest::of(text.as_bytes()).to_string()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_apart() {
        let check = |paths: &[&str], expected| {
            assert_eq!(depth(paths.iter().map(|path| (*path).to_owned())), expected, "{paths:?}");
        };
        check(&["model.onnx", "golden/a.json"], 0);
        check(&["manifest.json", "data/x"], 0);
        check(&["1/model.onnx", "2/model.onnx", "model.toml"], 1);
        check(&["iris/1/model.onnx", "iris/model.toml", "digits/2/manifest.json"], 2);
        check(&["iris/1/data/model.onnx", "iris/1/MLmodel"], 2);
        check(&["README.md"], 2);
    }
}
