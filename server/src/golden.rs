//! Golden requests as they lie in a version's folder: `golden/*.json` with an inference body, the answer to it and
//! the tolerance. Must not know how they are run.

mod example;

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use gannet_models::{Artifact, Signature};
use gannet_runtime::{
    InferRequest, clock,
    control::loader::Qualify,
    drift::Baseline,
    request::{Contract, GoldenCase},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::http::codec;

/// A golden file larger than this is refused.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads golden requests with the HTTP codec.
#[derive(Debug, Clone, Copy, Default)]
pub struct GoldenReader;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenFile {
    request: Box<RawValue>,
    response: GoldenResponse,
    #[serde(default)]
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct GoldenResponse {
    outputs: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tolerance {
    rtol: f64,
    atol: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { rtol: 1e-4, atol: 1e-5 }
    }
}

impl Qualify for GoldenReader {
    fn golden_cases(
        &self,
        artifact: &Artifact,
        model: &str,
        signature: &Signature,
    ) -> Result<Vec<GoldenCase>, String> {
        let read = |path: &std::path::PathBuf| read_case(path, model, signature);
        let golden = artifact.golden_files();
        if golden.is_empty()
            && let Some(example) = gannet_registry::mlflow::example_file(artifact.dir())
        {
            return example::read(&artifact.dir().join(&example), &example, model, signature)
                .map(|case| case.into_iter().collect());
        }
        golden.iter().map(read).collect()
    }

    fn baseline(&self, artifact: &Artifact, signature: &Signature) -> Result<Option<Baseline>, String> {
        crate::baseline::of_artifact(artifact, signature)
    }
}

/// Reads one golden file against a signature.
///
/// # Errors
/// A text naming the file and what is wrong with it.
pub fn read_case(path: &Path, model: &str, signature: &Signature) -> Result<GoldenCase, String> {
    let name = path
        .file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    let fault = |what: &dyn std::fmt::Display| format!("golden/{name}: {what}");
    let size = fs::metadata(path).map_err(|error| fault(&error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(fault(&format!("has {size} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    let text = fs::read_to_string(path).map_err(|error| fault(&error))?;
    let file: GoldenFile = serde_json::from_str(&text).map_err(|error| fault(&error))?;
    let decode = |body: String| {
        let length = body.len();
        codec::decode(&Bytes::from(body), length, clock::now()).map_err(|refusal| fault(&refusal.message))
    };
    let ask = decode(file.request.get().to_owned())?;
    let contract = Contract { model, signature, rows_max: None };
    let checked = contract.check(ask.inputs).map_err(|error| fault(&format_args!("request: {error}")))?;
    // outputs are written as inputs are: read them as such
    let answer = decode(format!("{{\"inputs\":{}}}", file.response.outputs.get()))?;
    let expected = answer.inputs.into_iter().map(|(output, tensor)| match signature.output(&output) {
        Some(index) => Ok((index, tensor)),
        None => Err(fault(&format_args!("response: the model has no output '{output}'"))),
    });
    let expected = expected.collect::<Result<Vec<_>, String>>()?;
    if expected.is_empty() {
        return Err(fault(&"response: no outputs to compare"));
    }
    let request = InferRequest {
        inputs: checked.inputs,
        rows: checked.rows,
        priority: 0,
        deadline: None,
        arrived: clock::now(),
    };
    let (rtol, atol) = (file.tolerance.rtol, file.tolerance.atol);
    Ok(GoldenCase { name: Arc::from(format!("golden/{name}")), request, expected, rtol, atol })
}
