//! The part of the plan that says what requests are made of.
//!
//! Must not know the model's signature: that is asked for when the plan is carried out.

use std::fs;
use std::path::Path;

use super::Faults;
use crate::flags::Flags;
use crate::measure::Checks;
use crate::signature::InputSpec;

/// Rows of one request at most.
const ROWS_MAX: usize = 1 << 20;
/// Random variants at most.
const VARIANTS_MAX: usize = 1 << 16;
/// Answers between two of which the version is counted.
const VERSION_SAMPLE_EVERY: u32 = 16;

/// A data set's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DataFile {
    /// All inputs from one CSV text.
    Csv { name: String, text: String },
    /// One input, or the only one, from an NPY file.
    Npy { name: String, input: Option<String>, bytes: Vec<u8> },
}

/// Where the values of requests come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Files that are sent, with their names.
    Bodies(Vec<(String, Vec<u8>)>),
    /// Rows of a data set.
    Data { files: Vec<DataFile>, shuffled: bool },
    /// Random values of the model's signature.
    Random { variants: usize },
}

/// What requests are made of and what answers must be.
#[derive(Debug, Clone)]
pub(crate) struct RequestPlan {
    pub source: Source,
    pub version: String,
    pub path: Option<String>,
    pub headers: Vec<(String, String)>,
    pub json_bytes: Option<usize>,
    pub rows: usize,
    pub shapes: Vec<(String, Vec<usize>)>,
    pub timeout_us: Option<u64>,
    pub checks: Checks,
}

impl RequestPlan {
    pub(super) fn new(flags: &Flags, faults: &mut Faults) -> Option<Self> {
        faults.range("rows", flags.rows, (1, ROWS_MAX));
        faults.range("variants", flags.variants, (1, VARIANTS_MAX));
        let headers = flags.header.iter().map(|text| header(text));
        let headers = faults.take(headers.collect());
        let shapes = flags.shape.iter().map(|text| shape(text));
        let shapes = faults.take(shapes.collect());
        if let Some(path) = flags.path.as_ref().filter(|path| !path.starts_with('/')) {
            faults.add(format!("--path: expected a path that begins with /, got {path:?}; correct it"));
        }
        if flags.path.is_some() && flags.body.is_empty() {
            faults.add("--path: expected requests for that path; add --body FILE");
        }
        if flags.json_bytes.is_some() && flags.body.is_empty() {
            faults.add("--json-bytes goes with --body; add that, or leave it out");
        }
        if flags.timeout_us.is_some() && flags.json_bytes.is_some() {
            faults.add("--timeout-us cannot be added to a binary --body; put it into the file");
        }
        let source = source(flags, faults);
        let expected_body = flags.expect.as_ref().map(|path| read("--expect", path));
        let expected_body = expected_body.and_then(|result| faults.take(result));
        Some(Self {
            source: source?,
            version: flags.model_version.clone().unwrap_or_default(),
            path: flags.path.clone(),
            headers: headers?,
            json_bytes: flags.json_bytes,
            rows: flags.rows.unwrap_or(1),
            shapes: shapes?,
            timeout_us: flags.timeout_us,
            checks: Checks {
                expected_body,
                versions_allowed: flags.check_versions.clone(),
                version_sample_every: flags.sample_versions.unwrap_or(VERSION_SAMPLE_EVERY),
            },
        })
    }
}

fn source(flags: &Flags, faults: &mut Faults) -> Option<Source> {
    let shuffled = match flags.order.as_deref() {
        None | Some("in-order") => false,
        Some("shuffled") => true,
        Some(other) => {
            faults.add(format!("--order: expected in-order or shuffled, got {other:?}; choose one"));
            false
        }
    };
    if !flags.body.is_empty() {
        let named =
            |path: &std::path::PathBuf| read("--body", path).map(|bytes| (path.display().to_string(), bytes));
        let bodies = faults.take(flags.body.iter().map(named).collect());
        if !flags.data.is_empty() {
            faults.add("--data and --body exclude each other; leave one out");
        }
        if flags.rows.is_some() {
            faults.add("--rows does not go with --body: the file says its rows; leave it out");
        }
        return bodies.map(Source::Bodies);
    }
    if flags.data.is_empty() {
        return Some(Source::Random { variants: flags.variants.unwrap_or(16) });
    }
    let files = flags.data.iter().map(|text| data_file(text)).collect();
    let files: Vec<DataFile> = faults.take(files)?;
    if files.len() > 1 && files.iter().any(|file| matches!(file, DataFile::Csv { .. })) {
        faults.add("--data: a CSV file gives all inputs, so it stands alone; leave the others out");
    }
    Some(Source::Data { files, shuffled })
}

fn data_file(text: &str) -> Result<DataFile, String> {
    let (input, path) = match text.split_once('=') {
        Some((input, path)) => (Some(input.to_string()), path),
        None => (None, text),
    };
    let extension = Path::new(path).extension().and_then(|e| e.to_str());
    match (extension, &input) {
        (Some("npy"), _) => {
            Ok(DataFile::Npy { name: path.to_string(), input, bytes: read("--data", Path::new(path))? })
        }
        (Some("csv"), None) => {
            let bytes = read("--data", Path::new(path))?;
            let text = String::from_utf8(bytes)
                .map_err(|_| format!("--data {path}: expected UTF-8 text; convert the file"))?;
            Ok(DataFile::Csv { name: path.to_string(), text })
        }
        _ => Err(format!("--data {text}: expected FILE.csv, FILE.npy or INPUT=FILE.npy; correct it")),
    }
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{option} {}: cannot be read: {e}; correct the path", path.display()))
}

fn header(text: &str) -> Result<(String, String), String> {
    let fault = || format!("--header: expected 'name: value', got {text:?}; correct it");
    let (name, value) = text.split_once(':').ok_or_else(fault)?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let valid =
        !name.is_empty() && name.bytes().all(is_token) && value.bytes().all(|b| (0x20..0x7f).contains(&b));
    valid.then(|| (name, value.to_string())).ok_or_else(fault)
}

fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    // The last colon: names may hold others.
    let parsed = text.rsplit_once(':').and_then(|(name, sizes)| {
        let sizes = sizes.split(',').map(|size| size.trim().parse().ok());
        Some((name.to_string(), sizes.collect::<Option<_>>()?))
    });
    parsed.ok_or_else(|| format!("--shape: expected NAME:SIZE,SIZE, got {text:?}; correct it"))
}

impl DataFile {
    /// The name a fault is told with.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Csv { name, .. } | Self::Npy { name, .. } => name,
        }
    }

    /// The one input an NPY file is for.
    pub(crate) fn input_of<'a>(&self, inputs: &'a [InputSpec]) -> Result<&'a InputSpec, String> {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        match self {
            Self::Npy { input: Some(name), .. } => {
                inputs.iter().find(|input| input.name == *name).ok_or_else(|| {
                    format!("expected one of the model's inputs {names:?}, got {name:?}; correct it")
                })
            }
            _ if inputs.len() == 1 => Ok(&inputs[0]),
            _ => Err(format!("expected INPUT=FILE, the model has the inputs {names:?}")),
        }
    }
}
