//! A stream of rows being watched: its features' monitors, the evidence of them, its windows and its alarms. Time is a
//! value. Must not know where rows come from, threads or queues.

use gannet_models::{ModelName, Version};
use gannet_stats::{
    frequent::Frequent,
    monitor::{BATCH_ROWS, Bins, FeatureMonitor, Thresholds, Value, Window},
    multiple::e_benjamini_hochberg,
};

use super::{
    DriftConfig,
    report::{Alarm, FeatureReport, Report, Source, State},
};

/// Rows below which a window says nothing.
pub(super) const WINDOW_ROWS_MIN: u64 = 500;
/// Windows without new evidence after which an alarm is over.
const QUIET_WINDOWS: u32 = 2;
/// Share of wrong ones among the culprits, on average.
const WRONG_CULPRITS: f64 = 0.1;
/// Windows that pass their threshold by chance, over all features.
const WINDOW_ALPHA: f64 = 0.01;
/// Newcomers that are named.
const NEWCOMERS_MAX: usize = 5;
const DAY_MS: f64 = 86_400_000.0;

/// What is watched.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) model: ModelName,
    pub(super) version: Version,
    pub(super) source: Source,
}

/// A stream.
pub(super) struct Watch {
    pub(super) subject: Subject,
    /// None while it is not known what they are held against.
    features: Vec<Watched>,
    thresholds: Thresholds,
    rows: u64,
    window_rows: u64,
    window_began_ms: u64,
    pace: Pace,
    alarms: u64,
    alarm: Option<Alarm>,
    quiet: u32,
}

/// A feature being watched.
pub(super) struct Watched {
    name: String,
    is_input: bool,
    monitor: FeatureMonitor,
    newcomers: Frequent,
    /// Evidence at its alarm, while that is on.
    peak: Option<f64>,
    /// Whether its values are redacted.
    hidden: bool,
}

/// How many rows a budget of false alarms is made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pacing {
    /// A day, at least.
    pub(super) a_day_min: f64,
    /// Time over which rows are counted: a burst counts as if it were all of it.
    pub(super) period_ms: u64,
}

/// How many rows come in a day, at most so far.
struct Pace {
    period_ms: u64,
    since_ms: u64,
    rows: u64,
    a_day: f64,
}

/// What all streams share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared {
    pub(super) config: DriftConfig,
    /// Everything that can raise an alarm.
    pub(super) sources: usize,
    pub(super) factor: f64,
    pub(super) now_ms: u64,
}

impl Watch {
    pub(super) fn new(subject: Subject, pacing: Pacing, now_ms: u64) -> Self {
        Self {
            subject,
            features: Vec::new(),
            thresholds: thresholds(0),
            rows: 0,
            window_rows: 0,
            window_began_ms: now_ms,
            pace: Pace { period_ms: pacing.period_ms, since_ms: now_ms, rows: 0, a_day: pacing.a_day_min },
            alarms: 0,
            alarm: None,
            quiet: 0,
        }
    }

    /// What is watched from now on, in a window of its own.
    pub(super) fn begin(&mut self, features: Vec<Watched>) {
        self.thresholds = thresholds(features.len());
        (self.features, self.window_rows) = (features, 0);
    }

    /// Counts a row; its features, to take their values.
    pub(super) fn row(&mut self) -> &mut [Watched] {
        self.rows += 1;
        self.window_rows += 1;
        self.pace.rows += 1;
        &mut self.features
    }

    pub(super) fn features(&self) -> usize {
        self.features.len()
    }

    /// Whether evidence is to be looked at: once a batch, so that no peak of it is missed.
    pub(super) fn is_due(&self) -> bool {
        self.rows.is_multiple_of(BATCH_ROWS)
    }

    /// Whether the window has gone on for long enough, if it has the least rows.
    pub(super) fn is_late(&self, shared: &Shared) -> bool {
        shared.now_ms.saturating_sub(self.window_began_ms) >= shared.config.window_ms
    }

    pub(super) fn begin_window(&mut self, now_ms: u64) {
        self.window_began_ms = now_ms;
    }

    /// Whether an alarm is on.
    pub(super) fn is_alarmed(&self) -> bool {
        self.alarm.is_some()
    }

    /// Evidence that is an alarm: so that all sources together raise one false one in the budget's days.
    pub(super) fn h(&self, shared: &Shared) -> f64 {
        let batches = shared.config.budget_days * self.pace.a_day / BATCH_ROWS as f64;
        (shared.sources.max(1) as f64 * batches).max(1.0).ln()
    }

    /// Takes notice of how fast rows come.
    pub(super) fn look_at_pace(&mut self, now_ms: u64) {
        self.pace.look(now_ms);
    }

    /// Looks at the evidence, and ends the window if it is due: whether it did. `fed_back`: errors became more.
    pub(super) fn look(&mut self, shared: &Shared, fed_back: bool) -> bool {
        let h = self.h(shared);
        let is_at = |watched: &Watched| watched.monitor.is_at(h) && !watched.monitor.is_correlated();
        let raised = fed_back | self.features.iter().any(is_at);
        if raised {
            let evidence: Vec<f64> = self.features.iter().map(Watched::log_e).collect();
            for (watched, log_e) in self.features.iter_mut().zip(&evidence) {
                if is_at(watched) {
                    watched.peak = Some(*log_e);
                    watched.monitor.reset();
                }
            }
            let mut culprits = culprits(&self.features, &evidence, h, shared.sources);
            culprits.extend(fed_back.then(|| "errors".to_owned()));
            self.raise(culprits, shared.now_ms);
        }
        let is_full = self.window_rows >= shared.config.window_rows.max(WINDOW_ROWS_MIN);
        let ends = is_full || (self.is_late(shared) && self.window_rows >= WINDOW_ROWS_MIN);
        if ends {
            self.end_window(shared.now_ms);
        }
        ends
    }

    fn raise(&mut self, mut culprits: Vec<String>, at_ms: u64) {
        self.quiet = 0;
        if let Some(alarm) = &mut self.alarm {
            culprits.retain(|name| !alarm.culprits.contains(name));
            alarm.culprits.extend(culprits);
            return;
        }
        self.alarms += 1;
        let Subject { model, version, source } = &self.subject;
        tracing::warn!(%model, %version, source = source.as_str(), rows = self.rows, ?culprits, "the data drifts");
        self.alarm = Some(Alarm { number: self.alarms, at_ms, rows: self.rows, culprits });
    }

    fn end_window(&mut self, now_ms: u64) {
        for watched in &mut self.features {
            watched.monitor.end_window(&mut self.thresholds);
        }
        (self.window_rows, self.window_began_ms) = (0, now_ms);
        self.quiet += 1;
        if self.alarm.is_some() && self.quiet > QUIET_WINDOWS {
            self.alarm = None;
            self.features.iter_mut().for_each(|watched| watched.peak = None);
        }
    }

    /// What is known of it, as of a stream whose every row is looked at and of which nothing else is known.
    pub(super) fn report(&mut self, shared: &Shared) -> Report {
        let h = self.h(shared);
        let thresholds = &mut self.thresholds;
        let features: Vec<FeatureReport> =
            self.features.iter().map(|watched| watched.report(h, thresholds)).collect();
        let is_correlated = features.iter().any(|feature| feature.correlated);
        Report {
            model: self.subject.model.clone(),
            version: self.subject.version.clone(),
            source: self.subject.source,
            state: match self.alarm {
                Some(_) => State::Alarm,
                None if is_correlated => State::Uncalibrated,
                None => State::Ok,
            },
            budget_days: shared.config.budget_days,
            sources: shared.sources,
            rows: self.rows,
            window_rows: self.window_rows,
            sampling_probability: 1.0,
            baseline: "none",
            baseline_rows: 0,
            alarms: self.alarms,
            alarm: self.alarm.clone(),
            score_changes: 0,
            estimate: None,
            feedback: None,
            features,
        }
    }
}

/// For all features together.
fn thresholds(features: usize) -> Thresholds {
    Thresholds::new(WINDOW_ALPHA / features.max(1) as f64)
}

/// What changed: whatever has come to its alarm, and what e-BH lists beside, the strongest evidence first.
fn culprits(features: &[Watched], evidence: &[f64], h: f64, sources: usize) -> Vec<String> {
    // over the budget's time, e^h / sources is what evidence comes to on average
    let each: Vec<f64> = evidence.iter().map(|log_e| log_e - h + (sources.max(1) as f64).ln()).collect();
    let listed = e_benjamini_hochberg(&each, WRONG_CULPRITS).unwrap_or_default();
    let is_one = |index: &usize| {
        (features[*index].peak.is_some() || listed.contains(index))
            && !features[*index].monitor.is_correlated()
    };
    let mut found: Vec<usize> = (0..features.len()).filter(is_one).collect();
    found.sort_by(|a, b| evidence[*b].total_cmp(&evidence[*a]));
    found.into_iter().map(|index| features[index].name.clone()).collect()
}

impl Pace {
    fn look(&mut self, now_ms: u64) {
        let elapsed = now_ms.saturating_sub(self.since_ms);
        self.a_day = self.a_day.max(self.rows as f64 * DAY_MS / elapsed.max(self.period_ms) as f64);
        if elapsed >= self.period_ms {
            (self.since_ms, self.rows) = (now_ms, 0);
        }
    }
}

impl Watched {
    /// An input or an output; `hidden`: what its values are may not leave.
    pub(super) fn new(name: String, is_input: bool, monitor: FeatureMonitor, hidden: bool) -> Self {
        Self { name, is_input, monitor, newcomers: Frequent::default(), peak: None, hidden }
    }

    pub(super) fn take(&mut self, value: Value<'_>) {
        if let (false, Value::Text(text)) = (self.monitor.push_known(value), value) {
            self.newcomers.push(text);
        }
    }

    /// The strongest evidence of now and of the alarm that is on.
    fn log_e(&self) -> f64 {
        self.peak.map_or(f64::NEG_INFINITY, |peak| peak).max(self.monitor.log_e())
    }

    fn report(&self, h: f64, thresholds: &mut Thresholds) -> FeatureReport {
        let reference = self.monitor.reference();
        let window: Option<Window> =
            self.monitor.window(thresholds).or_else(|| self.monitor.under_way(thresholds));
        let window = window.as_ref();
        let is_numeric = matches!(reference.bins, Bins::Numeric(_));
        let shares = |counts: &[u32]| {
            let total = counts.iter().map(|count| f64::from(*count)).sum::<f64>().max(1.0);
            counts.iter().map(|count| f64::from(*count) / total).collect::<Vec<f64>>()
        };
        let newcomers = self.newcomers.top(NEWCOMERS_MAX).into_iter();
        FeatureReport {
            name: self.name.clone(),
            side: if self.is_input { "input" } else { "output" },
            kind: if is_numeric { "numeric" } else { "category" },
            psi: window.map(|window| window.scores.psi),
            psi_debiased: window.map(|window| window.scores.psi_debiased()),
            psi_smoothed: window.map(|window| window.psi_smoothed),
            threshold: window.map(|window| window.psi_threshold),
            js: window.map(|window| window.scores.js_distance()),
            tv: window.map(|window| window.scores.total_variation),
            ks: window.filter(|_| is_numeric).map(|window| window.scores.ks),
            wasserstein: window.and_then(|window| window.wasserstein),
            log_e: self.log_e(),
            h,
            alarm: self.peak.is_some(),
            correlated: self.monitor.is_correlated(),
            hidden: self.hidden,
            rare: self.monitor.rare_above(h / 2.0),
            newcomers: newcomers.map(|(text, count)| (text.to_owned(), count)).collect(),
            bins: reference.bins.names(),
            reference: shares(&reference.counts.counts),
            current: window.map_or_else(Vec::new, |window| shares(&window.counts)),
        }
    }
}
