//! Carries a plan out: one run, a search for the highest rate, or a comparison of two servers.
//!
//! The only place where load generation, measurement and report meet. Must not know how a report
//! looks.

use std::sync::mpsc::SyncSender;

use crate::arrivals::{Arrivals, Profile};
use crate::clock;
use crate::engine::{self, EngineError, Load, Run, Target};
use crate::measure::{FailureKind, Measurement, Recorder, cpu};
use crate::objective::Verdict;
use crate::plan::{LoadPlan, Plan, Side};
use crate::prepare::{self, PrepareError, Shape};
use crate::progress::Event;
use crate::report::{Comparison, Report, RunReport, SearchStep};
use crate::search::Search;

/// Why a test ended without a report; each variant is one exit status.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Options, files or the model's signature do not fit together.
    #[error("{0}")]
    Usage(String),
    /// The server cannot be reached.
    #[error("{0}")]
    Unreachable(String),
}

impl From<PrepareError> for SessionError {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Control(error @ crate::control::ControlError::Unreachable { .. }) => {
                Self::Unreachable(error.to_string())
            }
            other => Self::Usage(other.to_string()),
        }
    }
}

impl From<EngineError> for SessionError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Unreachable { .. } => {
                Self::Unreachable(format!("{error}; start the server, or correct --url"))
            }
            EngineError::Poll(_) => Self::Usage(error.to_string()),
        }
    }
}

/// Carries the plan out on this thread.
pub fn carry_out(plan: &Plan, events: &SyncSender<Event>) -> Result<Report, SessionError> {
    if let Some(cpu) = plan.pin {
        cpu::pin_thread(cpu).map_err(SessionError::Usage)?;
    }
    let started_unix_seconds = clock::unix_seconds();
    let mut prepared = Vec::new();
    for side in &plan.sides {
        prepared.push(Prepared { side, target: prepare::target(plan, side)? });
    }
    let session = Session { plan, events };
    let mut report = match (&prepared[..], plan.find_steps) {
        ([one], None) => {
            let _ = events.try_send(Event::Begin(one.side.url.to_string()));
            Report::of_run(session.run(one, &plan.load)?)
        }
        ([one], Some(steps)) => session.find(one, steps)?,
        ([first, second, ..], _) => session.compare(first, second)?,
        ([], _) => return Err(SessionError::Usage("no server to test; add --url".into())),
    };
    report.started_unix_seconds = started_unix_seconds;
    Ok(report)
}

struct Prepared<'a> {
    side: &'a Side,
    target: Target,
}

struct Session<'a> {
    plan: &'a Plan,
    events: &'a SyncSender<Event>,
}

impl Session<'_> {
    /// One measured run.
    fn run(&self, prepared: &Prepared<'_>, load: &LoadPlan) -> Result<RunReport, SessionError> {
        let (plan, side) = (self.plan, prepared.side);
        let shape = Shape::new(plan, side.wire);
        let run = Run {
            load: match load {
                LoadPlan::Closed { in_flight } => Load::Closed { in_flight: *in_flight },
                LoadPlan::Open { profile, spacing } => {
                    Load::Open { arrivals: Arrivals::new(profile.clone(), *spacing, plan.seed) }
                }
            },
            connections: shape.connections,
            warmup_ns: plan.warmup_ns,
            duration_ns: plan.duration_ns,
            requests_max: plan.requests_max,
            drain_ns: plan.drain_ns,
            spin: plan.spin,
        };
        let server = prepare::server(side, &plan.requests);
        let version = &plan.requests.version;
        let stats = || match plan.server_stats && plan.requests.path.is_none() {
            true => server.stats(&side.model, version),
            false => None,
        };
        let before = stats();
        let checks = plan.requests.checks.clone();
        let mut recorder = Recorder::new(checks, side.server_pid, Some(self.events.clone()));
        engine::run(&prepared.target, run, &mut recorder)?;
        let after = before.and_then(|_| stats());
        let share = after.zip(before).and_then(|(after, before)| after.since(&before));
        let measurement = recorder.finish();
        let verdicts = self.judge(&measurement);
        Ok(RunReport::new(side, load, shape, measurement, share, verdicts))
    }

    /// The objective's terms, and the checks as terms of their own.
    fn judge(&self, measurement: &Measurement) -> Vec<Verdict> {
        let objective = self.plan.objective.as_ref();
        let mut verdicts = objective.map(|o| o.judge(measurement)).unwrap_or_default();
        let checks = &self.plan.requests.checks;
        for (stated, kind, metric) in [
            (checks.expected_body.is_some(), FailureKind::BodyDiffers, "expect"),
            (!checks.versions_allowed.is_empty(), FailureKind::VersionDiffers, "check-versions"),
        ] {
            if stated {
                let wrong = measurement.failures.get(&kind).copied().unwrap_or(0);
                verdicts.push(Verdict {
                    metric: metric.into(),
                    bound: 0.0,
                    measured: wrong as f64,
                    held: wrong == 0 && measurement.succeeded > 0,
                });
            }
        }
        verdicts
    }

    fn find(&self, prepared: &Prepared<'_>, steps_max: u32) -> Result<Report, SessionError> {
        let LoadPlan::Open { profile, spacing } = &self.plan.load else {
            return Err(SessionError::Usage("--find-max needs an open loop; add --rate".into()));
        };
        let mut search = Search::new(profile.mean_rate(), steps_max);
        let mut steps = Vec::new();
        let (mut best, mut last) = (None, None);
        while let Some(rate) = search.next_rate() {
            let profile = match profile {
                Profile::Bursts { size, .. } => Profile::Bursts { rate, size: *size },
                _ => Profile::Steady { rate },
            };
            let load = LoadPlan::Open { profile, spacing: *spacing };
            let mut held = false;
            // A machine's stall must not decide a step: a miss counts when it comes twice.
            for attempt in 1..=2 {
                let _ = self.events.try_send(Event::Begin(format!(
                    "step {}: {rate:.0} requests/s{}",
                    steps.len() + 1,
                    if attempt == 2 { ", again" } else { "" }
                )));
                let run = self.run(prepared, &load)?;
                held = run.held();
                if held {
                    best = Some(run.clone());
                }
                last = Some(run);
                if held {
                    break;
                }
            }
            if let Some(run) = &last {
                steps.push(SearchStep::new(rate, held, run));
            }
            search.observe(held);
        }
        let found = search.best();
        let shown = best
            .or(last)
            .ok_or_else(|| SessionError::Usage("--find-max: no rate was tried; change --rate".into()))?;
        Ok(Report::of_search(shown, found, steps))
    }

    /// Rounds A B A B ...
    fn compare(&self, a: &Prepared<'_>, b: &Prepared<'_>) -> Result<Report, SessionError> {
        let mut rounds = Vec::new();
        for round in 1..=self.plan.rounds {
            let mut pair = Vec::new();
            for (name, prepared) in [("A", a), ("B", b)] {
                let _ = self.events.try_send(Event::Begin(format!(
                    "round {round} of {}: {name} = {}",
                    self.plan.rounds, prepared.side.url
                )));
                pair.push(self.run(prepared, &self.plan.load)?);
            }
            if let Ok([a, b]) = <[RunReport; 2]>::try_from(pair) {
                rounds.push((a, b));
            }
        }
        Ok(Report::of_comparison(Comparison::new(rounds)))
    }
}
