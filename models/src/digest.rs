//! SHA-256 of files and of trees of files. Must not know where the files are kept.

use std::{
    fmt::{self, Write as _},
    fs::File,
    io::{self, Read},
    path::Path,
    str::FromStr,
};

use sha2::{Digest as _, Sha256};

use crate::error::ModelError;

/// Bytes read at a time: large enough that the system calls vanish beside the hashing.
pub(crate) const BUFFER_BYTES: usize = 1 << 20;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// One file of a tree, by its path relative to the tree's root (`/` between segments).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileEntry {
    /// Relative path.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Of the content.
    pub digest: Digest,
}

impl Digest {
    /// The digest of bytes at hand.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of a file, read in pieces.
    ///
    /// # Errors
    /// [`ModelError::Io`] when the file cannot be read.
    pub fn of_file(path: &Path) -> Result<Self, ModelError> {
        let mut file = File::open(path).map_err(ModelError::io(path, "open"))?;
        Self::of_reader(&mut file, |_| Ok(())).map(|(digest, _)| digest).map_err(ModelError::io(path, "read"))
    }

    /// The digest and length of everything that `reader` gives; `each` sees every piece as it passes.
    pub(crate) fn of_reader(
        reader: &mut dyn Read,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<(Self, u64)> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut size = 0;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok((Self(hasher.finalize().into()), size)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&buffer[..count]);
            each(&buffer[..count])?;
            size += count as u64;
        }
    }

    /// The digest of a tree: of its canonical text, one line `<sha256>  <size>  <path>` a file, sorted by path.
    #[must_use]
    pub fn of_tree(files: &[FileEntry]) -> Self {
        let mut sorted: Vec<&FileEntry> = files.iter().collect();
        sorted.sort();
        let mut text = String::new();
        for file in sorted {
            // Debug escapes line ends, so that no path can pass for two entries.
            let _ = writeln!(text, "{}  {}  {:?}", file.digest, file.size, file.path);
        }
        Self::of(text.as_bytes())
    }

    /// The first eight bytes, where a short number is enough.
    #[must_use]
    pub fn short(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 lower-case hexadecimal digits, got {0:?}")]
pub struct DigestError(String);

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let error = || DigestError(text.to_owned());
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(error());
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| error())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_print_and_parse() {
        let empty = Digest::of(b"");
        assert_eq!(empty.to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(empty.to_string().parse(), Ok(empty));
        for bad in ["", "e3b0", &"g".repeat(64), &"é".repeat(32), &"A".repeat(64)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tree_is_the_same_in_any_order_and_differs_in_names() {
        let entry = |path: &str| FileEntry { path: path.into(), size: 1, digest: Digest::of(b"x") };
        let tree = |paths: &[&str]| Digest::of_tree(&paths.iter().map(|p| entry(p)).collect::<Vec<_>>());
        assert_eq!(tree(&["a", "b"]), tree(&["b", "a"]));
        assert_ne!(tree(&["a", "b"]), tree(&["a", "c"]));
        assert_ne!(tree(&["a"]), tree(&["a", "b"]));
    }
}
