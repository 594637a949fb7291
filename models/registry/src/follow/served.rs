//! How a model that a registry brought is served: its settings, from where there are some. Must not know when to look.

use std::{path::Path, sync::Arc};

use gannet_models::{ModelSettings, manifest, pbtxt, read_settings, settings::VersionPolicy};

use crate::{board::Followed, mlflow};

/// How a model is served: as its settings file says, or its package; and every version that is stated is served.
pub(crate) fn settings_for(followed: &mut Followed) {
    let newest = followed.aspired.iter().max().and_then(|version| followed.held.get(version));
    let dir = newest.map(|held| held.artifact.dir().to_owned());
    let found = match (&followed.settings_file, &dir) {
        (Some((name, text)), _) => parse(name, text),
        (None, Some(dir)) if dir.join("MLmodel").exists() && !has_settings(dir) => {
            Ok(mlflow::settings_of(dir).unwrap_or_default())
        }
        (None, Some(dir)) => read_settings(dir).map_err(|error| error.to_string()),
        (None, None) => Ok(ModelSettings::default()),
    };
    match found {
        Ok(mut settings) => {
            settings.version_policy = VersionPolicy::All;
            if *followed.settings != settings {
                followed.settings = Arc::new(settings);
            }
        }
        // the last good ones stand
        Err(problem) => {
            if !followed.problems.contains(&problem) {
                followed.problems.push(problem);
            }
            if followed.settings.version_policy != VersionPolicy::All {
                let mut settings = (*followed.settings).clone();
                settings.version_policy = VersionPolicy::All;
                followed.settings = Arc::new(settings);
            }
        }
    }
}

fn has_settings(dir: &Path) -> bool {
    gannet_models::SETTINGS_FILES.iter().any(|name| dir.join(name).exists())
}

pub(super) fn parse(name: &str, text: &str) -> Result<ModelSettings, String> {
    let path = Path::new(name);
    let parsed =
        if name.ends_with(".pbtxt") { pbtxt::parse(text, path) } else { manifest::parse(text, path) };
    parsed.map_err(|error| error.to_string())
}
