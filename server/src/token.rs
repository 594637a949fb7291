//! Bearer tokens out of a file that is read again when it changes. Must not know what they open.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use gannet_models::scan::Stamp;
use gannet_runtime::clock;

use crate::respond::{Kind, Refusal};

/// Bytes of a token file.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A file of tokens, one a line; empty lines and lines that begin with `#` do not count.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    /// Time between two looks at the file.
    pause: Duration,
    looked: AtomicU64,
    held: ArcSwap<Held>,
}

/// What was read last.
#[derive(Debug)]
struct Held {
    /// `None`: the file could not be looked at.
    stamp: Option<Stamp>,
    tokens: Result<Vec<String>, String>,
}

impl TokenFile {
    /// Tokens of that file, which is looked at now, and then at most once in `pause`.
    #[must_use]
    pub fn new(path: PathBuf, pause: Duration) -> Self {
        let file =
            Self { path, pause, looked: AtomicU64::new(0), held: ArcSwap::from_pointee(Held::nothing()) };
        file.look();
        file
    }

    /// Whether an `Authorization` header holds one of the tokens.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`], also while the file cannot be read.
    pub fn check(&self, authorization: Option<&str>) -> Result<(), Refusal> {
        let refuse = |message: &'static str| Refusal::new(Kind::Unauthenticated, message);
        let Some(given) = authorization.and_then(bearer) else {
            return Err(refuse("this server wants a token; send the header 'Authorization: Bearer <token>'"));
        };
        let (now, looked) = (clock::now().as_ns(), self.looked.load(Ordering::Relaxed));
        let due = now.saturating_sub(looked) >= self.pause.as_nanos() as u64;
        // one looks, and whoever comes meanwhile goes by what is known
        if due && self.looked.compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.look();
        }
        let held = self.held.load();
        let Ok(tokens) = &held.tokens else {
            return Err(refuse("the server cannot read its token file; its log says why"));
        };
        // all are compared, so that the time tells nothing about which one fits
        let matches =
            tokens.iter().fold(false, |found, token| found | same(token.as_bytes(), given.as_bytes()));
        if matches { Ok(()) } else { Err(refuse("the token is not one that this server knows")) }
    }

    /// Reads the file, if it is another than the one that was read.
    fn look(&self) {
        let held = self.held.load();
        let stamp = fs::metadata(&self.path).map(|metadata| Stamp::from(&metadata)).ok();
        if stamp.is_some() && stamp == held.stamp {
            return;
        }
        let tokens = read_tokens(&self.path).map_err(|error| error.to_string());
        if let Err(error) = &tokens
            && held.tokens.as_ref().err() != Some(error)
        {
            tracing::error!(path = %self.path.display(), error, "no tokens; every request that needs one is refused");
        }
        // what could not be read is tried again, for leave to read is no change of the file
        let stamp = stamp.filter(|_| tokens.is_ok());
        self.held.store(Arc::new(Held { stamp, tokens }));
    }
}

impl Held {
    fn nothing() -> Self {
        Self { stamp: None, tokens: Err(String::new()) }
    }
}

/// The tokens of a file.
///
/// # Errors
/// When it cannot be read, is too large, or holds none.
pub fn read_tokens(path: &Path) -> io::Result<Vec<String>> {
    let other = |message: String| io::Error::other(message);
    let size = fs::metadata(path)?.len();
    if size > FILE_BYTES_MAX {
        return Err(other(format!("it has {size} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    let text = fs::read_to_string(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let tokens: Vec<String> = lines.map(str::to_owned).collect();
    if tokens.is_empty() { Err(other("it holds no token; write one a line".into())) } else { Ok(tokens) }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares in a time that depends on the lengths alone.
fn same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)));
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_checked_and_read_again() {
        let path = std::env::temp_dir().join(format!("gannet-tokens-{}", std::process::id()));
        fs::write(&path, "# old\nsecret-1\n\n secret-22 \n").unwrap();
        let tokens = TokenFile::new(path.clone(), Duration::ZERO);
        let check = |header: Option<&str>, expected: bool| {
            assert_eq!(tokens.check(header).is_ok(), expected, "{header:?}");
        };
        check(Some("Bearer secret-1"), true);
        check(Some("bearer secret-22"), true);
        for bad in
            ["Bearer secret-2", "Bearer secret-222", "Bearer ", "Bearer # old", "Basic secret-1", "secret-1"]
        {
            check(Some(bad), false);
        }
        check(None, false);
        fs::write(&path, "another\n").unwrap();
        check(Some("Bearer secret-1"), false);
        check(Some("Bearer another"), true);
        fs::remove_file(&path).unwrap();
        check(Some("Bearer another"), false);
    }
}
