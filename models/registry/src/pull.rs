//! Brings what a URI names into a folder, once: `<folder>/<model>/<version>/`, as a repository of models. Must not know
//! servers.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use gannet_models::{Artifact, ModelError, ModelName, Store, Version, settings::VersionPolicy};

use crate::{
    RemoteError, SourceSpec, beside,
    fetch::{FetchLimits, Fetcher, Progress, Wanted, create},
    kind::Kind,
    listing::{ListedModel, ListedVersion, Listing},
    package::Plan,
    trust::Trust,
};

/// What of a pull is the caller's to say.
#[derive(Debug, Default)]
pub struct PullOptions {
    /// Bounds.
    pub limits: FetchLimits,
    /// Signatures that are wanted.
    pub trust: Trust,
    /// Whether the digest of what was fetched is noted down in the registry, where it knows none.
    pub seal: bool,
}

/// Looks until everything there has been at rest.
const LOOKS_MAX: usize = 10;
/// Time between two looks for that.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);
/// Time between two words of progress.
const WORD_PAUSE: Duration = Duration::from_millis(500);

/// One version that is here now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// Its digest, in words.
    pub digest: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Whether the registry was told its digest now.
    pub sealed: bool,
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes that are here, of one version.
    pub bytes_done: u64,
    /// Bytes in all, as far as the registry says.
    pub bytes: u64,
}

/// Pulls; blocks until everything is here. `tell` hears how far it is.
///
/// # Errors
/// What failed; what was whole by then stays.
pub fn pull(
    spec: &SourceSpec,
    into: &Path,
    PullOptions { limits, trust, seal }: PullOptions,
    tell: &dyn Fn(&ModelName, &Version, Step),
) -> Result<Vec<Pulled>, RemoteError> {
    let work = into.join(".gannet-pull");
    create(&work)?;
    let store = Arc::new(Store::open(&work.join("store"))?);
    let package = limits.package;
    let fetcher = Fetcher::new(store, work.join("partial"), limits, Arc::new(trust));
    create(&work.join("partial"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| RemoteError::Local(format!("no event loop: {error}")))?;
    let kind = Kind::new(spec, package, &Arc::new(AtomicU64::new(0)));
    let kind = kind.map_err(|error| RemoteError::Unusable(error.to_string()))?;
    let mut puller = Puller { spec, into, kind, fetcher, seal, tell };
    let pulled = runtime.block_on(puller.run());
    // what was not finished is kept for the next try
    if pulled.is_ok() {
        drop(puller);
        let _ = fs::remove_dir_all(&work);
    }
    pulled
}

struct Puller<'a> {
    spec: &'a SourceSpec,
    into: &'a Path,
    kind: Kind,
    fetcher: Fetcher,
    seal: bool,
    tell: &'a dyn Fn(&ModelName, &Version, Step),
}

impl Puller<'_> {
    async fn run(&mut self) -> Result<Vec<Pulled>, RemoteError> {
        let listing = look(&mut self.kind).await?;
        let mut pulled = Vec::new();
        for model in &listing.models {
            let names: Vec<Version> = model.versions.iter().map(|listed| listed.version.clone()).collect();
            let policy = if model.pointed_to { VersionPolicy::All } else { self.spec.versions.clone() };
            let chosen = policy.choose(&names);
            for listed in model.versions.iter().filter(|listed| chosen.contains(&listed.version)) {
                pulled.push(self.one(model, listed).await?);
            }
        }
        match (pulled.is_empty(), listing.problems.is_empty()) {
            (true, false) => Err(RemoteError::Unusable(listing.problems.join("\n"))),
            _ => Ok(pulled),
        }
    }

    async fn one(&self, model: &ListedModel, listed: &ListedVersion) -> Result<Pulled, RemoteError> {
        let plan = self.kind.plan(listed).await?;
        let wanted = Wanted {
            source: self.spec.name.to_string(),
            model: model.name.clone(),
            version: listed.version.clone(),
            tag: listed.tag.clone(),
            golden: None,
        };
        let artifact = self.fetch(&wanted, &plan).await?;
        let folder = self.into.join(model.name.as_str());
        let path = folder.join(listed.version.as_str());
        place(&artifact, &path)?;
        if let Some((name, text)) = &model.settings {
            let settings = folder.join(name);
            fs::write(&settings, text).map_err(ModelError::io(&settings, "write"))?;
        }
        let unsealed = plan.as_fetched(artifact.files()).filter(|_| self.seal && plan.is_unsealed());
        if let Some(digest) = &unsealed {
            self.kind.seal(listed, digest).await?;
        }
        Ok(Pulled {
            model: wanted.model,
            version: wanted.version,
            digest: artifact.digest().to_string(),
            path,
            sealed: unsealed.is_some(),
        })
    }

    /// Fetches, with a word on how far it is now and then.
    async fn fetch(&self, wanted: &Wanted, plan: &Plan) -> Result<Artifact, RemoteError> {
        let progress = Progress::default();
        let tell = || (self.tell)(&wanted.model, &wanted.version, progress.step());
        let mut fetch = std::pin::pin!(self.fetcher.fetch(&self.kind, wanted, plan, &progress));
        loop {
            match tokio::time::timeout(WORD_PAUSE, fetch.as_mut()).await {
                Ok(fetched) => {
                    tell();
                    return fetched;
                }
                Err(_) => tell(),
            }
        }
    }
}

async fn look(kind: &mut Kind) -> Result<Listing, RemoteError> {
    for _ in 1..LOOKS_MAX {
        let listing = kind.list().await?;
        if !listing.settling {
            return Ok(listing);
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
    kind.list().await
}

impl Progress {
    fn step(&self) -> Step {
        use std::sync::atomic::Ordering::Relaxed;
        Step { bytes_done: self.bytes_done.load(Relaxed), bytes: self.bytes_total.load(Relaxed) }
    }
}

/// Copies a version to where a repository has it; under another name until it is whole.
fn place(artifact: &Artifact, path: &Path) -> Result<(), RemoteError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let part = path.with_file_name(format!(".{name}.part"));
    let _ = fs::remove_dir_all(&part);
    for file in artifact.files() {
        let to = part.join(&file.path);
        if let Some(parent) = to.parent() {
            create(parent)?;
        }
        fs::copy(artifact.dir().join(&file.path), &to).map_err(ModelError::io(&to, "copy to"))?;
    }
    if path.exists() {
        // no list says of the new files what the old ones were
        beside::forget(path)?;
        fs::remove_dir_all(path).map_err(ModelError::io(path, "replace"))?;
    }
    fs::rename(&part, path).map_err(ModelError::io(path, "move the copy to"))?;
    beside::write(path, artifact.files())
}
