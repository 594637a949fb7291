//! TorchServe's archives: a manifest, and the file that it calls serialized. What asks for Python is refused. Must not
//! know what is in the serialized file.

use std::{
    fs::File,
    io::{BufReader, Read as _},
    path::Path,
};

use serde::Deserialize;
use zip::{ZipArchive, result::ZipError};

const MANIFEST: &str = "MAR-INF/MANIFEST.json";
/// A manifest larger than this is none.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// The one handler that only hands tensors through.
const PLAIN_HANDLER: &str = "base_handler";

#[derive(Deserialize)]
struct Manifest {
    model: Model,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Model {
    serialized_file: Option<String>,
    /// A Python class, for models that are not TorchScript.
    model_file: Option<String>,
    handler: Option<String>,
}

/// The content of the serialized file.
///
/// # Errors
/// A text: what is wrong with the archive, and what to do.
pub(crate) fn serialized(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let length = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|error| format!("is no archive of TorchServe: {error}"))?;
    let text = member(&mut archive, MANIFEST, MANIFEST_BYTES_MAX)?;
    let Manifest { model } = serde_json::from_slice(&text).map_err(|error| format!("{MANIFEST}: {error}"))?;
    let name = model.wanted()?;
    // tensors hardly compress: what unpacks to much more is made to fill the memory
    member(&mut archive, name, length.saturating_mul(64))
}

impl Model {
    /// The serialized file's name, unless something else is asked for that is Python.
    fn wanted(&self) -> Result<&str, String> {
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(class) = given(&self.model_file) {
            return Err(format!(
                "{MANIFEST}: the model is the Python class in '{class}', and Python is not run here; archive the \
                 model as TorchScript, without --model-file"
            ));
        }
        if let Some(handler) = given(&self.handler).filter(|handler| handler != PLAIN_HANDLER) {
            return Err(format!(
                "{MANIFEST}: requests go through the handler '{handler}', which is Python, and Python is not run \
                 here. What it does before and after the model belongs to the caller, or into the model; then archive \
                 it with --handler {PLAIN_HANDLER}, or serve the serialized file as model.pt"
            ));
        }
        let name = self.serialized_file.as_deref().filter(|name| !name.is_empty());
        name.ok_or_else(|| format!("{MANIFEST}: expected 'serializedFile', got none"))
    }
}

fn member(archive: &mut ZipArchive<BufReader<File>>, name: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
    let file = archive.by_name(name).map_err(|error| match error {
        ZipError::FileNotFound => format!("expected '{name}' in the archive, got none"),
        error => format!("'{name}' in the archive: {error}"),
    })?;
    let size = file.size();
    if size > bytes_max {
        return Err(format!("'{name}' in the archive: expected at most {bytes_max} bytes, got {size}"));
    }
    let mut bytes = Vec::new();
    // the size is what the archive says; what comes is bounded too
    let read = file.take(bytes_max).read_to_end(&mut bytes);
    read.map_err(|error| format!("'{name}' in the archive: {error}"))?;
    Ok(bytes)
}
