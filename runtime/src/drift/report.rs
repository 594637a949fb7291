//! What is found of a version, as others see it. Plain values; must not know how it is found.

use gannet_models::{ModelName, Version};
use serde::Serialize;

/// How a version fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its first rows become the baseline.
    Learning,
    /// Nothing is known to have changed.
    Ok,
    /// Rows follow each other too closely for the budget of false alarms to hold: sample fewer.
    Uncalibrated,
    /// Something changed.
    Alarm,
}

impl State {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Learning, Self::Ok, Self::Uncalibrated, Self::Alarm];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Learning => "learning",
            Self::Ok => "ok",
            Self::Uncalibrated => "uncalibrated",
            Self::Alarm => "alarm",
        }
    }
}

/// Where the rows of a version come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum Source {
    /// Requests that are answered here.
    Requests,
    /// Devices that run a bundle of the version.
    Devices {
        /// The bundle's.
        sequence: u64,
    },
}

impl Source {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Devices { .. } => "devices",
        }
    }
}

/// Everything that is known of one version's rows of one source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Where its rows come from.
    #[serde(flatten)]
    pub source: Source,
    /// How it fares.
    pub state: State,
    /// Days with one false alarm among them on average, over all that is watched in this process.
    pub budget_days: f64,
    /// Everything that can raise an alarm in this process; they share the budget.
    pub sources: usize,
    /// Rows that were looked at.
    pub rows: u64,
    /// Rows of the window under way.
    pub window_rows: u64,
    /// The share of requests, or of devices' reports, that is looked at now.
    pub sampling_probability: f64,
    /// Where the baseline is from: `package`, `first rows`, `calibration` of devices, or `none` yet.
    pub baseline: &'static str,
    /// Rows of the baseline.
    pub baseline_rows: u64,
    /// Alarms since the version was loaded, or a bundle's devices were first heard.
    pub alarms: u64,
    /// The alarm that is on.
    pub alarm: Option<Alarm>,
    /// How often the scores' mean changed, as a second view (ADWIN); no alarm comes of it.
    pub score_changes: u64,
    /// What accuracy would be if scores were probabilities.
    pub estimate: Option<Estimate>,
    /// What was fed back.
    pub feedback: Option<Fed>,
    /// Every feature.
    pub features: Vec<FeatureReport>,
}

/// An alarm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alarm {
    /// Its number among those of the report.
    pub number: u64,
    /// When it was raised, in milliseconds since 1970.
    pub at_ms: u64,
    /// Rows seen by then.
    pub rows: u64,
    /// What changed, the strongest evidence first: at most one in ten is wrong on average.
    pub culprits: Vec<String>,
}

/// Accuracy as the scores themselves have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean of the predicted class's probability.
    pub accuracy: f64,
    /// The same of the baseline.
    pub baseline: Option<f64>,
    /// What it is worth.
    pub note: &'static str,
}

/// What was fed back of sampled requests.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Fed {
    /// Labels of sampled requests.
    pub labels: u64,
    /// Share of right classes.
    pub accuracy: Option<f64>,
    /// Mean square of the predicted class's probability less whether it was right.
    pub brier: Option<f64>,
    /// Expected calibration error over ten bins.
    pub calibration_error: Option<f64>,
    /// Mean of how far values were off.
    pub absolute_error: Option<f64>,
    /// Evidence that errors became more, as a logarithm; none while the first labels are learnt from.
    pub log_e: Option<f64>,
    /// Whether that is an alarm.
    pub alarm: bool,
    /// How often the errors' mean changed, as a second view.
    pub changes: u64,
}

/// One feature.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FeatureReport {
    /// Its name.
    pub name: String,
    /// `input` or `output`.
    pub side: &'static str,
    /// `numeric` or `category`.
    pub kind: &'static str,
    /// Population stability index of the last window, or the one under way where none is over.
    pub psi: Option<f64>,
    /// Less what chance makes of it.
    pub psi_debiased: Option<f64>,
    /// Of smoothed windows.
    pub psi_smoothed: Option<f64>,
    /// The index that one window in a hundred passes, over all features, with what is tolerated.
    pub threshold: Option<f64>,
    /// Jensen and Shannon's distance.
    pub js: Option<f64>,
    /// Total variation.
    pub tv: Option<f64>,
    /// Kolmogorov and Smirnov's distance; none for categories.
    pub ks: Option<f64>,
    /// Wasserstein's distance in the baseline's standard deviations; none for categories.
    pub wasserstein: Option<f64>,
    /// Evidence of a change, as a logarithm; of an alarm, what it was then at least.
    pub log_e: f64,
    /// Evidence that is an alarm.
    pub h: f64,
    /// Whether it is one.
    pub alarm: bool,
    /// Whether its values follow each other too closely.
    pub correlated: bool,
    /// What of it comes more often than before: `missing`, `not_finite`, `below_range` and so on.
    pub rare: Vec<&'static str>,
    /// Whether the model's redaction keeps its values here: nothing that names one may leave as it is.
    #[serde(skip)]
    pub hidden: bool,
    /// Categories that the baseline lacks, with how often they came.
    pub newcomers: Vec<(String, u64)>,
    /// What each bin holds.
    pub bins: Vec<String>,
    /// Shares of the baseline, by bin.
    pub reference: Vec<f64>,
    /// Shares of the window, by bin.
    pub current: Vec<f64>,
}
