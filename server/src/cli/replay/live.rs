//! Captured requests sent to a running server once more, as they came. Must not know how an answer is held against another.

mod drive;
mod found;
mod schedule;
mod target;

use std::{
    collections::BTreeSet,
    fmt,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use gannet_capture::{Arrival, Arrivals, CaptureError, Table};
use gannet_runtime::{Time, clock};
use serde_json::json;

use self::{
    drive::Drive,
    found::Found,
    schedule::{Pace, Schedule},
    target::Target,
};
use super::{ReplayArgs, Shown, as_json, print};
use crate::cli::say;

/// The longest pause and deadline, in seconds and in milliseconds: a day.
const PAUSE_S_MAX: f64 = 86_400.0;
const MS_MAX: u64 = 86_400_000;
/// Time between two lines of progress.
const TELL_PERIOD: Duration = Duration::from_millis(250);

/// What only a replay against a running server has.
#[derive(Debug, Args)]
pub(super) struct LiveArgs {
    /// With --against: the version that is to answer, or its label [default: whichever the server chooses]
    #[arg(long, value_name = "VERSION", conflicts_with = "candidate")]
    against_version: Option<String>,
    /// With --against: how many times as fast as they came requests are sent, or max: as fast as they are answered
    #[arg(long, value_name = "X|max", default_value = "1", conflicts_with = "candidate")]
    speed: Pace,
    /// With --against: the longest pause between two requests, in seconds of the replay [default: as they came]
    #[arg(long, value_name = "S", value_parser = pause, conflicts_with = "candidate")]
    pause_max: Option<Duration>,
    /// With --against: requests that wait for their answers at the same time, at most
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096), conflicts_with = "candidate")]
    concurrency: u32,
    /// With --against: time after which a request without an answer has failed
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=MS_MAX), conflicts_with = "candidate")]
    timeout_ms: u64,
    /// With --against: the deadline that each request states to the server [default: none]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=MS_MAX), conflicts_with = "candidate")]
    deadline_ms: Option<u64>,
    /// With --against: a file whose first token is sent, for servers that want one
    #[arg(long, value_name = "FILE", conflicts_with = "candidate")]
    against_token_file: Option<PathBuf>,
    /// With --against: what is put before each id, so that a server which captures does not take it for the first one
    #[arg(long, value_name = "TEXT", default_value = "replay-", conflicts_with = "candidate")]
    id_prefix: String,
}

fn pause(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=PAUSE_S_MAX).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("expected seconds from 0 to {PAUSE_S_MAX}"))
}

pub(super) fn replay(args: &ReplayArgs, tables: &[Table], against: &str) -> Result<bool, String> {
    let live = &args.live;
    if live.against_version.is_some() && args.place.model().is_none() {
        return Err("--against-version: expected --model with it, got none; versions are a model's".into());
    }
    let target = Arc::new(Target::new(against, live)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no event loop to send requests with: {error}"))?;
    let models: BTreeSet<&str> = tables.iter().map(Table::model).collect();
    for model in &models {
        runtime.block_on(target.look(model))?;
    }
    let mut progress = Progress::new();
    let arrivals = Arrivals::look(tables, |done, all| {
        progress.tell(format_args!("reading when requests came: {done} of {all} files"));
    });
    let arrivals = arrivals.map_err(|error| error.to_string())?;
    let all = arrivals.rows().min(args.requests.unwrap_or(u64::MAX));
    let mut found = Found::new(tables, tables.iter().map(|table| args.tolerances(table)).collect())?;
    let drive = Drive {
        tables,
        arrivals: wanted(args, arrivals),
        target: Arc::clone(&target),
        schedule: Schedule::new(live.speed, live.pause_max),
        concurrency: live.concurrency as usize,
    };
    let driven = drive.run(runtime, |outcome| {
        found.take(&outcome);
        let (sent, late, failed) = (found.sent, found.late, found.failures());
        progress.tell(format_args!("{sent} of {all} requests, {late} late, {failed} failed"));
    });
    progress.end();
    if !matches!(driven, Ok(true)) {
        let why = driven.as_ref().err().map_or("interrupted", String::as_str);
        eprintln!("{why}: what follows is of the {} requests that were sent", found.sent);
    }
    let is_good = tell(args, (&target, &models), &found, driven == Ok(true))?;
    driven.map(|_| is_good).map_err(|_| "the replay did not come to its end".to_owned())
}

/// Those requests that are to be replayed, as many as are wanted. An error is passed on.
fn wanted<'a>(
    args: &'a ReplayArgs,
    arrivals: Arrivals<'a>,
) -> impl Iterator<Item = Result<Arrival, CaptureError>> + Send + 'a {
    let fits = |arrival: &Result<Arrival, CaptureError>| {
        arrival.as_ref().map_or(true, |arrival| args.wants(&arrival.captured))
    };
    arrivals.filter(fits).take(usize::try_from(args.requests.unwrap_or(u64::MAX)).unwrap_or(usize::MAX))
}

fn tell(
    args: &ReplayArgs,
    (target, models): (&Target, &BTreeSet<&str>),
    found: &Found<'_>,
    is_whole: bool,
) -> Result<bool, String> {
    let report = found.report();
    let is_good = args.judge(&report)?;
    let live = &args.live;
    if args.json {
        let mut shown = as_json(&report, is_good);
        shown["against"] = json!({ "url": target.base, "models": models, "version": live.against_version });
        shown["pace"] = json!({
            "speed": live.speed.to_string(), "pause_max_s": live.pause_max.map(|pause| pause.as_secs_f64()),
            "concurrency": live.concurrency, "timeout_ms": live.timeout_ms, "deadline_ms": live.deadline_ms,
        });
        shown["interrupted"] = json!(!is_whole);
        shown["replay"] = found.to_json();
        say(format_args!("{shown:#}"));
    } else {
        let who = format!("{} at {}", models.iter().copied().collect::<Vec<_>>().join(", "), target.base);
        print(args, &Shown { who: &who, report: &report, more: &found.lines(), is_good });
    }
    Ok(is_good)
}

/// A line that is written over, where somebody sees it.
struct Progress {
    is_seen: bool,
    told_at: Option<Time>,
}

impl Progress {
    fn new() -> Self {
        Self { is_seen: std::io::stderr().is_terminal(), told_at: None }
    }

    fn tell(&mut self, line: impl fmt::Display) {
        let now = clock::now();
        if !self.is_seen || self.told_at.is_some_and(|at| now < at + TELL_PERIOD) {
            return;
        }
        self.told_at = Some(now);
        let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
    }

    fn end(&self) {
        if self.told_at.is_some() {
            eprintln!();
        }
    }
}
