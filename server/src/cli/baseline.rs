//! `gannet baseline make`: what a model's data looks like, and what it answers on it, kept in its package. Must not know how
//! rows are held against it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use gannet_data::{Cell, Dataset};
use gannet_models::{DType, Dim, IngestLimits, Signature, TensorSpec};
use gannet_registry::AspiredVersion;
use gannet_runtime::{
    Tensor,
    control::loader,
    drift::{Builder, CellValue},
    servable::Servable,
    tensor::{Shape, push_byte_element, push_number},
};

use super::{EXIT_OK, EXIT_REFUSED, EXIT_UNAVAILABLE, check, say, serve};
use crate::{
    backends::{self, Backends},
    baseline,
    config::Config,
    rehearsal::Rehearsal,
};

/// Inputs of a data set that a model's row is made of, at most.
const NAMED_MAX: usize = 64;

const EXAMPLES: &str = "\
The rows should be those that the model was trained on. The model is run on them, so that its scores and classes are
watched as well. Columns are matched with inputs by name (a tensor's row may be a list in one column, as in captured
traffic: in_<name>); the columns of a file without such names, in their order, are the row of a model's one input.

Examples:
  gannet baseline make models/churn --data train.parquet
  gannet baseline make models/churn --data train.csv --samples 300   keep some rows, which `gannet edge` calibrates with
  gannet baseline make models/rank --data user=users.npy --data item=items.npy --embedding user
  gannet baseline make models/churn --data capture/churn/3f2a...      a Delta table of captured traffic

Exit codes: 0 written, 1 refused, 64 wrong arguments, 69 ONNX Runtime is missing.";

/// The commands of `gannet baseline`.
#[derive(Debug, Subcommand)]
pub(super) enum BaselineCommand {
    /// Make baseline.json of a version out of a data set
    #[command(after_long_help = EXAMPLES)]
    Make(MakeArgs),
}

#[derive(Debug, Args)]
pub(super) struct MakeArgs {
    /// A model's folder, of whose versions the highest is meant, or a version's folder
    #[arg(value_name = "MODEL")]
    path: PathBuf,
    /// CSV, NPY or Parquet, or a folder of Parquet; for models of several inputs also INPUT=FILE, once for each
    #[arg(long, value_name = "[INPUT=]PATH", required = true)]
    data: Vec<String>,
    /// Rows to keep beside, evenly over all; they are readable in the package
    #[arg(long, value_name = "N", default_value_t = 0)]
    samples: usize,
    /// An input to watch by principal components instead of by its values; may be repeated
    #[arg(long, value_name = "INPUT")]
    embedding: Vec<String>,
    /// Where to write it [default: baseline.json in the version's folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(command: &BaselineCommand) -> u8 {
    let BaselineCommand::Make(args) = command;
    match make(args) {
        Ok(()) => EXIT_OK,
        Err((code, why)) => {
            eprintln!("{why}");
            code
        }
    }
}

type Failed = (u8, String);

fn refused(why: impl Into<String>) -> Failed {
    (EXIT_REFUSED, why.into())
}

fn make(args: &MakeArgs) -> Result<(), Failed> {
    let (servable, folder) = load(&args.path)?;
    let signature = servable.signature.clone();
    let rows = Rows::read(&args.data, &signature).map_err(refused)?;
    let mut builder = Builder::new(&signature);
    for name in &args.embedding {
        let place =
            signature.input(name).ok_or_else(|| refused(format!("the model has no input '{name}'")))?;
        builder.embed(place);
    }
    for (place, names) in rows.names.iter().enumerate() {
        builder.name(place, names.clone());
    }
    let mut failed = 0;
    let mut why = String::new();
    for row in 0..rows.count {
        let cells = rows.row(row);
        let tensors = signature
            .inputs
            .iter()
            .zip(&cells)
            .map(|(spec, cells)| (spec.name.as_str(), tensor(spec, signature.batched, cells)));
        match servable.answer_apart(tensors) {
            Ok(outputs) => builder.push(cells, Some(&outputs)),
            Err(error) => {
                failed += 1;
                why = error.to_string();
            }
        }
    }
    if builder.rows() == 0 {
        return Err(refused(format!("none of {} rows could be answered: {why}", rows.count)));
    }
    let made = builder.finish(args.samples).map_err(|error| refused(error.to_string()))?;
    made.check(&signature).map_err(refused)?;
    let text = baseline::text(&made).map_err(|error| refused(error.to_string()))?;
    let file = args.out.clone().unwrap_or_else(|| folder.join(baseline::FILE_NAME));
    // whole or not at all: a server may be watching
    let draft = file.with_extension("json.new");
    let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, &file));
    written.map_err(|error| refused(format!("{}: not written: {error}", file.display())))?;
    let features = made.inputs.iter().chain(&made.outputs).map(|tensor| tensor.features.len()).sum::<usize>();
    say(format_args!("{}: {features} features of {} rows", file.display(), made.rows));
    if failed > 0 {
        say(format_args!("{failed} rows were left out, which the model does not answer: {why}"));
    }
    if rows.left_out > 0 {
        say(format_args!("{} rows beyond {} were left out", rows.left_out, gannet_data::ROWS_MAX));
    }
    Ok(())
}

/// The version at a path (of a model's folder the highest), ready to be run, and its folder.
pub(super) fn load(path: &Path) -> Result<(Servable, PathBuf), Failed> {
    let engines =
        backends::start(&serve::engine_config()).map_err(|error| (EXIT_UNAVAILABLE, error.to_string()))?;
    // a folder of its own: the copy of a version is of no use to a server
    let copies = std::env::temp_dir().join(format!("gannet-version-{}", std::process::id()));
    let loaded = load_from(path, &copies, &engines);
    let _ = fs::remove_dir_all(&copies);
    loaded.map_err(refused)
}

fn load_from(at: &Path, copies: &Path, engines: &Backends) -> Result<(Servable, PathBuf), String> {
    let path = at.display();
    // a version's folder is found through its model's, which says how it is served
    let holds_model = |file: &String| at.join(file).is_file();
    let is_version = at.is_dir() && backends::known_files(&engines.all).iter().any(holds_model);
    let (place, wanted) = match (at.parent(), at.file_name()) {
        (Some(parent), Some(name)) if is_version => (parent, name.to_str()),
        _ => (at, None),
    };
    let (found, store) = check::find(place, copies, engines)?;
    let [model] = &found.models[..] else {
        let names: Vec<&str> = found.models.iter().map(|model| model.name.as_str()).collect();
        let got = if names.is_empty() { found.problems.join("; ") } else { names.join(", ") };
        return Err(format!("{path}: expected one model, got {}: {got}; name its folder", names.len()));
    };
    let fits = |version: &&AspiredVersion| wanted.is_none_or(|name| version.version.as_str() == name);
    let version = model.versions.iter().rev().find(fits).ok_or_else(|| {
        let why = model.problems.join("; ");
        format!("{path}: no such version can be read, or the settings do not serve it: {why}")
    })?;
    let limits = IngestLimits::default();
    let artifact = store.ingest(&version.location, &limits).map_err(|error| error.to_string())?;
    let spec = check::spec(model, version, artifact, engines)?;
    let rehearsal = Rehearsal::new(&Config::new(copies.to_owned()).repository);
    let loaded = loader::load(&model.name, 0, &spec, &rehearsal)?;
    let place = &version.location.path;
    let folder = if place.is_dir() { place.clone() } else { place.parent().unwrap_or(place).to_owned() };
    Ok((Servable::new(loaded), folder))
}

/// Data by input.
struct Rows {
    /// By input, the columns that its row is made of.
    columns: Vec<Vec<Vec<Cell>>>,
    names: Vec<Vec<String>>,
    count: usize,
    left_out: usize,
}

impl Rows {
    fn read(data: &[String], signature: &Signature) -> Result<Self, String> {
        let mut plain = Vec::new();
        let mut named: BTreeMap<usize, Dataset> = BTreeMap::new();
        for text in data {
            let place = text.split_once('=').and_then(|(name, path)| Some((signature.input(name)?, path)));
            let read = |path: &str| gannet_data::read(path.as_ref()).map_err(|error| error.to_string());
            match place {
                Some((place, path)) => drop(named.insert(place, read(path)?)),
                None => plain.push(read(text)?),
            }
        }
        if named.len() > NAMED_MAX || plain.len() > 1 {
            return Err("--data: name one data set, or one for each input as INPUT=PATH".into());
        }
        let mut columns = Vec::new();
        let mut names = Vec::new();
        for (place, spec) in signature.inputs.iter().enumerate() {
            let (cells, name) = match (named.remove(&place), plain.first()) {
                (Some(data), _) => whole(data),
                (None, Some(data)) => part(data, spec, signature)?,
                (None, None) => return Err(format!("--data: nothing is said of input '{}'", spec.name)),
            };
            columns.push(cells);
            names.push(name);
        }
        let count = columns.iter().flatten().map(Vec::len).min().unwrap_or(0);
        if columns.iter().flatten().any(|column| column.len() != count) || count == 0 {
            return Err("--data: expected as many rows for each input, and at least one".into());
        }
        let left_out = plain.first().map_or(0, |data| data.left_out);
        Ok(Self { columns, names, count, left_out })
    }

    /// By input, the flat values of a row.
    fn row(&self, row: usize) -> Vec<Vec<CellValue>> {
        let flat = |columns: &Vec<Vec<Cell>>| {
            let mut values = Vec::new();
            columns.iter().for_each(|column| push(&column[row], &mut values));
            values
        };
        self.columns.iter().map(flat).collect()
    }
}

fn push(cell: &Cell, into: &mut Vec<CellValue>) {
    match cell {
        Cell::Missing => into.push(CellValue::Missing),
        Cell::Number(number) => into.push(CellValue::Number(*number)),
        Cell::Text(text) => into.push(CellValue::Text(text.clone())),
        Cell::List(cells) => cells.iter().for_each(|cell| push(cell, into)),
    }
}

fn whole(data: Dataset) -> (Vec<Vec<Cell>>, Vec<String>) {
    data.columns.into_iter().map(|column| (column.cells, column.name)).unzip()
}

/// The columns of an input: the one that has its name, as captured traffic does too; else all, if there is one input.
fn part(
    data: &Dataset,
    spec: &TensorSpec,
    signature: &Signature,
) -> Result<(Vec<Vec<Cell>>, Vec<String>), String> {
    let own = data.column(&format!("in_{}", spec.name)).or_else(|| data.column(&spec.name));
    if let Some(column) = own {
        return Ok((vec![column.cells.clone()], Vec::new()));
    }
    if signature.inputs.len() == 1 {
        return Ok(whole(data.clone()));
    }
    let names: Vec<&str> = data.columns.iter().map(|column| column.name.as_str()).take(20).collect();
    Err(format!(
        "--data: expected a column '{0}' or 'in_{0}' for each input, got {1}; name a file with {0}=PATH",
        spec.name,
        names.join(", ")
    ))
}

/// A row as the model takes it; missing numbers are NaN, or 0 where there is none.
fn tensor(spec: &TensorSpec, batched: bool, cells: &[CellValue]) -> Tensor {
    let number = |cell: &CellValue| match cell {
        CellValue::Number(number) => *number,
        CellValue::Text(text) => text.parse().unwrap_or(f64::NAN),
        CellValue::Missing => f64::NAN,
    };
    let mut data = Vec::new();
    for cell in cells {
        match (spec.dtype, cell) {
            (DType::Bytes, CellValue::Text(text)) => push_byte_element(&mut data, text.as_bytes()),
            (DType::Bytes, CellValue::Number(number)) => {
                push_byte_element(&mut data, number.to_string().as_bytes())
            }
            (DType::Bytes, CellValue::Missing) => push_byte_element(&mut data, b""),
            (dtype, cell) => push_number(&mut data, dtype, number(cell)),
        }
    }
    // the batch axis is of one row; one variable axis takes what the others leave
    let axes = &spec.shape[usize::from(batched && !spec.shape.is_empty())..];
    let fixed: usize =
        axes.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { 1 }).product::<usize>().max(1);
    let mut left = cells.len() / fixed;
    let mut shape = Shape::new();
    if batched {
        shape.push(1);
    }
    for dim in axes {
        shape.push(match dim {
            Dim::Fixed(size) => *size,
            Dim::Dynamic(_) => std::mem::replace(&mut left, 1),
        });
    }
    Tensor { dtype: spec.dtype, shape, data: data.into() }
}
