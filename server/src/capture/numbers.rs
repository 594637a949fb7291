//! The numbers of rows, over restarts: a file says from where to go on. While the server runs it names numbers far ahead,
//! so that rows which a crash lost leave a gap; at the end it names the next. Must not know rows.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use gannet_models::ModelName;

/// Numbers that are set aside: more than one model's rows between two writes of the file.
const AHEAD: u64 = 1_000_000;

/// The file.
#[derive(Debug)]
pub(super) struct Numbers {
    path: PathBuf,
    /// From where each model goes on after a crash.
    set_aside: BTreeMap<ModelName, u64>,
}

impl Numbers {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = folder.join("numbers.json");
        let set_aside = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                io::Error::other(format!(
                    "{}: {error}; remove it, and rows are counted from 0 again",
                    path.display()
                ))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(io::Error::other(format!("{}: {error}", path.display()))),
        };
        Ok(Self { path, set_aside })
    }

    /// From where each model goes on.
    pub(super) fn all(&self) -> impl Iterator<Item = (&ModelName, u64)> {
        self.set_aside.iter().map(|(model, next)| (model, *next))
    }

    fn of(&self, model: &ModelName) -> u64 {
        self.set_aside.get(model).copied().unwrap_or(0)
    }

    /// Sets numbers aside where few are left; `next` is the next of each model.
    pub(super) fn set_aside(&mut self, next: &[(ModelName, u64)]) -> io::Result<()> {
        let short = |(model, next): &&(ModelName, u64)| *next + AHEAD / 2 > self.of(model);
        let short: Vec<(ModelName, u64)> = next.iter().filter(short).cloned().collect();
        if short.is_empty() {
            return Ok(());
        }
        self.set_aside.extend(short.into_iter().map(|(model, next)| (model, next + AHEAD)));
        self.write()
    }

    /// Ends: nothing was lost.
    pub(super) fn end(&mut self, next: Vec<(ModelName, u64)>) -> io::Result<()> {
        self.set_aside.extend(next);
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(&self.set_aside)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_leaves_a_gap_and_an_end_none() {
        let folder = tempfile::tempdir().unwrap();
        let model: ModelName = "m".parse().unwrap();
        let mut numbers = Numbers::open(folder.path()).unwrap();
        assert_eq!(numbers.of(&model), 0);
        numbers.set_aside(&[(model.clone(), 0)]).unwrap();
        numbers.set_aside(&[(model.clone(), 10)]).unwrap();
        let mut after_crash = Numbers::open(folder.path()).unwrap();
        assert_eq!(after_crash.of(&model), AHEAD);
        after_crash.end(vec![(model.clone(), AHEAD + 7)]).unwrap();
        assert_eq!(Numbers::open(folder.path()).unwrap().of(&model), AHEAD + 7);
        fs::write(folder.path().join("numbers.json"), "{").unwrap();
        assert!(Numbers::open(folder.path()).unwrap_err().to_string().contains("remove it"));
    }
}
