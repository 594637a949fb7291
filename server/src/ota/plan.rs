//! How a bundle is to reach a fleet: to whom, in which stages, and what would stop it. Checked once, here. Must not know
//! how anything is counted.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::respond::Refusal;

/// Stages of a rollout.
const STAGES_MAX: usize = 32;
/// Classes of one rollout.
const CLASSES_MAX: usize = 32;
/// Longest wait that a plan may ask for: a quarter of a year.
const SECONDS_MAX: u64 = 90 * 86_400;

/// A plan as it is written. What is left out is at its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlanFile {
    /// The bundle, by the digest of its manifest.
    pub bundle: String,
    /// The classes of devices that get it.
    pub classes: Vec<String>,
    /// Percent of the devices that a stage reaches, rising, the last 100.
    pub stages: Vec<f64>,
    /// Devices that must have voted before a stage may widen; all that it reaches, where these are fewer.
    pub devices_min: u64,
    /// The share of the devices of a stage that must have voted before it may widen.
    pub voted_share_min: f64,
    /// Time that a stage lasts at least.
    pub seconds_min: u64,
    /// Inferences before a device's report is a vote.
    pub inferences_min: u64,
    /// Time after which a device that took the bundle and does not report is a bad vote.
    pub silent_seconds: u64,
    /// The share of a device's inferences that may fail.
    pub failure_share_max: f64,
    /// The most that a device's p99 may be; none: not bounded.
    pub latency_us_max: Option<u64>,
    /// How much slower, by its median, a device may be than it was with what it ran before.
    pub slower_max: f64,
    /// The share of bad devices that is no harm.
    pub bad_share_max: f64,
    /// The share of bad devices that must be ruled out before a stage may widen.
    pub bad_share_margin: f64,
    /// The probability with which a harmless bundle may be stopped, over all stages.
    pub alpha: f64,
    /// A bundle with a higher sequence, the old payload signed anew: offered to those who have this one once it is
    /// stopped.
    pub fallback: Option<String>,
}

impl Default for PlanFile {
    fn default() -> Self {
        Self {
            bundle: String::new(),
            classes: Vec::new(),
            stages: vec![1.0, 5.0, 25.0, 100.0],
            devices_min: 20,
            voted_share_min: 0.5,
            seconds_min: 3600,
            inferences_min: 100,
            silent_seconds: 86_400,
            failure_share_max: 0.01,
            latency_us_max: None,
            slower_max: 1.5,
            bad_share_max: 0.02,
            bad_share_margin: 0.25,
            alpha: 0.01,
            fallback: None,
        }
    }
}

/// A plan that was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PlanFile", into = "PlanFile")]
pub struct Plan(PlanFile);

impl Deref for Plan {
    type Target = PlanFile;

    fn deref(&self) -> &PlanFile {
        &self.0
    }
}

impl From<Plan> for PlanFile {
    fn from(plan: Plan) -> Self {
        plan.0
    }
}

impl TryFrom<PlanFile> for Plan {
    type Error = String;

    fn try_from(file: PlanFile) -> Result<Self, String> {
        let faults = faults(&file);
        if faults.is_empty() { Ok(Self(file)) } else { Err(faults.join("; ")) }
    }
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::respond::Kind::Invalid) with every fault.
    pub fn read(body: &[u8]) -> Result<Self, Refusal> {
        let file: PlanFile = serde_json::from_slice(body).map_err(|error| {
            Refusal::invalid(format!(
                "the body: expected a plan such as {{\"bundle\": \"<sha256>\", \"classes\": [\"nano33\"], \"stages\": [1, 10, \
                 100]}}: {error}"
            ))
        })?;
        Self::try_from(file).map_err(|faults| Refusal::invalid(format!("the plan: {faults}")))
    }

    /// The share of the devices that a stage reaches, 0 to 1.
    #[must_use]
    pub fn share(&self, stage: usize) -> f64 {
        self.0.stages.get(stage).map_or(1.0, |percent| percent / 100.0)
    }
}

/// Whether a text is the name of a class or a device.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(allowed)
}

fn faults(file: &PlanFile) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |is: bool, key: &str, expected: &str, got: String| {
        if !is {
            faults.push(format!("{key}: expected {expected}, got {got}"));
        }
    };
    let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let stages = &file.stages;
    let rising = stages.iter().all(|percent| *percent > 0.0) && stages.is_sorted_by(|a, b| a < b);
    let names = file.classes.iter().all(|class| is_name(class)) && !file.classes.is_empty();
    let share = |value: f64| (0.0..1.0).contains(&value);
    must(
        is_digest(&file.bundle),
        "bundle",
        "the sha256 of a manifest that was published",
        format!("{:?}", file.bundle),
    );
    let fallback = file.fallback.as_deref();
    must(fallback.is_none_or(is_digest), "fallback", "the sha256 of a manifest", format!("{fallback:?}"));
    must(fallback != Some(&file.bundle), "fallback", "another bundle", "the same".into());
    must(
        names && file.classes.len() <= CLASSES_MAX,
        "classes",
        "1 to 32 names of letters, digits and any of - _ . :",
        format!("{:?}", file.classes),
    );
    must(
        rising && stages.last() == Some(&100.0) && stages.len() <= STAGES_MAX,
        "stages",
        "rising percentages above 0, the last 100",
        format!("{stages:?}"),
    );
    must(file.devices_min > 0, "devices_min", "1 or more", "0".into());
    let voted = file.voted_share_min;
    must((0.0..=1.0).contains(&voted), "voted_share_min", "a share, 0 to 1", voted.to_string());
    must(file.inferences_min > 0, "inferences_min", "1 or more", "0".into());
    for (key, seconds) in [("seconds_min", file.seconds_min), ("silent_seconds", file.silent_seconds)] {
        must(seconds <= SECONDS_MAX, key, "at most 7776000 (90 days)", seconds.to_string());
    }
    must(
        share(file.failure_share_max),
        "failure_share_max",
        "a share below 1",
        file.failure_share_max.to_string(),
    );
    must(share(file.bad_share_max), "bad_share_max", "a share below 1", file.bad_share_max.to_string());
    let margin = file.bad_share_margin;
    must(
        margin > file.bad_share_max && margin <= 1.0,
        "bad_share_margin",
        "a share above bad_share_max",
        margin.to_string(),
    );
    must(
        (1.0..=100.0).contains(&file.slower_max),
        "slower_max",
        "a factor of 1 to 100",
        file.slower_max.to_string(),
    );
    must(
        file.alpha > 0.0 && file.alpha <= 0.2,
        "alpha",
        "a probability above 0, at most 0.2",
        file.alpha.to_string(),
    );
    faults
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::ota) fn plan(change: impl FnOnce(&mut PlanFile)) -> Plan {
        let mut file = PlanFile {
            bundle: "ab".repeat(32),
            classes: vec!["nano33".into()],
            stages: vec![5.0, 25.0, 100.0],
            seconds_min: 0,
            ..PlanFile::default()
        };
        change(&mut file);
        Plan::try_from(file).unwrap()
    }

    #[test]
    fn every_fault_of_a_plan_is_named() {
        let text = r#"{"bundle": "x", "classes": ["a b"], "stages": [5, 5, 90], "devices_min": 0, "inferences_min": 0, "voted_share_min": 2,
            "silent_seconds": 99999999, "failure_share_max": 1, "bad_share_max": -1, "bad_share_margin": 2,
            "slower_max": 0.5, "alpha": 0, "fallback": "x"}"#;
        let refused = Plan::read(text.as_bytes()).unwrap_err().message.into_owned();
        for key in [
            "bundle",
            "classes",
            "stages",
            "devices_min",
            "voted_share_min",
            "inferences_min",
            "silent_seconds",
            "failure_share_max",
            "bad_share_max",
            "bad_share_margin",
            "slower_max",
            "alpha",
            "fallback",
        ] {
            assert!(refused.contains(&format!("{key}: expected")), "{key} is missing in {refused}");
        }
        assert!(Plan::read(b"{\"more\": 1}").unwrap_err().message.contains("unknown field"));
        let good = plan(|_| {});
        let again: Plan = serde_json::from_str(&serde_json::to_string(&good).unwrap()).unwrap();
        assert_eq!((good.share(0), good.share(2)), (0.05, 1.0));
        assert_eq!(again, good);
    }
}
