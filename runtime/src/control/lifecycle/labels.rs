//! Names for versions: the source's, with those set by hand over them. Must not know who asks for a label.

use std::collections::BTreeMap;

use gannet_models::{ModelName, Version};

use super::{Lifecycle, Wanted};

/// Labels as they were set by hand, which goes before the source; `None`: taken away. They outlast the model's
/// absence.
pub(super) type SetLabels = BTreeMap<String, Option<Version>>;

impl<W: Wanted> Lifecycle<W> {
    /// Gives `label` to a version that serves, or takes it away, whatever the source says of it from then on.
    ///
    /// # Errors
    /// A text when the version does not serve.
    pub fn set_label(
        &mut self,
        model: &ModelName,
        label: &str,
        version: Option<&Version>,
    ) -> Result<(), String> {
        let record = self.models.get(model).ok_or_else(|| format!("there is no model '{model}'"))?;
        match version {
            None if !self.labels(model).contains_key(label) => {
                return Err(format!("model '{model}' has no label '{label}'"));
            }
            None => {}
            Some(version) => match record.versions.get(version) {
                Some(slot) if slot.serving.is_some() => {}
                Some(_) => {
                    return Err(format!("version '{version}' of '{model}' is not ready; load it first"));
                }
                None => return Err(format!("there is no version '{version}' of '{model}'")),
            },
        }
        self.labels_set.entry(model.clone()).or_default().insert(label.to_owned(), version.cloned());
        Ok(())
    }

    /// Sets all labels of a model at once as they were set before, whether their versions serve or not.
    pub fn restore_labels(&mut self, model: &ModelName, labels: BTreeMap<String, Option<Version>>) {
        self.labels_set.insert(model.clone(), labels);
    }

    /// Labels of a model.
    #[must_use]
    pub fn labels(&self, model: &ModelName) -> BTreeMap<String, Version> {
        let mut labels = self.models.get(model).map(|record| record.labels.clone()).unwrap_or_default();
        for (label, version) in self.labels_set.get(model).into_iter().flatten() {
            match version {
                Some(version) => drop(labels.insert(label.clone(), version.clone())),
                None => drop(labels.remove(label)),
            }
        }
        labels
    }
}
