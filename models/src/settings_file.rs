//! Finds and reads the settings file of a model's folder. Must not know what the files may say.

use std::path::{Path, PathBuf};

use crate::{
    ModelSettings,
    error::{Fault, ModelError, SettingsError},
    manifest, pbtxt,
};

/// The settings files that a model's folder may hold, one at most.
pub const SETTINGS_FILES: [&str; 2] = ["model.toml", "config.pbtxt"];

/// Bytes of a settings file, at most.
const SETTINGS_BYTES_MAX: u64 = 4 << 20;

/// The settings of the model in `model_dir`; the defaults where the folder has no settings file.
///
/// # Errors
/// [`ModelError::Settings`] with every fault found; [`ModelError::Io`].
pub fn read_settings(model_dir: &Path) -> Result<ModelSettings, ModelError> {
    let paths = SETTINGS_FILES.map(|name| model_dir.join(name));
    match paths.each_ref().map(|path| path.exists()) {
        [false, false] => Ok(ModelSettings::default()),
        [true, false] => manifest::parse(&read(&paths[0])?, &paths[0]),
        [false, true] => pbtxt::parse(&read(&paths[1])?, &paths[1]),
        [true, true] => Err(settings_error(
            model_dir.to_owned(),
            "one settings file",
            format!("two: {}", SETTINGS_FILES.join(" and ")),
            "keep one of them and remove the other",
        )),
    }
}

fn read(path: &Path) -> Result<String, ModelError> {
    let size = path.metadata().map_err(ModelError::io(path, "look at"))?.len();
    if size > SETTINGS_BYTES_MAX {
        let path = path.to_owned();
        return Err(ModelError::TooLarge {
            path,
            unit: "bytes of settings",
            limit: SETTINGS_BYTES_MAX,
            got: size,
        });
    }
    let bytes = std::fs::read(path).map_err(ModelError::io(path, "read"))?;
    String::from_utf8(bytes).map_err(|error| {
        let got = format!("another byte at offset {}", error.utf8_error().valid_up_to());
        settings_error(path.to_owned(), "text in UTF-8", got, "save the file as UTF-8")
    })
}

/// An error about the file as a whole.
fn settings_error(path: PathBuf, expected: &str, got: String, advice: &str) -> ModelError {
    let fault =
        Fault { line: None, field: String::new(), expected: expected.into(), got, advice: advice.into() };
    SettingsError { path, faults: vec![fault] }.into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::settings::Batching;

    #[test]
    fn a_folder_has_no_settings_or_one_file_of_them() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_settings(dir.path()).unwrap(), ModelSettings::default());
        fs::write(dir.path().join("model.toml"), "max_batch_size = 4").unwrap();
        assert_eq!(read_settings(dir.path()).unwrap().batching, Batching::Stated(4));
        fs::write(dir.path().join("config.pbtxt"), "max_batch_size: 8").unwrap();
        let message = read_settings(dir.path()).unwrap_err().to_string();
        assert!(message.contains("model.toml and config.pbtxt"), "{message}");
        fs::remove_file(dir.path().join("model.toml")).unwrap();
        assert_eq!(read_settings(dir.path()).unwrap().batching, Batching::Stated(8));
        fs::write(dir.path().join("config.pbtxt"), b"\xff").unwrap();
        let message = read_settings(dir.path()).unwrap_err().to_string();
        assert!(message.contains("UTF-8"), "{message}");
    }
}
