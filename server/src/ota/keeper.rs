//! The one writer of what is known of deliveries: takes reports and wishes in turn, writes down what they change before it
//! is told, and looks at every rollout again. Must not know HTTP, nor how anything is decided.

mod wishes;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use gannet_runtime::{clock, drift::Drift};
use serde::{Deserialize, Serialize};

use super::{
    Change, Shown,
    decide::{Decision, Rollout, Status, decide},
    devices::{Device, DeviceFile, Fleet},
    fleet::{Counts, DeviceRecord, Placed, count, place},
    histograms::{self, Seen},
    plan::PlanFile,
    report::Report,
    saved::{Files, Lines, Saved},
    shelf::{Bundles, Shelf, Signed},
};
use crate::respond::{Kind, Refusal};

/// Time between two looks at the rollouts.
const LOOK: Duration = Duration::from_millis(100);
/// Time between two writes of the histograms, which may be lost by a crash.
const HISTOGRAMS: Duration = Duration::from_secs(10);
/// Changes that are written down together.
const TOGETHER_MAX: usize = 256;
/// Log lines of devices that are kept.
const LINES_MAX: usize = 256;
/// Records of the audit log that are kept in memory.
const AUDIT_MAX: usize = 256;
/// Sequences of a model whose histograms are kept.
const SEQUENCES_MAX: usize = 4;
/// Lines of the devices' file for each record before it is written anew.
const LINES_PER_RECORD_MAX: usize = 4;
/// The actor of what is decided here.
const CONTROLLER: &str = "controller";
const DEVICES: &str = "devices.jsonl";
const ROLLOUTS: &str = "rollouts.json";
const HISTOGRAM_FILE: &str = "histograms.json";

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who.
    pub actor: String,
    /// What was done.
    pub what: String,
    /// The rollout.
    pub rollout: Option<u64>,
    /// The bundle.
    pub bundle: String,
    /// Its model.
    pub model: String,
    /// Its sequence.
    pub sequence: u64,
    /// The stage from then on.
    pub stage: Option<usize>,
    /// Why.
    pub why: String,
    /// What it was decided on.
    pub counts: Option<Counts>,
}

/// A line of a device's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceLine {
    /// When it came.
    pub at_ms: u64,
    /// Whose it is.
    pub device: String,
    /// The model.
    pub model: String,
    /// The sequence.
    pub sequence: u64,
    /// As it was sent.
    pub line: String,
}

/// Histograms by model, sequence and input.
pub type Histograms = BTreeMap<String, BTreeMap<u64, BTreeMap<String, Seen>>>;

/// The thread's own.
pub(super) struct Keeper {
    files: Files,
    shelf: Shelf,
    votes: Lines,
    audit: Lines,
    saved: Saved,
    bundles: Arc<Bundles>,
    /// By model and device.
    records: HashMap<String, HashMap<String, DeviceRecord>>,
    devices: Arc<DeviceFile>,
    drift: Arc<Drift>,
    placed: HashMap<u64, (Arc<Fleet>, Vec<Placed>)>,
    counts: HashMap<u64, Counts>,
    seen: Histograms,
    seen_changed: bool,
    lines: VecDeque<DeviceLine>,
    recent: VecDeque<Audit>,
    shown: Arc<ArcSwap<Shown>>,
}

/// Where things are, and who is told.
pub(super) struct Parts {
    pub(super) files: Files,
    pub(super) shelf: Shelf,
    pub(super) bundles: Bundles,
    pub(super) devices: Arc<DeviceFile>,
    pub(super) drift: Arc<Drift>,
    pub(super) shown: Arc<ArcSwap<Shown>>,
}

impl Keeper {
    /// With what the folder holds.
    pub(super) fn open(parts: Parts) -> Result<Self, String> {
        let Parts { files, shelf, bundles, devices, drift, shown } = parts;
        let saved = files.rollouts()?;
        let (found, mut votes) = files.lines::<DeviceRecord>(DEVICES)?;
        let (log, audit) = files.lines::<Audit>("log.jsonl")?;
        let mut records: HashMap<String, HashMap<String, DeviceRecord>> = HashMap::new();
        for record in found {
            records.entry(record.model.clone()).or_default().insert(record.device.clone(), record);
        }
        let count = records.values().map(HashMap::len).sum::<usize>();
        if votes.count > count {
            let all = records.values().flat_map(HashMap::values);
            votes = files.rewrite(DEVICES, all).map_err(|error| error.to_string())?;
        }
        let seen = files.read(HISTOGRAM_FILE)?.unwrap_or_default();
        let recent = log.into_iter().rev().take(AUDIT_MAX).rev().collect();
        let mut keeper = Self {
            files,
            shelf,
            votes,
            audit,
            saved,
            bundles: Arc::new(bundles),
            records,
            devices,
            drift,
            placed: HashMap::new(),
            counts: HashMap::new(),
            seen,
            seen_changed: false,
            lines: VecDeque::new(),
            recent,
            shown,
        };
        keeper.look();
        Ok(keeper)
    }

    pub(super) fn run(mut self, changes: &Receiver<Change>) {
        let (mut looked, mut written) = (clock::now(), clock::now());
        loop {
            let now = clock::now();
            if now >= looked + LOOK {
                looked = now;
                self.look();
            }
            if self.seen_changed && now >= written + HISTOGRAMS {
                written = now;
                self.write_histograms();
            }
            let first = match changes.recv_timeout(LOOK) {
                Ok(change) => change,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut reports = Vec::new();
            let mut next = Some(first);
            let mut stop = false;
            while let Some(change) = next {
                match change {
                    Change::Report { device, report, reply } => {
                        reports.push((self.report(&device, &report), reply))
                    }
                    Change::Took { device, bundle, reply } => {
                        reports.push((Ok(Some(self.took(&device, &bundle))), reply))
                    }
                    Change::Publish { bundle, signed, actor, reply } => {
                        let _ = reply.send(self.publish(&bundle, *signed, &actor));
                    }
                    Change::Remove { id, actor, reply } => drop(reply.send(self.remove(&id, &actor))),
                    Change::Start { plan, actor, reply } => drop(reply.send(self.start(*plan, &actor))),
                    Change::Command { id, kind, actor, reason, reply } => {
                        let _ = reply.send(self.command(id, kind, &actor, reason));
                    }
                    Change::Stop => stop = true,
                }
                next = if reports.len() < TOGETHER_MAX && !stop { changes.try_recv().ok() } else { None };
            }
            self.write_records(reports);
            if stop {
                break;
            }
        }
        self.write_histograms();
    }

    /// What a report changes; `None`: nothing.
    fn report(&mut self, device: &Device, report: &Report) -> Result<Option<DeviceRecord>, Refusal> {
        let of_model = self.bundles.values().filter(|bundle| bundle.manifest().model == report.model);
        let Some(newest) = of_model.map(|bundle| bundle.manifest().sequence).max() else {
            let message = format!("the report: model: nothing of '{}' is delivered here", report.model);
            return Err(Refusal::new(Kind::NotFound, message));
        };
        if report.sequence > newest {
            let got = report.sequence;
            return Err(Refusal::invalid(format!(
                "the report: sequence: expected at most {newest}, got {got}"
            )));
        }
        // who did not get it here says nothing of it
        let known = self.records.get(&report.model).and_then(|records| records.get(&device.id));
        let sent = self
            .saved
            .rollouts
            .iter()
            .any(|rollout| rollout.model == report.model && rollout.sequence == report.sequence);
        if sent && known.is_none_or(|record| record.took.max(record.sequence) < report.sequence) {
            return Ok(None);
        }
        let now_ms = clock::wall_ms(clock::now());
        let plan = self.plan_for(device, report);
        let records = self.records.entry(report.model.clone()).or_default();
        let record =
            records.entry(device.id.clone()).or_insert_with(|| DeviceRecord::new(&device.id, &report.model));
        let Some(taken) = record.report(&plan, report, now_ms) else { return Ok(None) };
        let record = record.clone();
        for line in &report.log {
            let (device, model) = (device.id.clone(), report.model.clone());
            self.lines.push_back(DeviceLine {
                at_ms: now_ms,
                device,
                model,
                sequence: report.sequence,
                line: line.clone(),
            });
        }
        self.lines.drain(..self.lines.len().saturating_sub(LINES_MAX));
        if taken.histogram && !report.inputs.is_empty() {
            self.histograms(device, report);
        }
        Ok(Some(record))
    }

    /// Adds a report's histograms to what is known, and gives the drift monitor one value of each.
    fn histograms(&mut self, device: &Device, report: &Report) {
        let runs = |bundle: &&Arc<Signed>| {
            bundle.manifest().model == report.model && bundle.manifest().sequence == report.sequence
        };
        let bundles = Arc::clone(&self.bundles);
        let Some(bundle) = bundles.values().find(runs) else { return };
        let sequences = self.seen.entry(report.model.clone()).or_default();
        histograms::take(sequences.entry(report.sequence).or_default(), bundle.inputs(), &report.inputs);
        while sequences.len() > SEQUENCES_MAX {
            sequences.pop_first();
        }
        self.seen_changed = true;
        let Some(watched) = bundle.watched() else { return };
        let seed = histograms::seed(&device.id, report.sequence, report.window);
        let row = histograms::draw(bundle.inputs(), &report.inputs, seed);
        if row.iter().any(Option::is_some) {
            // what does not fit is counted there
            self.drift.device_row(watched, row);
        }
    }

    /// What a device's report is judged by: the plan of the newest rollout that concerns it.
    fn plan_for(&self, device: &Device, report: &Report) -> PlanFile {
        let concerns = |rollout: &&Rollout| {
            rollout.model == report.model && rollout.plan.classes.contains(&device.class)
        };
        let rollout = self.saved.rollouts.iter().rev().find(concerns);
        rollout.map_or_else(PlanFile::default, |rollout| PlanFile::clone(&rollout.plan))
    }

    fn took(&mut self, device: &Device, bundle: &Signed) -> DeviceRecord {
        let manifest = bundle.manifest();
        let records = self.records.entry(manifest.model.clone()).or_default();
        let record = records
            .entry(device.id.clone())
            .or_insert_with(|| DeviceRecord::new(&device.id, &manifest.model));
        if record.took != manifest.sequence {
            record.took = manifest.sequence;
            record.took_ms = clock::wall_ms(clock::now());
        }
        record.clone()
    }

    /// Writes down what reports changed, and answers them.
    fn write_records(&mut self, reports: Vec<super::Pending>) {
        let changed: Vec<&DeviceRecord> =
            reports.iter().filter_map(|(record, _)| record.as_ref().ok()?.as_ref()).collect();
        let written = if changed.is_empty() { Ok(()) } else { self.votes.add(&changed) };
        let failed = written.err().map(|error| unwritten(DEVICES, &error));
        for (record, reply) in reports {
            let answer = match (record, &failed) {
                (Err(refusal), _) => Err(refusal),
                (Ok(Some(_)), Some(refusal)) => Err(refusal.clone()),
                (Ok(record), _) => Ok(record.is_some()),
            };
            let _ = reply.send(answer);
        }
        let count = self.records.values().map(HashMap::len).sum::<usize>();
        if self.votes.count > LINES_PER_RECORD_MAX * count.max(1000) {
            match self.files.rewrite(DEVICES, self.records.values().flat_map(HashMap::values)) {
                Ok(votes) => self.votes = votes,
                Err(error) => tracing::error!(%error, "the devices' records could not be written anew"),
            }
        }
    }

    fn write_histograms(&mut self) {
        if let Err(error) = self.files.write(HISTOGRAM_FILE, &self.seen) {
            tracing::error!(%error, "the devices' histograms could not be written");
        }
        self.seen_changed = false;
    }

    /// Looks at every rollout once.
    fn look(&mut self) {
        let now_ms = clock::wall_ms(clock::now());
        let fleet = self.devices.fleet();
        for index in 0..self.saved.rollouts.len() {
            let rollout = self.saved.rollouts[index].clone();
            // what is over is counted on while it is the newest of its model
            let later = &self.saved.rollouts[index + 1..];
            let is_old = !rollout.goes_on() && later.iter().any(|other| other.model == rollout.model);
            if is_old && self.counts.contains_key(&rollout.id) {
                continue;
            }
            let counts = self.count(&rollout, &fleet, now_ms);
            let now_ms = now_ms.max(rollout.since_ms);
            let mut next = rollout.clone();
            match decide(&rollout, &counts, now_ms) {
                Decision::Hold(reason) => {
                    self.saved.rollouts[index].reason = reason;
                    continue;
                }
                Decision::Widen(stage) => (next.stage, next.reason) = (stage, String::new()),
                Decision::Finish => (next.status, next.reason) = (Status::Done, "it reached all".into()),
                Decision::Halt(reason) => (next.status, next.reason) = (Status::Halted, reason),
            }
            next.since_ms = now_ms;
            let what = if next.status == rollout.status { "widen" } else { next.status.name() };
            let mut saved = self.saved.clone();
            saved.rollouts[index] = next.clone();
            let audit = Audit { why: next.reason.clone(), ..self.of_rollout(what, &next) };
            match self.keep(&audit, saved) {
                Ok(()) => tracing::info!(
                    rollout = next.id,
                    model = next.model,
                    what,
                    why = next.reason,
                    "a delivery moves"
                ),
                // not decided then: the next look decides again
                Err(refusal) => tracing::error!(why = %refusal.message, "a decision could not be kept"),
            }
            self.count(&next, &fleet, now_ms);
        }
        self.show();
    }

    fn count(&mut self, rollout: &Rollout, fleet: &Arc<Fleet>, now_ms: u64) -> Counts {
        let entry = self.placed.entry(rollout.id).or_insert_with(|| (Arc::default(), Vec::new()));
        if !Arc::ptr_eq(&entry.0, fleet) {
            let of = fleet.devices.iter().filter(|device| rollout.plan.classes.contains(&device.class));
            let placed = of.map(|device| (Arc::clone(device), place(&rollout.plan.bundle, &device.id)));
            *entry = (Arc::clone(fleet), placed.collect());
        }
        let none = HashMap::new();
        let records = self.records.get(&rollout.model).unwrap_or(&none);
        let counts = count(rollout, &entry.1, records, now_ms);
        self.counts.insert(rollout.id, counts);
        counts
    }

    /// The log first, then what is in force after a restart, then what is in force.
    fn keep(&mut self, audit: &Audit, saved: Saved) -> Result<(), Refusal> {
        self.log(audit)?;
        self.files.write(ROLLOUTS, &saved).map_err(|error| unwritten(ROLLOUTS, &error))?;
        self.saved = saved;
        let kept = &self.saved.rollouts;
        self.counts.retain(|id, _| kept.iter().any(|rollout| rollout.id == *id));
        self.placed.retain(|id, _| kept.iter().any(|rollout| rollout.id == *id));
        Ok(())
    }

    fn log(&mut self, audit: &Audit) -> Result<(), Refusal> {
        self.audit.add(&[audit]).map_err(|error| unwritten("log.jsonl", &error))?;
        self.recent.push_back(audit.clone());
        self.recent.drain(..self.recent.len().saturating_sub(AUDIT_MAX));
        Ok(())
    }

    fn of_rollout(&self, what: &str, rollout: &Rollout) -> Audit {
        Audit {
            at_ms: clock::wall_ms(clock::now()),
            actor: CONTROLLER.into(),
            what: what.into(),
            rollout: Some(rollout.id),
            bundle: rollout.plan.bundle.clone(),
            model: rollout.model.clone(),
            sequence: rollout.sequence,
            stage: Some(rollout.stage),
            why: String::new(),
            counts: self.counts.get(&rollout.id).copied(),
        }
    }

    fn show(&self) {
        self.shown.store(Arc::new(Shown {
            rollouts: self.saved.rollouts.clone(),
            counts: self.counts.clone(),
            bundles: Arc::clone(&self.bundles),
            histograms: self.seen.clone(),
            lines: self.lines.iter().cloned().collect(),
            audit: self.recent.iter().cloned().collect(),
        }));
    }
}

fn of_bundle(what: &str, bundle: &Signed) -> Audit {
    let manifest = bundle.manifest();
    Audit {
        at_ms: clock::wall_ms(clock::now()),
        actor: String::new(),
        what: what.into(),
        rollout: None,
        bundle: bundle.id().to_owned(),
        model: manifest.model.clone(),
        sequence: manifest.sequence,
        stage: None,
        why: String::new(),
        counts: None,
    }
}

/// There is no rollout of that number.
pub(crate) fn no_rollout(id: u64) -> Refusal {
    Refusal::new(Kind::NotFound, format!("there is no delivery {id}; GET /admin/v1/ota lists them"))
}

fn unwritten(what: &str, error: &io::Error) -> Refusal {
    Refusal::new(Kind::Unavailable, format!("{what} could not be written: {error}; nothing was changed"))
}
