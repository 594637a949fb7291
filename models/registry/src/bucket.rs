//! A bucket of an object store for others of this process to keep things in, call by call and blocking. Must not know
//! what is kept.

use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicU64};

use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::{
    RemoteError,
    http::Secrets,
    s3::{Object, Objects, S3Options},
};

/// Objects of one listing.
const OBJECTS_MAX: usize = 10_000_000;
/// Bytes of an object that is read as a whole.
const OBJECT_BYTES_MAX: usize = 1 << 30;

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketItem {
    /// Its key, below the prefix.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
}

/// A bucket, below a prefix. Calls block: never from an event loop.
#[derive(Debug)]
pub struct Bucket {
    objects: Objects,
    bucket: String,
    prefix: String,
    runtime: Mutex<Runtime>,
}

impl Bucket {
    /// The bucket at an endpoint (`None`: Amazon's). Settings are called as the environment calls them (`aws_region`).
    ///
    /// # Errors
    /// [`RemoteError`]: an endpoint or credentials that cannot be used.
    pub fn open(
        (bucket, prefix): (&str, &str),
        endpoint: Option<String>,
        secrets: Secrets,
        settings: Vec<(String, String)>,
    ) -> Result<Self, RemoteError> {
        let requests = Arc::new(AtomicU64::new(0));
        let options = S3Options { endpoint, plain: false, settings, secrets, requests };
        let objects = Objects::new(bucket, &options)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| RemoteError::Local(format!("no event loop: {error}")))?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{}/", prefix.trim_matches('/')) };
        Ok(Self { objects, bucket: bucket.to_owned(), prefix, runtime: Mutex::new(runtime) })
    }

    /// How people call it.
    #[must_use]
    pub fn place(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix.trim_end_matches('/'))
    }

    fn wait<T>(&self, asked: impl Future<Output = T>) -> T {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner).block_on(asked)
    }

    /// Everything below a prefix, by key.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn list(&self, prefix: &str) -> Result<Vec<BucketItem>, RemoteError> {
        let whole = format!("{}{prefix}", self.prefix);
        let found = self.wait(self.objects.list(whole.trim_end_matches('/'), OBJECTS_MAX))?;
        let item = |object: Object| {
            let key = object.key.strip_prefix(&self.prefix)?.to_owned();
            Some(BucketItem { key, size: object.size, modified_ms: object.modified_ms })
        };
        Ok(found.into_iter().filter_map(item).collect())
    }

    /// An object; `None` when it is not there.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn read(&self, key: &str) -> Result<Option<Bytes>, RemoteError> {
        match self.wait(self.objects.get(&format!("{}{key}", self.prefix), OBJECT_BYTES_MAX)) {
            Ok(content) => Ok(Some(content)),
            Err(RemoteError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes an object over whatever is there.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn put(&self, key: &str, content: Bytes) -> Result<(), RemoteError> {
        self.wait(self.objects.put(&format!("{}{key}", self.prefix), content))
    }

    /// Writes an object that must not be there yet; whether it was not.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn create(&self, key: &str, content: Bytes) -> Result<bool, RemoteError> {
        self.wait(self.objects.create(&format!("{}{key}", self.prefix), content))
    }

    /// Removes an object. That it is not there is no error.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn delete(&self, key: &str) -> Result<(), RemoteError> {
        self.wait(self.objects.delete(&format!("{}{key}", self.prefix)))
    }
}
