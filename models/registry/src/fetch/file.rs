//! One file of a fetch: goes on where it stopped, and counts once its size and digest are right. Must not know the
//! other files.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use gannet_models::{Digest, ModelError, fault};
use sha2::Digest as _;

use super::{Fetcher, Progress, blocking, create};
use crate::{
    RemoteError, backoff,
    kind::Kind,
    opened::PIECE_BYTES,
    package::{Check, PlannedFile, too_large},
};

/// Tries in a row that bring no byte.
const IDLE_TRIES_MAX: u32 = 4;

/// One file to fetch.
pub(super) struct Job<'a> {
    pub(super) planned: &'a PlannedFile,
    pub(super) index: usize,
    pub(super) folder: &'a Path,
    pub(super) progress: &'a Progress,
}

struct Paths {
    target: PathBuf,
    part: PathBuf,
    etag: PathBuf,
}

impl Fetcher {
    /// Downloads one file, unless it is here already.
    pub(super) async fn download(&self, kind: &Kind, job: &Job<'_>) -> Result<(), RemoteError> {
        let parts = job.folder.join("parts");
        let paths = Paths {
            target: job.folder.join("files").join(&job.planned.path),
            part: parts.join(job.index.to_string()),
            etag: parts.join(format!("{}.etag", job.index)),
        };
        let what = format!("file '{}'", job.planned.path);
        if paths.target.exists() {
            if checked(job.planned, &paths.target).await.is_ok() {
                job.progress.add(job.planned.size.unwrap_or(0));
                return Ok(());
            }
            fs::remove_file(&paths.target).map_err(ModelError::io(&paths.target, "remove"))?;
        }
        let resumed = self.receive(kind, job, &paths).await.map_err(|error| error.during(&what))?;
        let mut good = checked(job.planned, &paths.part).await;
        if good.is_err() {
            forget(&paths, job.progress);
            if resumed {
                // two halves of different contents, perhaps: once more from the start
                self.receive(kind, job, &paths).await.map_err(|error| error.during(&what))?;
                good = checked(job.planned, &paths.part).await;
                if good.is_err() {
                    forget(&paths, job.progress);
                }
            }
        }
        good.map_err(|error| error.during(&what))?;
        if let Some(parent) = paths.target.parent() {
            create(parent)?;
        }
        fs::rename(&paths.part, &paths.target)
            .map_err(ModelError::io(&paths.target, "move the download to"))?;
        let _ = fs::remove_file(&paths.etag);
        fault::point("file");
        Ok(())
    }

    /// Brings the part to its full length; whether any of it was there before.
    async fn receive(&self, kind: &Kind, job: &Job<'_>, paths: &Paths) -> Result<bool, RemoteError> {
        let before = length(&paths.part);
        job.progress.add(before);
        let mut idle_tries = 0;
        loop {
            let start = length(&paths.part);
            if job.planned.size == Some(start) {
                if start == 0 {
                    File::create(&paths.part).map_err(ModelError::io(&paths.part, "create"))?;
                }
                return Ok(before > 0);
            }
            match self.receive_some(kind, job, paths, start).await {
                Ok(()) if planned_end(job, &paths.part) => return Ok(before > 0),
                // a store that gives large files in parts
                Ok(()) if length(&paths.part) > start => {}
                Ok(()) => return Err(RemoteError::Down(format!("broke off after {start} bytes"))),
                Err(error @ (RemoteError::Down(_) | RemoteError::Busy { .. })) => {
                    idle_tries = if length(&paths.part) > start { 0 } else { idle_tries + 1 };
                    if idle_tries >= IDLE_TRIES_MAX {
                        return Err(error);
                    }
                    let wait =
                        backoff::after_failure(idle_tries.max(1), error.retry_after(), crate::chance());
                    tokio::time::sleep(wait.min(Duration::from_secs(10))).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One connection's worth.
    async fn receive_some(
        &self,
        kind: &Kind,
        job: &Job<'_>,
        paths: &Paths,
        start: u64,
    ) -> Result<(), RemoteError> {
        let planned = job.planned;
        let _slot = self.slots.acquire().await.map_err(|_| RemoteError::Local("shutting down".to_owned()))?;
        let known = fs::read_to_string(&paths.etag).ok().filter(|_| start > 0);
        let opened = kind.open(planned, start, known.as_deref()).await?;
        let changed = known.is_some() && opened.etag.is_some() && known != opened.etag;
        if changed && opened.offset > 0 {
            forget(paths, job.progress);
            return Err(RemoteError::Down(
                "changed at the registry meanwhile; it is fetched again".to_owned(),
            ));
        }
        let mut options = File::options();
        let mut file = if opened.offset == start {
            options.create(true).append(true).open(&paths.part)
        } else {
            job.progress.take(start);
            options.create(true).write(true).truncate(true).open(&paths.part)
        }
        .map_err(ModelError::io(&paths.part, "open"))?;
        if let Some(etag) = &opened.etag {
            fs::write(&paths.etag, etag).map_err(ModelError::io(&paths.etag, "write"))?;
        }
        let mut written = opened.offset;
        let bound = planned.size.unwrap_or(self.limits.package.bytes_max);
        let mut pieces = opened.pieces;
        while let Some(piece) = pieces.next().await? {
            self.rate.take(piece.len()).await;
            let size = written + piece.len() as u64;
            let total = job.progress.bytes_done.load(Ordering::Relaxed) + piece.len() as u64;
            if size > bound || (planned.size.is_none() && total > self.limits.package.bytes_max) {
                forget(paths, job.progress);
                return Err(match planned.size {
                    Some(expected) => {
                        RemoteError::Unusable(format!("expected {expected} bytes, got more; it is refused"))
                    }
                    None => too_large(self.limits.package.bytes_max, "more"),
                });
            }
            file.write_all(&piece).map_err(ModelError::io(&paths.part, "write"))?;
            written = size;
            job.progress.add(piece.len() as u64);
            fault::point("piece");
        }
        Ok(())
    }
}

/// Whether a part is as long as planned.
fn planned_end(job: &Job<'_>, part: &Path) -> bool {
    job.planned.size.is_none_or(|size| length(part) >= size)
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn forget(paths: &Paths, progress: &Progress) {
    progress.take(length(&paths.part));
    let _ = fs::remove_file(&paths.part);
    let _ = fs::remove_file(&paths.etag);
}

/// Whether a file is what was planned.
async fn checked(planned: &PlannedFile, path: &Path) -> Result<(), RemoteError> {
    let (planned, path) = (planned.clone(), path.to_owned());
    blocking(move || {
        let size = length(&path);
        if let Some(expected) = planned.size.filter(|expected| *expected != size) {
            return Err(RemoteError::Unusable(format!(
                "expected {expected} bytes, got {size}; it is refused"
            )));
        }
        let (name, expected, got) = match &planned.check {
            Check::Size => return Ok(()),
            Check::Sha256(expected) => ("sha256", expected, Digest::of_file(&path)?.to_string()),
            Check::Md5(expected) => ("md5", expected, hashed(md5::Md5::new(), &path)?),
            Check::GitBlob(expected) => {
                let mut hasher = sha1::Sha1::new();
                hasher.update(format!("blob {size}\0"));
                ("git blob", expected, hashed(hasher, &path)?)
            }
        };
        if *expected == got {
            return Ok(());
        }
        Err(RemoteError::Unusable(format!("expected {name} {expected}, got {got}; it is refused")))
    })
    .await
}

fn hashed<H: sha2::Digest>(mut hasher: H, path: &Path) -> Result<String, RemoteError> {
    let mut file = File::open(path).map_err(ModelError::io(path, "open"))?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece).map_err(ModelError::io(path, "read"))? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => hasher.update(&piece[..count]),
        }
    }
}
