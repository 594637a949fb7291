//! `gannet edge`: what can be asked of the compiler on the command line. Must not know how any of it is done.

mod compile;
mod inspect;
mod print;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::{
    bundle::{Bundle, MANIFEST, SIGNATURE, verify},
    error::{EdgeError, Result},
    mcuboot::{ImageVersion, image},
    sign::{PrivateKey, PublicKey},
};

use self::print::say;

/// A command that ended well.
const EXIT_OK: u8 = 0;
/// A model or a bundle that was refused.
const EXIT_REFUSED: u8 = 1;

/// What `gannet edge` takes.
#[derive(Debug, Args)]
pub struct EdgeArgs {
    #[command(subcommand)]
    command: EdgeCommand,
}

#[derive(Debug, Subcommand)]
enum EdgeCommand {
    /// Compile an ONNX model to an int8 TFLite-micro bundle: Arduino library, CMake project and ESP-IDF component in one
    #[command(after_long_help = COMPILE_EXAMPLES)]
    Compile(Box<CompileArgs>),
    /// Say what an ONNX or TFLite file holds: operators, sizes, memory
    #[command(after_long_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
    /// Check a bundle: every digest, the signature, and that the model computes its golden vectors
    #[command(after_long_help = VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
    /// Sign a bundle with a release key, offline
    #[command(after_long_help = SIGN_EXAMPLES)]
    Sign(SignArgs),
}

/// A stage that can be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Emit {
    /// The graph, channels last, before any pass
    Graph,
    /// What the passes did, and the graph after them
    Passes,
    /// Where each value lies in memory
    Plan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RangeArg {
    /// The least squared error
    Mse,
    /// Everything that was seen
    Minmax,
    /// All but 0.1 % of the values
    Percentile,
}

#[derive(Debug, Args)]
pub(crate) struct CompileArgs {
    /// An ONNX file
    #[arg(value_name = "PATH.onnx", required_unless_present = "model", conflicts_with = "model")]
    pub(crate) path: Option<PathBuf>,
    /// A model of the repository; without a version, its latest
    #[arg(long, value_name = "NAME[@VERSION]")]
    pub(crate) model: Option<String>,
    /// Where --model looks: <model>/<version>/model.onnx
    #[arg(long, value_name = "DIR", default_value = "models/zoo")]
    pub(crate) repository: PathBuf,
    /// Samples to choose ranges by: .npy, .csv, .parquet or .f32, one row a sample; once for each input, in order;
    /// or a folder of captured traffic (a table of capture.root); or "baseline": rows drawn of the package's baseline.json [default: the package's golden requests]
    #[arg(long, value_name = "DATA")]
    pub(crate) calibrate: Vec<PathBuf>,
    /// Samples to compare float and int8 on [default: those of --calibrate]
    #[arg(long, value_name = "DATA")]
    pub(crate) compare: Vec<PathBuf>,
    /// The folder to write the bundle to
    #[arg(long, value_name = "OUT", required_unless_present = "emit")]
    pub(crate) out: Option<PathBuf>,
    /// Print a stage instead of writing a bundle
    #[arg(long, value_name = "STAGE")]
    pub(crate) emit: Option<Emit>,
    /// How the range of computed values is chosen
    #[arg(long, value_name = "HOW", default_value = "mse")]
    pub(crate) range: RangeArg,
    /// A node that stays float, for the layers that lose most; may be repeated
    #[arg(long, value_name = "NODE")]
    pub(crate) keep_float: Vec<String>,
    /// One scale for each output of fully connected layers: more accurate, 8 bytes of memory an output, and wrong in
    /// TFLite-micro before 2025
    #[arg(long)]
    pub(crate) fc_per_channel: bool,
    /// Write the scales of biases too, which no TFLite-micro kernel reads but some tools ask for
    #[arg(long)]
    pub(crate) bias_scales: bool,
    /// Do not equalise neighbouring layers
    #[arg(long)]
    pub(crate) no_equalise: bool,
    /// Do not put the mean error of rounded weights back through the bias
    #[arg(long)]
    pub(crate) no_bias_correction: bool,
    /// The name in the manifest and of the C functions [default: that of the model]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The version in the manifest [default: that of the model, or 1]
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<String>,
    /// Grows with every release: a device takes nothing that is not higher than what it has
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) sequence: u64,
    /// Class names, one a line [default: labels.txt beside the model, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// Sign the bundle with this key (PEM, Ed25519)
    #[arg(long, value_name = "KEY.pem")]
    pub(crate) key: Option<PathBuf>,
    /// Print the report as JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// An ONNX or TFLite file, or a bundle's folder
    #[arg(value_name = "FILE")]
    pub(crate) path: PathBuf,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The bundle's folder
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// The release key's public half (PEM); without it, only digests and computation are checked
    #[arg(long, value_name = "KEY.pem")]
    key: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct SignArgs {
    /// The bundle's folder
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// The release key (PEM, Ed25519)
    #[arg(long, value_name = "KEY.pem")]
    key: PathBuf,
    /// Give it this higher sequence first: an old payload that is offered again
    #[arg(long, value_name = "NUMBER")]
    sequence: Option<u64>,
    /// Also write the model as an image for MCUboot
    #[arg(long, value_name = "IMAGE.bin")]
    mcuboot: Option<PathBuf>,
}

const COMPILE_EXAMPLES: &str = "\
Examples:
  gannet edge compile --model digits@1 --out digits-edge
                                          a model of the zoo, calibrated on its golden requests
  gannet edge compile net.onnx --calibrate samples.npy --out bundle
                                          100 samples of real data are enough
  gannet edge compile net.onnx --calibrate samples.npy --compare held_out.npy --out bundle
                                          float against int8 on rows that calibration did not see
  gannet edge compile net.onnx --calibrate samples.npy --keep-float conv_0 --out bundle
                                          a layer that loses much stays float
  gannet edge compile net.onnx --emit graph
                                          what the compiler makes of it, before any pass

The bundle opens in a browser: OUT/parity.html. Inputs and outputs of images are stored channels last.

Exit codes: 0 compiled, 1 refused: the message names the node, the reason and the way round.";

const INSPECT_EXAMPLES: &str = "\
Examples:
  gannet edge inspect model.tflite        any TFLite file, from whatever tool
  gannet edge inspect net.onnx            whether it can be compiled, and its layers

Exit codes: 0 read, 1 refused.";

const VERIFY_EXAMPLES: &str = "\
Examples:
  gannet edge verify digits-edge          digests and golden vectors
  gannet edge verify digits-edge --key release.pub.pem
                                          and whose release it is

Exit codes: 0 it is what it says, 1 it is not: do not ship it.";

const SIGN_EXAMPLES: &str = "\
Examples:
  openssl genpkey -algorithm ed25519 -out release.pem
  gannet edge sign digits-edge --key release.pem
  gannet edge sign old-bundle --key release.pem --sequence 12
                                          going back: the old payload as a newer release
  gannet edge sign digits-edge --key release.pem --mcuboot digits.bin
                                          and an image that 'imgtool verify -k release.pem' accepts

Exit codes: 0 signed, 1 refused.";

/// Runs a command; the exit code is its answer.
#[must_use]
pub fn run(args: &EdgeArgs) -> u8 {
    let result = match &args.command {
        EdgeCommand::Compile(args) => compile::run(args),
        EdgeCommand::Inspect(args) => inspect::run(args),
        EdgeCommand::Verify(args) => run_verify(args),
        EdgeCommand::Sign(args) => run_sign(args),
    };
    match result {
        Ok(()) => EXIT_OK,
        Err(error) => {
            eprintln!("{error}");
            EXIT_REFUSED
        }
    }
}

fn run_verify(args: &VerifyArgs) -> Result<()> {
    let key = args.key.as_deref().map(PublicKey::read).transpose()?;
    let bundle = Bundle::read(&args.bundle)?;
    let verified = verify(&bundle, key.as_ref())?;
    let manifest = &verified.manifest;
    let signature = match (verified.signed, bundle.files.contains_key(SIGNATURE)) {
        (true, _) => "signed by this key",
        (false, true) => "signed, not checked (give --key)",
        (false, false) => "not signed",
    };
    say(format_args!(
        "{} {} (sequence {}): {} files are as listed, {} golden rows come out code by code, {signature}",
        manifest.model,
        manifest.version,
        manifest.sequence,
        manifest.files.len(),
        verified.golden_rows
    ));
    Ok(())
}

fn run_sign(args: &SignArgs) -> Result<()> {
    let key = PrivateKey::read(&args.key)?;
    let mut bundle = Bundle::read(&args.bundle)?;
    verify(&bundle, None)?;
    if let Some(sequence) = args.sequence {
        bundle = bundle.renumbered(sequence)?;
    }
    bundle.sign(&key)?;
    bundle.write(&args.bundle)?;
    say(format_args!("{} is signed: {SIGNATURE} over {MANIFEST}", args.bundle.display()));
    if let Some(path) = &args.mcuboot {
        let manifest = bundle.manifest()?;
        let numbers: Vec<u16> = manifest.version.split('.').map_while(|part| part.parse().ok()).collect();
        let part = |place: usize| numbers.get(place).copied().unwrap_or(0);
        let small = |place: usize| u8::try_from(part(place)).unwrap_or(u8::MAX);
        let build = u32::try_from(manifest.sequence).unwrap_or(u32::MAX);
        let version = ImageVersion { major: small(0), minor: small(1), revision: part(2), build };
        let bytes = image(&bundle.files["model.tflite"], version, &key);
        std::fs::write(path, &bytes).map_err(EdgeError::io(path, "write"))?;
        say(format_args!("{} is an image of {} bytes for MCUboot", path.display(), bytes.len()));
    }
    Ok(())
}
