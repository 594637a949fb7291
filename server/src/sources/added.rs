//! Sources that were added while the server ran, and the file that keeps them over restarts. What the configuration
//! allows is asked each time. Must not know how a registry is followed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::Path,
    time::Duration,
};

use gannet_models::{ModelName, settings::VersionPolicy};
use gannet_registry::{OnAliasMove, SourceUri, uri::fits};
use serde::{Deserialize, Serialize};

use crate::{
    config::{Credentials, RegistryConfig, SourceConfig},
    respond::{Kind, Refusal},
};

/// The file, in the state folder.
const FILE: &str = "registry/sources.json";
/// Bytes of it.
const BYTES_MAX: u64 = 16 << 20;

/// What a caller may say of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    name: String,
    uri: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    poll_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    versions: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_alias_move: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credentials: Option<String>,
}

/// The source, if the configuration allows it.
///
/// # Errors
/// A refusal that says what would be allowed.
pub fn check(wanted: &Wanted, config: &RegistryConfig) -> Result<SourceConfig, Refusal> {
    allowed(&config.allow, "uri", &wanted.uri)?;
    let name = ModelName::new(&wanted.name)
        .map_err(|error| Refusal::invalid(format!("the source's name: {error}")))?;
    let uri = SourceUri::parse(&wanted.uri).map_err(|why| Refusal::invalid(format!("uri: {why}")))?;
    if matches!(uri, SourceUri::File(_) | SourceUri::Dvc { .. }) {
        return Err(Refusal::new(
            Kind::Forbidden,
            "folders of this machine are named in the configuration only",
        ));
    }
    let mut source = SourceConfig::new(name, &wanted.uri);
    if let Some(seconds) = wanted.poll_s {
        if !(1..=86_400).contains(&seconds) {
            return Err(Refusal::invalid(format!("poll_s: expected 1 to 86400, got {seconds}")));
        }
        source.poll = Duration::from_secs(seconds);
    }
    if let Some(text) = &wanted.versions {
        let versions = versions(text);
        source.versions = versions
            .ok_or_else(|| Refusal::invalid(format!("versions: expected all or latest:N, got {text:?}")))?;
    }
    source.on_alias_move = match wanted.on_alias_move.as_deref() {
        None | Some("swap") => OnAliasMove::Swap,
        Some("rollout") => OnAliasMove::Rollout,
        Some(other) => {
            return Err(Refusal::invalid(format!("on_alias_move: expected swap or rollout, got {other:?}")));
        }
    };
    if let Some(endpoint) = &wanted.endpoint {
        allowed(&config.allow, "endpoint", endpoint)?;
        source.endpoint = Some(endpoint.clone());
    }
    if let Some(text) = &wanted.credentials {
        // a caller may use what the operator has named, and read nothing else of this machine
        let named = Credentials::parse(text)
            .filter(|named| config.sources.iter().any(|source| source.credentials.as_ref() == Some(named)));
        source.credentials = Some(named.ok_or_else(|| {
            Refusal::new(Kind::Forbidden, "credentials: expected those of a source in the configuration")
        })?);
    }
    Ok(source)
}

fn allowed(patterns: &[String], what: &str, text: &str) -> Result<(), Refusal> {
    if patterns.iter().any(|pattern| fits(pattern, text)) {
        return Ok(());
    }
    let known = if patterns.is_empty() { "nothing".to_owned() } else { patterns.join(", ") };
    Err(Refusal::new(
        Kind::Forbidden,
        format!("{what}: expected one that registry.allow allows ({known}), got {text:?}"),
    ))
}

fn versions(text: &str) -> Option<VersionPolicy> {
    if text == "all" {
        return Some(VersionPolicy::All);
    }
    let count: usize = text.strip_prefix("latest:")?.parse().ok()?;
    (count > 0).then_some(VersionPolicy::Latest(count))
}

/// The sources that were added and are still allowed; the log tells of the others.
#[must_use]
pub fn load(state_dir: &Path, config: &RegistryConfig) -> Vec<SourceConfig> {
    let added = read(state_dir).unwrap_or_else(|why| {
        tracing::error!(%why, "the sources that were added by calls cannot be read; put back a sound file, or add them again");
        BTreeMap::new()
    });
    let check = |(name, wanted): (String, Wanted)| match check(&wanted, config) {
        _ if config.sources.iter().any(|source| source.name.as_str() == name) => None,
        Ok(source) => Some(source),
        Err(refusal) => {
            tracing::warn!(source = %name, why = %refusal.message, "a source that was added by a call is followed no more");
            None
        }
    };
    added.into_iter().filter_map(check).collect()
}

/// Keeps a source over restarts, or forgets it.
///
/// # Errors
/// A text when the file cannot be written.
pub fn keep(state_dir: &Path, name: &ModelName, wanted: Option<Wanted>) -> Result<(), String> {
    let mut added = read(state_dir)?;
    match wanted {
        Some(wanted) => drop(added.insert(name.to_string(), wanted)),
        None if added.remove(name.as_str()).is_none() => return Ok(()),
        None => {}
    }
    let path = state_dir.join(FILE);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let beside = path.with_extension("new");
    let text = serde_json::to_vec_pretty(&added).map_err(|error| error.to_string())?;
    let mut file = File::create(&beside).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&beside, &path).map_err(failed)
}

fn read(state_dir: &Path) -> Result<BTreeMap<String, Wanted>, String> {
    let path = state_dir.join(FILE);
    let failed = |why: String| format!("{}: {why}", path.display());
    match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error.to_string())),
        Ok(found) if found.len() > BYTES_MAX => {
            return Err(failed(format!("expected at most {BYTES_MAX} bytes")));
        }
        Ok(_) => {}
    }
    let text = fs::read(&path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_kept_while_it_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("registry")).unwrap();
        let wanted = |name: &str, uri: &str| -> Wanted {
            serde_json::from_value(serde_json::json!({ "name": name, "uri": uri, "poll_s": 5 })).unwrap()
        };
        let name = |text: &str| ModelName::new(text).unwrap();
        keep(dir.path(), &name("a"), Some(wanted("a", "s3://models/a"))).unwrap();
        keep(dir.path(), &name("b"), Some(wanted("b", "s3://others/b"))).unwrap();
        let config = |allow: &str| RegistryConfig { allow: vec![allow.into()], ..RegistryConfig::default() };
        let names = |allow: &str| -> Vec<String> {
            load(dir.path(), &config(allow)).iter().map(|source| source.name.to_string()).collect()
        };
        assert_eq!(names("*"), ["a", "b"]);
        assert_eq!(names("s3://models/*"), ["a"]);
        keep(dir.path(), &name("a"), None).unwrap();
        assert_eq!(names("*"), ["b"]);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(load(dir.path(), &config("*")).is_empty());
        assert!(keep(dir.path(), &name("c"), None).is_err());
    }
}
