//! What to do next for one model. A pure, stateless and idempotent function, after TensorFlow Serving's
//! aspired-version policies. Must not know threads, time, or what a version holds.

use gannet_models::Version;

/// What is given up when old and new cannot both be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SwapPolicy {
    /// The new version is ready before the old one goes.
    #[default]
    PreserveAvailability,
    /// The old version goes before the new one is loaded: no request is served in between.
    PreserveResources,
}

/// One version as the decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionView {
    /// The version.
    pub version: Version,
    /// Whether the source wants it, and whether what it wants is what serves.
    pub aspired: Aspired,
    /// A copy of it answers requests.
    pub serving: bool,
    /// A copy of it is being loaded.
    pub loading: bool,
    /// A copy of it is finishing its last requests.
    pub draining: bool,
}

/// What the source wants of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspired {
    /// Not to be served.
    No,
    /// To be served as it is.
    Same,
    /// To be served, and nothing loaded or tried yet is the same as what is wanted.
    Changed,
    /// To be served, but loading exactly this failed. It is not tried again by itself.
    Failed,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Load what the source wants of this version.
    Load(Version),
    /// Stop serving this version.
    Unload(Version),
}

/// The next step for one model, or `None` when there is nothing to do until something changes.
/// `versions` are in ascending order.
#[must_use]
pub fn next_step(versions: &[VersionView], policy: SwapPolicy) -> Option<Step> {
    let unload = |wanted: &dyn Fn(&VersionView) -> bool| {
        versions.iter().find(|v| v.serving && wanted(v)).map(|v| Step::Unload(v.version.clone()))
    };
    let unwanted = |v: &VersionView| v.aspired == Aspired::No;
    // the highest first: it is the one that requests without a version go to
    let load = || {
        let ready = |v: &&VersionView| v.aspired == Aspired::Changed && !v.loading;
        versions.iter().rev().find(ready).map(|v| Step::Load(v.version.clone()))
    };
    match policy {
        SwapPolicy::PreserveAvailability => {
            let none_wanted = versions.iter().all(unwanted);
            let replaced = versions.iter().any(|v| v.serving && !unwanted(v));
            let may_unload = none_wanted || replaced;
            may_unload.then(|| unload(&unwanted)).flatten().or_else(load)
        }
        SwapPolicy::PreserveResources => {
            let stale = |v: &VersionView| unwanted(v) || v.aspired == Aspired::Changed;
            let busy = versions.iter().any(|v| v.draining);
            unload(&stale).or_else(|| if busy { None } else { load() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Views from texts such as `1:same:serving` and `2:changed:loading`.
    fn views(texts: &[&str]) -> Vec<VersionView> {
        let view = |text: &&str| {
            let parts: Vec<&str> = text.split(':').collect();
            VersionView {
                version: Version::new(parts[0]).unwrap(),
                aspired: match parts[1] {
                    "no" => Aspired::No,
                    "same" => Aspired::Same,
                    "changed" => Aspired::Changed,
                    _ => Aspired::Failed,
                },
                serving: parts.contains(&"serving"),
                loading: parts.contains(&"loading"),
                draining: parts.contains(&"draining"),
            }
        };
        texts.iter().map(view).collect()
    }

    fn check(policy: SwapPolicy, texts: &[&str], expected: &str) {
        let step = match next_step(&views(texts), policy) {
            Some(Step::Load(version)) => format!("load {version}"),
            Some(Step::Unload(version)) => format!("unload {version}"),
            None => "nothing".into(),
        };
        assert_eq!(step, expected, "{policy:?} {texts:?}");
    }

    #[test]
    fn availability_is_preserved() {
        let check = |texts: &[&str], expected| check(SwapPolicy::PreserveAvailability, texts, expected);
        check(&[], "nothing");
        check(&["1:changed", "2:changed"], "load 2");
        check(&["1:changed", "2:changed:loading"], "load 1");
        check(&["1:no:serving", "2:changed"], "load 2");
        check(&["1:no:serving", "2:changed:loading"], "nothing");
        check(&["1:no:serving", "2:same:serving"], "unload 1");
        check(&["1:no:serving", "2:failed"], "nothing");
        check(&["1:no:serving", "2:changed:serving"], "unload 1");
        check(&["1:no:serving"], "unload 1");
        check(&["1:no:serving", "2:no:serving"], "unload 1");
        check(&["1:same:serving"], "nothing");
        check(&["1:changed:serving"], "load 1");
        check(&["1:failed:serving"], "nothing");
        check(&["1:no:draining", "2:same:serving"], "nothing");
    }

    #[test]
    fn resources_are_preserved_when_asked() {
        let check = |texts: &[&str], expected| check(SwapPolicy::PreserveResources, texts, expected);
        check(&["1:no:serving", "2:changed"], "unload 1");
        check(&["1:no:draining", "2:changed"], "nothing");
        check(&["1:no", "2:changed"], "load 2");
        check(&["1:changed:serving"], "unload 1");
        check(&["1:same:serving", "2:failed"], "nothing");
    }
}
