//! The command line as written, and scenario files, which say the same in TOML.
//!
//! Values are text and numbers here; `plan` turns them into a validated plan. Must not know what
//! the values mean together.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

/// The program's command line.
#[derive(Debug, Parser)]
#[command(
    name = "gannet-loadtest",
    version,
    about = "Load tester for servers of the Open Inference Protocol v2",
    long_about = include_str!("flags/about.txt"),
    after_long_help = include_str!("flags/examples.txt"),
    args_conflicts_with_subcommands = true
)]
pub struct CommandLine {
    /// `echo`, or nothing for a load test.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The load test.
    #[command(flatten)]
    pub flags: Flags,
}

/// What is not a load test.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a minimal fixed-answer server on loopback, to measure the loader's own floor
    Echo(EchoFlags),
}

/// Options of `echo`.
#[derive(Debug, Args)]
pub struct EchoFlags {
    /// Port for HTTP (0: any free one); the address is 127.0.0.1
    #[arg(long, value_name = "PORT")]
    pub http: Option<u16>,
    /// Port for gRPC (0: any free one); the address is 127.0.0.1
    #[arg(long, value_name = "PORT")]
    pub grpc: Option<u16>,
    /// Ends by itself after this many seconds
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub seconds: u64,
    /// Pin to this CPU
    #[arg(long, value_name = "CPU")]
    pub pin: Option<usize>,
}

fn unset(flag: &bool) -> bool {
    !flag
}

/// Options of a load test. A scenario file has the same names.
#[derive(Debug, Default, Clone, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each field's help text is its documentation for users")]
pub struct Flags {
    /// Server: http://HOST:PORT or grpc://HOST:PORT [default: http://127.0.0.1:8000]
    #[arg(short, long, value_name = "URL", help_heading = "Server")]
    pub url: Option<String>,
    /// Model to infer with
    #[arg(short, long, value_name = "NAME", help_heading = "Server")]
    pub model: Option<String>,
    /// Version to ask for; left out, the server chooses
    #[arg(long, value_name = "V", help_heading = "Server")]
    pub model_version: Option<String>,
    /// HTTP requests as `json` or `binary` (binary tensor extension) [default: json]
    #[arg(long, value_name = "WIRE", help_heading = "Server")]
    pub wire: Option<String>,
    /// Other path than the v2 infer path, for other protocols; needs --body
    #[arg(long, value_name = "PATH", help_heading = "Server")]
    pub path: Option<String>,
    /// Header (HTTP) or metadata (gRPC) of every request, as 'name: value'; may be repeated
    #[arg(long, value_name = "HEADER", help_heading = "Server")]
    pub header: Vec<String>,
    /// Let load leave this machine: otherwise only loopback addresses are accepted
    #[arg(long, help_heading = "Server")]
    #[serde(skip_serializing_if = "unset")]
    pub allow_remote: bool,

    /// Closed loop: keep N requests in flight [default: 1 when no --rate is given]
    #[arg(short = 'n', long, value_name = "N", help_heading = "Load")]
    pub in_flight: Option<usize>,
    /// Open loop: requests a second, such as 1500 or 20k
    #[arg(short, long, value_name = "RATE", help_heading = "Load")]
    pub rate: Option<String>,
    /// Open loop: poisson, constant, bursts (with --burst-size) or ramp (with --ramp-to) [default:
    /// poisson]
    #[arg(long, value_name = "KIND", help_heading = "Load")]
    pub arrivals: Option<String>,
    /// Bursts: requests that are due at the same instant; --rate stays the mean
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub burst_size: Option<u32>,
    /// Ramp: rate at the end of --duration; --rate is the one at the start
    #[arg(long, value_name = "RATE", help_heading = "Load")]
    pub ramp_to: Option<String>,
    /// Open loop: replay due times from a file, one time in seconds a line
    #[arg(long, value_name = "FILE", help_heading = "Load")]
    pub arrivals_file: Option<PathBuf>,
    /// Connections [default: closed loop: in-flight / pipeline over HTTP, 8 over gRPC; open loop:
    /// 256 over HTTP, 8 over gRPC]
    #[arg(short, long, value_name = "N", help_heading = "Load")]
    pub connections: Option<usize>,
    /// Requests on one connection at a time: HTTP pipelining depth [default: 1], or gRPC streams
    /// [default: what in-flight needs, 128 in open loop]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub pipeline: Option<usize>,
    /// Measured time, such as 10s [default: 10s; 5s a step with --find-max, 3s a round with --vs;
    /// 10min with --requests]
    #[arg(short, long, value_name = "TIME", help_heading = "Load")]
    pub duration: Option<String>,
    /// End after this many measured requests, if --duration has not ended the run before
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub requests: Option<u64>,
    /// Load before the measured time [default: 1s; 0s for ramp and --arrivals-file]
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    pub warmup: Option<String>,
    /// How long answers are waited for after the end [default: 5s]
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    pub drain: Option<String>,
    /// Seed of arrivals, random data and shuffling [default: 1]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub seed: Option<u64>,
    /// Between requests: `spin` (exact times, one whole core) or `sleep` [default: spin in open
    /// loop, sleep in closed loop]
    #[arg(long, value_name = "HOW", help_heading = "Load")]
    pub idle: Option<String>,
    /// Pin the load thread to this CPU
    #[arg(long, value_name = "CPU", help_heading = "Load")]
    pub pin: Option<usize>,

    /// Request body from a file; may be repeated, then they are sent in turn. v2 JSON is written
    /// for the wire in use, other bytes are sent as they are
    #[arg(short, long, value_name = "FILE", help_heading = "Requests")]
    pub body: Vec<PathBuf>,
    /// Inference-Header-Content-Length of the --body files
    #[arg(long, value_name = "N", help_heading = "Requests")]
    pub json_bytes: Option<usize>,
    /// Rows from a data set: FILE.csv, INPUT=FILE.npy, or FILE.npy for a model of one input; may be
    /// repeated
    #[arg(long, value_name = "DATA", help_heading = "Requests")]
    pub data: Vec<String>,
    /// Draw data set rows `in-order` or `shuffled` (by --seed) [default: in-order]
    #[arg(long, value_name = "ORDER", help_heading = "Requests")]
    pub order: Option<String>,
    /// Rows in a request [default: 1]
    #[arg(long, value_name = "N", help_heading = "Requests")]
    pub rows: Option<usize>,
    /// Different random requests to send in turn, without --body and --data [default: 16]
    #[arg(long, value_name = "N", help_heading = "Requests")]
    pub variants: Option<usize>,
    /// Shape of an input with variable dimensions, without rows, as NAME:3,224,224; may be repeated
    #[arg(long, value_name = "SHAPE", help_heading = "Requests")]
    pub shape: Vec<String>,
    /// The v2 request parameter `timeout`, in microseconds
    #[arg(long, value_name = "N", help_heading = "Requests")]
    pub timeout_us: Option<u64>,

    /// Every answer's body (HTTP) or message (gRPC) must equal this file
    #[arg(long, value_name = "FILE", help_heading = "Checks and objectives")]
    pub expect: Option<PathBuf>,
    /// Every answer's model_version must be one of these, such as 3,4
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = "Checks and objectives")]
    pub check_versions: Vec<String>,
    /// Count the model_version of every Nth answer; 1: all, 0: none [default: 16]
    #[arg(long, value_name = "N", help_heading = "Checks and objectives")]
    pub sample_versions: Option<u32>,
    /// Objective, such as p99=5ms; also p50, p99.9, mean, max, window-p50, window-p99,
    /// errors=0.1%, rate=20k. May be repeated; all must hold
    #[arg(long, value_name = "TERMS", help_heading = "Checks and objectives")]
    pub slo: Vec<String>,
    /// Search the highest rate that holds --slo, from --rate on [default start: 1000]
    #[arg(long, help_heading = "Checks and objectives")]
    #[serde(skip_serializing_if = "unset")]
    pub find_max: bool,
    /// Rates tried by --find-max at most [default: 16]
    #[arg(long, value_name = "N", help_heading = "Checks and objectives")]
    pub find_steps: Option<u32>,

    /// Second server: rounds alternate between --url and this, and ratios are printed
    #[arg(long, value_name = "URL", help_heading = "Comparison")]
    pub vs: Option<String>,
    /// Model on the second server [default: --model]
    #[arg(long, value_name = "NAME", help_heading = "Comparison")]
    pub vs_model: Option<String>,
    /// Process of the second server, for its CPU time
    #[arg(long, value_name = "PID", help_heading = "Comparison")]
    pub vs_server_pid: Option<u32>,
    /// Rounds on each server [default: 5]
    #[arg(long, value_name = "N", help_heading = "Comparison")]
    pub rounds: Option<u32>,

    /// Process of the server, for its CPU time per request
    #[arg(long, value_name = "PID", help_heading = "Report")]
    pub server_pid: Option<u32>,
    /// Do not ask the server for its statistics before and after
    #[arg(long, help_heading = "Report")]
    #[serde(skip_serializing_if = "unset")]
    pub no_server_stats: bool,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub json: Option<PathBuf>,
    /// Write the report as an HTML page with plots
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub html: Option<PathBuf>,
    /// Print a line each second to stderr even when it is no terminal
    #[arg(long, help_heading = "Report")]
    #[serde(skip_serializing_if = "unset")]
    pub progress: bool,
    /// Options from a TOML file; options on the command line win
    #[arg(short, long, value_name = "FILE", help_heading = "Report")]
    #[serde(skip)]
    pub scenario: Option<PathBuf>,
}

/// Groups of options that exclude each other.
const EXCLUSIVE: [(&[&str], &[&str]); 2] = [
    (&["in-flight"], &["rate", "arrivals", "arrivals-file", "burst-size", "ramp-to", "find-max"]),
    (&["body", "json-bytes"], &["data", "rows"]),
];

impl Flags {
    /// These options over those of the scenario file they name, if they name one.
    pub fn with_scenario(self) -> Result<Self, String> {
        let Some(path) = &self.scenario else {
            return Ok(self);
        };
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("--scenario {}: cannot be read: {e}; correct the path", path.display()))?;
        self.over(&text, path)
    }

    fn over(&self, scenario: &str, path: &Path) -> Result<Self, String> {
        let fault = |error: &dyn std::fmt::Display| {
            format!("--scenario {}: {error}\nits keys are the long options' names", path.display())
        };
        let mut file: toml::Table = toml::from_str(scenario).map_err(|e| fault(&e))?;
        // Checked alone first: then an error's line is the file's.
        toml::from_str::<Self>(scenario).map_err(|e| fault(&e))?;
        let own = toml::Table::try_from(self).map_err(|e| fault(&e))?;
        let said = |value: &toml::Value| !value.as_array().is_some_and(Vec::is_empty);
        let own: toml::Table = own.into_iter().filter(|(_, value)| said(value)).collect();
        // An option also wins over those of the file that exclude it.
        for (one, other) in EXCLUSIVE {
            for (said, dropped) in [(one, other), (other, one)] {
                if said.iter().any(|key| own.contains_key(*key)) {
                    dropped.iter().for_each(|key| drop(file.remove(*key)));
                }
            }
        }
        file.extend(own);
        file.try_into().map_err(|e| fault(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Flags {
        let words = std::iter::once("gannet-loadtest").chain(line.split_whitespace());
        CommandLine::try_parse_from(words).unwrap().flags
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        CommandLine::command().debug_assert();
    }

    #[test]
    fn flags_win_over_the_scenario() {
        let scenario = "model = 'm'\nrate = '2k'\nslo = ['p99=5ms']\nfind-max = true\nrows = 4\n";
        let merged = flags("--rate 500 --header a:b").over(scenario, Path::new("s")).unwrap();
        assert_eq!(merged.rate.as_deref(), Some("500"));
        assert_eq!(merged.model.as_deref(), Some("m"));
        assert_eq!(merged.slo, ["p99=5ms"]);
        assert_eq!(merged.header, ["a:b"]);
        assert_eq!(merged.rows, Some(4));
        assert!(merged.find_max);
    }

    #[test]
    fn flags_win_over_what_excludes_them() {
        let scenario = "model = 'm'\nrate = '2k'\narrivals = 'constant'\ndata = ['x.csv']\n";
        let merged = flags("-n 8 --body b.json").over(scenario, Path::new("s")).unwrap();
        assert_eq!((merged.in_flight, merged.rate, merged.arrivals), (Some(8), None, None));
        assert!(merged.data.is_empty() && merged.body.len() == 1);
    }

    #[test]
    fn unknown_keys_are_named() {
        let error = flags("").over("modle = 'm'", Path::new("s.toml")).unwrap_err();
        assert!(error.contains("s.toml") && error.contains("modle"), "{error}");
    }
}
