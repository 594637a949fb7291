//! The thread that looks at samples. It runs only while nobody else wants the core, and holds nothing that a request
//! could wait for. Must not know how a version is judged.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gannet_models::{ModelName, Version};
use gannet_stats::random::Random;

use super::{
    DriftConfig, Ends, Report, Sample, Shared,
    devices::{self, DeviceRow, DeviceWatch},
    feedback::Memory,
    pressure::next_factor,
    version::VersionWatch,
    watch,
};
use crate::{clock, control::manager::step_back, route::ledger::Outcome};

/// Versions that are watched; of further ones nothing is looked at.
const WATCHES_MAX: usize = 256;
/// Bundles whose devices are watched; of further ones nothing is looked at.
const DEVICE_WATCHES_MAX: usize = 64;
/// Time between two looks at empty queues.
const LOOK: Duration = Duration::from_millis(20);
/// Samples, and rows of devices, between two looks at the evidence, at most.
const SAMPLES_A_LOOK: usize = 512;
/// Time between two reports.
const REPORT_NS: u64 = 500_000_000;
type Key = (ModelName, Version);

struct Worker<'a> {
    shared: &'a Shared,
    config: DriftConfig,
    watches: BTreeMap<Key, VersionWatch>,
    devices: BTreeMap<devices::Key, DeviceWatch>,
    memory: Memory<Key>,
    random: Random,
}

/// The life of the thread.
pub(super) fn run(ends: &Ends, shared: &Shared, config: DriftConfig) {
    step_back(config.nice);
    let mut worker = Worker {
        shared,
        config,
        watches: BTreeMap::new(),
        devices: BTreeMap::new(),
        memory: Memory::new(),
        random: Random::new(clock::now().as_ns()),
    };
    let (mut reported, mut used_ns, mut changed) = (clock::now(), clock::thread_ns(), false);
    while !shared.stop.load(Ordering::Relaxed) {
        let mut taken = 0;
        while let Ok(sample) = ends.samples.try_recv() {
            shared.bytes.fetch_sub(sample.bytes, Ordering::Relaxed);
            shared.held.fetch_sub(1, Ordering::Relaxed);
            worker.push(&sample);
            taken += 1;
            if taken == SAMPLES_A_LOOK {
                break;
            }
        }
        while let Ok((model, outcomes)) = ends.outcomes.try_recv() {
            worker.feed(&model, &outcomes);
            taken += 1;
        }
        for row in ends.device_rows.try_iter().take(SAMPLES_A_LOOK) {
            shared.device_rows.fetch_sub(1, Ordering::Relaxed);
            worker.hear(&row);
            taken += 1;
        }
        changed |= taken > 0;
        let now = clock::now();
        let elapsed_ns = now.ns_since(reported);
        if elapsed_ns >= REPORT_NS {
            let used = clock::thread_ns();
            let factor = f64::from_bits(shared.factor.load(Ordering::Relaxed));
            let next = next_factor(factor, used.saturating_sub(used_ns), elapsed_ns, config.cpu_ratio_max);
            shared.factor.store(next.to_bits(), Ordering::Relaxed);
            (reported, used_ns) = (now, used);
            worker.end_watches();
            if changed || worker.watches.len() + worker.devices.len() != shared.reports.load().len() {
                worker.report();
            }
            changed = false;
        }
        if taken < SAMPLES_A_LOOK {
            // never blocks in a queue: who wakes it would have to wait for a lock that it may hold and not run
            std::thread::park_timeout(LOOK);
        }
    }
}

impl Worker<'_> {
    fn now(&self) -> watch::Shared {
        watch::Shared {
            config: self.config,
            sources: self.watches.values().map(VersionWatch::sources).sum::<usize>()
                + self.devices.values().map(DeviceWatch::sources).sum::<usize>(),
            factor: f64::from_bits(self.shared.factor.load(Ordering::Relaxed)),
            now_ms: clock::wall_ms(clock::now()),
        }
    }

    fn push(&mut self, sample: &Sample) {
        let servable = &sample.servable;
        let key = (servable.model.clone(), servable.version.clone());
        let shared = self.now();
        if !self.watches.contains_key(&key) && self.watches.len() >= WATCHES_MAX {
            return;
        }
        let rate = servable.settings.drift_rate.unwrap_or(self.config.rate);
        let fresh = || VersionWatch::new(servable, rate, shared.now_ms);
        let watch = self.watches.entry(key.clone()).or_insert_with(fresh);
        if watch.incarnation != servable.incarnation {
            // an older copy that ends says nothing of the one that serves
            if watch.incarnation > servable.incarnation {
                return;
            }
            *watch = fresh();
        }
        let row = usize::try_from(self.random.below(sample.rows as u64)).unwrap_or(0);
        let predicted = watch.push(sample, row, &self.config);
        watch.look_if_due(&shared);
        // of several rows, nobody could say which one a label is for
        if let Some(predicted) = predicted.filter(|_| sample.rows <= 1) {
            self.memory.note(key.0.as_str(), &sample.id, key.clone(), predicted);
        }
    }

    /// Takes what a device says.
    fn hear(&mut self, row: &DeviceRow) {
        let bundle = &row.bundle;
        let key = (bundle.model.clone(), bundle.sequence);
        let shared = self.now();
        if !self.devices.contains_key(&key) && self.devices.len() >= DEVICE_WATCHES_MAX {
            return;
        }
        let fresh = || DeviceWatch::new(bundle, shared.now_ms);
        let watch = self.devices.entry(key).or_insert_with(fresh);
        if !watch.is_of(bundle) {
            // the one before was withdrawn, and this one published with its sequence
            *watch = fresh();
        }
        watch.push(&row.values, &shared);
    }

    /// Ends what is no longer served or delivered.
    fn end_watches(&mut self) {
        self.watches.retain(|_, watch| watch.servable.strong_count() > 0);
        devices::end_replaced(&mut self.devices, clock::wall_ms(clock::now()));
    }

    fn feed(&mut self, model: &ModelName, outcomes: &[Outcome]) {
        let shared = self.now();
        for outcome in outcomes {
            let Some(label) = outcome.label else { continue };
            let Some((key, predicted)) = self.memory.take(model.as_str(), &outcome.id) else { continue };
            if let Some(watch) = self.watches.get_mut(&key) {
                watch.feedback.push(predicted, label);
                watch.look(&shared);
            }
        }
    }

    fn report(&mut self) {
        let shared = self.now();
        let of_version = |watch: &mut VersionWatch| {
            watch.look(&shared);
            Arc::new(watch.report(&shared))
        };
        let of_devices = |watch: &mut DeviceWatch| {
            watch.look(&shared);
            Arc::new(watch.report(&shared))
        };
        let mut reports: Vec<Arc<Report>> = self.watches.values_mut().map(of_version).collect();
        reports.extend(self.devices.values_mut().map(of_devices));
        // whoever reads never waits for this thread, which may not run for long
        self.shared.reports.store(Arc::new(reports));
    }
}
