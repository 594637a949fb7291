//! The logs of rollouts in the state folder: a file each, to which whole lines are only ever added, each on the disk
//! before it is acted on. Must not know what is decided.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use gannet_runtime::control::rollout::{Plan, audit::Record};
use serde::{Deserialize, Serialize};

/// The form of the files; another release may have another.
const FORMAT: u32 = 1;

/// What to do about a log that cannot be used.
const ADVICE: &str = "put back a copy that is whole, or move the file away: the rollout is then forgotten";

/// The first line of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    rollout: u64,
    plan: Plan,
}

/// A whole log.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutLog {
    /// The rollout's number.
    pub id: u64,
    /// What is to be done.
    pub plan: Plan,
    /// What was decided, in order; at least one.
    pub records: Vec<Record>,
}

/// The folder of the logs.
#[derive(Debug, Clone)]
pub struct Logs {
    folder: PathBuf,
}

/// A log that is added to.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    file: File,
}

impl Logs {
    /// The logs of a state folder.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("rollouts") }
    }

    /// The file of a rollout.
    #[must_use]
    pub fn path(&self, id: u64) -> PathBuf {
        self.folder.join(format!("{id}.jsonl"))
    }

    /// The numbers of all rollouts, ascending.
    pub(super) fn ids(&self) -> Result<Vec<u64>, String> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(format!("{} cannot be read: {error}", self.folder.display())),
        };
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".jsonl")?.parse().ok();
        let mut ids: Vec<u64> = entries.flatten().filter_map(number).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Begins a log.
    pub(super) fn create(&self, id: u64, plan: &Plan, first: &Record) -> io::Result<LogWriter> {
        fs::create_dir_all(&self.folder)?;
        let path = self.path(id);
        let file = File::options().write(true).create_new(true).open(&path)?;
        let mut writer = LogWriter { path, file };
        let header = Header { format: FORMAT, rollout: id, plan: plan.clone() };
        let mut lines = serde_json::to_vec(&header)?;
        lines.push(b'\n');
        serde_json::to_writer(&mut lines, first)?;
        let begun = writer.add(lines).and_then(|()| File::open(&self.folder)?.sync_all());
        if begun.is_err() {
            // what was refused must not come back after a restart
            let _ = fs::remove_file(&writer.path);
        }
        begun.map(|()| writer)
    }

    /// Goes on with a log. What a crash left of a line is cut off: it was never acted on.
    pub(super) fn open(&self, id: u64) -> Result<(RolloutLog, LogWriter), String> {
        let path = self.path(id);
        let named = |error: io::Error| format!("{}: {error}", path.display());
        let (log, whole) = read(&path)?;
        let file = File::options().write(true).open(&path).map_err(named)?;
        if file.metadata().map_err(named)?.len() > whole {
            tracing::warn!(path = %path.display(), "a line that was not whole is cut off");
            file.set_len(whole).and_then(|()| file.sync_all()).map_err(named)?;
        }
        let mut writer = LogWriter { path: path.clone(), file };
        writer.file.seek(SeekFrom::End(0)).map_err(named)?;
        Ok((log, writer))
    }
}

impl LogWriter {
    /// Adds a record; it is on the disk when this returns, or it is not there at all.
    pub(super) fn append(&mut self, record: &Record) -> io::Result<()> {
        self.add(serde_json::to_vec(record)?)
    }

    fn add(&mut self, mut lines: Vec<u8>) -> io::Result<()> {
        lines.push(b'\n');
        let before = self.file.stream_position()?;
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // a part of a line would make the next one unreadable
            let _ = self.file.set_len(before);
            self.file.seek(SeekFrom::Start(before))?;
        }
        written
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a log, and how many of its bytes are whole lines.
fn read(path: &Path) -> Result<(RolloutLog, u64), String> {
    let place = path.display();
    let file = File::open(path).map_err(|error| format!("{place} cannot be read: {error}"))?;
    let mut lines = BufReader::new(file);
    let (mut whole, mut number) = (0, 0);
    let mut next = || -> Result<Option<(usize, Vec<u8>)>, String> {
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line).map_err(|error| format!("{place} cannot be read: {error}"))?;
        if line.last() != Some(&b'\n') {
            return Ok(None);
        }
        whole += line.len() as u64;
        number += 1;
        Ok(Some((number, line)))
    };
    let wrong = |number: usize, what: &str, error: &dyn std::fmt::Display| {
        format!("{place}: line {number}: expected {what}: {error}; {ADVICE}")
    };
    let Some((_, line)) = next()? else {
        return Err(wrong(1, "a rollout's plan", &"the file has no whole line"));
    };
    let header: Header =
        serde_json::from_slice(&line).map_err(|error| wrong(1, "a rollout's plan", &error))?;
    if header.format != FORMAT {
        return Err(wrong(1, &format!("format {FORMAT}"), &format!("got {}", header.format)));
    }
    let mut records: Vec<Record> = Vec::new();
    while let Some((number, line)) = next()? {
        records.push(serde_json::from_slice(&line).map_err(|error| wrong(number, "a record", &error))?);
    }
    if records.is_empty() {
        return Err(wrong(2, "the record of the start", &"the file ends"));
    }
    Ok((RolloutLog { id: header.rollout, plan: header.plan, records }, whole))
}

impl RolloutLog {
    /// Reads a log.
    ///
    /// # Errors
    /// A text with the path, the line, and what to do.
    pub fn read(path: &Path) -> Result<Self, String> {
        read(path).map(|(log, _)| log)
    }
}

#[cfg(test)]
mod tests {
    use gannet_models::{ModelName, Version};
    use gannet_runtime::control::rollout::{
        Command, PlanFile,
        audit::{Input, step},
    };

    use super::*;

    fn begin(logs: &Logs) -> (Plan, Record, LogWriter) {
        let file = PlanFile { candidate: "2".into(), ..PlanFile::default() };
        let plan = Plan::new(&ModelName::new("m").unwrap(), &Version::new("1").unwrap(), &file).unwrap();
        let first = step(&plan, None, (1, "ada"), Input::Start(None)).unwrap();
        let writer = logs.create(7, &plan, &first).unwrap();
        (plan, first, writer)
    }

    #[test]
    fn what_is_added_is_read_and_a_torn_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path());
        assert!(logs.ids().unwrap().is_empty());
        let (plan, first, mut writer) = begin(&logs);
        let second = step(&plan, Some(&first), (2, "ada"), Input::Command(Command::Pause)).unwrap();
        writer.append(&second).unwrap();
        drop(writer);
        let expected = RolloutLog { id: 7, plan: plan.clone(), records: vec![first, second.clone()] };
        assert_eq!((logs.ids().unwrap(), logs.open(7).unwrap().0), (vec![7], expected.clone()));
        let whole = fs::read(logs.path(7)).unwrap();
        for torn in [&b"{\"sequence\":2,"[..], b"{", b"{}"] {
            fs::write(logs.path(7), [&whole[..], torn].concat()).unwrap();
            let (log, mut writer) = logs.open(7).unwrap();
            assert_eq!(log, expected);
            let third = step(&plan, Some(&second), (3, "ada"), Input::Command(Command::Resume)).unwrap();
            writer.append(&third).unwrap();
            assert_eq!(RolloutLog::read(&logs.path(7)).unwrap().records.len(), 3);
        }
    }

    #[test]
    fn a_log_that_cannot_be_used_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path());
        begin(&logs);
        let whole = fs::read_to_string(logs.path(7)).unwrap();
        let check = |text: &str, part: &str| {
            fs::write(logs.path(7), text).unwrap();
            let why = logs.open(7).unwrap_err();
            assert!(why.contains("7.jsonl") && why.contains(part) && why.contains(ADVICE), "{why}");
        };
        check("", "no whole line");
        check("{}\n", "line 1: expected a rollout's plan");
        check(&whole.replacen("\"format\":1", "\"format\":2", 1), "expected format 1: got 2");
        check(&format!("{whole}{{}}\n"), "line 3: expected a record");
        check(&format!("{}\n", whole.lines().next().unwrap()), "line 2: expected the record of the start");
    }
}
