//! One version being watched: its first rows where it has no baseline, then its monitors, its alarms and what it is
//! told. Time is a value. Must not know threads or queues.

use std::sync::{Arc, Weak};

use gannet_models::redaction::Side;
use gannet_stats::{
    adwin::Adwin,
    frequent::Frequent,
    moments::Moments,
    monitor::{BATCH_ROWS, Bins, FeatureMonitor, Thresholds, Value, Window},
    multiple::e_benjamini_hochberg,
};

use super::{
    Builder, DriftConfig, Sample,
    baseline::{Baseline, Of},
    feedback::{Feedback, Predicted},
    plan::{self, Feature, Found},
    report::{Alarm, Estimate, FeatureReport, Report, State},
    row::{TensorRow, rows},
};
use crate::servable::Servable;

/// Rows that become a baseline where there is none, or those of a window if that is shorter.
const LEARN_ROWS: u64 = 4096;
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
/// The least rows a day that the budget is made for.
const ROWS_A_DAY_MIN: f64 = 86_400.0;
/// Time over which rows are counted to know how many come in a day.
const PACE_MS: u64 = 60_000;
const DAY_MS: f64 = 86_400_000.0;
const NOTE: &str =
    "an estimate: right only while the model's probabilities are calibrated and the concept is the same";

/// A version.
pub(super) struct Watch {
    pub(super) servable: Weak<Servable>,
    pub(super) incarnation: u64,
    model: gannet_models::ModelName,
    version: gannet_models::Version,
    rate: f64,
    phase: Phase,
    thresholds: Thresholds,
    origin: &'static str,
    rows: u64,
    window_began_ms: u64,
    pace: Pace,
    alarms: u64,
    alarm: Option<Alarm>,
    quiet: u32,
    adwin: Adwin,
    score_changes: u64,
    estimate: Moments,
    last_estimate: Option<f64>,
    pub(super) feedback: Feedback,
}

enum Phase {
    Learning(Box<Builder>),
    Watching(Vec<Watched>, u64, Option<f64>),
}

/// A feature being watched.
struct Watched {
    feature: Feature,
    monitor: FeatureMonitor,
    newcomers: Frequent,
    /// The bin of categories that the baseline lacks.
    other: Option<usize>,
    /// Evidence at its alarm, while that is on.
    peak: Option<f64>,
    /// Whether its values are redacted.
    hidden: bool,
}

/// How many rows come in a day, at most so far.
struct Pace {
    since_ms: u64,
    rows: u64,
    a_day: f64,
}

/// What all versions share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared {
    pub(super) config: DriftConfig,
    /// Everything that can raise an alarm.
    pub(super) sources: usize,
    pub(super) factor: f64,
    pub(super) now_ms: u64,
}

impl Watch {
    pub(super) fn new(servable: &Arc<Servable>, rate: f64, now_ms: u64) -> Self {
        let made = servable.baseline.as_ref().and_then(|baseline| watching(servable, baseline));
        let origin = if made.is_some() { "package" } else { "none" };
        Self {
            servable: Arc::downgrade(servable),
            incarnation: servable.incarnation,
            model: servable.model.clone(),
            version: servable.version.clone(),
            rate,
            thresholds: thresholds(made.as_ref()),
            phase: made.unwrap_or_else(|| Phase::Learning(Box::new(Builder::new(&servable.signature)))),
            origin,
            rows: 0,
            window_began_ms: now_ms,
            pace: Pace { since_ms: now_ms, rows: 0, a_day: ROWS_A_DAY_MIN },
            alarms: 0,
            alarm: None,
            quiet: 0,
            adwin: Adwin::new(0.002),
            score_changes: 0,
            estimate: Moments::default(),
            last_estimate: None,
            feedback: Feedback::new(),
        }
    }

    /// Everything of it that can raise an alarm.
    pub(super) fn sources(&self) -> usize {
        match &self.phase {
            Phase::Learning(_) => 1,
            Phase::Watching(features, ..) => features.len() + 1,
        }
    }

    /// Takes a row of a sample; what was predicted.
    pub(super) fn push(&mut self, sample: &Sample, row: usize, config: &DriftConfig) -> Option<Predicted> {
        let signature = &sample.servable.signature;
        let inputs = rows(signature, &signature.inputs, &sample.inputs, row);
        let outputs = rows(signature, &signature.outputs, &sample.outputs, row);
        self.rows += 1;
        self.pace.rows += 1;
        let predicted =
            predicted(plan::scores(signature).and_then(|place| outputs.get(place)), outputs.last());
        if let Some(probability) = predicted.and_then(|predicted| predicted.probability) {
            self.estimate.push(probability);
            self.score_changes += u64::from(self.adwin.push(probability));
        }
        match &mut self.phase {
            Phase::Watching(features, ..) => {
                for watched in features {
                    let tensors = if watched.feature.is_input { &inputs } else { &outputs };
                    match tensors.get(watched.feature.tensor) {
                        Some(tensor) => watched.push(tensor),
                        None => watched.monitor.push(Value::Missing),
                    }
                }
            }
            Phase::Learning(builder) => {
                builder.push_rows(inputs, outputs);
                if builder.rows() as u64 >= LEARN_ROWS.min(config.window_rows) {
                    self.learn(&sample.servable);
                }
            }
        }
        predicted
    }

    /// The rows so far become the baseline; where they cannot, the next ones are to.
    fn learn(&mut self, servable: &Servable) {
        let Phase::Learning(builder) = &self.phase else { return };
        let made = builder.finish(0).ok().and_then(|baseline| watching(servable, &baseline));
        self.thresholds = thresholds(made.as_ref());
        self.origin = if made.is_some() { "first rows" } else { "none" };
        self.phase = made.unwrap_or_else(|| Phase::Learning(Box::new(Builder::new(&servable.signature))));
        self.estimate = Moments::default();
    }

    /// Evidence that is an alarm: so that all sources together raise one false one in the budget's days.
    fn h(&self, shared: &Shared) -> f64 {
        let batches = shared.config.budget_days * self.pace.a_day / BATCH_ROWS as f64;
        (shared.sources.max(1) as f64 * batches).max(1.0).ln()
    }

    /// Looks once a batch, so that no peak of the evidence is missed.
    pub(super) fn look_if_due(&mut self, shared: &Shared) {
        if self.rows.is_multiple_of(BATCH_ROWS) {
            self.look(shared);
        }
    }

    /// Looks at the evidence, and ends the window if it is due.
    pub(super) fn look(&mut self, shared: &Shared) {
        self.pace.look(shared.now_ms);
        let h = self.h(shared);
        let waited_ms = shared.now_ms.saturating_sub(self.window_began_ms);
        let is_late = waited_ms >= shared.config.window_ms;
        let (rows, now_ms) = (self.rows, shared.now_ms);
        if let (Phase::Learning(builder), Some(servable), true) =
            (&self.phase, self.servable.upgrade(), is_late)
            && builder.rows() as u64 >= WINDOW_ROWS_MIN
        {
            self.learn(&servable);
            self.window_began_ms = now_ms;
        }
        let mut raised = self.feedback.alarms(h);
        let fed_back = raised;
        let Phase::Watching(features, ..) = &mut self.phase else { return };
        let evidence: Vec<f64> = features.iter().map(Watched::log_e).collect();
        for (watched, log_e) in features.iter_mut().zip(&evidence) {
            if watched.monitor.log_e() >= h && !watched.monitor.is_correlated() {
                watched.peak = Some(watched.peak.map_or(*log_e, |peak| peak.max(*log_e)));
                watched.monitor.reset();
                raised = true;
            }
        }
        if raised {
            self.quiet = 0;
            let mut culprits = culprits(features, &evidence, h, shared.sources);
            culprits.extend(fed_back.then(|| "errors".to_owned()));
            match &mut self.alarm {
                Some(alarm) => {
                    culprits.retain(|name| !alarm.culprits.contains(name));
                    alarm.culprits.extend(culprits);
                }
                None => {
                    self.alarms += 1;
                    tracing::warn!(model = %self.model, version = %self.version, rows, ?culprits, "the data drifts");
                    self.alarm = Some(Alarm { number: self.alarms, at_ms: now_ms, rows, culprits });
                }
            }
        }
        let window = features.first().map_or(0, |watched| watched.monitor.rows());
        if window >= shared.config.window_rows.max(WINDOW_ROWS_MIN) || (is_late && window >= WINDOW_ROWS_MIN)
        {
            self.end_window(now_ms);
        }
    }

    fn end_window(&mut self, now_ms: u64) {
        let Phase::Watching(features, ..) = &mut self.phase else { return };
        for watched in features.iter_mut() {
            watched.monitor.end_window(&mut self.thresholds);
        }
        self.window_began_ms = now_ms;
        self.last_estimate = (self.estimate.n() > 0).then(|| self.estimate.mean());
        self.estimate = Moments::default();
        self.quiet += 1;
        if self.alarm.is_some() && self.quiet > QUIET_WINDOWS {
            self.alarm = None;
            features.iter_mut().for_each(|watched| watched.peak = None);
            self.feedback.quiet();
        }
    }

    pub(super) fn report(&mut self, shared: &Shared) -> Report {
        let h = self.h(shared);
        let (features, baseline_rows, usual): (Vec<FeatureReport>, u64, Option<f64>) = match &self.phase {
            Phase::Learning(_) => (Vec::new(), 0, None),
            Phase::Watching(features, rows, usual) => {
                let thresholds = &mut self.thresholds;
                (features.iter().map(|watched| watched.report(h, thresholds)).collect(), *rows, *usual)
            }
        };
        let state = match &self.phase {
            _ if self.alarm.is_some() => State::Alarm,
            Phase::Learning(_) => State::Learning,
            Phase::Watching(..) if features.iter().any(|feature| feature.correlated) => State::Uncalibrated,
            Phase::Watching(..) => State::Ok,
        };
        let window_rows = match &self.phase {
            Phase::Learning(builder) => builder.rows() as u64,
            Phase::Watching(features, ..) => features.first().map_or(0, |watched| watched.monitor.rows()),
        };
        let known = (self.estimate.n() > 0).then(|| self.estimate.mean());
        Report {
            model: self.model.clone(),
            version: self.version.clone(),
            state,
            budget_days: shared.config.budget_days,
            sources: shared.sources,
            rows: self.rows,
            window_rows,
            sampling_probability: self.rate * shared.factor,
            baseline: self.origin,
            baseline_rows,
            alarms: self.alarms,
            alarm: self.alarm.clone(),
            score_changes: self.score_changes,
            estimate: self.last_estimate.or(known).map(|accuracy| Estimate {
                accuracy,
                baseline: usual,
                note: NOTE,
            }),
            feedback: self.feedback.report(),
            features,
        }
    }
}

fn watching(servable: &Servable, baseline: &Baseline) -> Option<Phase> {
    let references = [&baseline.inputs, &baseline.outputs].into_iter().flatten().flat_map(|t| &t.features);
    let of_score = |feature: &&super::baseline::FeatureBaseline| feature.of == Of::Score;
    let scores = baseline.outputs.iter().flat_map(|tensor| &tensor.features).find(of_score);
    let usual = scores.map(|feature| feature.reference.counts.moments.mean());
    let watched = plan::of_baseline(&servable.signature, baseline).into_iter().zip(references).map(
        |(feature, baseline)| {
            let monitor = FeatureMonitor::new(baseline.reference.clone()).ok()?;
            let other = match &monitor.reference().bins {
                Bins::Category(bins) => Some(bins.special()[0]),
                Bins::Numeric(_) => None,
            };
            let (side, specs) = match feature.is_input {
                true => (Side::Input, &servable.signature.inputs),
                false => (Side::Output, &servable.signature.outputs),
            };
            let name = specs.get(feature.tensor).map(|spec| spec.name.as_str());
            let redaction = &servable.settings.redaction;
            let hidden = name.is_none_or(|name| redaction.method(side, name).is_some());
            Some(Watched { feature, monitor, newcomers: Frequent::default(), other, peak: None, hidden })
        },
    );
    Some(Phase::Watching(watched.collect::<Option<_>>()?, baseline.rows, usual))
}

/// For all features together.
fn thresholds(phase: Option<&Phase>) -> Thresholds {
    let features = if let Some(Phase::Watching(features, ..)) = phase { features.len() } else { 1 };
    Thresholds::new(WINDOW_ALPHA / features.max(1) as f64)
}

/// What was predicted, by the output of scores or the last one.
fn predicted(scores: Option<&TensorRow>, last: Option<&TensorRow>) -> Option<Predicted> {
    match scores.or(last)? {
        TensorRow::Numbers(values) if values.len() > 1 => {
            let sum: f64 = values.iter().sum();
            let are_probabilities =
                (sum - 1.0).abs() < 1e-3 && values.iter().all(|p| (0.0..=1.0).contains(p));
            let best = values.iter().copied().reduce(f64::max);
            let value = plan::class(values)?;
            Some(Predicted { value, probability: best.filter(|_| are_probabilities), is_class: true })
        }
        TensorRow::Numbers(values) => {
            Some(Predicted { value: *values.first()?, probability: None, is_class: scores.is_none() })
        }
        TensorRow::Texts(_) => None,
    }
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
    found.into_iter().map(|index| features[index].feature.name.clone()).collect()
}

impl Pace {
    fn look(&mut self, now_ms: u64) {
        let elapsed = now_ms.saturating_sub(self.since_ms);
        // a burst counts as if it were all of its minute
        self.a_day = self.a_day.max(self.rows as f64 * DAY_MS / elapsed.max(PACE_MS) as f64);
        if elapsed >= PACE_MS {
            (self.since_ms, self.rows) = (now_ms, 0);
        }
    }
}

impl Watched {
    fn push(&mut self, tensor: &TensorRow) {
        match self.feature.find(tensor) {
            Found::Borrowed(value) => self.take(value),
            Found::Class(class) => self.take(Value::Text(&class)),
        }
    }

    fn take(&mut self, value: Value<'_>) {
        if let (Value::Text(text), Some(other)) = (value, self.other)
            && self.monitor.reference().bins.bin(value) == other
        {
            self.newcomers.push(text);
        }
        self.monitor.push(value);
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
            name: self.feature.name.clone(),
            side: if self.feature.is_input { "input" } else { "output" },
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
