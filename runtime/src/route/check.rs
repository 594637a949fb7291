//! From a route as it is written to a checked one, with every fault by its path. Must not know JSON.

use std::fmt;

use gannet_models::Version;
use gannet_stats::split::{BASIS_POINTS, Split};

use super::{BanditFile, BanditSpec, Route, RouteFile, Shadow, Sticky, StickyFile, StickyKey, Weight};
use crate::control::rollout::bandit::Policy;

/// Share of the requests that any version may answer, where none is written.
const EPSILON: f64 = 0.1;

/// Versions of one split.
const VERSIONS_MAX: usize = 16;
/// Shadows of one route: each costs as much as the model itself.
const SHADOWS_MAX: usize = 4;
/// Outputs that have a tolerance of their own.
const TOLERANCES_MAX: usize = 64;
/// Bytes of a salt, and of a header's or parameter's name.
const NAME_BYTES_MAX: usize = 255;

/// What is wrong with a route, everything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RouteFaults(pub Vec<String>);

impl fmt::Display for RouteFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

pub(super) fn route(model: &str, file: &RouteFile) -> Result<Route, RouteFaults> {
    let mut faults = Vec::new();
    let salt = file.salt.as_deref().unwrap_or(model);
    if salt.is_empty() || salt.len() > NAME_BYTES_MAX {
        faults.push(format!("salt: expected 1 to {NAME_BYTES_MAX} bytes, got {}", salt.len()));
    }
    let split = split(file, &mut faults);
    let shadows = shadows(file, salt, &mut faults);
    let sticky = sticky(file.sticky.as_ref(), &mut faults);
    let bandit = file.bandit.as_ref().map(|bandit| self::bandit(bandit, split.len(), &mut faults));
    if !faults.is_empty() {
        return Err(RouteFaults(faults));
    }
    let ranges = Route::ranges(&split);
    Ok(Route { split, ranges, shadows, sticky, key_split: Split::new(salt), bandit })
}

fn split(file: &RouteFile, faults: &mut Vec<String>) -> Vec<Weight> {
    let count = file.split.len();
    if count == 0 || count > VERSIONS_MAX {
        faults.push(format!("split: expected 1 to {VERSIONS_MAX} versions, got {count}"));
    }
    let mut split: Vec<Weight> = Vec::with_capacity(count);
    for (index, weight) in file.split.iter().enumerate() {
        let path = format!("split[{index}]");
        if weight.weight_bp > BASIS_POINTS {
            let got = weight.weight_bp;
            faults.push(format!("{path}.weight_bp: expected 0 to {BASIS_POINTS} (100 is 1 %), got {got}"));
        }
        let Some(version) = version(&path, &weight.version, faults) else { continue };
        if split.iter().any(|other| other.version == version) {
            faults.push(format!("{path}.version: '{version}' is there twice; give it one weight"));
        }
        split.push(Weight { version, weight_bp: weight.weight_bp });
    }
    let sum: u64 = file.split.iter().map(|weight| u64::from(weight.weight_bp)).sum();
    if count > 0 && sum != u64::from(BASIS_POINTS) {
        let by = sum.abs_diff(u64::from(BASIS_POINTS));
        let change = if sum > u64::from(BASIS_POINTS) { "lower" } else { "raise" };
        faults.push(format!(
            "split: the weights sum to {sum}, expected {BASIS_POINTS}; {change} one of them by {by}"
        ));
    }
    split
}

fn shadows(file: &RouteFile, salt: &str, faults: &mut Vec<String>) -> Vec<Shadow> {
    if file.shadow.len() > SHADOWS_MAX {
        faults.push(format!("shadow: expected at most {SHADOWS_MAX} versions, got {}", file.shadow.len()));
    }
    let mut shadows: Vec<Shadow> = Vec::with_capacity(file.shadow.len());
    for (index, shadow) in file.shadow.iter().enumerate() {
        let path = format!("shadow[{index}]");
        let share = (shadow.fraction * f64::from(BASIS_POINTS)).round();
        if !(1.0..=f64::from(BASIS_POINTS)).contains(&share) {
            faults.push(format!("{path}.fraction: expected 0.0001 to 1, got {}", shadow.fraction));
        }
        let Some(version) = version(&path, &shadow.version, faults) else { continue };
        if shadows.iter().any(|other| other.version == version) {
            faults.push(format!("{path}.version: '{version}' is there twice; give it one fraction"));
        }
        let split = Split::new(&format!("{salt}/shadow/{version}"));
        for (output, tolerance) in &shadow.tolerance {
            if !tolerance.is_finite() || *tolerance <= 0.0 {
                faults.push(format!("{path}.tolerance.{output}: expected a number above 0, got {tolerance}"));
            }
        }
        if shadow.tolerance.len() > TOLERANCES_MAX {
            let got = shadow.tolerance.len();
            faults.push(format!("{path}.tolerance: expected at most {TOLERANCES_MAX} outputs, got {got}"));
        }
        let tolerances = shadow.tolerance.clone();
        shadows.push(Shadow { version, share_bp: share as u32, tolerances, split });
    }
    shadows
}

fn version(path: &str, text: &str, faults: &mut Vec<String>) -> Option<Version> {
    Version::new(text).map_err(|error| faults.push(format!("{path}.version: {error}"))).ok()
}

fn sticky(file: Option<&StickyFile>, faults: &mut Vec<String>) -> Sticky {
    let by_id = Sticky { key: StickyKey::RequestId, required: false };
    let Some(StickyFile { header, parameter, required }) = file else { return by_id };
    let key = match (header, parameter) {
        (Some(header), None) => StickyKey::Header(header.to_ascii_lowercase()),
        (None, Some(parameter)) => StickyKey::Parameter(parameter.clone()),
        (header, _) => {
            let got = if header.is_some() { "both" } else { "neither" };
            faults.push(format!(
                "sticky: expected either 'header' or 'parameter', got {got}; leave 'sticky' out to go by the \
                 request's id"
            ));
            return by_id;
        }
    };
    if let StickyKey::Header(name) | StickyKey::Parameter(name) = &key
        && (name.is_empty() || name.len() > NAME_BYTES_MAX)
    {
        faults.push(format!("sticky: expected a name of 1 to {NAME_BYTES_MAX} bytes, got {}", name.len()));
    }
    Sticky { key, required: required.unwrap_or(true) }
}

fn bandit(file: &BanditFile, versions: usize, faults: &mut Vec<String>) -> BanditSpec {
    let reward = file.reward.clone();
    if reward.is_empty() || reward.len() > NAME_BYTES_MAX {
        faults.push(format!(
            "bandit.reward: expected the name of a metric, 1 to {NAME_BYTES_MAX} bytes, got {}",
            reward.len()
        ));
    }
    if versions < 2 {
        faults.push(format!("bandit: expected at least 2 versions in the split, got {versions}"));
    }
    let epsilon = file.epsilon.unwrap_or(EPSILON);
    if !(0.0..=1.0).contains(&epsilon) {
        faults.push(format!("bandit.epsilon: expected 0 to 1, got {epsilon}"));
    }
    let policy = match file.policy.as_deref() {
        None | Some("thompson") => {
            if file.epsilon.is_some() {
                faults.push("bandit.epsilon: only epsilon_greedy has it; leave it out".into());
            }
            Policy::Thompson
        }
        Some("epsilon_greedy") => Policy::EpsilonGreedy(epsilon),
        Some(got) => {
            faults.push(format!("bandit.policy: expected thompson or epsilon_greedy, got '{got}'"));
            Policy::Thompson
        }
    };
    BanditSpec { reward, policy }
}
