//! `gannet edge compile`: finds the model, its samples and its labels, compiles, writes the bundle and says what it
//! costs. Must not know passes or formats.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    CompileArgs, Emit, RangeArg,
    print::{Meter, bar, say, table},
};
use crate::{
    bundle::{Bundle, BundleInfo, report},
    compile::{CompileOptions, Compiled, Data, compile, graph_of},
    data::Samples,
    error::{EdgeError, Result},
    graph::Graph,
    package::{Baseline, Captured, Golden, SampleSource as _},
    passes,
    plan::{Plan, lifetimes, plan},
    quantise::{QuantiseOptions, RangeChoice},
    sign::PrivateKey,
};

/// What `--calibrate` may say in place of a file.
const BASELINE: &str = "baseline";
/// Fewer samples than this are said to be few.
const FEW_SAMPLES: usize = 50;

/// What the arguments mean.
struct Model {
    path: PathBuf,
    name: String,
    version: String,
    onnx: Vec<u8>,
}

pub(super) fn run(args: &CompileArgs) -> Result<()> {
    let model = find(args)?;
    if let Some(stage) = args.emit {
        return emit(stage, &model.onnx);
    }
    let graph = graph_of(&model.onnx)?;
    let calibrate = match &args.calibrate[..] {
        [] => golden_samples(&model.path, &graph)?,
        [word] if word.as_os_str() == BASELINE => baseline_samples(&model.path, &graph)?,
        [folder] if folder.is_dir() => Captured::read(folder, &graph)?.samples(&graph)?,
        paths => samples(paths, &graph)?,
    };
    let compare = if args.compare.is_empty() { None } else { Some(samples(&args.compare, &graph)?) };
    let count = calibrate.first().map_or(0, Samples::len);
    if count < FEW_SAMPLES {
        eprintln!(
            "only {count} samples: ranges may be too narrow for real data; give about 100 with --calibrate"
        );
    }
    let mut meter = Meter::new();
    let compiled = compile(&model.onnx, &Data { calibrate, compare }, &options(args), &mut |progress| {
        meter.show(progress);
        true
    });
    meter.end();
    let compiled = compiled?;
    let class_names = labels(args, &model.path)?;
    let info = BundleInfo { model: model.name, version: model.version, sequence: args.sequence, class_names };
    let mut bundle = Bundle::new(&compiled, &info);
    if let Some(key) = &args.key {
        bundle.sign(&PrivateKey::read(key)?)?;
    }
    let out = args.out.as_deref().unwrap_or(Path::new("."));
    bundle.write(out)?;
    let report = report::of(&compiled, &info);
    if args.json {
        say(format_args!("{:#}", serde_json::to_value(&report).expect("plain data")));
    } else {
        tell(&compiled, &report, out);
    }
    Ok(())
}

fn options(args: &CompileArgs) -> CompileOptions {
    let range = match args.range {
        RangeArg::Mse => RangeChoice::MeanSquaredError,
        RangeArg::Minmax => RangeChoice::MinMax,
        RangeArg::Percentile => RangeChoice::Percentile(0.1),
    };
    let quantise = QuantiseOptions {
        range,
        dense_per_channel: args.fc_per_channel,
        bias_correction: !args.no_bias_correction,
        bias_scales: args.bias_scales,
        keep_float: args.keep_float.clone(),
    };
    CompileOptions { quantise, equalise: !args.no_equalise }
}

fn bad(what: impl Into<String>, fault: impl Into<String>, way_round: &str) -> EdgeError {
    EdgeError::Data { what: what.into(), fault: fault.into(), way_round: way_round.into() }
}

fn find(args: &CompileArgs) -> Result<Model> {
    let (path, name, version) = match (&args.model, &args.path) {
        (Some(model), _) => {
            let (name, version) = match model.split_once('@') {
                Some((name, version)) => (name.to_owned(), version.to_owned()),
                None => (model.clone(), latest(&args.repository.join(model))?),
            };
            let plain = |part: &str| !part.is_empty() && !part.contains(['/', '\\']) && part != "..";
            if !plain(&name) || !plain(&version) {
                return Err(bad(
                    "--model",
                    format!("expected NAME[@VERSION], got '{model}'"),
                    "name a model of the repository",
                ));
            }
            (args.repository.join(&name).join(&version).join("model.onnx"), name, version)
        }
        (None, Some(path)) => {
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            (path.clone(), stem, "1".to_owned())
        }
        (None, None) => return Err(bad("model", "expected a file or --model, got neither", "name one")),
    };
    let onnx = fs::read(&path).map_err(EdgeError::io(&path, "read"))?;
    let name = args.name.clone().unwrap_or(name);
    let version = args.version.clone().unwrap_or(version);
    Ok(Model { path, name, version, onnx })
}

/// The version with the highest number.
fn latest(folder: &Path) -> Result<String> {
    let items = fs::read_dir(folder).map_err(EdgeError::io(folder, "list the versions"))?;
    let names = items.filter_map(|item| item.ok()?.file_name().into_string().ok());
    let numbered = names.filter_map(|name| Some((name.parse::<u64>().ok()?, name)));
    numbered.max().map(|(_, name)| name).ok_or_else(|| {
        bad(
            folder.display().to_string(),
            "expected folders named by version, got none",
            "name one with --model NAME@VERSION",
        )
    })
}

fn samples(paths: &[PathBuf], graph: &Graph) -> Result<Vec<Samples>> {
    if paths.len() != graph.inputs.len() {
        let names: Vec<&str> = graph.inputs.iter().map(|port| port.name.as_str()).collect();
        let fault = format!(
            "expected a file for each of {} inputs ({}), got {}",
            names.len(),
            names.join(", "),
            paths.len()
        );
        return Err(bad("samples", fault, "repeat the option in the order of the inputs"));
    }
    let rows = graph.inputs.iter().map(|port| graph.tensors[port.tensor].len());
    paths.iter().zip(rows).map(|(path, row)| Samples::read(path, row)).collect()
}

/// The rows of the golden requests that lie beside a model.
fn golden_samples(model: &Path, graph: &Graph) -> Result<Vec<Samples>> {
    let folder = model.with_file_name("golden");
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .map(|items| items.filter_map(|item| Some(item.ok()?.path())).collect())
        .map_err(|_| {
            let fault = format!("expected --calibrate, or golden requests in {}", folder.display());
            bad("samples", fault, "give samples with --calibrate samples.npy")
        })?;
    paths.sort();
    let texts = paths.iter().map(|path| fs::read(path).map_err(EdgeError::io(path, "read")));
    Golden(texts.collect::<Result<_>>()?).samples(graph)
}

/// Rows drawn of the baseline that lies beside a model.
fn baseline_samples(model: &Path, graph: &Graph) -> Result<Vec<Samples>> {
    let path = model.with_file_name("baseline.json");
    Baseline(fs::read(&path).map_err(EdgeError::io(&path, "read"))?).samples(graph)
}

fn labels(args: &CompileArgs, model: &Path) -> Result<Vec<String>> {
    let beside = model.with_file_name("labels.txt");
    let path = match &args.labels {
        Some(path) => path,
        None if beside.exists() => &beside,
        None => return Ok(Vec::new()),
    };
    let text = fs::read_to_string(path).map_err(EdgeError::io(path, "read"))?;
    Ok(text.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect())
}

fn emit(stage: Emit, onnx: &[u8]) -> Result<()> {
    let graph = graph_of(onnx)?;
    if stage == Emit::Graph {
        say(graph.to_string().trim_end());
        return Ok(());
    }
    let optimised = passes::optimise(graph, 1);
    if stage == Emit::Passes {
        for note in &optimised.notes {
            say(format_args!("{:<16} {}: {}", note.pass, note.node, note.what));
        }
        say(optimised.graph.to_string().trim_end());
        return Ok(());
    }
    let plan = plan(lifetimes(&optimised.graph, 1));
    let name = |tensor: usize| optimised.graph.tensors[tensor].name.clone();
    print_plan(&plan, &name);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a bar")]
fn print_plan(plan: &Plan, name: &dyn Fn(usize) -> String) {
    let mut rows = vec![["tensor", "from", "bytes", "steps", ""].map(str::to_owned).to_vec()];
    for (lifetime, offset) in plan.lifetimes.iter().zip(&plan.offsets) {
        let scale = 32.0 / plan.bytes.max(1) as f64;
        let before = bar(*offset as f64 * scale / 32.0, 32).chars().count();
        let shown = format!("{}{}", " ".repeat(before), bar(lifetime.bytes as f64 * scale / 32.0, 32));
        let steps = format!("{}..{}", lifetime.first, lifetime.last);
        let tensor = lifetime.tensor.map_or_else(|| "scratch".into(), name);
        rows.push(vec![tensor, offset.to_string(), lifetime.bytes.to_string(), steps, shown]);
    }
    say(table(&rows));
    let (bytes, bound, greedy) = (plan.bytes, plan.lower_bound, plan.greedy_bytes);
    say(format_args!(
        "{bytes} bytes; no plan needs less than {bound}; TFLite-micro's own would need {greedy}"
    ));
}

fn tell(compiled: &Compiled, report: &report::Report, out: &Path) {
    let heading = ["layer", "operator", "flash", "memory", "multiplications", "dB", ""];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for layer in &report.layers {
        let decibels = layer.sqnr_db.unwrap_or(0.0);
        rows.push(vec![
            layer.node.clone(),
            layer.operator.clone(),
            layer.flash_bytes.to_string(),
            layer.ram_bytes.to_string(),
            layer.macs.to_string(),
            layer.sqnr_db.map_or_else(|| "-".into(), |decibels| format!("{decibels:.1}")),
            bar(decibels / 60.0, 20),
        ]);
    }
    say(table(&rows));
    let parity = &report.parity;
    say(format_args!(
        "\nint8 against float on {} rows: {:.1} dB, the same largest output on {:.2} %",
        parity.rows,
        parity.sqnr_db,
        100.0 * parity.top1_agreement
    ));
    let worst: Vec<String> = parity
        .worst_layers(3)
        .iter()
        .map(|layer| format!("{} ({:.1} dB)", layer.node, layer.sqnr_db))
        .collect();
    say(format_args!("most noise after {}; --keep-float takes such a name", worst.join(", ")));
    for sparsity in &compiled.sparsity {
        let (source, int8) = (100.0 * sparsity.source, 100.0 * sparsity.int8);
        say(format_args!(
            "{}: {source:.0} % of the source's weights are zero, {int8:.0} % of the codes",
            sparsity.node
        ));
    }
    say(format_args!(
        "{} bytes of flash for the model, an arena of {} bytes on a Cortex-M ({} on a 64-bit host)",
        report.tflite_bytes, report.cortex_m.required, report.host64.required
    ));
    let mut rows = vec![["board", "fits", "ms", "uJ (estimates)"].map(str::to_owned).to_vec()];
    for board in &report.boards {
        let fits = if board.fits { "yes" } else { "no" };
        rows.push(vec![
            board.board.clone(),
            fits.into(),
            format!("{:.1}", board.time_ms),
            format!("{:.0}", board.energy_uj),
        ]);
    }
    say(format_args!(
        "\n{}\n\nthe bundle is {}; see {}",
        table(&rows),
        out.display(),
        out.join("parity.html").display()
    ));
}
