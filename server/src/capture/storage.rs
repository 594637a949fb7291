//! Where tables lie, by what the configuration says: a folder, or a bucket. Must not know tables.

use std::sync::Arc;

use bytes::Bytes;
use gannet_capture::{CaptureError, Local, Storage, storage::Item};
use gannet_registry::{RemoteError, Secret, bucket::Bucket};

use crate::config::{CaptureSettings, Root};

struct InBucket(Bucket);

/// Opens it; nothing is asked of a store yet.
///
/// # Errors
/// A text: what cannot be used.
pub(crate) fn open(root: &Root, settings: &CaptureSettings) -> Result<Arc<dyn Storage>, String> {
    let (bucket, prefix) = match root {
        Root::Folder(folder) => return Ok(Arc::new(Local::new(folder))),
        Root::Bucket { bucket, prefix } => (bucket, prefix),
    };
    let credentials = settings.credentials.clone();
    let secrets = Arc::new(move || {
        let Some(named) = &credentials else { return Ok(None) };
        named.read().map(|text| Some(Secret::parse(&text)))
    });
    let stores = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str()?.strip_prefix("AWS_")?.to_ascii_lowercase();
        Some((format!("aws_{name}"), value.into_string().ok()?))
    });
    let bucket = Bucket::open((bucket, prefix), settings.endpoint.clone(), secrets, stores.collect());
    Ok(Arc::new(InBucket(bucket.map_err(|error| error.to_string())?)))
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn failed(error: RemoteError) -> CaptureError {
    CaptureError::Store(error.to_string())
}

impl Storage for InBucket {
    fn place(&self) -> String {
        self.0.place()
    }

    fn list(&self, prefix: &str) -> Result<Vec<Item>, CaptureError> {
        let items = self.0.list(prefix).map_err(failed)?.into_iter();
        Ok(items.map(|item| Item { key: item.key, size: item.size, modified_ms: item.modified_ms }).collect())
    }

    fn read(&self, key: &str) -> Result<Option<Bytes>, CaptureError> {
        self.0.read(key).map_err(failed)
    }

    fn put(&self, key: &str, content: Bytes) -> Result<(), CaptureError> {
        self.0.put(key, content).map_err(failed)
    }

    fn create(&self, key: &str, content: Bytes) -> Result<bool, CaptureError> {
        self.0.create(key, content).map_err(failed)
    }

    fn delete(&self, key: &str) -> Result<(), CaptureError> {
        self.0.delete(key).map_err(failed)
    }
}
