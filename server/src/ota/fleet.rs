//! What is known of devices, and what that says of a bundle: each has one vote, whatever it sends. Pure. Must not know
//! how reports come or where they are kept.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    decide::Rollout,
    devices::Device,
    plan::PlanFile,
    report::{Latency, Report},
};

/// Failures that say enough before there are enough inferences.
const EARLY_FAILURES: u64 = 10;
/// Time between two histograms of one device that are taken.
const HISTOGRAM_MS_MIN: u64 = 600_000;

/// What a device's reports say of what it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Too little yet.
    #[default]
    Young,
    /// Nothing is wrong.
    Good,
    /// Too many inferences fail.
    Failing,
    /// The hardware complains.
    Alerting,
    /// It is slower than it may be.
    Slow,
}

/// What is known of one device and one model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceRecord {
    /// The device.
    pub device: String,
    /// The model.
    pub model: String,
    /// What it reported last.
    pub sequence: u64,
    /// The number of that report.
    pub window: u64,
    /// Its vote on that sequence. A bad one stays.
    pub verdict: Verdict,
    /// Its median with that sequence.
    pub p50_us: Option<u64>,
    /// Its median with the one before.
    pub before_us: Option<u64>,
    /// When it last reported.
    pub reported_ms: u64,
    /// When a histogram of it was last taken.
    pub histogram_ms: u64,
    /// The sequence that it took last, and when; 0: none.
    pub took: u64,
    /// See `took`.
    pub took_ms: u64,
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Whether its histograms count.
    pub histogram: bool,
}

impl DeviceRecord {
    /// Nothing known.
    #[must_use]
    pub(crate) fn new(device: &str, model: &str) -> Self {
        Self { device: device.into(), model: model.into(), ..Self::default() }
    }

    /// Takes a report; `None` when it is not newer than what is known, and changes nothing.
    pub(crate) fn report(&mut self, plan: &PlanFile, report: &Report, now_ms: u64) -> Option<Taken> {
        let newer = (report.sequence, report.window) > (self.sequence, self.window);
        if !newer && self.reported_ms > 0 {
            return None;
        }
        let first = report.sequence != self.sequence;
        if first {
            self.before_us = self.p50_us.take();
            self.verdict = Verdict::Young;
        }
        self.sequence = report.sequence;
        self.window = report.window;
        self.reported_ms = now_ms.max(1);
        self.p50_us = report.latency_us.map(|latency| latency.p50).or(self.p50_us);
        if matches!(self.verdict, Verdict::Young | Verdict::Good) {
            self.verdict = judge(plan, report, self.before_us);
        }
        let histogram = first || now_ms >= self.histogram_ms.saturating_add(HISTOGRAM_MS_MIN);
        if histogram && !report.inputs.is_empty() {
            self.histogram_ms = now_ms;
        }
        Some(Taken { histogram })
    }
}

/// What one report says.
#[must_use]
pub(crate) fn judge(plan: &PlanFile, report: &Report, before_us: Option<u64>) -> Verdict {
    let Report { inferences, failures, .. } = *report;
    let enough = inferences >= plan.inferences_min;
    let failing = failures as f64 > inferences as f64 * plan.failure_share_max;
    let slow = |Latency { p50, p99 }: Latency| {
        plan.latency_us_max.is_some_and(|most| p99 > most)
            || before_us.is_some_and(|before| p50 as f64 > before.max(1) as f64 * plan.slower_max)
    };
    if !report.alerts.is_empty() {
        Verdict::Alerting
    } else if failing && (enough || failures >= EARLY_FAILURES) {
        Verdict::Failing
    } else if !enough {
        Verdict::Young
    } else if report.latency_us.is_some_and(slow) {
        Verdict::Slow
    } else {
        Verdict::Good
    }
}

/// Where a device stands among all, 0 to 1: the same for the same bundle, another for another one.
#[must_use]
pub(crate) fn place(bundle: &str, device: &str) -> f64 {
    let digest = Sha256::digest(format!("{bundle}\n{device}"));
    let bits = u64::from_be_bytes(digest[..8].try_into().expect("eight bytes"));
    // 53 bits, so that it stays below one
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// What the devices say of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Devices of its classes.
    pub devices: u64,
    /// That the stage reaches.
    pub reached: u64,
    /// Of these, that took it.
    pub took: u64,
    /// Of these, that have a vote.
    pub voted: u64,
    /// Of these, bad ones.
    pub bad: u64,
    /// Of these, because inferences fail,
    pub failing: u64,
    /// the hardware complains,
    pub alerting: u64,
    /// it is slow,
    pub slow: u64,
    /// or nothing was heard.
    pub silent: u64,
    /// Devices that run something older and have a vote on it.
    pub control: u64,
    /// Of these, bad ones.
    pub control_bad: u64,
}

/// A device of a rollout's classes and its place.
pub(crate) type Placed = (std::sync::Arc<Device>, f64);

/// Counts the votes. Only who was offered the bundle and took it has one.
#[must_use]
pub(crate) fn count(
    rollout: &Rollout,
    placed: &[Placed],
    records: &HashMap<String, DeviceRecord>,
    now_ms: u64,
) -> Counts {
    let share = rollout.plan.share(rollout.stage);
    let silent_ms = rollout.plan.silent_seconds * 1000;
    let mut counts = Counts { devices: placed.len() as u64, ..Counts::default() };
    for (device, place) in placed {
        let reached = *place < share;
        counts.reached += u64::from(reached);
        let Some(record) = records.get(&device.id) else { continue };
        if !(reached && record.took == rollout.sequence) {
            if record.sequence < rollout.sequence && record.verdict != Verdict::Young {
                counts.control += 1;
                counts.control_bad += u64::from(record.verdict != Verdict::Good);
            }
            continue;
        }
        counts.took += 1;
        let runs = record.sequence == rollout.sequence;
        let heard_ms = if runs { record.reported_ms.max(record.took_ms) } else { record.took_ms };
        let verdict = if runs { record.verdict } else { Verdict::Young };
        let bad = match verdict {
            Verdict::Good => None,
            Verdict::Failing => Some(&mut counts.failing),
            Verdict::Alerting => Some(&mut counts.alerting),
            Verdict::Slow => Some(&mut counts.slow),
            Verdict::Young if now_ms >= heard_ms.saturating_add(silent_ms) => Some(&mut counts.silent),
            Verdict::Young => continue,
        };
        if let Some(reason) = bad {
            *reason += 1;
            counts.bad += 1;
        }
        counts.voted += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ota::{decide::Status, plan::tests::plan};

    fn report(sequence: u64, window: u64, change: impl FnOnce(&mut Report)) -> Report {
        let text = format!(
            "{{\"model\":\"m\",\"sequence\":{sequence},\"window\":{window},\"inferences\":1000,\"failures\":0,\
             \"latency_us\":{{\"p50\":900,\"p99\":2000}}}}"
        );
        let mut report = Report::read(text.as_bytes()).unwrap();
        change(&mut report);
        report
    }

    #[test]
    fn one_report_is_judged() {
        let plan = plan(|file| file.latency_us_max = Some(5000));
        let check = |before: Option<u64>, change: &dyn Fn(&mut Report), expected| {
            assert_eq!(judge(&plan, &report(2, 1, change), before), expected);
        };
        check(None, &|_| {}, Verdict::Good);
        check(None, &|report| report.failures = 10, Verdict::Good);
        check(None, &|report| report.failures = 11, Verdict::Failing);
        check(None, &|report| report.inferences = 99, Verdict::Young);
        check(None, &|report| (report.inferences, report.failures) = (99, 9), Verdict::Young);
        check(None, &|report| (report.inferences, report.failures) = (99, 10), Verdict::Failing);
        check(None, &|report| report.alerts.push(crate::ota::report::Alert::Watchdog), Verdict::Alerting);
        check(Some(600), &|_| {}, Verdict::Good);
        check(Some(599), &|_| {}, Verdict::Slow);
        check(Some(0), &|_| {}, Verdict::Slow);
        check(None, &|report| report.latency_us = Some(Latency { p50: 1, p99: 5001 }), Verdict::Slow);
    }

    #[test]
    fn a_replay_changes_nothing_and_a_bad_vote_stays() {
        let plan = plan(|_| {});
        let mut record = DeviceRecord::new("a", "m");
        assert!(record.report(&plan, &report(1, 0, |_| {}), 10).unwrap().histogram);
        let before = record.clone();
        for (sequence, window) in [(1, 0), (0, 99)] {
            assert_eq!(
                record.report(&plan, &report(sequence, window, |report| report.failures = 900), 11),
                None
            );
            assert_eq!(record, before);
        }
        assert!(!record.report(&plan, &report(1, 1, |_| {}), 12).unwrap().histogram, "one in ten minutes");
        record.report(&plan, &report(2, 0, |report| report.failures = 900), 13).unwrap();
        assert_eq!((record.verdict, record.before_us), (Verdict::Failing, Some(900)));
        record.report(&plan, &report(2, 1, |_| {}), 14).unwrap();
        assert_eq!(record.verdict, Verdict::Failing);
        record.report(&plan, &report(3, 0, |_| {}), 15).unwrap();
        assert_eq!(record.verdict, Verdict::Good);
    }

    #[test]
    fn only_who_was_offered_it_and_took_it_votes() {
        let mut rollout = Rollout::new(1, plan(|_| {}), ("m", 7), 0);
        let fleet: Vec<Placed> = (0..1000)
            .map(|n| {
                let device = Arc::new(Device { id: format!("device-{n}"), class: "nano33".into() });
                let place = place(&rollout.plan.bundle, &device.id);
                (device, place)
            })
            .collect();
        let mut records = HashMap::new();
        for (device, _) in &fleet {
            let mut record = DeviceRecord::new(&device.id, "m");
            record.report(&rollout.plan, &report(7, 1, |report| report.failures = 1000), 1);
            records.insert(device.id.clone(), record);
        }
        let counts = count(&rollout, &fleet, &records, 2);
        assert!((30..=70).contains(&counts.reached), "{counts:?}");
        assert_eq!((counts.voted, counts.bad, counts.control), (0, 0, 0), "nobody took it");
        records.values_mut().for_each(|record| (record.took, record.took_ms) = (7, 1));
        let counts = count(&rollout, &fleet, &records, 2);
        assert_eq!(
            (counts.took, counts.voted, counts.failing),
            (counts.reached, counts.reached, counts.reached)
        );
        // a wider stage reaches all that the narrower one did
        rollout.stage = 1;
        assert!(fleet.iter().all(|(_, place)| *place >= 0.05 || *place < rollout.plan.share(1)));
        assert!((200..=300).contains(&count(&rollout, &fleet, &records, 2).reached));
        // what took it and is not heard is bad after a while, and not before
        records.values_mut().for_each(|record| (record.sequence, record.verdict) = (6, Verdict::Good));
        let silent = rollout.plan.silent_seconds * 1000;
        let early = count(&rollout, &fleet, &records, silent);
        assert_eq!((early.voted, early.silent, early.control), (0, 0, 1000 - early.reached));
        let late = count(&rollout, &fleet, &records, silent + 1);
        assert_eq!((late.voted, late.silent), (late.reached, late.reached));
        assert_eq!(rollout.status, Status::Running);
    }
}
