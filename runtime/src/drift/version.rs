//! One version being watched: its first rows where it has no baseline, then what its answers and what is fed back say
//! beside its monitors. Time is a value. Must not know threads or queues.

use std::sync::{Arc, Weak};

use gannet_models::redaction::Side;
use gannet_stats::{
    adwin::Adwin,
    moments::Moments,
    monitor::{FeatureMonitor, Value},
};

use super::{
    Builder, DriftConfig, Sample,
    baseline::{Baseline, FeatureBaseline, Of},
    feedback::{Feedback, Predicted},
    plan::{self, Feature, Found},
    report::{Estimate, Report, Source, State},
    row::{TensorRow, rows},
    watch::{Pacing, Shared, Subject, WINDOW_ROWS_MIN, Watch, Watched},
};
use crate::servable::Servable;

/// Rows that become a baseline where there is none, or those of a window if that is shorter.
const LEARN_ROWS: u64 = 4096;
/// The probability of a false cut at one look.
const ADWIN_DELTA: f64 = 0.002;
const PACING: Pacing = Pacing { a_day_min: 86_400.0, period_ms: 60_000 };
const NOTE: &str =
    "an estimate: right only while the model's probabilities are calibrated and the concept is the same";

/// A version.
pub(super) struct VersionWatch {
    pub(super) servable: Weak<Servable>,
    pub(super) incarnation: u64,
    watch: Watch,
    rate: f64,
    /// Rows of a baseline to be; `None` once it is held against one.
    learning: Option<Box<Builder>>,
    known: Known,
    origin: &'static str,
    adwin: Adwin,
    score_changes: u64,
    estimate: Moments,
    last_estimate: Option<f64>,
    pub(super) feedback: Feedback,
}

/// What is known of the baseline: where its features are in a row, its rows, and its mean score.
#[derive(Default)]
struct Known {
    places: Vec<Feature>,
    rows: u64,
    score: Option<f64>,
}

impl VersionWatch {
    pub(super) fn new(servable: &Arc<Servable>, rate: f64, now_ms: u64) -> Self {
        let (model, version) = (servable.model.clone(), servable.version.clone());
        let subject = Subject { model, version, source: Source::Requests };
        let mut version = Self {
            servable: Arc::downgrade(servable),
            incarnation: servable.incarnation,
            watch: Watch::new(subject, PACING, now_ms),
            rate,
            learning: None,
            known: Known::default(),
            origin: "none",
            adwin: Adwin::new(ADWIN_DELTA),
            score_changes: 0,
            estimate: Moments::default(),
            last_estimate: None,
            feedback: Feedback::new(),
        };
        version.hold(servable, servable.baseline.as_deref(), "package");
        version
    }

    /// Holds its rows against a baseline; where it cannot, the next ones are to become one.
    fn hold(&mut self, servable: &Servable, baseline: Option<&Baseline>, origin: &'static str) {
        match baseline.and_then(|baseline| watched(servable, baseline)) {
            Some((features, known)) => {
                self.watch.begin(features);
                (self.known, self.learning, self.origin) = (known, None, origin);
            }
            None => {
                self.watch.begin(Vec::new());
                self.learning = Some(Box::new(Builder::new(&servable.signature)));
                self.origin = "none";
            }
        }
    }

    /// The rows so far become the baseline.
    fn learn(&mut self, servable: &Servable) {
        let made = self.learning.as_ref().and_then(|builder| builder.finish(0).ok());
        self.hold(servable, made.as_ref(), "first rows");
        self.estimate = Moments::default();
    }

    /// Everything of it that can raise an alarm: its features, and errors.
    pub(super) fn sources(&self) -> usize {
        self.watch.features() + 1
    }

    /// Takes a row of a sample; what was predicted.
    pub(super) fn push(&mut self, sample: &Sample, row: usize, config: &DriftConfig) -> Option<Predicted> {
        let signature = &sample.servable.signature;
        let inputs = rows(signature, &signature.inputs, &sample.inputs, row);
        let outputs = rows(signature, &signature.outputs, &sample.outputs, row);
        let predicted =
            predicted(plan::scores(signature).and_then(|place| outputs.get(place)), outputs.last());
        if let Some(probability) = predicted.and_then(|predicted| predicted.probability) {
            self.estimate.push(probability);
            self.score_changes += u64::from(self.adwin.push(probability));
        }
        for (watched, place) in self.watch.row().iter_mut().zip(&self.known.places) {
            let tensors = if place.is_input { &inputs } else { &outputs };
            match tensors.get(place.tensor).map(|tensor| place.find(tensor)) {
                Some(Found::Borrowed(value)) => watched.take(value),
                Some(Found::Class(class)) => watched.take(Value::Text(&class)),
                None => watched.take(Value::Missing),
            }
        }
        if let Some(builder) = &mut self.learning {
            builder.push_rows(inputs, outputs);
            if builder.rows() as u64 >= LEARN_ROWS.min(config.window_rows) {
                self.learn(&sample.servable);
            }
        }
        predicted
    }

    /// Looks once a batch, so that no peak of the evidence is missed.
    pub(super) fn look_if_due(&mut self, shared: &Shared) {
        if self.watch.is_due() {
            self.look(shared);
        }
    }

    /// Looks at the evidence, and ends the window if it is due.
    pub(super) fn look(&mut self, shared: &Shared) {
        self.watch.look_at_pace(shared.now_ms);
        let rows = self.learning.as_ref().map_or(0, |builder| builder.rows() as u64);
        if rows >= WINDOW_ROWS_MIN
            && self.watch.is_late(shared)
            && let Some(servable) = self.servable.upgrade()
        {
            self.learn(&servable);
            self.watch.begin_window(shared.now_ms);
        }
        let fed_back = self.feedback.alarms(self.watch.h(shared));
        if self.learning.is_some() || !self.watch.look(shared, fed_back) {
            return;
        }
        self.last_estimate = (self.estimate.n() > 0).then(|| self.estimate.mean());
        self.estimate = Moments::default();
        if !self.watch.is_alarmed() {
            self.feedback.quiet();
        }
    }

    pub(super) fn report(&mut self, shared: &Shared) -> Report {
        let report = self.watch.report(shared);
        let known = (self.estimate.n() > 0).then(|| self.estimate.mean());
        let is_learning = self.learning.is_some() && !self.watch.is_alarmed();
        Report {
            state: if is_learning { State::Learning } else { report.state },
            window_rows: self.learning.as_ref().map_or(report.window_rows, |builder| builder.rows() as u64),
            sampling_probability: self.rate * shared.factor,
            baseline: self.origin,
            baseline_rows: self.known.rows,
            score_changes: self.score_changes,
            estimate: self.last_estimate.or(known).map(|accuracy| Estimate {
                accuracy,
                baseline: self.known.score,
                note: NOTE,
            }),
            feedback: self.feedback.report(),
            ..report
        }
    }
}

/// What of a version is watched against a baseline.
fn watched(servable: &Servable, baseline: &Baseline) -> Option<(Vec<Watched>, Known)> {
    let references = [&baseline.inputs, &baseline.outputs].into_iter().flatten().flat_map(|t| &t.features);
    let of_score = |feature: &&FeatureBaseline| feature.of == Of::Score;
    let scores = baseline.outputs.iter().flat_map(|tensor| &tensor.features).find(of_score);
    let score = scores.map(|feature| feature.reference.counts.moments.mean());
    let places = plan::of_baseline(&servable.signature, baseline);
    let one = |(place, baseline): (&Feature, &FeatureBaseline)| {
        let monitor = FeatureMonitor::new(baseline.reference.clone()).ok()?;
        let (side, specs) = match place.is_input {
            true => (Side::Input, &servable.signature.inputs),
            false => (Side::Output, &servable.signature.outputs),
        };
        let name = specs.get(place.tensor).map(|spec| spec.name.as_str());
        let redaction = &servable.settings.redaction;
        let hidden = name.is_none_or(|name| redaction.method(side, name).is_some());
        Some(Watched::new(place.name.clone(), place.is_input, monitor, hidden))
    };
    let watched = places.iter().zip(references).map(one).collect::<Option<_>>()?;
    Some((watched, Known { places, rows: baseline.rows, score }))
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
