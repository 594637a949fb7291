//! A file at a registry, open: its bytes as they come, whichever way. Must not know what they are, or where they go.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};

use crate::{RemoteError, error::causes};

/// Bytes read at once from a file nearby.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
/// Time without a byte.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// A file at a registry, open from some offset on.
pub(crate) struct Opened {
    pub(crate) pieces: Pieces,
    /// Where the first piece belongs: the offset that was asked for, or 0.
    pub(crate) offset: u64,
    /// Changes with the content.
    pub(crate) etag: Option<String>,
}

/// Content as it comes.
pub(crate) enum Pieces {
    Http(reqwest::Response),
    Object(BoxStream<'static, object_store::Result<Bytes>>),
    File(File),
}

impl Pieces {
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, RemoteError> {
        let next = async {
            match self {
                Self::Http(response) => response
                    .chunk()
                    .await
                    .map_err(|error| RemoteError::Down(format!("broke off: {}", causes(&error)))),
                Self::Object(stream) => stream
                    .next()
                    .await
                    .transpose()
                    .map_err(|error| RemoteError::Down(format!("broke off: {}", causes(&error)))),
                Self::File(file) => {
                    let mut piece = vec![0; PIECE_BYTES];
                    let count = file
                        .read(&mut piece)
                        .map_err(|error| RemoteError::Down(format!("broke off: {error}")))?;
                    piece.truncate(count);
                    Ok(Some(Bytes::from(piece)).filter(|piece| !piece.is_empty()))
                }
            }
        };
        let late = || RemoteError::Down(format!("no byte for {} s", IDLE_TIME_MAX.as_secs()));
        tokio::time::timeout(IDLE_TIME_MAX, next).await.unwrap_or_else(|_| Err(late()))
    }
}

/// A local file from `offset` on.
pub(crate) fn open_file(path: &Path, offset: u64) -> Result<Opened, RemoteError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => RemoteError::Missing(format!("{}: {error}", path.display())),
        _ => RemoteError::Down(format!("{}: {error}", path.display())),
    };
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    Ok(Opened { pieces: Pieces::File(file), offset, etag: None })
}
