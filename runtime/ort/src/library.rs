//! Which shared library to load, and what to say when none can be. Must not know what is done with it.

use std::{
    error::Error,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use gannet_runtime::backend::BackendError;
use ort::environment::EnvironmentBuilder;

use crate::OrtOptions;

/// The oldest minor version whose interface this crate was built for.
const VERSION_REQUIRED: &str = "1.31.x";
/// Where the build put the library, if it did.
const BAKED: Option<&str> = option_env!("GANNET_BAKED_ORT_DYLIB");
/// Why the build did not.
const PROVISION_ERROR: Option<&str> = option_env!("GANNET_ORT_PROVISION_ERROR");
/// Names the library goes by in the executable's folder, the most exact first.
const NAMES: [&str; 4] =
    ["libonnxruntime.so.1.31.1", "libonnxruntime.so.1", "libonnxruntime.so", "libonnxruntime.dylib"];

/// Loads the library that the options name, or the first that is found.
pub(crate) fn load(options: &OrtOptions) -> Result<(EnvironmentBuilder, PathBuf), BackendError> {
    if let Some(path) = &options.dylib {
        return load_file(path).map(|builder| (builder, path.clone())).map_err(|reason| {
            BackendError::Unavailable(format!(
                "ORT_DYLIB_PATH names {}, which {reason}. Set it to a libonnxruntime {VERSION_REQUIRED}, or unset \
                 it to use the library that the build downloaded",
                path.display()
            ))
        });
    }
    let mut tried = Vec::new();
    for path in candidates(options.exe_dir.as_deref(), BAKED) {
        match load_file(&path) {
            Ok(builder) => return Ok((builder, path)),
            Err(reason) => {
                if path.exists() {
                    tracing::warn!(path = %path.display(), reason, "a library of ONNX Runtime is passed over");
                }
                tried.push((path, reason));
            }
        }
    }
    Err(BackendError::Unavailable(not_found(&tried, PROVISION_ERROR)))
}

/// Where to look when nobody named a library, in order.
fn candidates(exe_dir: Option<&Path>, baked: Option<&str>) -> Vec<PathBuf> {
    let beside = exe_dir.into_iter().flat_map(|dir| [dir.to_path_buf(), dir.join("../lib")]);
    let mut all: Vec<PathBuf> = beside.flat_map(|dir| NAMES.map(|name| dir.join(name))).collect();
    all.extend(baked.map(PathBuf::from));
    all
}

fn not_found(tried: &[(PathBuf, String)], provision_error: Option<&str>) -> String {
    let mut message = String::from("ONNX Runtime was not found.");
    for (path, reason) in tried {
        message.push_str(&format!(" {} {reason}.", path.display()));
    }
    if let Some(reason) = provision_error {
        message.push_str(&format!(" The build did not provide it: {reason}."));
    }
    message.push_str(&format!(
        " Run `cargo build` again with access to the package index, or set ORT_DYLIB_PATH to a libonnxruntime \
         {VERSION_REQUIRED}"
    ));
    message
}

/// Loads one file; the error continues the sentence "<path> ...".
fn load_file(path: &Path) -> Result<EnvironmentBuilder, String> {
    look_at(path)?;
    // The library is loaded into the process, so its path must not depend on a search path.
    let path = std::path::absolute(path).map_err(|e| format!("cannot be resolved: {e}"))?;
    ort::init_from(path).map_err(|error| match error {
        ort::LoadDynamicError::Dlopen { error, .. } => {
            let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            format!("cannot be loaded: {reason}")
        }
        ort::LoadDynamicError::MissingApi { .. } => "is a shared library, but not ONNX Runtime".into(),
        ort::LoadDynamicError::BadVersion { version_str, .. } => {
            format!("is ONNX Runtime {version_str}, expected {VERSION_REQUIRED} or newer")
        }
        other => format!("cannot be loaded: {other}"),
    })
}

/// The loader gives no reason for most of these.
fn look_at(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        _ => format!("cannot be read: {error}"),
    })?;
    if !metadata.is_file() {
        return Err("is not a file".into());
    }
    let mut magic = [0; 4];
    let whole = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    match whole {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            Err(format!("cannot be read: {error}"))
        }
        _ if cfg!(target_os = "linux") && &magic != b"\x7fELF" => Err("is not a shared library".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_looked_for_beside_the_executable_then_where_the_build_put_them() {
        let all = candidates(Some(Path::new("/opt/gannet/bin")), Some("/cache/x.so"));
        assert_eq!(all[0], Path::new("/opt/gannet/bin/libonnxruntime.so.1.31.1"));
        assert_eq!(all[NAMES.len()], Path::new("/opt/gannet/bin/../lib/libonnxruntime.so.1.31.1"));
        assert_eq!(all.last().map(PathBuf::as_path), Some(Path::new("/cache/x.so")));
        assert!(candidates(None, None).is_empty());
    }

    #[test]
    fn the_message_says_what_was_tried_and_what_to_do() {
        let message = not_found(&[("/a/b.so".into(), "does not exist".into())], Some("no network"));
        for part in ["/a/b.so does not exist", "no network", "cargo build", "ORT_DYLIB_PATH", "1.31"] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    /// Builds a shared library of one C file, with the linker driver that Rust itself needs.
    #[cfg(target_os = "linux")]
    fn compiled(folder: &Path, name: &str, code: &str) -> PathBuf {
        let (source, library) = (folder.join(format!("{name}.c")), folder.join(format!("lib{name}.so")));
        std::fs::write(&source, code).unwrap();
        let mut compiler = std::process::Command::new("cc");
        let status = compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
        assert!(status.unwrap().success());
        library
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_library_that_the_operator_named_is_used_or_refused_with_the_reason() {
        // the first library that a process loads stays: a process of its own has none yet
        const ALONE: &str = "GANNET_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let name = "library::tests::a_library_that_the_operator_named_is_used_or_refused_with_the_reason";
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            let output = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let written = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let old = "static const char *version(void) { return \"1.26.0\"; }
            static const void *api(unsigned version) { return 0; }
            static const void *base[2] = { (void *) api, (void *) version };
            const void *OrtGetApiBase(void) { return base; }";
        for (path, reason) in [
            (folder.path().join("missing.so"), "does not exist"),
            (folder.path().to_path_buf(), "is not a file"),
            (written("empty.so", b""), "is not a shared library"),
            (written("text.so", b"hello, this is text"), "is not a shared library"),
            (written("cut.so", b"\x7fELF and no more"), "cannot be loaded: "),
            (compiled(folder.path(), "other", "int nothing;"), "not ONNX Runtime"),
            (compiled(folder.path(), "old", old), "is ONNX Runtime 1.26.0, expected 1.31.x or newer"),
        ] {
            let options = OrtOptions { dylib: Some(path.clone()), ..OrtOptions::default() };
            let error = load(&options).err().unwrap().to_string();
            for part in [reason, "ORT_DYLIB_PATH", path.to_str().unwrap()] {
                assert!(error.contains(part), "{part} in {error}");
            }
            println!("{error}");
        }
    }
}
