//! A source as the operator wants it. Must not know how any registry is spoken to.

use std::{path::PathBuf, sync::Arc, time::Duration};

use gannet_models::{ModelName, settings::VersionPolicy};

use crate::{http::Secrets, uri::SourceUri};

/// What happens when an alias moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnAliasMove {
    /// The new version replaces the old one as soon as it is ready.
    #[default]
    Swap,
    /// Both are kept, and whoever decides about traffic is told.
    Rollout,
}

/// One source as the operator wants it.
#[derive(Clone)]
pub struct SourceSpec {
    /// Its name; also the model's, where the URI names one model.
    pub name: ModelName,
    /// As it was written.
    pub uri_text: String,
    /// As it was understood.
    pub uri: SourceUri,
    /// Time between two looks.
    pub poll: Duration,
    /// Which versions, where the URI leaves it open.
    pub versions: VersionPolicy,
    /// What a moved alias does.
    pub on_alias_move: OnAliasMove,
    /// `http(s)://...` of an object store, a tracking server or a hub that the URI does not name.
    pub endpoint: Option<String>,
    /// Whether the network may be used without TLS beyond this machine.
    pub plain_http: bool,
    /// Golden requests that every version must pass, `*.json` in this folder.
    pub golden: Option<PathBuf>,
    /// The folder that artifacts of this source may be read from directly, where the registry names local paths.
    pub artifacts_dir: Option<PathBuf>,
    /// Credentials, read anew for each request.
    pub secrets: Secrets,
    /// Settings of object stores (`aws_region` and so on), weakest of all.
    pub store_settings: Vec<(String, String)>,
    /// The cache of the Hugging Face client, read when the hub cannot be.
    pub hub_cache: Option<PathBuf>,
}

impl std::fmt::Debug for SourceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceSpec")
            .field("name", &self.name)
            .field("uri", &self.uri_text)
            .finish_non_exhaustive()
    }
}

impl SourceSpec {
    /// A source with nothing but a name and a URI.
    ///
    /// # Errors
    /// As [`SourceUri::parse`].
    pub fn new(name: ModelName, uri: &str) -> Result<Self, String> {
        Ok(Self {
            name,
            uri_text: uri.to_owned(),
            uri: SourceUri::parse(uri)?,
            poll: Duration::from_secs(30),
            versions: VersionPolicy::Latest(1),
            on_alias_move: OnAliasMove::Swap,
            endpoint: None,
            plain_http: false,
            golden: None,
            artifacts_dir: None,
            secrets: Arc::new(|| Ok(None)),
            store_settings: Vec::new(),
            hub_cache: None,
        })
    }
}
