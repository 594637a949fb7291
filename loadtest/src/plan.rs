//! The plan: options, checked once and turned into values that need no further check.
//!
//! All faults are reported together. Must not know how the plan is carried out.

mod load;
mod requests;

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::arrivals::Profile;
use crate::clock::SECOND_NS;
use crate::flags::Flags;
use crate::objective::Objective;
use crate::payload::Wire;
use crate::quantity::parse_duration_ns;
use crate::target::{Scheme, ServerUrl};

pub use load::LoadPlan;
pub(crate) use requests::{DataFile, RequestPlan, Source};

/// Connections at most: descriptors are limited too.
const CONNECTIONS_MAX: usize = 16_384;
/// Requests on one connection at most.
const PIPELINE_MAX: usize = 4096;
/// Longest run: every run ends.
const DURATION_NS_MAX: u64 = 24 * 3600 * SECOND_NS;
/// Rounds and steps at most.
const REPEATS_MAX: u32 = 1000;
/// One server of a run.
#[derive(Debug, Clone)]
pub struct Side {
    /// Its URL.
    pub url: ServerUrl,
    /// Its address.
    pub address: SocketAddr,
    /// Model on it.
    pub model: String,
    /// How requests are written.
    pub wire: Wire,
    /// Its process, for its CPU time.
    pub server_pid: Option<u32>,
}

/// A whole test.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One server, or two to compare.
    pub sides: Vec<Side>,
    /// What is sent.
    pub(crate) requests: RequestPlan,
    /// When it is sent.
    pub load: LoadPlan,
    /// Connections, when stated.
    pub connections: Option<usize>,
    /// Requests on one connection, when stated.
    pub pipeline: Option<usize>,
    /// Unmeasured load before.
    pub warmup_ns: u64,
    /// Measured time.
    pub duration_ns: u64,
    /// Measured requests at most.
    pub requests_max: Option<u64>,
    /// Wait for the last answers.
    pub drain_ns: u64,
    /// Seed of everything random.
    pub seed: u64,
    /// Never sleep between requests.
    pub spin: bool,
    /// CPU of the load thread.
    pub pin: Option<usize>,
    /// What must hold.
    pub objective: Option<Objective>,
    /// Rates to try at most, when the highest is searched.
    pub find_steps: Option<u32>,
    /// Rounds on each server of a comparison.
    pub rounds: u32,
    /// Ask the server for statistics.
    pub server_stats: bool,
    /// Where the JSON report goes.
    pub json: Option<PathBuf>,
    /// Where the HTML report goes.
    pub html: Option<PathBuf>,
    /// Print progress even when stderr is no terminal.
    pub progress: bool,
}

/// Gathers all faults before it gives up.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<String>);

impl Faults {
    fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|fault| self.0.push(fault)).ok()
    }

    fn add(&mut self, fault: impl Into<String>) {
        self.0.push(fault.into());
    }

    /// Parses an option's value, naming the option in a fault.
    fn option<T>(
        &mut self,
        name: &str,
        value: Option<&String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let result = parse(value?).map_err(|fault| format!("--{name}: {fault}"));
        self.take(result)
    }

    fn range<T: PartialOrd + std::fmt::Display + Copy>(
        &mut self,
        name: &str,
        value: Option<T>,
        (min, max): (T, T),
    ) {
        if let Some(value) = value.filter(|value| *value < min || *value > max) {
            self.add(format!("--{name}: expected {min} to {max}, got {value}; change it"));
        }
    }
}

impl Plan {
    /// Checks options; every fault is in the error.
    pub fn new(flags: &Flags) -> Result<Self, Vec<String>> {
        let mut faults = Faults::default();
        let sides = sides(flags, &mut faults);
        let duration_ns = duration(flags, &mut faults);
        let load = load::load(flags, duration_ns, &mut faults);
        let warmup_ns = warmup(flags, load.as_ref(), &mut faults);
        let drain_ns = faults.option("drain", flags.drain.as_ref(), parse_duration_ns);
        let objective = faults.take(Objective::parse(&flags.slo)).flatten();
        let open = matches!(load, Some(LoadPlan::Open { .. }));
        let spin = match flags.idle.as_deref() {
            None => open,
            Some("spin") => true,
            Some("sleep") => false,
            Some(other) => {
                faults.add(format!("--idle: expected spin or sleep, got {other:?}; choose one"));
                false
            }
        };
        faults.range("connections", flags.connections, (1, CONNECTIONS_MAX));
        faults.range("pipeline", flags.pipeline, (1, PIPELINE_MAX));
        faults.range("rounds", flags.rounds, (1, REPEATS_MAX));
        faults.range("find-steps", flags.find_steps, (1, REPEATS_MAX));
        faults.range("requests", flags.requests, (1, u64::MAX));
        if let Some(LoadPlan::Closed { in_flight }) = load {
            check_places(flags, in_flight, sides.as_deref().unwrap_or(&[]), &mut faults);
        }
        if flags.find_max {
            check_find(flags, objective.as_ref(), &mut faults);
        }
        let requests = RequestPlan::new(flags, &mut faults);
        let (Some(sides), Some(load), Some(requests), true) = (sides, load, requests, faults.0.is_empty())
        else {
            return Err(faults.0);
        };
        Ok(Self {
            sides,
            requests,
            load,
            connections: flags.connections,
            pipeline: flags.pipeline,
            warmup_ns,
            duration_ns,
            requests_max: flags.requests,
            drain_ns: drain_ns.unwrap_or(5 * SECOND_NS).min(DURATION_NS_MAX),
            seed: flags.seed.unwrap_or(1),
            spin,
            pin: flags.pin,
            objective,
            find_steps: flags.find_max.then_some(flags.find_steps.unwrap_or(16)),
            rounds: flags.rounds.unwrap_or(5),
            server_stats: !flags.no_server_stats,
            json: flags.json.clone(),
            html: flags.html.clone(),
            progress: flags.progress,
        })
    }
}

/// Stated connections must be able to hold what is to be in flight.
fn check_places(flags: &Flags, in_flight: usize, sides: &[Side], faults: &mut Faults) {
    let Some(connections) = flags.connections.filter(|connections| *connections > 0) else {
        return;
    };
    // gRPC opens as many streams as are needed when nothing is stated.
    let http = sides.iter().any(|side| side.wire != Wire::Grpc);
    let Some(depth) = flags.pipeline.or(http.then_some(1)) else {
        return;
    };
    if connections * depth < in_flight {
        faults.add(format!(
            "--in-flight {in_flight}: expected room for it, got {connections} connections with \
             {depth} requests on each; add --pipeline {} or more --connections",
            in_flight.div_ceil(connections)
        ));
    }
}

fn check_find(flags: &Flags, objective: Option<&Objective>, faults: &mut Faults) {
    if objective.is_none() {
        faults.add("--find-max: expected an objective to hold; add for example --slo p99=5ms");
    }
    for (set, name) in [
        (flags.in_flight.is_some(), "--in-flight"),
        (flags.vs.is_some(), "--vs"),
        (flags.arrivals_file.is_some(), "--arrivals-file"),
        (flags.arrivals.as_deref() == Some("ramp"), "--arrivals ramp"),
        (flags.requests.is_some(), "--requests"),
    ] {
        if set {
            faults.add(format!(
                "--find-max does not go with {name}: it sets the rate of steps of equal length; leave one out"
            ));
        }
    }
}

fn sides(flags: &Flags, faults: &mut Faults) -> Option<Vec<Side>> {
    let wire = match flags.wire.as_deref() {
        None | Some("json") => Wire::Json,
        Some("binary") => Wire::Binary,
        Some(other) => {
            faults
                .add(format!("--wire: expected json or binary, got {other:?}; for gRPC give a grpc:// URL"));
            Wire::Json
        }
    };
    let model = flags.model.clone().or_else(|| flags.path.is_some().then(String::new));
    if model.is_none() {
        faults.add("--model: expected a model's name, got none; add --model NAME");
    }
    let model = model.unwrap_or_default();
    let mut side = |text: &str, option: &str, model: String, server_pid| {
        let url = ServerUrl::parse(text).map_err(|fault| format!("{option}: {fault}"));
        let url = faults.take(url)?;
        let address = url.resolve(flags.allow_remote).map_err(|fault| format!("{option} {fault}"));
        Some(Side {
            address: faults.take(address)?,
            wire: match url.scheme {
                Scheme::Http => wire,
                Scheme::Grpc => Wire::Grpc,
            },
            url,
            model,
            server_pid,
        })
    };
    let url = flags.url.as_deref().unwrap_or("http://127.0.0.1:8000");
    let first = side(url, "--url", model.clone(), flags.server_pid);
    let second = flags.vs.as_deref().map(|vs| {
        let model = flags.vs_model.clone().unwrap_or(model);
        side(vs, "--vs", model, flags.vs_server_pid)
    });
    let sides = std::iter::once(first).chain(second);
    sides.collect()
}

fn warmup(flags: &Flags, load: Option<&LoadPlan>, faults: &mut Faults) -> u64 {
    let fixed_start =
        matches!(load, Some(LoadPlan::Open { profile: Profile::Ramp { .. } | Profile::Recorded { .. }, .. }));
    match faults.option("warmup", flags.warmup.as_ref(), parse_duration_ns) {
        Some(warmup_ns) if warmup_ns > 0 && fixed_start => {
            faults.add(
                "--warmup: expected 0s with ramp or --arrivals-file, which begin at their start; \
                 leave it out",
            );
            0
        }
        Some(warmup_ns) => warmup_ns.min(DURATION_NS_MAX),
        None if fixed_start => 0,
        None => SECOND_NS,
    }
}

fn duration(flags: &Flags, faults: &mut Faults) -> u64 {
    let default_seconds = match flags {
        Flags { requests: Some(_), .. } => 600,
        Flags { find_max: true, .. } => 5,
        Flags { vs: Some(_), .. } => 3,
        _ => 10,
    };
    match faults.option("duration", flags.duration.as_ref(), parse_duration_ns) {
        Some(ns) if (1_000_000..=DURATION_NS_MAX).contains(&ns) => ns,
        Some(_) => {
            faults.add("--duration: expected 1ms to 24h; change it");
            SECOND_NS
        }
        None => default_seconds * SECOND_NS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::CommandLine;
    use clap::Parser as _;

    fn plan(line: &str) -> Result<Plan, Vec<String>> {
        let words = std::iter::once("gannet-loadtest").chain(line.split_whitespace());
        Plan::new(&CommandLine::try_parse_from(words).unwrap().flags)
    }

    fn check(line: &str, expected: &[&str]) {
        let faults = plan(line).err().unwrap_or_default();
        assert_eq!(faults.len(), expected.len(), "{line}: {faults:#?}");
        for (fault, part) in faults.iter().zip(expected) {
            assert!(fault.contains(part), "{line}: {fault}");
        }
    }

    #[test]
    fn good_lines_have_no_faults() {
        check("-m x", &[]);
        check("-m x -n 64 -c 8 --pipeline 8", &[]);
        check("-m x --rate 20k --slo p99=5ms --find-max", &[]);
        check("-m x --slo p99=5ms --find-max", &[]);
        check("-m x --rate 1 --arrivals ramp --ramp-to 10", &[]);
        check("-m x --url grpc://127.0.0.1:1 --vs http://127.0.0.1:2", &[]);
    }

    #[test]
    fn all_faults_are_reported_together() {
        check("--rate x --wire y --duration 5", &["--wire", "--model", "--duration", "--rate"]);
        check("-m x -n 4 --rate 10", &["exclude each other"]);
        check("-m x --find-max", &["add for example --slo"]);
        check("-m x --url http://10.1.1.1:1", &["--allow-remote"]);
        check("-m x --rate 1 --arrivals ramp", &["--ramp-to"]);
        check("-m x --rate 1 --arrivals ramp --ramp-to 2 --warmup 1s", &["--warmup"]);
        check("-m x --burst-size 3 --rate 5", &["--arrivals bursts"]);
        check("-m x -c 0 --pipeline 0", &["--connections", "--pipeline"]);
        check("-m x --arrivals-file /nonexistent", &["/nonexistent"]);
        check("-m x --shape y", &["--shape"]);
        check("-m x -n 64 -c 8", &["--pipeline 8"]);
        check("-m x -n 64 -c 8 --pipeline 2", &["--pipeline 8"]);
        check("-m x -n 64 -c 8 --url grpc://127.0.0.1:1", &[]);
        check("-m x --body /nonexistent --data y.csv", &["/nonexistent", "--data"]);
    }
}
