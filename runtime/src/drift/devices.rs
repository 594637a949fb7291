//! The devices that run one bundle, being watched: each report of one is a row of a value for each input, held against the
//! calibration. Time is a value. Must not know how devices report, threads or queues.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use gannet_models::{ModelName, Version};
use gannet_stats::monitor::{FeatureMonitor, Reference, Value};

use super::{
    baseline::FEATURES_MAX,
    report::{Report, Source},
    watch::{Pacing, Shared, Subject, Watch, Watched},
};

/// A fleet reports in waves, some an hour or one a day: over an hour a wave is no more than itself.
const PACING: Pacing = Pacing { a_day_min: 1440.0, period_ms: 3_600_000 };
/// Silence after which devices have gone over to a newer bundle: many report once a day.
const REPLACED_MS: u64 = 2 * 86_400_000;

/// A bundle that devices run. What is known of its devices ends with the last of these.
#[derive(Debug)]
pub struct DeviceBundle {
    /// The model.
    pub model: ModelName,
    /// The version that it was compiled of.
    pub version: Version,
    /// The number of the release.
    pub sequence: u64,
    /// Its inputs.
    pub inputs: Vec<DeviceInput>,
}

/// An input of a bundle.
#[derive(Debug, Clone)]
pub struct DeviceInput {
    /// As in the bundle.
    pub name: String,
    /// Where the calibration's values fell.
    pub reference: Arc<Reference>,
    /// How many independent values those are worth: several of one sample are alike.
    pub rows: u64,
}

/// What one device says at one time.
#[derive(Debug)]
pub(super) struct DeviceRow {
    pub(super) bundle: Arc<DeviceBundle>,
    /// By input of the bundle; `None`: nothing is said of it.
    pub(super) values: Vec<Option<f64>>,
}

/// Model and sequence.
pub(super) type Key = (ModelName, u64);

/// The devices of a bundle.
pub(super) struct DeviceWatch {
    bundle: Weak<DeviceBundle>,
    watch: Watch,
    baseline_rows: u64,
    heard_ms: u64,
}

impl DeviceWatch {
    pub(super) fn new(bundle: &Arc<DeviceBundle>, now_ms: u64) -> Self {
        let source = Source::Devices { sequence: bundle.sequence };
        let subject = Subject { model: bundle.model.clone(), version: bundle.version.clone(), source };
        let one = |input: &DeviceInput| {
            let monitor = FeatureMonitor::of_rows(Arc::clone(&input.reference), input.rows).ok()?;
            // numbers, whose bins are the same for every value: nothing of them names one
            Some(Watched::new(input.name.clone(), true, monitor, false))
        };
        let mut watch = Watch::new(subject, PACING, now_ms);
        // one that cannot be watched takes no place: a row's values are found by it
        let features: Option<Vec<Watched>> = bundle.inputs.iter().take(FEATURES_MAX).map(one).collect();
        watch.begin(features.unwrap_or_default());
        let baseline_rows = bundle.inputs.iter().map(|input| input.rows).min().unwrap_or(0);
        Self { bundle: Arc::downgrade(bundle), watch, baseline_rows, heard_ms: now_ms }
    }

    /// Whether it is of this very bundle.
    pub(super) fn is_of(&self, bundle: &Arc<DeviceBundle>) -> bool {
        std::ptr::eq(self.bundle.as_ptr(), Arc::as_ptr(bundle))
    }

    /// Everything of it that can raise an alarm.
    pub(super) fn sources(&self) -> usize {
        self.watch.features()
    }

    /// Takes a row, and looks at the evidence once a batch.
    pub(super) fn push(&mut self, values: &[Option<f64>], shared: &Shared) {
        self.heard_ms = shared.now_ms;
        // a device that says nothing of an input may never do: that is no missing value
        for (watched, value) in self.watch.row().iter_mut().zip(values) {
            if let Some(value) = value {
                watched.take(Value::Number(*value));
            }
        }
        if self.watch.is_due() {
            self.look(shared);
        }
    }

    pub(super) fn look(&mut self, shared: &Shared) {
        self.watch.look_at_pace(shared.now_ms);
        self.watch.look(shared, false);
    }

    pub(super) fn report(&mut self, shared: &Shared) -> Report {
        let report = self.watch.report(shared);
        Report { baseline: "calibration", baseline_rows: self.baseline_rows, ..report }
    }
}

/// Ends the watches of bundles that were withdrawn, and of those that devices went over from.
pub(super) fn end_replaced(watches: &mut BTreeMap<Key, DeviceWatch>, now_ms: u64) {
    let newest: BTreeMap<ModelName, u64> =
        watches.keys().map(|(model, sequence)| (model.clone(), *sequence)).collect();
    watches.retain(|(model, sequence), watch| {
        let is_silent = now_ms.saturating_sub(watch.heard_ms) >= REPLACED_MS;
        watch.bundle.strong_count() > 0 && !(is_silent && newest.get(model) > Some(sequence))
    });
}

#[cfg(test)]
mod tests;
