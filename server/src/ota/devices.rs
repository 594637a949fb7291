//! The devices of the fleet and their credentials, out of a file that is read again when it changes: a line each, with the
//! digest of its token, never the token. Must not know what a credential opens.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use gannet_models::scan::Stamp;
use sha2::{Digest as _, Sha256};

pub use super::plan::is_name;
use crate::respond::{Kind, Refusal};

/// Bytes of the file: about a hundred thousand devices.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Devices of a fleet.
const DEVICES_MAX: usize = 200_000;

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub id: String,
    /// What hardware and firmware it is.
    pub class: String,
}

/// All devices.
#[derive(Debug, Default)]
pub struct Fleet {
    /// In the file's order.
    pub devices: Vec<Arc<Device>>,
    by_digest: HashMap<[u8; 32], Arc<Device>>,
}

/// The file.
#[derive(Debug)]
pub struct DeviceFile {
    path: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    stamp: Stamp,
    fleet: Arc<Fleet>,
    /// The last failure that was logged.
    failure: String,
}

impl DeviceFile {
    /// Reads the file.
    ///
    /// # Errors
    /// A text: the line, expected and got.
    pub fn open(path: &Path) -> Result<Self, String> {
        let (stamp, fleet) = read(path)?;
        let read = Read { stamp, fleet: Arc::new(fleet), failure: String::new() };
        Ok(Self { path: path.to_owned(), read: Mutex::new(read) })
    }

    /// All devices as the file has them now. A file that cannot be read leaves those of before.
    #[must_use]
    pub fn fleet(&self) -> Arc<Fleet> {
        let mut held = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = fs::metadata(&self.path).ok().map(|metadata| Stamp::from(&metadata));
        if stamp == Some(held.stamp) {
            return Arc::clone(&held.fleet);
        }
        match read(&self.path) {
            Ok((stamp, fleet)) => {
                tracing::info!(devices = fleet.devices.len(), "the fleet was read again");
                *held = Read { stamp, fleet: Arc::new(fleet), failure: String::new() };
            }
            Err(why) if why != held.failure => {
                tracing::error!(why, "the fleet stays as it was");
                held.failure = why;
            }
            Err(_) => {}
        }
        Arc::clone(&held.fleet)
    }

    /// The device that a request comes from, by its `Authorization`.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`].
    pub fn check(&self, authorization: Option<&str>) -> Result<Arc<Device>, Refusal> {
        let token = authorization.and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        // looked up by digest: how long that takes says nothing of any token
        let found = token.and_then(|token| self.fleet().by_digest.get(&digest(token)).cloned());
        found.ok_or_else(|| {
            Refusal::new(
                Kind::Unauthenticated,
                "expected 'Authorization: Bearer <token>' of a device that is known here",
            )
        })
    }
}

/// The digest of a token. Tokens are random and long, so that a plain digest does.
#[must_use]
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The line of a device.
#[must_use]
pub fn line(device: &Device, token: &str) -> String {
    let hex: String = digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} {} sha256:{hex}", device.id, device.class)
}

fn read(path: &Path) -> Result<(Stamp, Fleet), String> {
    let place = path.display();
    let wrong = |error: std::io::Error| format!("ota.devices_file {place}: cannot be read: {error}");
    let metadata = fs::metadata(path).map_err(wrong)?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(format!(
            "ota.devices_file {place}: expected at most {FILE_BYTES_MAX} bytes, got {}",
            metadata.len()
        ));
    }
    let text = fs::read_to_string(path).map_err(wrong)?;
    Ok((Stamp::from(&metadata), parse(&text).map_err(|why| format!("ota.devices_file {place}: {why}"))?))
}

fn parse(text: &str) -> Result<Fleet, String> {
    let mut fleet = Fleet::default();
    let mut ids: HashMap<&str, usize> = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let (line, number) = (line.trim(), index + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let device = match words[..] {
            [id, class, token] if is_name(id) && is_name(class) => {
                token.strip_prefix("sha256:").and_then(hex).map(|digest| (id, class, digest))
            }
            _ => None,
        };
        let Some((id, class, digest)) = device else {
            return Err(format!(
                "line {number}: expected DEVICE CLASS sha256:<64 hexadecimal digits>, as `gannet ota token` prints it"
            ));
        };
        if let Some(other) = ids.insert(id, number) {
            return Err(format!("line {number}: expected each device once, got '{id}' in line {other} too"));
        }
        let device = Arc::new(Device { id: id.to_owned(), class: class.to_owned() });
        if fleet.by_digest.insert(digest, Arc::clone(&device)).is_some() {
            return Err(format!("line {number}: expected each token once, got that of another device"));
        }
        if fleet.devices.len() == DEVICES_MAX {
            return Err(format!("expected at most {DEVICES_MAX} devices, got more"));
        }
        fleet.devices.push(device);
    }
    Ok(fleet)
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_checked_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices");
        let device = |id: &str| Device { id: id.into(), class: "nano33".into() };
        fs::write(
            &path,
            format!("# fleet\n\n{}\n{}\n", line(&device("a"), "secret-a"), line(&device("b"), "secret-b")),
        )
        .unwrap();
        let file = DeviceFile::open(&path).unwrap();
        assert_eq!(*file.check(Some("Bearer secret-a")).unwrap(), device("a"));
        assert_eq!(*file.check(Some("bearer secret-b")).unwrap(), device("b"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("secret"), "tokens are not in the file");
        let stored = text.lines().nth(2).unwrap().rsplit(' ').next().unwrap();
        for bad in [
            "Bearer secret-",
            "Bearer secret-aa",
            "Basic secret-a",
            "secret-a",
            "Bearer ",
            &format!("Bearer {stored}"),
        ] {
            assert_eq!(file.check(Some(bad)).unwrap_err().kind, Kind::Unauthenticated, "{bad}");
        }
        assert!(file.check(None).is_err());
        fs::write(&path, format!("{}\n", line(&device("c"), "secret-c"))).unwrap();
        assert!(file.check(Some("Bearer secret-a")).is_err());
        assert_eq!(file.check(Some("Bearer secret-c")).unwrap().id, "c");
        fs::write(&path, "nonsense\n").unwrap();
        assert!(file.check(Some("Bearer secret-c")).is_ok(), "a fault leaves what was");
        assert_eq!(file.fleet().devices.len(), 1);
    }

    #[test]
    fn faults_name_the_line() {
        let digest = "0".repeat(64);
        let check = |text: &str, part: &str| {
            let why = parse(text).unwrap_err();
            assert!(why.contains(part), "{why}");
        };
        check("a b\n", "line 1: expected DEVICE CLASS");
        check(&format!("\na b sha256:{}\n", &digest[1..]), "line 2");
        check("a b sha256:zz", "line 1");
        check("a b secret", "line 1");
        check(&format!("a b sha256:{digest}\na b sha256:{}", "1".repeat(64)), "'a' in line 1 too");
        check(&format!("a b sha256:{digest}\nc b sha256:{digest}"), "each token once");
    }
}
