//! What became of sampled requests: accuracy, calibration, and whether errors become more. Must not know where outcomes
//! come from.

use std::collections::{HashMap, VecDeque};

use gannet_stats::{
    adwin::Adwin,
    detector::RateDetector,
    moments::Moments,
    monitor::{BATCH_ROWS, FeatureMonitor, Reference, Value},
    split::Split,
};

use super::report::Fed;

/// Sampled requests that are remembered, the oldest forgotten first; about 4 MB.
const REQUESTS_MAX: usize = 1 << 16;
/// Labels that say how often a version is wrong.
const LABELS_FIRST: usize = 500;
const CALIBRATION_BINS: usize = 10;
/// The probability of a false cut at one look.
const ADWIN_DELTA: f64 = 0.002;

/// What was predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Predicted {
    /// The class or the value.
    pub(super) value: f64,
    /// Its probability; `None` where the answer is a value.
    pub(super) probability: Option<f64>,
    /// Whether it is a class.
    pub(super) is_class: bool,
}

/// Who answered what.
#[derive(Debug)]
pub(super) struct Memory<K> {
    hash: Split,
    known: HashMap<u64, (K, Predicted)>,
    order: VecDeque<u64>,
}

impl<K: Clone> Memory<K> {
    pub(super) fn new() -> Self {
        Self { hash: Split::new("drift"), known: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn note(&mut self, model: &str, id: &str, key: K, predicted: Predicted) {
        let hash = self.key(model, id);
        if self.known.insert(hash, (key, predicted)).is_none() {
            self.order.push_back(hash);
        }
        if self.order.len() > REQUESTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// The prediction for an id; each is given once.
    pub(super) fn take(&mut self, model: &str, id: &str) -> Option<(K, Predicted)> {
        let hash = self.key(model, id);
        self.known.remove(&hash)
    }

    fn key(&self, model: &str, id: &str) -> u64 {
        self.hash.hash([model.as_bytes(), &[0], id.as_bytes()].concat().as_slice())
    }
}

/// Outcomes of one version.
#[derive(Debug)]
pub(super) struct Feedback {
    labels: u64,
    right: Moments,
    squares: Moments,
    bins: [(u64, f64, f64); CALIBRATION_BINS],
    off: Moments,
    first: Vec<f64>,
    errors: Option<Errors>,
    adwin: Adwin,
    changes: u64,
    alarm: Option<f64>,
}

#[derive(Debug)]
enum Errors {
    Rate { detector: RateDetector, batch: u64, rows: u64 },
    Size(Box<FeatureMonitor>),
}

impl Feedback {
    pub(super) fn new() -> Self {
        Self {
            labels: 0,
            right: Moments::default(),
            squares: Moments::default(),
            bins: [(0, 0.0, 0.0); CALIBRATION_BINS],
            off: Moments::default(),
            first: Vec::new(),
            errors: None,
            adwin: Adwin::new(ADWIN_DELTA),
            changes: 0,
            alarm: None,
        }
    }

    pub(super) fn push(&mut self, predicted: Predicted, label: f64) {
        self.labels += 1;
        let error = if predicted.is_class {
            let right = f64::from(u8::from(predicted.value == label));
            self.right.push(right);
            if let Some(p) = predicted.probability {
                self.squares.push((p - right).powi(2));
                let bin = ((p * CALIBRATION_BINS as f64) as usize).min(CALIBRATION_BINS - 1);
                let (n, said, was) = &mut self.bins[bin];
                *n += 1;
                *said += p;
                *was += right;
            }
            1.0 - right
        } else {
            let off = (predicted.value - label).abs();
            self.off.push(off);
            off
        };
        self.changes += u64::from(self.adwin.push(error));
        match &mut self.errors {
            Some(Errors::Rate { detector, batch, rows }) => {
                *batch += u64::from(error > 0.0);
                *rows += 1;
                if *rows == BATCH_ROWS {
                    detector.add(*batch, *rows);
                    (*batch, *rows) = (0, 0);
                }
            }
            Some(Errors::Size(monitor)) => monitor.push(Value::Number(error)),
            None => {
                self.first.push(error);
                if self.first.len() == LABELS_FIRST {
                    self.learn(predicted.is_class);
                }
            }
        }
    }

    /// The first labels say what is usual, with room for what they cannot say so exactly.
    fn learn(&mut self, is_class: bool) {
        let first = std::mem::take(&mut self.first);
        self.errors = if is_class {
            let wrong: f64 = first.iter().sum();
            let usual = ((wrong + 2.0 * wrong.sqrt() + 3.0) / first.len() as f64).min(1.0);
            RateDetector::new(usual).ok().map(|detector| Errors::Rate { detector, batch: 0, rows: 0 })
        } else {
            let values: Vec<Option<f64>> = first.into_iter().map(Some).collect();
            let monitor = Reference::of_numbers(&values).and_then(FeatureMonitor::new).ok();
            monitor.map(|monitor| Errors::Size(Box::new(monitor)))
        };
    }

    pub(super) fn log_e(&self) -> Option<f64> {
        self.errors.as_ref().map(|errors| match errors {
            Errors::Rate { detector, .. } => detector.log_e(),
            Errors::Size(monitor) => monitor.log_e(),
        })
    }

    /// Whether evidence has come to `h` since this was asked last; it then begins anew.
    pub(super) fn alarms(&mut self, h: f64) -> bool {
        let Some(log_e) = self.log_e().filter(|log_e| *log_e >= h) else { return false };
        self.alarm = Some(log_e);
        match &mut self.errors {
            Some(Errors::Rate { detector, .. }) => detector.reset(),
            Some(Errors::Size(monitor)) => monitor.reset(),
            None => {}
        }
        true
    }

    pub(super) fn quiet(&mut self) {
        self.alarm = None;
    }

    pub(super) fn report(&self) -> Option<Fed> {
        let mean = |moments: &Moments| (moments.n() > 0).then(|| moments.mean());
        let binned: u64 = self.bins.iter().map(|(n, ..)| n).sum();
        let apart: f64 = self.bins.iter().map(|(_, said, was)| (said - was).abs()).sum();
        (self.labels > 0).then(|| Fed {
            labels: self.labels,
            accuracy: mean(&self.right),
            brier: mean(&self.squares),
            calibration_error: (binned > 0).then(|| apart / binned as f64),
            absolute_error: mean(&self.off),
            log_e: self.log_e().map(|log_e| self.alarm.map_or(log_e, |alarm| alarm.max(log_e))),
            alarm: self.alarm.is_some(),
            changes: self.changes,
        })
    }
}

#[cfg(test)]
mod tests {
    use gannet_stats::random::Random;

    use super::*;

    #[test]
    fn errors_that_become_more_are_an_alarm() {
        let mut random = Random::new(3);
        let mut feedback = Feedback::new();
        let mut feed = |feedback: &mut Feedback, wrong: f64, count: usize| {
            for _ in 0..count {
                let p = 0.5 + random.uniform() / 2.0;
                let label = f64::from(u8::from(random.uniform() >= wrong));
                feedback.push(Predicted { value: 1.0, probability: Some(p), is_class: true }, label);
            }
        };
        feed(&mut feedback, 0.05, 3000);
        assert!(!feedback.alarms(15.0), "{:?}", feedback.report());
        let fed = feedback.report().unwrap();
        assert!(
            (fed.accuracy.unwrap() - 0.95).abs() < 0.02 && fed.calibration_error.unwrap() > 0.1,
            "{fed:?}"
        );
        feed(&mut feedback, 0.3, 1000);
        assert!(feedback.alarms(15.0));
        assert!(feedback.report().unwrap().alarm);
        let mut values = Feedback::new();
        for row in 0..3000 {
            let off = random.normal() * if row < 2000 { 1.0 } else { 3.0 };
            values.push(Predicted { value: 7.0, probability: None, is_class: false }, 7.0 + off);
            assert!(row >= 2000 || !values.alarms(15.0), "{row}");
        }
        assert!(values.alarms(15.0) && values.report().unwrap().absolute_error.unwrap() > 0.7);
    }

    #[test]
    fn an_id_counts_once_and_the_oldest_is_forgotten() {
        let mut memory = Memory::new();
        let predicted = Predicted { value: 1.0, probability: None, is_class: true };
        memory.note("m", "first", 1, predicted);
        memory.note("m", "other", 2, predicted);
        assert_eq!(memory.take("m", "other").map(|(key, _)| key), Some(2));
        assert!(memory.take("m", "other").is_none() && memory.take("n", "first").is_none());
        (0..REQUESTS_MAX).for_each(|id| memory.note("m", &id.to_string(), 3, predicted));
        assert!(memory.take("m", "first").is_none() && memory.known.len() <= REQUESTS_MAX);
    }
}
