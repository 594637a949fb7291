//! What must survive a crash, in the folder `ota` of the state: the rollouts (replaced as a whole), the devices' records and
//! the audit log (whole lines only ever added). Must not know what any of it means.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::decide::Rollout;

/// The form of the files; another release may have another.
const FORMAT: u32 = 1;
/// What to do about a file that cannot be used.
const ADVICE: &str = "put back a copy that is whole, or move it away to begin without what it held";

/// All rollouts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saved {
    format: u32,
    /// The number of the next rollout.
    pub next_id: u64,
    /// The oldest first.
    pub rollouts: Vec<Rollout>,
}

impl Default for Saved {
    fn default() -> Self {
        Self { format: FORMAT, next_id: 1, rollouts: Vec::new() }
    }
}

/// The folder, which one process has at a time.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    #[expect(dead_code, reason = "the lock goes with the file")]
    lock: File,
}

impl Files {
    /// Takes the folder.
    ///
    /// # Errors
    /// A text, when it cannot be made or another process has it.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, String> {
        let folder = state_dir.join("ota");
        let named = |error: io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(&folder).map_err(named)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lock"))
            .map_err(named)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder, lock }),
            Err(TryLockError::WouldBlock) => Err(format!(
                "{}: another process delivers from this state folder; give this one another with --state, or leave \
                 ota.listen out",
                folder.display()
            )),
            Err(TryLockError::Error(error)) => Err(named(error)),
        }
    }

    /// The path of a file or folder in it.
    #[must_use]
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The rollouts; none where there is no file.
    ///
    /// # Errors
    /// A text with the path and what to do.
    pub(crate) fn rollouts(&self) -> Result<Saved, String> {
        let saved: Saved = self.read("rollouts.json")?.unwrap_or_default();
        if saved.format != FORMAT {
            let path = self.path("rollouts.json");
            return Err(format!(
                "{}: expected format {FORMAT}, got {}; {ADVICE}",
                path.display(),
                saved.format
            ));
        }
        Ok(saved)
    }

    /// Reads a file of JSON.
    ///
    /// # Errors
    /// As [`Files::rollouts`].
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        let path = self.path(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
        };
        let read = serde_json::from_slice(&bytes);
        read.map(Some).map_err(|error| format!("{}: {error}; {ADVICE}", path.display()))
    }

    /// Replaces a file; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written; the one before is still there then.
    pub(crate) fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let beside = self.path(&format!("{name}.new"));
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        fs::rename(&beside, self.path(name))?;
        File::open(&self.folder)?.sync_all()
    }

    /// Opens a file of lines, and gives what they hold.
    ///
    /// # Errors
    /// A text with the path, the line and what to do.
    pub(crate) fn lines<T: DeserializeOwned>(&self, name: &str) -> Result<(Vec<T>, Lines), String> {
        Lines::open(&self.path(name))
    }

    /// Replaces a file of lines.
    ///
    /// # Errors
    /// When it cannot be written; the one before is still there then.
    pub(crate) fn rewrite<T: Serialize>(
        &self,
        name: &str,
        values: impl Iterator<Item = T>,
    ) -> io::Result<Lines> {
        let beside = self.path(&format!("{name}.new"));
        let mut file = File::create(&beside)?;
        let mut count = 0;
        let mut text = Vec::new();
        for value in values {
            serde_json::to_writer(&mut text, &value)?;
            text.push(b'\n');
            count += 1;
        }
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, self.path(name))?;
        File::open(&self.folder)?.sync_all()?;
        Ok(Lines { file, count })
    }
}

/// A file to which whole lines are added.
#[derive(Debug)]
pub(crate) struct Lines {
    file: File,
    /// How many it has.
    pub count: usize,
}

impl Lines {
    fn open<T: DeserializeOwned>(path: &Path) -> Result<(Vec<T>, Self), String> {
        let named = |error: io::Error| format!("{}: {error}", path.display());
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(named)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(named)?;
        // what a crash left of a line was never acted on
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if whole < bytes.len() {
            tracing::warn!(path = %path.display(), "a line that was not whole is cut off");
            file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(named)?;
        }
        file.seek(SeekFrom::End(0)).map_err(named)?;
        let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let read = lines.enumerate().map(|(index, line)| {
            serde_json::from_slice(line)
                .map_err(|error| format!("{}: line {}: {error}; {ADVICE}", path.display(), index + 1))
        });
        let values = read.collect::<Result<Vec<T>, String>>()?;
        Ok((values, Self { file, count: bytes[..whole].iter().filter(|byte| **byte == b'\n').count() }))
    }

    /// Adds lines; they are on the disk when this returns, or not there at all.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn add<T: Serialize>(&mut self, values: &[T]) -> io::Result<()> {
        let mut text = Vec::new();
        for value in values {
            serde_json::to_writer(&mut text, value)?;
            text.push(b'\n');
        }
        let before = self.file.stream_position()?;
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // a part of a line would make the next one unreadable
            let _ = self.file.set_len(before);
            self.file.seek(SeekFrom::Start(before))?;
        } else {
            self.count += values.len();
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ota::plan::tests::plan;

    #[test]
    fn what_is_written_is_read_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path()).unwrap();
        assert!(Files::open(folder.path()).unwrap_err().contains("another process"));
        assert_eq!(files.rollouts().unwrap(), Saved::default());
        let mut saved = Saved { next_id: 8, ..Saved::default() };
        saved.rollouts.push(Rollout::new(7, plan(|_| {}), ("m", 3), 5));
        files.write("rollouts.json", &saved).unwrap();
        assert_eq!(files.rollouts().unwrap(), saved);
        let (none, mut lines) = files.lines::<u64>("log.jsonl").unwrap();
        assert!(none.is_empty());
        lines.add(&[1, 2]).unwrap();
        let whole = fs::read(files.path("log.jsonl")).unwrap();
        for torn in ["3", "", "{\"a\":"] {
            fs::write(files.path("log.jsonl"), [&whole[..], torn.as_bytes()].concat()).unwrap();
            let (read, mut lines) = files.lines::<u64>("log.jsonl").unwrap();
            assert_eq!((read, lines.count), (vec![1, 2], 2));
            lines.add(&[9]).unwrap();
            assert_eq!(files.lines::<u64>("log.jsonl").unwrap().0, [1, 2, 9]);
        }
        let mut lines = files.rewrite("log.jsonl", [4, 5].into_iter()).unwrap();
        lines.add(&[6]).unwrap();
        assert_eq!(files.lines::<u64>("log.jsonl").unwrap().0, [4, 5, 6]);
        fs::write(files.path("log.jsonl"), "1\nx\n").unwrap();
        assert!(files.lines::<u64>("log.jsonl").unwrap_err().contains("line 2"));
        fs::write(files.path("rollouts.json"), "{\"format\":2,\"next_id\":1,\"rollouts\":[]}").unwrap();
        assert!(files.rollouts().unwrap_err().contains("expected format 1, got 2"));
        drop(files);
        assert!(Files::open(folder.path()).is_ok());
    }
}
