//! The recommendation as settings, and into `model.toml`, where it never overwrites what somebody decided. Must not
//! know how it was found.

use std::{
    fs,
    path::{Path, PathBuf},
};

use gannet_runtime::control::loader::profile::Point;

const FILE: &str = "model.toml";

/// The settings that run a model as `point` does.
pub(super) fn settings(point: &Point) -> String {
    format!("max_batch_size = {}\n\n{}", point.rows, instances(point))
}

fn instances(point: &Point) -> String {
    format!("[instances]\ncount = {}\nthreads = {}\n", point.instances, point.threads)
}

/// Writes them into the folder of the model at `path`. The file that was written.
///
/// # Errors
/// A text when the path is no model's folder, or the file says something about any of it already.
pub(super) fn write(path: &Path, point: &Point) -> Result<PathBuf, String> {
    if !path.is_dir() {
        return Err(format!(
            "--write: expected a model's folder, got the file {}; nothing was written",
            path.display()
        ));
    }
    let file = path.join(FILE);
    let text = match fs::read_to_string(&file) {
        Ok(before) => merged(&before, point).map_err(|key| {
            format!(
                "{}: says {key} already; nothing was written. Put there by hand:\n{}",
                file.display(),
                settings(point)
            )
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => settings(point),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    // beside it, then in its place: a server that watches the folder never sees half a file
    let fresh = path.join(".model.toml.new");
    let put = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &file));
    put.map_err(|error| format!("{}: not written: {error}", file.display()))?;
    Ok(file)
}

/// The file with the settings added; `Err` is the key that it has already.
fn merged(before: &str, point: &Point) -> Result<String, &'static str> {
    let table: toml::Table = before.parse().map_err(|_| "something that is no TOML")?;
    for key in ["max_batch_size", "instances"] {
        if table.contains_key(key) {
            return Err(key);
        }
    }
    Ok(format!("max_batch_size = {}\n{}\n\n{}", point.rows, before.trim_end(), instances(point)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_added_and_never_overwritten() {
        let point =
            Point { instances: 2, threads: 1, rows: 32, median_us: 1.0, p95_us: 1.0, rows_per_second: 1.0 };
        let folder = tempfile::tempdir().unwrap();
        let read = || fs::read_to_string(folder.path().join(FILE)).unwrap();
        write(folder.path(), &point).unwrap();
        assert_eq!(read(), "max_batch_size = 32\n\n[instances]\ncount = 2\nthreads = 1\n");
        let again = write(folder.path(), &point).unwrap_err();
        assert!(again.contains("says max_batch_size already; nothing was written"), "{again}");
        fs::write(folder.path().join(FILE), "# mine\n[limits]\nqueue_requests_max = 7\n").unwrap();
        write(folder.path(), &point).unwrap();
        let table: toml::Table = read().parse().unwrap();
        assert_eq!(table["max_batch_size"].as_integer(), Some(32));
        assert_eq!(table["limits"]["queue_requests_max"].as_integer(), Some(7));
        assert_eq!(table["instances"]["count"].as_integer(), Some(2));
        assert!(read().contains("# mine"));
        let file = folder.path().join("model.onnx");
        fs::write(&file, "").unwrap();
        assert!(write(&file, &point).unwrap_err().contains("expected a model's folder"));
    }
}
