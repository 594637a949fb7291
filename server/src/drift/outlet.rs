//! Tells others of drift: an alarm to a webhook, values to the tracking server that a model came from. One thread of its
//! own; a receiver that does not answer delays nobody else. Must not know how drift is found.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use gannet_models::{ModelName, Version};
use gannet_registry::Registry;
use gannet_runtime::{
    Time, clock,
    drift::{Drift, Report, Source, State},
};
use serde_json::Value;

use super::event;
use crate::cloud_event::{Courier, Message, WebhookOut};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Events that wait; the oldest goes when there are more.
const EVENTS_MAX: usize = 64;
/// Times that one is sent.
const TRIES_MAX: u32 = 6;
/// Time before the second try; doubled before each further one.
const BACKOFF: Duration = Duration::from_millis(500);
/// Time between two rounds of values, where no window ended in between.
const VALUES_PERIOD_NS: u64 = 60_000_000_000;

/// The thread's other end.
#[derive(Debug)]
pub struct Outlet {
    stop: Sender<()>,
}

/// Whose report it is.
type Key = (ModelName, Version, Source);

/// What was told of it.
#[derive(Default)]
struct Told {
    alarm: Option<u64>,
    state: Option<State>,
    window_rows: u64,
    rows: u64,
    values_at: Option<Time>,
}

struct Waiting {
    event: Value,
    tries: u32,
    due: Time,
}

struct Work {
    drift: Arc<Drift>,
    registry: Option<Arc<Registry>>,
    webhook: Option<Courier>,
    server: String,
    told: HashMap<Key, Told>,
    waiting: VecDeque<Waiting>,
}

impl Outlet {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread, event loop or client.
    pub fn start(
        drift: Arc<Drift>,
        registry: Option<Arc<Registry>>,
        webhook: Option<WebhookOut>,
        server: String,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let webhook = webhook.map(Courier::new).transpose()?;
        let (stop, stopped) = bounded(1);
        let mut work =
            Work { drift, registry, webhook, server, told: HashMap::new(), waiting: VecDeque::new() };
        let run = move || work.run(&stopped, &runtime);
        let thread = std::thread::Builder::new().name("gannet-drift-out".into()).spawn(run)?;
        Ok((Self { stop }, thread))
    }

    /// Ends the thread; what waits is not sent.
    pub fn stop(&self) {
        let _ = self.stop.try_send(());
    }
}

impl Work {
    fn run(&mut self, stopped: &Receiver<()>, runtime: &tokio::runtime::Runtime) {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK) {
            let reports = self.drift.reports();
            for report in reports.iter() {
                self.look(report, is_newest(report, &reports));
            }
            self.told.retain(|known, _| reports.iter().any(|report| key(report) == *known));
            self.send_due(runtime);
        }
    }

    /// Tells what is new of a report; values of it only where it is the newest of its version.
    fn look(&mut self, report: &Report, is_newest: bool) {
        let now = clock::now();
        let told = self.told.entry(key(report)).or_default();
        let alarm = report.alarm.as_ref().map(|alarm| alarm.number);
        let kind = match (told.alarm, alarm) {
            (before, Some(number)) if before != Some(number) => Some(event::ALARM),
            (Some(_), None) => Some(event::OVER),
            _ => None,
        };
        told.alarm = alarm;
        let window_ended = report.window_rows < told.window_rows;
        let is_old = told.values_at.is_none_or(|at| now.ns_since(at) >= VALUES_PERIOD_NS);
        let is_due =
            told.state != Some(report.state) || (report.rows != told.rows && (window_ended || is_old));
        if is_due
            && is_newest
            && let Some(registry) = &self.registry
        {
            (told.state, told.rows, told.values_at) = (Some(report.state), report.rows, Some(now));
            registry.metrics(report.model.clone(), report.version.clone(), values(report));
        }
        told.window_rows = report.window_rows;
        if let Some(kind) = kind.filter(|_| self.webhook.is_some()) {
            if self.waiting.len() == EVENTS_MAX {
                self.waiting.pop_front();
                tracing::warn!("{EVENTS_MAX} events wait for the webhook; the oldest is not sent");
            }
            let event = event::event(kind, &self.server, report, clock::wall_ms(now));
            self.waiting.push_back(Waiting { event, tries: 0, due: now });
        }
    }

    /// Sends what is due, one after the other.
    fn send_due(&mut self, runtime: &tokio::runtime::Runtime) {
        let Some(webhook) = &self.webhook else { return };
        let Some(first) = self.waiting.front_mut().filter(|first| first.due <= clock::now()) else { return };
        let sent = runtime.block_on(webhook.send(message(&first.event)));
        first.tries += 1;
        match sent {
            Ok(()) => drop(self.waiting.pop_front()),
            Err(why) if first.tries >= TRIES_MAX => {
                tracing::warn!(url = webhook.url(), %why, "an event was not taken by the webhook; it is given up");
                self.waiting.pop_front();
            }
            Err(why) => {
                tracing::debug!(url = webhook.url(), %why, "an event was not taken by the webhook");
                first.due = clock::now() + BACKOFF * (1 << (first.tries - 1));
            }
        }
    }
}

fn message(event: &Value) -> Message {
    Message {
        id: event["id"].as_str().unwrap_or_default().to_owned(),
        headers: vec![("content-type", "application/cloudevents+json; charset=utf-8".to_owned())],
        body: Bytes::from(event.to_string()),
    }
}

fn key(report: &Report) -> Key {
    (report.model.clone(), report.version.clone(), report.source)
}

/// Whether no devices run a later release of the same version: a version has one series of values.
fn is_newest(report: &Report, reports: &[Arc<Report>]) -> bool {
    let Source::Devices { sequence } = report.source else { return true };
    let is_later = |other: &&Arc<Report>| {
        let is_same = (&other.model, &other.version) == (&report.model, &report.version);
        is_same && matches!(other.source, Source::Devices { sequence: later } if later > sequence)
    };
    !reports.iter().any(|other| is_later(&other))
}

/// What a tracking server is told: of devices under names of their own.
fn values(report: &Report) -> Vec<(String, f64)> {
    let prefix = if report.source == Source::Requests { "drift" } else { "drift.devices" };
    let most = |read: &dyn Fn(&gannet_runtime::drift::FeatureReport) -> Option<f64>| {
        report.features.iter().filter_map(read).reduce(f64::max)
    };
    let fed = report.feedback.as_ref();
    #[expect(clippy::cast_precision_loss, reason = "counts for a chart")]
    let values = [
        ("alarm", Some(f64::from(u8::from(report.alarm.is_some())))),
        ("alarms", Some(report.alarms as f64)),
        ("rows", Some(report.rows as f64)),
        ("features_alarmed", Some(report.features.iter().filter(|f| f.alarm).count() as f64)),
        ("psi_max", most(&|feature| feature.psi_debiased)),
        ("log_e_max", most(&|feature| Some(feature.log_e))),
        ("accuracy_estimate", report.estimate.as_ref().map(|estimate| estimate.accuracy)),
        ("accuracy", fed.and_then(|fed| fed.accuracy)),
        ("brier", fed.and_then(|fed| fed.brier)),
        ("calibration_error", fed.and_then(|fed| fed.calibration_error)),
        ("absolute_error", fed.and_then(|fed| fed.absolute_error)),
    ];
    let known = |(name, value): (&str, Option<f64>)| {
        Some((format!("{prefix}.{name}"), value.filter(|v| v.is_finite())?))
    };
    values.into_iter().filter_map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::event::tests::report;

    #[test]
    fn values_of_devices_are_those_of_the_newest_release_under_names_of_their_own() {
        let sources = [Source::Requests, Source::Devices { sequence: 4 }, Source::Devices { sequence: 7 }];
        let reports: Vec<Arc<Report>> = sources.into_iter().map(|source| Arc::new(report(source))).collect();
        let newest: Vec<bool> = reports.iter().map(|report| is_newest(report, &reports)).collect();
        assert_eq!(newest, [true, false, true]);
        let of = |report: &Report| values(report).into_iter().take(3).collect::<Vec<_>>();
        let named = |name: &str, value: f64| (name.to_owned(), value);
        assert_eq!(
            of(&reports[0]),
            [named("drift.alarm", 1.0), named("drift.alarms", 2.0), named("drift.rows", 640.0)]
        );
        assert_eq!(of(&reports[2])[0], named("drift.devices.alarm", 1.0));
        let names: Vec<String> = values(&reports[2]).into_iter().map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| name.starts_with("drift.devices.")), "{names:?}");
    }
}
