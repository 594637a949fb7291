//! What the load and unload calls ask for, in explicit mode. Must not know how it is brought about.

use std::{collections::BTreeSet, sync::Arc};

use gannet_models::{ModelName, Version, pbtxt};
use tokio::sync::oneshot;

use super::{Asked, Sync};
use crate::{
    repository::{LoadOverride, upload},
    respond::{Kind, Refusal},
};

impl Sync {
    pub(super) fn load(
        &mut self,
        model: &ModelName,
        change: &LoadOverride,
        reply: oneshot::Sender<Result<(), Refusal>>,
    ) {
        self.look_settled();
        let result = self.ask_for(model, change);
        if result.is_ok() {
            self.parts.control.retry(model.clone());
            self.reconcile(model);
            self.publish_inventory();
        }
        let _ = reply.send(result);
    }

    fn ask_for(&mut self, model: &ModelName, change: &LoadOverride) -> Result<(), Refusal> {
        let generation = self.asked.get(model).map_or(0, |asked| asked.generation) + 1;
        if !change.files.is_empty() && change.config.is_none() {
            return Err(Refusal::invalid(format!(
                "model '{model}' was sent with files but without a configuration; add the 'config' parameter"
            )));
        }
        if change.files.is_empty() && !self.found.contains_key(model) {
            let names: Vec<&str> = self.found.keys().map(ModelName::as_str).collect();
            return Err(Refusal::invalid(format!(
                "failed to load '{model}', failed to poll from model repository: it holds {}",
                if names.is_empty() { "no models".into() } else { names.join(", ") }
            )));
        }
        let dir = self.parts.options.state_dir.join("uploads").join(model.as_str());
        let settings = match &change.config {
            None => None,
            Some(text) => {
                let origin = pbtxt::Origin {
                    path: std::path::Path::new("the 'config' parameter"),
                    name: Some(model.as_str()),
                    model_dir: &dir,
                };
                let settings = pbtxt::from_json(text, &origin);
                Some(Arc::new(settings.map_err(|error| Refusal::invalid(error.to_string()))?))
            }
        };
        let versions = match change.files.is_empty() {
            true => None,
            false => Some(upload::write(&dir, model, &change.files)?),
        };
        if let Some(settings) = &settings {
            let there: Vec<Version> = match (&versions, self.found.get(model)) {
                (Some(versions), _) => versions.iter().map(|(version, _)| version.clone()).collect(),
                (None, found) => found.iter().flat_map(|m| &m.available).map(|v| v.version.clone()).collect(),
            };
            if settings.version_policy.choose(&there).is_empty() {
                let there: Vec<&str> = there.iter().map(Version::as_str).collect();
                return Err(Refusal::invalid(format!(
                    "model '{model}': the version policy of the 'config' parameter chooses none of {}",
                    there.join(", ")
                )));
            }
        }
        self.asked.insert(model.clone(), Asked { settings, versions, only: None, generation });
        Ok(())
    }

    pub(super) fn unload(&mut self, model: &ModelName) -> Result<(), Refusal> {
        if self.asked.remove(model).is_none() && !self.found.contains_key(model) {
            return Err(Refusal::new(Kind::Invalid, format!("failed to unload '{model}': unknown model")));
        }
        self.reconcile(model);
        self.publish_inventory();
        Ok(())
    }

    /// Adds one version to those that are wanted, or takes it out; without any left the model is not wanted.
    pub(super) fn select(
        &mut self,
        model: &ModelName,
        version: &Version,
        wanted: bool,
    ) -> Result<(), Refusal> {
        self.look_settled();
        let uploaded = self.asked.get(model).and_then(|asked| asked.versions.as_ref());
        let available: Vec<Version> = match (uploaded, self.found.get(model)) {
            (Some(versions), _) => versions.iter().map(|(version, _)| version.clone()).collect(),
            (None, Some(found)) => found.available.iter().map(|v| v.version.clone()).collect(),
            (None, None) => Vec::new(),
        };
        if !available.contains(version) {
            let names: Vec<&str> = available.iter().map(Version::as_str).collect();
            let names = if names.is_empty() { "none".into() } else { names.join(", ") };
            return Err(Refusal::new(
                Kind::NotFound,
                format!(
                    "version '{version}' of '{model}' is not in the repository, which holds: {names}; put it there"
                ),
            ));
        }
        let mut chosen: BTreeSet<Version> = match self.asked.contains_key(model) {
            true => self.candidates(model).into_iter().map(|candidate| candidate.version).collect(),
            false => BTreeSet::new(),
        };
        let changed = if wanted { chosen.insert(version.clone()) } else { chosen.remove(version) };
        if chosen.is_empty() {
            self.asked.remove(model);
        } else if changed {
            self.asked.entry(model.clone()).or_default().only = Some(chosen);
        }
        if wanted {
            self.parts.control.retry(model.clone());
        }
        self.reconcile(model);
        self.publish_inventory();
        Ok(())
    }
}
