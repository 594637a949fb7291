//! Brings the files of one version here: in parallel, within limits of size and rate, going on where a broken download
//! or a killed process stopped, each checked before it counts. Must not know any registry, nor when to fetch.

mod file;
mod finish;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gannet_models::{Artifact, Digest, IngestLimits, ModelError, ModelName, Store, Version, fault};
use tokio::sync::Semaphore;

use crate::{RemoteError, kind::Kind, package::Plan, rate::Rate, trust::Trust};

/// Files of one package that are under way together.
const FILES_TOGETHER_MAX: usize = 8;

/// Why a package is refused whose bytes could be any.
const UNSEALED: &str = "nobody has said what its bytes are, and registry.require_digest wants that: expected digests from the \
                        registry, a package that gannet push brought, one that gannet pull --seal noted down, or a [[trust]] \
                        rule that requires a signature; nothing was fetched";

/// Bounds of all fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchLimits {
    /// Files and bytes of one package.
    pub package: IngestLimits,
    /// Downloads that run side by side, of all sources together.
    pub downloads_max: usize,
    /// Bytes a second of all downloads together; `None`: not bounded.
    pub bytes_per_s_max: Option<u64>,
    /// Bytes of all copies together; `None`: not bounded.
    pub disk_budget_bytes: Option<u64>,
    /// Whether a package is refused of whose bytes nobody has said what they are, unless its signature is required.
    pub require_digest: bool,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            package: IngestLimits { files_max: 10_000, bytes_max: 64 << 30 },
            downloads_max: 4,
            bytes_per_s_max: None,
            disk_budget_bytes: None,
            require_digest: false,
        }
    }
}

/// How far a fetch is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) bytes_total: AtomicU64,
    pub(crate) bytes_done: AtomicU64,
}

impl Progress {
    fn add(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&self, bytes: u64) {
        self.bytes_done.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Which version is fetched.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) source: String,
    pub(crate) model: ModelName,
    pub(crate) version: Version,
    /// Changes with the content.
    pub(crate) tag: String,
    /// Golden requests of the operator's own, put into the package.
    pub(crate) golden: Option<PathBuf>,
}

/// Fetches.
#[derive(Debug)]
pub(crate) struct Fetcher {
    pub(crate) store: Arc<Store>,
    pub(crate) limits: FetchLimits,
    partial: PathBuf,
    rate: Rate,
    slots: Semaphore,
    trust: Arc<Trust>,
    /// Bytes that fetches under way will take.
    reserved: AtomicU64,
}

impl Fetcher {
    /// `dir` is for downloads under way, on the store's file system.
    pub(crate) fn new(store: Arc<Store>, dir: PathBuf, limits: FetchLimits, trust: Arc<Trust>) -> Self {
        let rate = Rate::new(limits.bytes_per_s_max);
        let slots = Semaphore::new(limits.downloads_max.max(1));
        Self { store, limits, partial: dir, rate, slots, trust, reserved: AtomicU64::new(0) }
    }

    /// Fetches, checks and stores one version.
    pub(crate) async fn fetch(
        &self,
        kind: &Kind,
        wanted: &Wanted,
        plan: &Plan,
        progress: &Progress,
    ) -> Result<Artifact, RemoteError> {
        plan.check(&self.limits.package)?;
        if self.limits.require_digest && plan.is_unsealed() && !self.trust.is_required_of(&wanted.model) {
            return Err(RemoteError::Unusable(UNSEALED.to_owned()));
        }
        fault::point("planned");
        let size = plan.size().unwrap_or(u64::MAX);
        let _reserved = self.reserve(size)?;
        progress.bytes_total.store(size, Ordering::Relaxed);
        progress.bytes_done.store(0, Ordering::Relaxed);
        let folder = self.folder(wanted)?;
        sweep(&folder.join("files"), "", plan);
        fault::point("reserved");
        let downloads = plan.files.iter().enumerate().map(|(index, planned)| {
            let job = file::Job { planned, index, folder: &folder, progress };
            async move { self.download(kind, &job).await }
        });
        let together = self.limits.downloads_max.clamp(1, FILES_TOGETHER_MAX);
        stream::iter(downloads).buffer_unordered(together).try_collect::<Vec<()>>().await?;
        fault::point("downloaded");
        let finished = finish::Finish {
            files: folder.join("files"),
            unpacked: folder.join("unpacked"),
            plan: plan.clone(),
            wanted: wanted.clone(),
            trust: Arc::clone(&self.trust),
            store: Arc::clone(&self.store),
            limits: self.limits.package,
        };
        let artifact = blocking(move || finished.run()).await;
        // what was refused would be refused again; what succeeded is in the store
        if artifact.as_ref().err().is_none_or(|error| !error.may_pass()) {
            let _ = fs::remove_dir_all(&folder);
        }
        let artifact = artifact?;
        let found = plan.as_fetched(artifact.files());
        if let (Some((expected, whence)), Some(found)) = (plan.digest, found)
            && expected != found
        {
            return Err(RemoteError::Unusable(format!(
                "expected a package of sha256 {expected} ({whence}), got {found}; it is refused"
            )));
        }
        fault::point("stored");
        Ok(artifact)
    }

    /// The folder of one fetch; what an earlier content of the same version left is removed.
    fn folder(&self, wanted: &Wanted) -> Result<PathBuf, RemoteError> {
        let name = |text: &str| Digest::of(text.as_bytes()).to_string()[..16].to_owned();
        let own = name(&format!("{:?} {:?} {:?}", wanted.source, wanted.model, wanted.version));
        let parent = self.partial.join(own);
        let folder = parent.join(name(&wanted.tag));
        for item in fs::read_dir(&parent).into_iter().flatten().flatten() {
            if item.path() != folder {
                let _ = fs::remove_dir_all(item.path());
            }
        }
        create(&folder.join("files"))?;
        create(&folder.join("parts"))?;
        Ok(folder)
    }

    /// Makes sure that there is room before anything is fetched.
    fn reserve(&self, bytes: u64) -> Result<Reserved<'_>, RemoteError> {
        if let Some(budget) = self.limits.disk_budget_bytes {
            let held = self.store.size_bytes().saturating_add(self.reserved.load(Ordering::Relaxed));
            if held.saturating_add(bytes) > budget {
                return Err(RemoteError::Local(format!(
                    "expected {bytes} bytes to fit into registry.disk_budget_bytes ({budget}), of which {held} are \
                     taken; raise it, or serve fewer versions"
                )));
            }
        }
        let free = free_bytes(&self.partial).unwrap_or(u64::MAX);
        if bytes > free {
            return Err(RemoteError::Local(format!(
                "{}: expected {bytes} bytes to be free, got {free}; make room there",
                self.partial.display()
            )));
        }
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        Ok(Reserved { fetcher: self, bytes })
    }
}

/// Room that is given back when the fetch ends.
struct Reserved<'a> {
    fetcher: &'a Fetcher,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.fetcher.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Removes what a process that was killed left among the files: what it had renamed, or put beside them.
fn sweep(folder: &Path, prefix: &str, plan: &Plan) {
    for item in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", item.file_name().to_string_lossy());
        if item.path().is_dir() {
            sweep(&item.path(), &format!("{name}/"), plan);
        } else if !plan.files.iter().any(|file| file.path == name) {
            let _ = fs::remove_file(item.path());
        }
    }
}

fn free_bytes(path: &Path) -> Option<u64> {
    let status = rustix::fs::statvfs(path).ok()?;
    Some(status.f_bavail.saturating_mul(status.f_frsize))
}

pub(crate) fn create(folder: &Path) -> Result<(), RemoteError> {
    fs::create_dir_all(folder).map_err(ModelError::io(folder, "create the folder"))?;
    Ok(())
}

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RemoteError> + Send + 'static,
) -> Result<T, RemoteError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(RemoteError::Local(format!("a step ended early: {error}"))))
}
