//! Follows one source: looks, fetches what is new, states what is to be served, and keeps what it said last while the
//! registry cannot be asked. Must not know any kind of registry.

mod change;
pub(crate) mod served;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use gannet_models::{ModelName, Version, fault, settings::VersionPolicy};
use tokio::{sync::Notify, time::Instant};

pub(crate) use self::change::{Chosen, apply};
use crate::{
    RegistryError, RemoteError, SourceSpec, backoff,
    board::{Board, Followed, Held, wall_ms},
    catalogue::Catalogue,
    chance,
    fetch::{Fetcher, Progress, Wanted},
    kind::Kind,
    listing::{ListedModel, ListedVersion, Listing},
    mlflow::write::{Tell, Writer},
    spec::OnAliasMove,
};

/// Models of one source that are brought up to date side by side.
const MODELS_TOGETHER_MAX: usize = 8;
/// The least time between two looks, however often someone asks for one.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Time until the next look while something has not been at rest yet.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);
/// Time until a package that was refused is tried again although nothing changed.
const REFUSED_TIME: Duration = Duration::from_secs(600);
/// Time between two writes of the catalogue while much is being fetched.
const SAVE_PAUSE: Duration = Duration::from_secs(1);
/// Models up to which the catalogue is written after each of them.
const SAVE_AT_ONCE_MAX: usize = 50;

/// What all followers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) board: Board,
    pub(crate) fetcher: Fetcher,
    pub(crate) writer: Writer,
}

/// One source being followed.
pub(crate) struct Follower {
    spec: SourceSpec,
    pub(crate) kind: Kind,
    catalogue: Catalogue,
    shared: Arc<Shared>,
    nudge: Arc<Notify>,
    refused: HashMap<(ModelName, Version), Refused>,
    failures: u32,
    saved: Option<Instant>,
}

impl Follower {
    pub(crate) fn new(
        spec: SourceSpec,
        shared: Arc<Shared>,
        catalogue: Catalogue,
        (nudge, requests): (Arc<Notify>, &Arc<AtomicU64>),
    ) -> Result<Self, RegistryError> {
        let kind = Kind::new(&spec, shared.fetcher.limits.package, requests)?;
        Ok(Self { spec, kind, catalogue, shared, nudge, refused: HashMap::new(), failures: 0, saved: None })
    }

    /// Follows until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let started = Instant::now();
            let wait = self.look().await;
            let pause = LOOK_PAUSE_MIN.saturating_sub(started.elapsed());
            tokio::time::sleep(pause).await;
            // whoever asks for a look gets one begun after that
            let _ = tokio::time::timeout(wait, self.nudge.notified()).await;
        }
    }

    /// Looks once; the time until the next.
    pub(crate) async fn look(&mut self) -> Duration {
        let name = self.spec.name.as_str().to_owned();
        let result = match self.kind.list().await {
            Ok(listing) => self.follow(listing).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(settling) => {
                if self.failures > 0 {
                    tracing::info!(source = %name, "the registry answers again");
                }
                self.failures = 0;
                self.tell(&name, None);
                if settling {
                    SETTLE_PAUSE.min(self.spec.poll)
                } else {
                    backoff::after_success(self.spec.poll, chance())
                }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == 1 {
                    tracing::warn!(source = %name, %error, "the registry gave nothing; what is served stays");
                } else {
                    tracing::debug!(source = %name, %error, failures = self.failures, "again nothing");
                }
                let retry_after = error.retry_after();
                self.tell(&name, Some(&error.to_string()));
                backoff::after_failure(self.failures, retry_after, chance())
            }
        }
    }

    /// Notes how a look ended.
    fn tell(&self, name: &str, error: Option<&str>) {
        let now = wall_ms();
        let was = self.shared.board.read(name, |row| (row.tried, row.last_error.clone(), row.stale_since_ms));
        let note = |row: &mut crate::board::Row| {
            row.tried = true;
            match error {
                None => {
                    row.last_success_ms = Some(now);
                    (row.stale_since_ms, row.last_error) = (None, None);
                }
                Some(error) => {
                    row.stale_since_ms = row.stale_since_ms.or(row.last_success_ms).or(Some(now));
                    row.last_error = Some(error.to_owned());
                }
            }
        };
        let known = was.is_some_and(|(tried, last, _)| tried && last.as_deref() == error);
        // an idle look wakes nobody
        if known {
            self.shared.board.note(name, note)
        } else {
            let _ = self.shared.board.change(name, note);
        }
    }

    /// Brings everything that is listed here. Whether something has not been at rest yet.
    async fn follow(&mut self, listing: Listing) -> Result<bool, RemoteError> {
        let name = self.spec.name.as_str().to_owned();
        let Listing { models, problems, settling } = listing;
        let had = self.shared.board.read(&name, |row| row.models.len()).unwrap_or(0);
        if models.is_empty() && had > 0 && !settling {
            return Err(RemoteError::Missing(format!(
                "expected the {had} models that were there before, got none, as when a path is wrong or a store was \
                 emptied"
            )));
        }
        self.shared.board.note(&name, |row| row.problems.clone_from(&problems));
        let mut worst = None;
        let mut unsaved = false;
        {
            let this = &*self;
            let mut work =
                stream::iter(models.iter().map(|model| async move { (model, this.bring(model).await) }))
                    .buffer_unordered(MODELS_TOGETHER_MAX);
            let mut outcomes = Vec::new();
            let mut saved = this.saved;
            while let Some((model, brought)) = work.next().await {
                let changed = this.state(model, &brought);
                unsaved |= changed;
                let due = saved.is_none_or(|saved| saved.elapsed() >= SAVE_PAUSE);
                if unsaved && (models.len() <= SAVE_AT_ONCE_MAX || due) {
                    this.save()?;
                    (unsaved, saved) = (false, Some(Instant::now()));
                }
                outcomes.push((model, brought));
            }
            drop(work);
            for (model, brought) in outcomes {
                worst = self.remember(model, brought).or(worst);
            }
        }
        if !settling {
            unsaved |= self.drop_unlisted(&models);
        }
        if unsaved {
            self.save()?;
        }
        match worst {
            Some(error) => Err(error),
            None => Ok(settling),
        }
    }

    /// Removing a model from a registry that is whole is a wish.
    fn drop_unlisted(&self, models: &[ListedModel]) -> bool {
        let source = self.spec.name.as_str();
        let gone = |row: &crate::board::Row| -> Vec<ModelName> {
            row.models
                .keys()
                .filter(|name| !models.iter().any(|model| model.name == **name))
                .cloned()
                .collect()
        };
        let gone = self.shared.board.read(source, gone).unwrap_or_default();
        if gone.is_empty() {
            return false;
        }
        self.shared.board.change(source, |row| gone.iter().for_each(|name| drop(row.models.remove(name))));
        true
    }

    /// Fetches the versions of one model that are wanted and not here; each with what came of it.
    async fn bring(&self, model: &ListedModel) -> Brought {
        let source = self.spec.name.as_str();
        let names: Vec<Version> = model.versions.iter().map(|v| v.version.clone()).collect();
        let chosen = if model.pointed_to { names.clone() } else { self.policy(model).choose(&names) };
        let mut brought = Brought { chosen, fetched: Vec::new(), failed: Vec::new() };
        for listed in model.versions.iter().filter(|listed| brought.chosen.contains(&listed.version)) {
            let is_here = |row: &crate::board::Row| {
                let held =
                    row.models.get(&model.name).and_then(|followed| followed.held.get(&listed.version));
                held.is_some_and(|held| held.tag == listed.tag)
            };
            if self.shared.board.read(source, is_here).unwrap_or(false) {
                continue;
            }
            let key = (model.name.clone(), listed.version.clone());
            if let Some(refused) = self.refused.get(&key).filter(|refused| refused.still_is(listed)) {
                brought.failed.push((listed.clone(), RemoteError::Unusable(refused.why.clone())));
                continue;
            }
            match self.fetch(&model.name, listed).await {
                Ok(held) => brought.fetched.push((listed.version.clone(), held)),
                Err(error) => brought.failed.push((listed.clone(), error)),
            }
        }
        brought
    }

    /// Which of a model's versions, where the registry leaves it open.
    fn policy(&self, model: &ListedModel) -> VersionPolicy {
        match model.settings.as_ref().and_then(|(name, text)| served::parse(name, text).ok()) {
            Some(settings) => settings.version_policy,
            None => self.spec.versions.clone(),
        }
    }

    async fn fetch(&self, model: &ModelName, listed: &ListedVersion) -> Result<Held, RemoteError> {
        let source = self.spec.name.as_str();
        let progress = Arc::new(Progress::default());
        let entry = (model.clone(), listed.version.clone(), Arc::clone(&progress));
        self.shared.board.note(source, |row| row.fetching.push(entry));
        let wanted = Wanted {
            source: source.to_owned(),
            model: model.clone(),
            version: listed.version.clone(),
            tag: listed.tag.clone(),
            golden: self.spec.golden.clone(),
        };
        let started = Instant::now();
        let fetched = async {
            let plan = self.kind.plan(listed).await?;
            self.make_room(plan.size().unwrap_or(u64::MAX));
            let artifact = self.shared.fetcher.fetch(&self.kind, &wanted, &plan, &progress).await?;
            if let Some(digest) = plan.as_fetched(artifact.files()).filter(|_| plan.is_unsealed()) {
                let (model, version) = (self.spec.name.clone(), listed.version.clone());
                self.shared.writer.tell(Tell::Seal { model, version, digest });
            }
            Ok::<_, RemoteError>(artifact)
        };
        let result = fetched.await;
        self.shared
            .board
            .note(source, |row| row.fetching.retain(|(_, _, other)| !Arc::ptr_eq(other, &progress)));
        let artifact = result?;
        tracing::info!(
            source, %model, version = %listed.version, bytes = artifact.size_bytes(),
            ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), "fetched"
        );
        Ok(Held { tag: listed.tag.clone(), artifact, fetched_ms: wall_ms() })
    }

    /// Lets go of versions that are kept only because they served before, oldest first, until `bytes` fit.
    fn make_room(&self, bytes: u64) {
        let Some(budget) = self.shared.fetcher.limits.disk_budget_bytes else { return };
        let store = &self.shared.fetcher.store;
        while store.size_bytes().saturating_add(bytes) > budget {
            let Some((source, digest)) = change::oldest_kept(&mut self.shared.board.rows()) else { return };
            // whoever else holds it lets go upon the news; until then there is no room, and the fetch is tried again
            let _ = self.shared.board.change(&source, |_| ());
            match store.discard(&digest) {
                Ok(gone) => tracing::info!(source, %digest, gone, "an earlier version makes room"),
                Err(error) => tracing::warn!(%error, "no room could be made"),
            }
        }
    }

    /// States what is to be served of one model; whether anything changed.
    fn state(&self, model: &ListedModel, brought: &Brought) -> bool {
        let chosen = Chosen {
            model,
            chosen: &brought.chosen,
            fetched: &brought.fetched,
            failed: &brought.failed,
            rollout: self.spec.on_alias_move == OnAliasMove::Rollout,
        };
        let before =
            self.shared.board.read(self.spec.name.as_str(), |row| row.models.get(&model.name).cloned());
        let (after, moved) = apply(before.clone().flatten(), &chosen);
        let same = |before: &Followed| before.is_same(&after);
        if before.flatten().as_ref().is_some_and(same) {
            return false;
        }
        fault::point("stating");
        self.shared.board.change(self.spec.name.as_str(), |row| {
            row.models.insert(model.name.clone(), after);
            row.moves.extend(moved);
        });
        true
    }

    /// Keeps what was refused, and gives back what may pass.
    fn remember(&mut self, model: &ListedModel, brought: Brought) -> Option<RemoteError> {
        let mut worst = None;
        for (listed, error) in brought.failed {
            let key = (model.name.clone(), listed.version.clone());
            let known = self.refused.get(&key).is_some_and(|refused| refused.still_is(&listed));
            if error.may_pass() {
                worst = Some(error.during(&format!("{} version {}", model.name, listed.version)));
            } else if !known {
                tracing::warn!(model = %model.name, version = %listed.version, %error, "the package is refused");
                self.refused.insert(key, Refused { listed, why: error.to_string(), at: Instant::now() });
            }
        }
        worst
    }

    fn save(&self) -> Result<(), RemoteError> {
        let models = self.shared.board.read(self.spec.name.as_str(), |row| row.models.clone());
        self.catalogue.save(&self.spec.uri_text, &models.unwrap_or_default())
    }
}

/// A package that was refused: what it looked like, why, and when.
struct Refused {
    listed: ListedVersion,
    why: String,
    at: Instant,
}

impl Refused {
    /// Whether another try would end as this one.
    fn still_is(&self, listed: &ListedVersion) -> bool {
        let same = self.listed.tag == listed.tag && self.listed.seal == listed.seal;
        same && self.at.elapsed() < REFUSED_TIME
    }
}

/// What became of the versions of one model that are wanted.
struct Brought {
    chosen: Vec<Version>,
    fetched: Vec<(Version, Held)>,
    failed: Vec<(ListedVersion, RemoteError)>,
}
