//! What is to be served after a look, as a function of what was served before and of what the look brought. Pure.
//! Must not know how anything is fetched.

use std::collections::BTreeMap;

use gannet_models::{Digest, Version};

use super::served::settings_for;
use crate::{
    AliasMoved, RemoteError,
    board::{Followed, Held, Row},
    listing::{ListedModel, ListedVersion},
};

/// Versions that are kept beside those that are served, as the way back.
const KEPT_MAX: usize = 1;

/// What a look brought of one model.
pub(crate) struct Chosen<'a> {
    pub(crate) model: &'a ListedModel,
    /// The versions that are wanted.
    pub(crate) chosen: &'a [Version],
    pub(crate) fetched: &'a [(Version, Held)],
    pub(crate) failed: &'a [(ListedVersion, RemoteError)],
    /// Whether others decide about traffic when the pointer moves.
    pub(crate) rollout: bool,
}

/// The model after the look, and whether its pointer moved.
pub(crate) fn apply(before: Option<Followed>, look: &Chosen<'_>) -> (Followed, Option<AliasMoved>) {
    let mut after = before.unwrap_or_default();
    after.settings_file.clone_from(&look.model.settings);
    after.held.extend(look.fetched.iter().cloned());
    after.problems =
        look.failed.iter().map(|(listed, error)| format!("version {}: {error}", listed.version)).collect();
    let mut wanted: Vec<Version> =
        look.chosen.iter().filter(|v| after.held.contains_key(*v)).cloned().collect();
    let whole = wanted.len() == look.chosen.len();
    let mut moved = None;
    if look.model.pointed_to {
        let target = wanted.first().cloned();
        match target {
            // what it points to cannot be had: what is served stays
            None => wanted.clone_from(&after.aspired),
            Some(target) if after.target.as_ref() == Some(&target) && !after.aspired.is_empty() => {
                wanted.clone_from(&after.aspired);
            }
            Some(target) => {
                let serving = after.aspired.first().filter(|serving| **serving != target).cloned();
                wanted = match serving {
                    Some(from) if look.rollout => {
                        let model = look.model.name.clone();
                        moved = Some(AliasMoved { model, from: from.clone(), to: target.clone() });
                        vec![from, target.clone()]
                    }
                    _ => vec![target.clone()],
                };
                after.rolled_back.remove(&target);
                after.target = Some(target);
            }
        }
    } else if !whole {
        // as long as not all of what is wanted is here, nothing that serves goes
        let stays = after.aspired.iter().filter(|v| !wanted.contains(v)).cloned().collect::<Vec<_>>();
        wanted.extend(stays);
        wanted.sort();
    }
    after.aspired = wanted;
    forget(&mut after);
    settings_for(&mut after);
    (after, moved)
}

/// Keeps what is served, and of the rest what came last.
fn forget(followed: &mut Followed) {
    let served = &followed.aspired;
    let mut kept: Vec<(u64, Version)> = followed
        .held
        .iter()
        .filter(|(version, _)| !served.contains(version))
        .map(|(version, held)| (held.fetched_ms, version.clone()))
        .collect();
    kept.sort();
    let forgotten: Vec<Version> =
        kept[..kept.len().saturating_sub(KEPT_MAX)].iter().map(|(_, version)| version.clone()).collect();
    followed.held.retain(|version, _| !forgotten.contains(version));
    followed.rolled_back.retain(|version, _| followed.held.contains_key(version));
}

/// Takes away the oldest version that no source wants served, and says whose it was, and what.
pub(crate) fn oldest_kept(rows: &mut BTreeMap<String, Row>) -> Option<(String, Digest)> {
    let mut oldest: Option<(u64, String, gannet_models::ModelName, Version)> = None;
    for (source, row) in rows.iter() {
        for (model, followed) in &row.models {
            for (version, held) in followed.held.iter().filter(|(v, _)| !followed.aspired.contains(v)) {
                let candidate = (held.fetched_ms, source.clone(), model.clone(), version.clone());
                if oldest.as_ref().is_none_or(|oldest| candidate.0 < oldest.0) {
                    oldest = Some(candidate);
                }
            }
        }
    }
    let (_, source, model, version) = oldest?;
    let held = rows.get_mut(&source)?.models.get_mut(&model)?.held.remove(&version)?;
    Some((source, held.artifact.digest()))
}

impl Followed {
    /// Whether nothing that anyone acts upon differs.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let held = |followed: &Self| -> Vec<(Version, Digest, String)> {
            let one = |(version, held): (&Version, &Held)| {
                (version.clone(), held.artifact.digest(), held.tag.clone())
            };
            followed.held.iter().map(one).collect()
        };
        self.aspired == other.aspired
            && self.target == other.target
            && self.problems == other.problems
            && self.settings == other.settings
            && self.settings_file == other.settings_file
            && self.rolled_back == other.rolled_back
            && held(self) == held(other)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use gannet_models::{Artifact, IngestLimits, ModelName, Store};

    use super::*;

    struct World {
        _dir: tempfile::TempDir,
        artifact: Artifact,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("store")).unwrap();
            fs::create_dir(dir.path().join("made")).unwrap();
            fs::write(dir.path().join("made/model.onnx"), "m").unwrap();
            let artifact = store.admit(&dir.path().join("made"), &IngestLimits::default()).unwrap();
            Self { _dir: dir, artifact }
        }

        /// A look at which `there` is listed and `fails` cannot be had.
        fn look(
            &self,
            before: Option<Followed>,
            there: &[&str],
            fails: &[&str],
            kind: Kind,
        ) -> (Followed, Option<AliasMoved>) {
            let version = |text: &&str| Version::new(text).unwrap();
            let listed = |text: &&str| ListedVersion {
                version: version(text),
                tag: "t".into(),
                locator: String::new(),
                seal: None,
            };
            let model = ListedModel {
                name: ModelName::new("m").unwrap(),
                settings: None,
                pointed_to: kind != Kind::Open,
                versions: there.iter().map(listed).collect(),
            };
            let held = |text: &&str| {
                let held = Held { tag: "t".into(), artifact: self.artifact.clone(), fetched_ms: 1 };
                (version(text), held)
            };
            let fetched: Vec<(Version, Held)> =
                there.iter().filter(|text| !fails.contains(text)).map(held).collect();
            let failed: Vec<(ListedVersion, RemoteError)> =
                fails.iter().map(|text| (listed(text), RemoteError::Unusable("bad".into()))).collect();
            let chosen: Vec<Version> = there.iter().map(version).collect();
            let rollout = kind == Kind::Rollout;
            apply(
                before,
                &Chosen { model: &model, chosen: &chosen, fetched: &fetched, failed: &failed, rollout },
            )
        }
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Open,
        Alias,
        Rollout,
    }

    fn served(followed: &Followed) -> Vec<&str> {
        followed.aspired.iter().map(Version::as_str).collect()
    }

    #[test]
    fn an_alias_swaps() {
        let world = World::new();
        let (one, moved) = world.look(None, &["1"], &[], Kind::Alias);
        assert_eq!((served(&one), moved), (vec!["1"], None));
        let (two, moved) = world.look(Some(one), &["2"], &[], Kind::Alias);
        assert_eq!((served(&two), moved), (vec!["2"], None));
        // the way back is kept
        assert!(two.held.contains_key("1"));
        let (three, _) = world.look(Some(two), &["3"], &["3"], Kind::Alias);
        assert_eq!(served(&three), ["2"]);
        assert!(three.problems[0].contains("bad"));
    }

    #[test]
    fn a_rollout_keeps_both_and_tells_once() {
        let world = World::new();
        let (one, moved) = world.look(None, &["1"], &[], Kind::Rollout);
        assert_eq!((served(&one), moved), (vec!["1"], None));
        let (two, moved) = world.look(Some(one), &["2"], &[], Kind::Rollout);
        assert_eq!(served(&two), ["1", "2"]);
        let moved = moved.unwrap();
        assert_eq!((moved.from.as_str(), moved.to.as_str()), ("1", "2"));
        let (mut again, moved) = world.look(Some(two), &["2"], &[], Kind::Rollout);
        assert_eq!((served(&again), moved), (vec!["1", "2"], None));
        // rolled back here: the alias still points to 2, which is not taken up again
        again.aspired = vec![Version::new("1").unwrap()];
        let (back, moved) = world.look(Some(again), &["2"], &[], Kind::Rollout);
        assert_eq!((served(&back), moved), (vec!["1"], None));
        let (next, moved) = world.look(Some(back), &["3"], &[], Kind::Rollout);
        assert_eq!(served(&next), ["1", "3"]);
        assert!(moved.is_some());
    }

    #[test]
    fn nothing_that_serves_goes_for_what_cannot_be_had() {
        let world = World::new();
        let (before, _) = world.look(None, &["1", "2"], &[], Kind::Open);
        assert_eq!(served(&before), ["1", "2"]);
        let (partly, _) = world.look(Some(before), &["2", "3"], &["3"], Kind::Open);
        assert_eq!(served(&partly), ["1", "2"]);
        let (then, _) = world.look(Some(partly), &["2", "3"], &[], Kind::Open);
        assert_eq!(served(&then), ["2", "3"]);
        let (removed, _) = world.look(Some(then), &["3"], &[], Kind::Open);
        assert_eq!(served(&removed), ["3"]);
    }

    #[test]
    fn a_settings_file_counts_and_a_broken_one_leaves_the_last() {
        let world = World::new();
        let (mut followed, _) = world.look(None, &["1"], &[], Kind::Open);
        followed.settings_file = Some(("model.toml".into(), "max_batch_size = 4".into()));
        settings_for(&mut followed);
        let good = Arc::clone(&followed.settings);
        followed.settings_file = Some(("model.toml".into(), "max_batch_size = no".into()));
        settings_for(&mut followed);
        assert_eq!(followed.settings, good);
        assert!(followed.problems[0].contains("model.toml"), "{:?}", followed.problems);
    }
}
