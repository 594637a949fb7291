//! The command line: what can be asked of the `gannet` command, in words that teach. Must not know how any of it
//! is done.

mod banner;
mod baseline;
mod capture;
mod check;
pub(crate) mod client;
mod drift;
mod evaluate;
mod models;
mod ota;
mod profile;
mod registry;
mod replay;
mod rollout;
mod serve;
mod table;

use std::{ffi::OsString, fmt, io::Write as _, process::ExitCode};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::keys;

/// A command that ended well.
const EXIT_OK: u8 = 0;
/// A model that was refused, or a server that failed.
const EXIT_REFUSED: u8 = 1;
/// `EX_USAGE` of sysexits: the configuration or the command line is wrong.
const EXIT_USAGE: u8 = 64;
/// `EX_UNAVAILABLE`: a part that is needed is missing, such as ONNX Runtime or the server that was asked.
const EXIT_UNAVAILABLE: u8 = 69;

/// Serves machine learning models over HTTP and gRPC.
#[derive(Debug, Parser)]
#[command(name = "gannet", version, args_conflicts_with_subcommands = true, after_long_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve models (what happens without a command); its --help lists every key of the configuration
    Serve(Box<ServeArgs>),
    /// Load models once, run their golden requests, and say how they would be served
    #[command(after_long_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Measure what runs of a model cost on this machine, and recommend how to serve it
    #[command(after_long_help = PROFILE_EXAMPLES)]
    Profile(ProfileArgs),
    /// Ask a running server for its models, their states and reasons
    #[command(after_long_help = MODELS_EXAMPLES)]
    Models(ModelsArgs),
    /// Roll a version out by evidence: begin, watch, hold, promote, take back, explain
    Rollout(rollout::RolloutArgs),
    /// Whether a model's data changed on a running server, and what of it
    Drift(drift::DriftArgs),
    /// Keep what a model's training data looks like in its package
    #[command(subcommand)]
    Baseline(baseline::BaselineCommand),
    /// What was captured: list it, and erase a request from it
    #[command(subcommand)]
    Capture(capture::CaptureCommand),
    /// Run captured requests through another version, and say how its answers differ
    Replay(replay::ReplayArgs),
    /// How right captured answers were, by labels that came later
    Evaluate(evaluate::EvaluateArgs),
    /// Bring what a registry has into a folder
    Pull(registry::PullArgs),
    /// Bring a version from a folder to a registry
    Push(registry::PushArgs),
    /// Ask a running server for the registries that it follows
    #[command(subcommand)]
    Registry(registry::RegistryCommand),
    /// Sign a version's files, and check signatures
    #[command(subcommand)]
    Package(registry::PackageCommand),
    /// Load a model that is a program, as the server does for the first time: called by the server alone
    #[command(hide = true)]
    Rehearse,
    /// Deliver signed bundles to devices: publish, watch, hold, stop
    Ota(ota::OtaArgs),
    /// Compile a model for a microcontroller, and inspect, verify and sign what comes out
    Edge(gannet_edge::cli::EdgeArgs),
}

/// What `serve` takes. Values are checked with those of the file and the environment, so they are texts here.
#[derive(Debug, Args, Default)]
struct ServeArgs {
    /// A model repository (<model>/<version>/model.onnx), one model's folder, or a model file; may be repeated
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// The same as PATH; may be repeated [default: models/zoo]
    #[arg(long, value_name = "PATH")]
    repository: Vec<String>,
    /// The configuration file [default: gannet.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Who decides what is served: poll (the folders, which are watched), explicit (load calls), none (the first look)
    #[arg(long, value_name = "MODE")]
    model_control: Option<String>,
    /// With explicit: a model to load at the start; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    load_model: Vec<String>,
    /// What the data ports may do with explicit: index, or full (load and unload) [default: full on loopback]
    #[arg(long, value_name = "ACCESS")]
    repository_api: Option<String>,
    /// Inference over HTTP [default: 127.0.0.1:8000]; "off" for none, as with the three below
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Inference over gRPC [default: 127.0.0.1:8001]
    #[arg(long, value_name = "HOST:PORT")]
    grpc: Option<String>,
    /// Metrics for Prometheus [default: 127.0.0.1:8002]
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<String>,
    /// The admin API [default: 127.0.0.1:8003]
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// A file of bearer tokens, one a line, of which the admin API wants one; read again when it changes
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<String>,
    /// A file of bearer tokens, one a line, of which HTTP and gRPC want one but for health; read again when it changes
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,
    /// The folder for everything that is written [default: $XDG_STATE_HOME/gannet or ~/.local/state/gannet]
    #[arg(long, value_name = "DIR")]
    state: Option<String>,
    /// Sets any key of the configuration file, such as limits.body_bytes_max=128MiB; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// A model repository, one model's folder, or a model file
    #[arg(value_name = "PATH")]
    path: std::path::PathBuf,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ProfileArgs {
    /// A model's folder, or a model file; of several versions the highest is measured
    #[arg(value_name = "MODEL")]
    path: std::path::PathBuf,
    /// Rows of a run to try [default: 1, 2, 4 and so on up to 256, or up to the configured max_batch_size]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    rows: Vec<usize>,
    /// Threads in one run to try [default: 1, 2, 4 and so on up to the cores]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Instances side by side to try [default: 1, 2, 4 and so on up to the cores]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    instances: Vec<usize>,
    /// Time for each point, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 300)]
    each_ms: u64,
    /// Write the recommendation into the model's model.toml, which must not say otherwise already
    #[arg(long)]
    write: bool,
    /// Draw the curves into an SVG file
    #[arg(long, value_name = "FILE")]
    svg: Option<std::path::PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ModelsArgs {
    /// Where the server's admin API is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8003")]
    admin: String,
    /// A file whose first token is sent, for servers that want one
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<std::path::PathBuf>,
    /// Print the server's JSON instead of a table
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  gannet                                  serve the models that come with Gannet
  gannet model.onnx                       serve one file; batching is inferred from it
  gannet models/ more-models/             serve two repositories, and follow what changes in them
  gannet check models/                    what would be served, without serving
  gannet models                           what a running server serves, and why not
  gannet rollout start digits --candidate 2
                                          move the traffic to version 2, as far as the evidence allows
  gannet edge compile --model digits@1 --out digits-edge
                                          the same model for a microcontroller
  gannet --http 0.0.0.0:8000 models/      answer other machines too
  gannet --model-control explicit --load-model iris models/
                                          load and unload by calls

  curl http://127.0.0.1:8000/v2/models/iris/infer -d \\
    '{\"inputs\":[{\"name\":\"input\",\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[5.1,2.5,3.0,1.1]}]}'

Configuration:
  Every key can be set by a flag, in gannet.toml, or in the environment; the first of these that names it decides.
  listen.http is --http HOST:PORT or --set listen.http=HOST:PORT, [listen] http = \"HOST:PORT\" in the file, and
  GANNET_LISTEN_HTTP in the environment. GET /admin/v1/config on the admin port shows every key, its value and
  where that came from.

A folder that is called like a command is written ./models. The library of ONNX Runtime is the one of the build, or
the one that ORT_DYLIB_PATH names.

Exit codes: 0 ended well, 1 failed or refused, 64 wrong configuration, 69 something needed is missing.";

const CHECK_EXAMPLES: &str = "\
Examples:
  gannet check model.onnx                 one file
  gannet check models/zoo --json          a repository, for a script

Exit codes: 0 everything would be served, 1 something was refused, 69 ONNX Runtime is missing.";

const PROFILE_EXAMPLES: &str = "\
Each way to run the model - rows in a run, threads in one run, instances side by side - is run with zeros for a
moment. The recommendation is the one with the most rows a second, and of those that are equally good the one whose
runs are shortest. A server that finds nothing configured measures less of the same when it loads a model.

Examples:
  gannet profile models/zoo/digits             measure, draw, recommend
  gannet profile model.onnx --rows 1,8,32      only these sizes
  gannet profile models/zoo/digits --write     keep the recommendation in the model's model.toml
  gannet profile model.onnx --svg curve.svg    the curves as a picture

Exit codes: 0 measured, 1 the model was refused or the file was not written, 69 ONNX Runtime is missing.";

const MODELS_EXAMPLES: &str = "\
Examples:
  gannet models                           the server on this machine
  gannet models --admin http://10.0.0.7:8003 --admin-token-file token

Exit codes: 0 the server answered, 1 it refused, 69 it cannot be reached.";

/// Runs the command; the exit code is its answer.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { wrong_arguments(&arguments) } else { EXIT_OK }.into();
        }
    };
    let code = match cli.command {
        None => serve::run(&cli.serve),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Profile(args)) => profile::run(&args),
        Some(Command::Models(args)) => models::run(&args),
        Some(Command::Rollout(args)) => rollout::run(&args),
        Some(Command::Drift(args)) => drift::run(&args),
        Some(Command::Baseline(command)) => baseline::run(&command),
        Some(Command::Capture(command)) => capture::run(&command),
        Some(Command::Replay(args)) => replay::run(&args),
        Some(Command::Evaluate(args)) => evaluate::run(&args),
        Some(Command::Pull(args)) => registry::run_pull(&args),
        Some(Command::Push(args)) => registry::run_push(&args),
        Some(Command::Registry(command)) => registry::run_registry(&command),
        Some(Command::Package(command)) => registry::run_package(&command),
        Some(Command::Rehearse) => crate::rehearsal::perform(&serve::engine_config()),
        Some(Command::Ota(args)) => ota::run(&args),
        Some(Command::Edge(args)) => gannet_edge::cli::run(&args),
    };
    code.into()
}

/// What wrong arguments end with: a command that compares has 1 for a difference and 2 for them, as `diff` has.
fn wrong_arguments(arguments: &[OsString]) -> u8 {
    match arguments.get(1) {
        Some(command) if command == "replay" => replay::EXIT_WRONG,
        _ => EXIT_USAGE,
    }
}

fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let command = Cli::command().mut_subcommand("serve", |serve| serve.after_long_help(keys_help()));
    Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

/// Every key, section by section.
fn keys_help() -> String {
    let width = keys().iter().map(|key| key.name.len()).max().unwrap_or(0);
    let line = |key: &crate::config::Key| format!("  {:width$}  {} ({})", key.name, key.help, key.expected);
    let lines: Vec<String> = keys().iter().map(line).collect();
    format!("{EXAMPLES}\n\nKeys:\n{}", lines.join("\n"))
}

/// Prints a line. That nobody reads it any more is no reason to fail.
fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let words = |arguments: &[&str]| arguments.iter().map(OsString::from).collect::<Vec<_>>();
        let parse = |arguments: &[&str]| super::parse(&words(arguments)).unwrap();
        assert_eq!(
            [&["gannet", "replay"][..], &["gannet", "--http"]].map(|a| wrong_arguments(&words(a))),
            [2, 64]
        );
        assert!(parse(&["gannet"]).command.is_none());
        assert_eq!(parse(&["gannet", "a", "b"]).serve.paths, ["a", "b"]);
        assert!(matches!(parse(&["gannet", "serve", "a"]).command, Some(Command::Serve(_))));
        assert!(matches!(parse(&["gannet", "check", "a", "--json"]).command, Some(Command::Check(_))));
        assert!(matches!(parse(&["gannet", "models"]).command, Some(Command::Models(_))));
        assert_eq!(parse(&["gannet", "./models"]).serve.paths, ["./models"]);
    }
}
