//! What is wanted, loading, serving and draining, of every model. A plain value: events go in, actions come out,
//! so that it can be simulated. Must not know threads, time, files or engines.

mod labels;

use std::collections::BTreeMap;

use gannet_models::{ModelName, Version};

use self::labels::SetLabels;
use super::transition::{self, Aspired, Step, SwapPolicy, VersionView};
use crate::{
    metrics::{LOAD_VERSIONS_MAX, LoadCounts},
    servable::Incarnation,
};

/// One version as a source wants it.
pub trait Wanted: Clone {
    /// The version.
    fn version(&self) -> &Version;
    /// Whether loading `other` would give the same servable.
    fn same(&self, other: &Self) -> bool;
    /// Upper bound of the memory it will take, in bytes.
    fn memory_bytes(&self) -> u64;
}

/// Limits of the whole server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifecycleLimits {
    /// What goes first when a version is replaced.
    pub policy: SwapPolicy,
    /// Memory that all servables together may take; `None`: no limit.
    pub memory_bytes_max: Option<u64>,
    /// Loads that run side by side.
    pub loads_max: usize,
}

impl Default for LifecycleLimits {
    fn default() -> Self {
        Self { policy: SwapPolicy::default(), memory_bytes_max: None, loads_max: 1 }
    }
}

/// The state of a version, for people and for the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Being loaded, warmed and checked; nothing of it serves yet.
    Loading,
    /// Answers requests.
    Ready,
    /// Finishes its last requests.
    Draining,
    /// Does not serve; the reason says why.
    Unavailable,
}

impl State {
    /// The name that the index shows.
    #[must_use]
    pub fn index_name(self) -> &'static str {
        ["LOADING", "READY", "UNLOADING", "UNAVAILABLE"][self as usize]
    }
}

/// One version, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionStatus {
    /// The version.
    pub version: Version,
    /// Its state.
    pub state: State,
    /// Why, where there is something to say.
    pub reason: String,
    /// The copy that answers requests.
    pub serving: Option<Incarnation>,
    /// Whether what the source wants now was tried and refused; the reason says why.
    pub refused: bool,
}

/// What the effects have to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<W> {
    /// Load `wanted` and report [`Lifecycle::loaded`] or [`Lifecycle::load_failed`].
    Load {
        /// The model.
        model: ModelName,
        /// The number of this copy.
        incarnation: Incarnation,
        /// What to load.
        wanted: W,
    },
    /// No new requests go to this copy; once its last request is done, report [`Lifecycle::destroyed`].
    Retire(Incarnation),
}

#[derive(Debug)]
struct Model<W> {
    /// The whole set; a version that is missing is not wanted.
    aspired: Vec<W>,
    /// As the source gives them.
    labels: BTreeMap<String, Version>,
    versions: BTreeMap<Version, Slot<W>>,
    /// By version, as text; at most [`LOAD_VERSIONS_MAX`] of them and `other`.
    loads: BTreeMap<String, LoadCounts>,
}

#[derive(Debug)]
struct Slot<W> {
    serving: Option<(Incarnation, W)>,
    loading: Option<(Incarnation, W)>,
    draining: Vec<(Incarnation, u64)>,
    failed: Option<Failure<W>>,
    /// A fresh copy of what serves is asked for.
    reload: bool,
    /// A word for the index when nothing else is to be said.
    note: String,
}

/// Why something wanted does not serve.
#[derive(Debug)]
struct Failure<W> {
    tried: W,
    reason: String,
    /// It was refused for its size, not tried: due again as soon as it fits.
    for_memory: bool,
}

impl<W> Default for Slot<W> {
    fn default() -> Self {
        Self {
            serving: None,
            loading: None,
            draining: Vec::new(),
            failed: None,
            reload: false,
            note: String::new(),
        }
    }
}

impl<W> Default for Model<W> {
    fn default() -> Self {
        Self {
            aspired: Vec::new(),
            labels: BTreeMap::new(),
            versions: BTreeMap::new(),
            loads: BTreeMap::new(),
        }
    }
}

impl<W> Model<W> {
    fn count(&mut self, version: &Version) -> &mut LoadCounts {
        let full = self.loads.len() >= LOAD_VERSIONS_MAX && !self.loads.contains_key(version.as_str());
        let key = if full { "other" } else { version.as_str() };
        self.loads.entry(key.to_owned()).or_default()
    }
}

/// The control plane's state.
#[derive(Debug)]
pub struct Lifecycle<W> {
    limits: LifecycleLimits,
    models: BTreeMap<ModelName, Model<W>>,
    labels_set: BTreeMap<ModelName, SetLabels>,
    next_incarnation: Incarnation,
}

impl<W: Wanted> Lifecycle<W> {
    /// Nothing is wanted yet.
    #[must_use]
    pub fn new(limits: LifecycleLimits) -> Self {
        Self { limits, models: BTreeMap::new(), labels_set: BTreeMap::new(), next_incarnation: 1 }
    }

    /// A source states the whole set of versions it wants of `model`, and the labels it gives them.
    pub fn aspire(&mut self, model: &ModelName, aspired: Vec<W>, labels: BTreeMap<String, Version>) {
        let record = self.models.entry(model.clone()).or_default();
        for wanted in &aspired {
            record.versions.entry(wanted.version().clone()).or_default();
        }
        for (version, slot) in &mut record.versions {
            let wanted = aspired.iter().find(|w| w.version() == version);
            let still = |tried: &W| wanted.is_some_and(|w| w.same(tried));
            if slot.failed.as_ref().is_some_and(|failure| !still(&failure.tried)) {
                slot.failed = None;
            }
            slot.reload &= wanted.is_some();
        }
        record.aspired = aspired;
        record.labels = labels;
        self.tidy(model);
    }

    /// Forgets that loading failed, so that it is tried again.
    pub fn retry(&mut self, model: &ModelName) {
        if let Some(record) = self.models.get_mut(model) {
            record.versions.values_mut().for_each(|slot| slot.failed = None);
        }
    }

    /// Asks for a fresh copy of a version that is wanted; it is loaded in its turn, as any other. False when the
    /// version is not wanted or is being loaded already.
    pub fn reload(&mut self, model: &ModelName, version: &Version) -> bool {
        let Some(record) = self.models.get_mut(model) else { return false };
        let wanted = record.aspired.iter().any(|w| w.version() == version);
        match record.versions.get_mut(version) {
            Some(slot) if wanted && slot.loading.is_none() => {
                slot.failed = None;
                slot.reload = true;
                true
            }
            _ => false,
        }
    }

    /// The next thing to do, or `None` until something changes. Call until `None`.
    pub fn next_action(&mut self) -> Option<Action<W>> {
        let loads = self.slots().filter(|slot| slot.loading.is_some()).count();
        let names: Vec<ModelName> = self.models.keys().cloned().collect();
        for name in names {
            match transition::next_step(&self.views(&name, self.memory_bytes()), self.limits.policy) {
                Some(Step::Unload(version)) => return self.unload(&name, &version),
                Some(Step::Load(version)) if loads < self.limits.loads_max => {
                    if let Some(action) = self.load(&name, &version) {
                        return Some(action);
                    }
                    // refused for memory: another step of this model may be possible now
                    return self.next_action();
                }
                Some(Step::Load(_)) | None => {}
            }
        }
        None
    }

    /// The versions of a model for the decision, when `used` bytes are held by all.
    fn views(&self, model: &ModelName, used: u64) -> Vec<VersionView> {
        let Some(record) = self.models.get(model) else { return Vec::new() };
        let view = |(version, slot): (&Version, &Slot<W>)| {
            let wanted = record.aspired.iter().find(|w| w.version() == version);
            VersionView {
                version: version.clone(),
                aspired: wanted.map_or(Aspired::No, |wanted| self.aspired(wanted, slot, used)),
                serving: slot.serving.is_some(),
                loading: slot.loading.is_some(),
                draining: !slot.draining.is_empty(),
            }
        };
        record.versions.iter().map(view).collect()
    }

    fn aspired(&self, wanted: &W, slot: &Slot<W>, used: u64) -> Aspired {
        let is = |held: &Option<(Incarnation, W)>| held.as_ref().is_some_and(|(_, w)| w.same(wanted));
        if is(&slot.loading) || (is(&slot.serving) && !slot.reload) {
            return Aspired::Same;
        }
        match &slot.failed {
            Some(failure) if failure.tried.same(wanted) => {
                let due = failure.for_memory && self.fits(wanted, used);
                if due { Aspired::Changed } else { Aspired::Failed }
            }
            _ => Aspired::Changed,
        }
    }

    fn fits(&self, wanted: &W, used: u64) -> bool {
        self.limits.memory_bytes_max.is_none_or(|limit| used.saturating_add(wanted.memory_bytes()) <= limit)
    }

    fn load(&mut self, model: &ModelName, version: &Version) -> Option<Action<W>> {
        let used = self.memory_bytes();
        let wanted = self.models.get(model)?.aspired.iter().find(|w| w.version() == version)?.clone();
        let fits = self.fits(&wanted, used);
        let slot = self.models.get_mut(model)?.versions.get_mut(version)?;
        slot.reload = false;
        slot.failed = None;
        if !fits {
            let (needed, limit) = (wanted.memory_bytes(), self.limits.memory_bytes_max.unwrap_or(u64::MAX));
            let reason = format!(
                "not loaded: it is estimated to need {needed} bytes, and {used} of the budget of {limit} are in use; \
                 unload something, raise memory_bytes_max, or state memory_bytes in the model's limits"
            );
            slot.failed = Some(Failure { tried: wanted, reason, for_memory: true });
            return None;
        }
        let incarnation = self.next_incarnation;
        self.next_incarnation += 1;
        slot.loading = Some((incarnation, wanted.clone()));
        Some(Action::Load { model: model.clone(), incarnation, wanted })
    }

    fn unload(&mut self, model: &ModelName, version: &Version) -> Option<Action<W>> {
        let slot = self.models.get_mut(model)?.versions.get_mut(version)?;
        let (incarnation, wanted) = slot.serving.take()?;
        slot.draining.push((incarnation, wanted.memory_bytes()));
        slot.note = "unloaded".into();
        Some(Action::Retire(incarnation))
    }

    /// A load ended well: the copy serves from now on, and the copy it replaces (or itself, when it is no longer
    /// wanted) is to be retired.
    pub fn loaded(&mut self, model: &ModelName, incarnation: Incarnation) -> Option<Action<W>> {
        let record = self.models.get_mut(model)?;
        let takes_over = record.versions.values().any(|slot| slot.serving.is_some());
        let (version, slot) = record.versions.iter_mut().find(|(_, slot)| slot.is_loading(incarnation))?;
        let version = version.clone();
        let (_, wanted) = slot.loading.take()?;
        let still = record.aspired.iter().any(|w| *w.version() == version && w.same(&wanted));
        let retired =
            if still { slot.serving.replace((incarnation, wanted)) } else { Some((incarnation, wanted)) };
        if let Some((incarnation, wanted)) = &retired {
            slot.draining.push((*incarnation, wanted.memory_bytes()));
        }
        let counts = record.count(&version);
        counts.ok += 1;
        counts.swaps += u64::from(still && takes_over);
        retired.map(|(incarnation, _)| Action::Retire(incarnation))
    }

    /// A load failed: what served keeps serving.
    pub fn load_failed(&mut self, model: &ModelName, incarnation: Incarnation, reason: String) {
        let Some(record) = self.models.get_mut(model) else { return };
        let failed = record.versions.iter_mut().find(|(_, slot)| slot.is_loading(incarnation));
        if let Some((version, slot)) = failed
            && let Some((_, wanted)) = slot.loading.take()
        {
            slot.failed = Some(Failure { tried: wanted, reason, for_memory: false });
            let version = version.clone();
            record.count(&version).failed += 1;
        }
        self.tidy(model);
    }

    /// A retired copy is gone.
    pub fn destroyed(&mut self, incarnation: Incarnation) {
        for slot in self.models.values_mut().flat_map(|record| record.versions.values_mut()) {
            slot.draining.retain(|(held, _)| *held != incarnation);
        }
        let names: Vec<ModelName> = self.models.keys().cloned().collect();
        names.iter().for_each(|model| self.tidy(model));
    }

    /// Forgets versions and models that nobody wants and nothing holds.
    fn tidy(&mut self, model: &ModelName) {
        let Some(record) = self.models.get_mut(model) else { return };
        let aspired = &record.aspired;
        record.versions.retain(|version, slot| {
            let wanted = aspired.iter().any(|w| w.version() == version);
            wanted || slot.serving.is_some() || slot.loading.is_some() || !slot.draining.is_empty()
        });
        if record.versions.is_empty() && record.aspired.is_empty() {
            self.models.remove(model);
        }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot<W>> {
        self.models.values().flat_map(|record| record.versions.values())
    }

    /// Memory held by everything that serves, loads or drains, as estimated, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let draining = |slot: &Slot<W>| slot.draining.iter().map(|(_, bytes)| bytes).sum::<u64>();
        self.memory_kept_bytes() + self.slots().map(draining).sum::<u64>()
    }

    /// The part of it that drains leave.
    fn memory_kept_bytes(&self) -> u64 {
        let of = |copy: &Option<(Incarnation, W)>| copy.as_ref().map_or(0, |(_, w)| w.memory_bytes());
        self.slots().map(|slot| of(&slot.serving) + of(&slot.loading)).sum()
    }

    /// Every model that is wanted or held.
    pub fn models(&self) -> impl Iterator<Item = &ModelName> {
        self.models.keys()
    }

    /// Loads and swaps of a model, by version.
    #[must_use]
    pub fn loads(&self, model: &ModelName) -> BTreeMap<String, LoadCounts> {
        self.models.get(model).map(|record| record.loads.clone()).unwrap_or_default()
    }

    /// Whether nothing more will happen to `model` until something changes: no load runs or is due, neither now
    /// nor once what drains is gone.
    #[must_use]
    pub fn settled(&self, model: &ModelName) -> bool {
        let Some(record) = self.models.get(model) else { return true };
        let idle = record.versions.values().all(|slot| slot.loading.is_none());
        let mut views = self.views(model, self.memory_bytes());
        let now = transition::next_step(&views, self.limits.policy);
        if !idle || now.is_some() {
            return false;
        }
        views = self.views(model, self.memory_kept_bytes());
        views.iter_mut().for_each(|view| view.draining = false);
        transition::next_step(&views, self.limits.policy).is_none()
    }

    /// The versions of a model as they stand, ascending.
    #[must_use]
    pub fn status(&self, model: &ModelName) -> Vec<VersionStatus> {
        let Some(record) = self.models.get(model) else { return Vec::new() };
        let status = |(version, slot): (&Version, &Slot<W>)| {
            let failure = slot.failed.as_ref().map(|failure| failure.reason.clone());
            let (state, reason) = match (&slot.serving, &slot.loading, slot.draining.is_empty()) {
                (Some(_), Some(_), _) => (State::Ready, "a new copy is being loaded beside it".into()),
                (Some(_), None, _) => {
                    let kept = |why| format!("the copy before it is kept, the new one was refused: {why}");
                    (State::Ready, failure.map(kept).unwrap_or_default())
                }
                (None, Some(_), _) => (State::Loading, String::new()),
                (None, None, false) => (State::Draining, "finishing its last requests".into()),
                (None, None, true) => (State::Unavailable, failure.unwrap_or_else(|| slot.note.clone())),
            };
            let serving = slot.serving.as_ref().map(|(incarnation, _)| *incarnation);
            let refused = slot.failed.is_some();
            VersionStatus { version: version.clone(), state, reason, serving, refused }
        };
        record.versions.iter().map(status).collect()
    }
}

impl<W> Slot<W> {
    fn is_loading(&self, incarnation: Incarnation) -> bool {
        self.loading.as_ref().is_some_and(|(held, _)| *held == incarnation)
    }
}

#[cfg(test)]
mod tests;
