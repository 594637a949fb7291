//! What a registry of any kind says that it has. Must not know how it was asked, or what becomes of it.

use gannet_models::{Digest, ModelName, Version};

/// Everything that a registry has for a source.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) models: Vec<ListedModel>,
    pub(crate) problems: Vec<String>,
    /// Something has not been at rest yet; look again soon.
    pub(crate) settling: bool,
}

/// One model there.
#[derive(Debug, Clone)]
pub(crate) struct ListedModel {
    pub(crate) name: ModelName,
    /// Name and text of a settings file.
    pub(crate) settings: Option<(String, String)>,
    /// The registry itself says which version: no policy chooses among them.
    pub(crate) pointed_to: bool,
    pub(crate) versions: Vec<ListedVersion>,
}

/// One version there.
#[derive(Debug, Clone)]
pub(crate) struct ListedVersion {
    pub(crate) version: Version,
    /// Changes with the content.
    pub(crate) tag: String,
    /// Where the source finds it.
    pub(crate) locator: String,
    /// What its files were when they were first fetched, by whomever, where that is noted down.
    pub(crate) seal: Option<Digest>,
}

impl Listing {
    /// Of a source that names one model and one version.
    pub(crate) fn one(name: &ModelName, version: Version, tag: String, locator: String) -> Self {
        Self::of(name, ListedVersion { version, tag, locator, seal: None })
    }

    pub(crate) fn of(name: &ModelName, version: ListedVersion) -> Self {
        let versions = vec![version];
        let model = ListedModel { name: name.clone(), settings: None, pointed_to: true, versions };
        Self { models: vec![model], ..Self::default() }
    }
}
