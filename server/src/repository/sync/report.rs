//! Tells registries how their versions fare here: a state for each version that changed, and now and then a few values
//! of those that serve. A version that became ready has proved itself, and the store keeps it. Must not know how
//! registries are told.

use std::{collections::HashMap, time::Duration};

use gannet_models::{ModelName, Version};
use gannet_registry::VersionReport;
use gannet_runtime::{Time, clock, control::lifecycle::State, metrics::Outcome, servable::Servable};

use super::{Parts, Sync};

/// Time between two rounds of values.
const VALUES_PERIOD: Duration = Duration::from_secs(60);

/// Time between two walks over everything.
const WALK_PERIOD: Duration = Duration::from_millis(500);

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    states: HashMap<(ModelName, Version), (String, String)>,
    values_at: Option<Time>,
    walked_at: Option<Time>,
}

impl Reporter {
    /// Tells what changed, and gives back which versions became ready. Costs a walk over the models that registries
    /// gave.
    fn report(&mut self, parts: &Parts) -> Vec<(ModelName, Version)> {
        let mut proved = Vec::new();
        let Some(registry) = &parts.registry else { return proved };
        let now = clock::now();
        if self.walked_at.is_some_and(|at| now < at + WALK_PERIOD) {
            return proved;
        }
        self.walked_at = Some(now);
        let table = parts.control.table().snapshot();
        let values_due = *self.values_at.get_or_insert(now) + VALUES_PERIOD <= now;
        if values_due {
            self.values_at = Some(now);
        }
        let mut reports = Vec::new();
        for state in registry.states() {
            for aspired in &state.aspired {
                let Some(entry) = table.model(&aspired.model) else { continue };
                for held in &entry.versions {
                    let version = &held.status.version;
                    if !aspired.versions.iter().any(|wanted| wanted == version.as_str()) {
                        continue;
                    }
                    let Ok(model) = ModelName::new(&aspired.model) else { continue };
                    if values_due && let Some(servable) = &held.servable {
                        registry.metrics(model.clone(), version.clone(), values(servable));
                    }
                    let told = (word(held.status.state).to_owned(), held.status.reason.clone());
                    let key = (model.clone(), version.clone());
                    if self.states.get(&key) == Some(&told) {
                        continue;
                    }
                    if held.status.state == State::Ready {
                        proved.push(key.clone());
                    }
                    let (state, reason) = told.clone();
                    reports.push(VersionReport { model, version: version.clone(), state, reason });
                    self.states.insert(key, told);
                }
            }
        }
        if !reports.is_empty() {
            registry.report(reports);
        }
        proved
    }
}

impl Sync {
    /// Tells registries what changed, and keeps what proved itself.
    pub(super) fn report(&mut self) {
        for (model, version) in self.told_registries.report(&self.parts) {
            let specs = self.told.get(&model).into_iter().flat_map(|told| &told.specs);
            for spec in specs.filter(|spec| spec.version == version) {
                if let Err(error) = self.parts.store.prove(&spec.artifact.digest()) {
                    tracing::warn!(%model, %version, %error, "it serves, but could not be put into the store for good");
                }
            }
        }
    }
}

fn word(state: State) -> &'static str {
    match state.index_name() {
        "READY" => "ready",
        "LOADING" => "loading",
        "UNLOADING" => "unloading",
        _ => "refused",
    }
}

/// Values of a version that serves, since it was loaded.
#[expect(clippy::cast_precision_loss, reason = "counts for a chart")]
fn values(servable: &Servable) -> Vec<(String, f64)> {
    let stats = servable.stats.snapshot();
    let total: u64 = Outcome::ALL.iter().map(|&outcome| stats.outcome(outcome)).sum();
    let ok = Outcome::ALL.iter().find(|outcome| outcome.label() == "ok").map_or(0, |&ok| stats.outcome(ok));
    vec![
        ("serving.requests".to_owned(), total as f64),
        ("serving.failures".to_owned(), total.saturating_sub(ok) as f64),
        ("serving.rows".to_owned(), stats.batch_rows.sum as f64),
        ("serving.batches".to_owned(), stats.batch_rows.count() as f64),
    ]
}
