//! A folder of Parquet files: a Delta table, whose log says which of them count, or the files themselves, in the order of
//! their names. Must not know what the columns mean.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{DataError, Dataset, parquet};

/// Files of one table.
const FILES_MAX: usize = 100_000;

pub(crate) fn read(folder: &Path) -> Result<Dataset, DataError> {
    let what = folder.display().to_string();
    let log = folder.join("_delta_log");
    let files = if log.is_dir() { of_log(folder, &log)? } else { of_folder(folder)? };
    if files.is_empty() {
        return Err(DataError::new(what, "expected Parquet files, got none", "check the path"));
    }
    if files.len() > FILES_MAX {
        let fault = format!("expected at most {FILES_MAX} files, got {}", files.len());
        return Err(DataError::new(what, fault, "name a part of it"));
    }
    let mut data = Dataset::default();
    for file in files {
        parquet::append(&file, &mut data)?;
    }
    Ok(data)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let bad = |error: std::io::Error| {
        DataError::new(folder.display().to_string(), format!("cannot be read: {error}"), "check the path")
    };
    let entries: Result<Vec<PathBuf>, _> =
        fs::read_dir(folder).map_err(bad)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut entries = entries.map_err(bad)?;
    entries.sort();
    Ok(entries)
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "parquet")
}

/// Parquet files of the folder and of those in it.
fn of_folder(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for entry in entries(folder)? {
        if entry.is_dir() {
            files.extend(entries(&entry)?.into_iter().filter(|path| is_parquet(path)));
        } else if is_parquet(&entry) {
            files.push(entry);
        }
    }
    Ok(files)
}

/// The files that were added and not removed. The log is read from its newest checkpoint on, if it has one.
fn of_log(folder: &Path, log: &Path) -> Result<Vec<PathBuf>, DataError> {
    let number = |path: &Path| path.file_name()?.to_str()?.split('.').next()?.parse::<u64>().ok();
    let entries = entries(log)?;
    let commits: Vec<(u64, &PathBuf)> = entries
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .filter_map(|path| Some((number(path)?, path)))
        .collect();
    let first = commits.first().map_or(u64::MAX, |(number, _)| *number);
    if first != 0 {
        return Err(DataError::new(
            log.display().to_string(),
            "expected a log from commit 0 on, got one whose beginning was cleaned up",
            "name the folders date=... or files of the table instead",
        ));
    }
    let mut active = BTreeSet::new();
    for (_, path) in commits {
        let bad = |fault: String| DataError::new(path.display().to_string(), fault, "repair the table");
        let text = fs::read_to_string(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let action: Value =
                serde_json::from_str(line).map_err(|error| bad(format!("no JSON: {error}")))?;
            if let Some(added) = action["add"]["path"].as_str() {
                active
                    .insert(inside(folder, added).ok_or_else(|| bad(format!("a path out of it: {added}")))?);
            }
            if let Some(path) = action["remove"]["path"].as_str().and_then(|path| inside(folder, path)) {
                active.remove(&path);
            }
        }
    }
    Ok(active.into_iter().collect())
}

/// A path of the log, whose `%xx` are undone; `None` when it leads out of the table.
fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    let path = String::from_utf8(bytes).ok()?;
    let plain = Path::new(&path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    plain.then(|| folder.join(path))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::parquet::{
        data_type::{DoubleType, Int32Type},
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };

    use super::*;
    use crate::Cell;

    /// Two columns: a list of floats, and a number that may be missing.
    fn write(path: &Path, lists: &[&[f64]], numbers: &[Option<i32>]) {
        let schema =
            "message m { required group in_x (LIST) { repeated group list { required double element; } }
                      optional int32 n; }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer =
            SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<f64> = lists.iter().flat_map(|list| list.iter().copied()).collect();
        let first = |list: &&[f64]| (0..list.len()).map(|at| i16::from(at > 0)).collect::<Vec<_>>();
        let again: Vec<i16> = lists.iter().flat_map(first).collect();
        let levels = vec![1; values.len()];
        column.typed::<DoubleType>().write_batch(&values, Some(&levels), Some(&again)).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let present: Vec<i32> = numbers.iter().flatten().copied().collect();
        let levels: Vec<i16> = numbers.iter().map(|number| i16::from(number.is_some())).collect();
        column.typed::<Int32Type>().write_batch(&present, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn the_log_says_which_files_count() {
        let folder = tempfile::tempdir().unwrap();
        let day = folder.path().join("date=2026-01-01");
        fs::create_dir_all(&day).unwrap();
        write(&day.join("a.parquet"), &[&[1.0, 2.0], &[3.0]], &[Some(7), None]);
        write(&day.join("b.parquet"), &[&[4.0]], &[Some(8)]);
        write(&day.join("c.parquet"), &[&[9.0]], &[Some(9)]);
        let all = crate::read(folder.path()).unwrap();
        assert_eq!(all.rows(), 4);
        let log = folder.path().join("_delta_log");
        fs::create_dir(&log).unwrap();
        let commit =
            |number: u64, lines: &str| fs::write(log.join(format!("{number:020}.json")), lines).unwrap();
        let add = |name: &str| format!("{{\"add\":{{\"path\":\"date%3D2026-01-01/{name}.parquet\"}}}}\n");
        commit(0, &format!("{{\"protocol\":{{}}}}\n{}{}", add("a"), add("c")));
        commit(1, &format!("{}{}", add("b"), add("c").replace("add", "remove")));
        let data = crate::read(folder.path()).unwrap();
        let number = Cell::Number;
        assert_eq!(
            data.column("in_x").unwrap().cells,
            [
                Cell::List(vec![number(1.0), number(2.0)]),
                Cell::List(vec![number(3.0)]),
                Cell::List(vec![number(4.0)])
            ]
        );
        assert_eq!(data.column("n").unwrap().cells, [number(7.0), Cell::Missing, number(8.0)]);
        commit(2, "{\"add\":{\"path\":\"../x.parquet\"}}\n");
        assert!(crate::read(folder.path()).unwrap_err().to_string().contains("out of it"));
        fs::remove_file(log.join(format!("{:020}.json", 0))).unwrap();
        assert!(crate::read(folder.path()).unwrap_err().to_string().contains("commit 0"));
    }
}
