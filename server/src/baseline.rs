//! `baseline.json` in a version's folder, read and written. Must not know how rows are held against it.

use std::{fmt::Write as _, fs, path::Path};

use gannet_models::{Artifact, Signature};
use gannet_runtime::drift::Baseline;
use serde_json::Value;

/// The file's name.
pub const FILE_NAME: &str = "baseline.json";
/// A larger one is refused.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The baseline of an artifact, if it has one.
///
/// # Errors
/// A text naming the file and what is wrong with it.
pub fn of_artifact(artifact: &Artifact, signature: &Signature) -> Result<Option<Baseline>, String> {
    artifact.file(FILE_NAME).map(|path| read(&path, signature)).transpose()
}

/// Reads a baseline of a model with this signature.
///
/// # Errors
/// A text naming the file and what is wrong with it.
pub fn read(path: &Path, signature: &Signature) -> Result<Baseline, String> {
    let fault =
        |what: &dyn std::fmt::Display| format!("{FILE_NAME}: {what}; make it with `gannet baseline make`");
    let size = fs::metadata(path).map_err(|error| fault(&error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(fault(&format_args!("has {size} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    let text = fs::read_to_string(path).map_err(|error| fault(&error))?;
    let baseline: Baseline = serde_json::from_str(&text).map_err(|error| fault(&error))?;
    baseline.check(signature).map_err(|why| fault(&why))?;
    Ok(baseline)
}

/// As it is written: a line for each feature and each sample, so that people see what differs.
///
/// # Errors
/// When a number is none in JSON, which no baseline that was made holds.
pub fn text(baseline: &Baseline) -> Result<String, serde_json::Error> {
    let value = serde_json::to_value(baseline)?;
    let mut text = format!("{{\"format\": {}, \"rows\": {},\n", value["format"], value["rows"]);
    let sides = ["inputs", "outputs"].map(|side| (side, value[side].as_array().cloned().unwrap_or_default()));
    for (place, (side, tensors)) in sides.iter().enumerate() {
        let _ = writeln!(text, "\"{side}\": [");
        for (index, tensor) in tensors.iter().enumerate() {
            let _ = write!(text, "  {{\"name\": {}, ", tensor["name"]);
            if let Some(embedding) = tensor.get("embedding") {
                let _ = write!(text, "\"embedding\": {embedding}, ");
            }
            let _ = write!(text, "\"features\": {}}}", lines(&tensor["features"], "    "));
            text.push_str(if index + 1 < tensors.len() { ",\n" } else { "\n" });
        }
        text.push_str(if place == 0 { "],\n" } else { "]" });
    }
    if let Some(samples) = value.get("samples") {
        let _ = write!(text, ",\n\"samples\": {}", lines(samples, "  "));
    }
    text.push_str("}\n");
    Ok(text)
}

fn lines(list: &Value, indent: &str) -> String {
    let items: Vec<String> =
        list.as_array().into_iter().flatten().map(|item| format!("{indent}{item}")).collect();
    format!("[\n{}\n{}]", items.join(",\n"), &indent[2..])
}
