//! Turns configured sources into ones that can be followed: finds secrets, keys and what the environment says of
//! object stores and hubs. Must not know how a registry is followed.

pub mod added;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use gannet_registry::{Secret, Secrets, SourceSpec, SourceUri, Trust, TrustMode, TrustRule, sign::PublicKey};

use crate::config::{Credentials, RegistryConfig, SourceConfig};

/// Bytes of a file of credentials or of a key.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// What the environment says, read when it is asked.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Credentials {
    /// The secret as it is now.
    ///
    /// # Errors
    /// A text that names the place and never the secret.
    pub fn read(&self) -> Result<String, String> {
        match self {
            Self::Env(name) => variable(name)
                .ok_or_else(|| format!("expected credentials in the variable {name}, got nothing")),
            Self::File(path) => read_small(path).map(|text| text.trim().to_owned()),
        }
    }
}

fn read_small(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > SECRET_BYTES_MAX {
        return Err(format!("{}: expected at most {SECRET_BYTES_MAX} bytes, got {size}", path.display()));
    }
    fs::read_to_string(path).map_err(failed)
}

/// A source that can be followed.
///
/// # Errors
/// What is wrong with it.
pub fn spec(config: &SourceConfig) -> Result<SourceSpec, String> {
    let mut spec = SourceSpec::new(config.name.clone(), &config.uri)
        .map_err(|why| format!("source '{}': {why}", config.name))?;
    spec.poll = config.poll;
    spec.versions = config.versions.clone();
    spec.on_alias_move = config.on_alias_move;
    spec.plain_http = config.plain_http;
    spec.golden.clone_from(&config.golden);
    spec.artifacts_dir.clone_from(&config.artifacts_dir);
    spec.endpoint = config.endpoint.clone().or_else(|| match &spec.uri {
        SourceUri::Mlflow { base: None, .. } => {
            variable("MLFLOW_TRACKING_URI").filter(|uri| uri.starts_with("http"))
        }
        SourceUri::HuggingFace { .. } => variable("HF_ENDPOINT"),
        _ => None,
    });
    spec.secrets = secrets(config.credentials.clone(), &spec.uri);
    let stores = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str()?.strip_prefix("AWS_")?.to_ascii_lowercase();
        Some((format!("aws_{name}"), value.into_string().ok()?))
    });
    spec.store_settings = stores.collect();
    spec.hub_cache = hub_cache();
    Ok(spec)
}

/// What the registry is told: what the operator named, else what the registry's own tools would tell it.
fn secrets(named: Option<Credentials>, uri: &SourceUri) -> Secrets {
    let fallback = match uri {
        SourceUri::HuggingFace { .. } => Some("HF_TOKEN"),
        SourceUri::Mlflow { .. } => Some("MLFLOW_TRACKING_TOKEN"),
        _ => None,
    };
    Arc::new(move || {
        if let Some(named) = &named {
            return named.read().map(|text| Some(Secret::parse(&text)));
        }
        Ok(fallback.and_then(variable).map(Secret::Token))
    })
}

fn hub_cache() -> Option<PathBuf> {
    variable("HF_HUB_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HF_HOME")?).join("hub")))
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache/huggingface/hub")))
        .filter(|cache| cache.is_dir())
}

/// The rules about signatures, with their keys read.
///
/// # Errors
/// A line for each key that cannot be read.
pub fn trust(config: &RegistryConfig) -> Result<Trust, String> {
    let mut faults = Vec::new();
    let mut keys = |paths: &[PathBuf]| -> Vec<PublicKey> {
        let read = |path: &PathBuf| {
            let key = read_small(path).and_then(|text| PublicKey::from_pem(&text));
            key.map_err(|why| faults.push(format!("trust: {}: {why}", path.display()))).ok()
        };
        paths.iter().filter_map(read).collect()
    };
    let mut rules = Vec::new();
    for source in config.sources.iter().filter(|source| !source.trust.is_empty()) {
        let models = source.name.to_string();
        rules.push(TrustRule { models, keys: keys(&source.trust), mode: TrustMode::Require });
    }
    for rule in &config.trust {
        rules.push(TrustRule { models: rule.models.clone(), keys: keys(&rule.keys), mode: rule.mode });
    }
    if faults.is_empty() { Ok(Trust::new(rules)) } else { Err(faults.join("\n")) }
}

/// What this server is called in registries' tags.
#[must_use]
pub fn server_name(config: &RegistryConfig) -> String {
    if !config.server_name.is_empty() {
        return config.server_name.clone();
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    if host.is_empty() { "gannet".to_owned() } else { host.to_owned() }
}
