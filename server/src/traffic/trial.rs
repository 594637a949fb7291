//! One rollout that goes on: what is counted for it, what that says now, and the route that follows from where it
//! stands. Must not know files, nor who asks.

use std::{collections::BTreeMap, sync::Arc};

use gannet_models::Version;
use gannet_runtime::{
    control::{
        lifecycle::State as VersionState,
        rollout::{
            Arms, Decision, EventCounts, Evidence, Measure, PairCounts, Plan, Status, View,
            audit::{Input, Record, step},
            decide,
        },
    },
    route::{
        Judge, RouteFile, ShadowFile, StickyFile, WeightFile,
        ledger::{Ledger, LedgerSpec},
        tally::{Side, Tally, Wishes},
    },
    shadow::Report,
    table::ModelEntry,
};

/// A user's events count anew after so long.
const WINDOW_MS: u64 = 60_000;
/// A look that changes nothing is written down after so long, for those who read the log.
const RECORD_MS: u64 = 60_000;
/// Who decides where nobody wished anything.
pub(super) const CONTROLLER: &str = "controller";

/// A rollout that goes on.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) id: u64,
    pub(super) plan: Plan,
    /// The record that everything follows from.
    pub(super) last: Record,
    candidate: Version,
    sticky: Option<StickyFile>,
    tally: Arc<Tally>,
    ledger: Option<Arc<Ledger>>,
    /// What the shadow had found when counting began.
    shadow_before: Report,
    /// Whether the candidate served since this process began.
    served: bool,
    window_ms: u64,
    /// As the last look found it.
    view: View,
}

/// What a look came to.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing that must be kept.
    Same,
    /// A record that must be kept, and whether the traffic changes with it.
    Keep(Box<Record>, bool),
}

impl Trial {
    /// Counts for a rollout that stands where `last` says. `serves` tells whether its candidate is known to serve.
    pub(super) fn new(
        id: u64,
        plan: Plan,
        last: Record,
        (sticky, serves): (Option<StickyFile>, bool),
    ) -> Result<Self, String> {
        let version = |text: &str| Version::new(text).map_err(|error| error.to_string());
        let (baseline, candidate) = (version(&plan.baseline)?, version(&plan.candidate)?);
        let metrics: std::collections::BTreeSet<String> = plan
            .guards
            .iter()
            .filter_map(|guard| guard.name.strip_prefix("metric:"))
            .map(str::to_owned)
            .collect();
        let spec = LedgerSpec {
            versions: vec![baseline, candidate.clone()],
            horizon_ms: plan.horizon_seconds * 1000,
            rewards: false,
            metrics,
        };
        let ledger = (!spec.metrics.is_empty()).then(|| Arc::new(Ledger::new(spec)));
        let view = last.state.view(id, &plan);
        let tally = Arc::new(Tally::new(Wishes::default()));
        let shadow_before = Report::default();
        let mut trial = Self {
            id,
            plan,
            last,
            candidate,
            sticky,
            tally,
            ledger,
            shadow_before,
            served: serves,
            window_ms: 0,
            view,
        };
        trial.count_anew(None);
        Ok(trial)
    }

    /// Where it stands, as the last look found it.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    pub(super) fn candidate(&self) -> &Version {
        &self.candidate
    }

    /// Counting begins anew: nothing of what is under way counts.
    fn count_anew(&mut self, entry: Option<&ModelEntry>) {
        let scores = self.plan.guards.iter().any(|guard| guard.measure == Measure::OutputDrift);
        let by_user =
            self.sticky.as_ref().is_some_and(|sticky| sticky.header.is_some() || sticky.parameter.is_some());
        self.tally = Arc::new(Tally::new(Wishes { by_user, scores }));
        if let Some(us) = self.last.state.latency_threshold_us {
            self.tally.set_slow(us);
        }
        self.shadow_before = entry.and_then(|entry| self.shadow(entry)).unwrap_or_default();
        self.window_ms = self.last.at_ms;
        if let Some(ledger) = &self.ledger {
            ledger.begin(self.last.at_ms);
        }
    }

    fn shadow(&self, entry: &ModelEntry) -> Option<Report> {
        let lines = &entry.route.as_ref()?.lines;
        lines.iter().find(|line| line.version == self.candidate).map(|line| (*line.report()).clone())
    }

    /// The route that follows from where it stands.
    pub(super) fn route(&self) -> RouteFile {
        let Plan { baseline, candidate, .. } = &self.plan;
        let weight = |version: &str, weight_bp| WeightFile { version: version.to_owned(), weight_bp };
        let state = &self.last.state;
        let fraction = state.shadow_share(&self.plan);
        let weight_bp = state.weight_bp(&self.plan);
        let split = match state.status {
            Status::Promoted => vec![weight(candidate, 10_000)],
            Status::RolledBack => vec![weight(baseline, 10_000)],
            _ if fraction > 0.0 => vec![weight(baseline, 10_000)],
            _ => vec![weight(baseline, 10_000 - weight_bp), weight(candidate, weight_bp)],
        };
        let shadow = ShadowFile { version: candidate.clone(), fraction, tolerance: BTreeMap::new() };
        RouteFile {
            split,
            shadow: if fraction > 0.0 { vec![shadow] } else { Vec::new() },
            sticky: self.sticky.clone(),
            salt: Some(self.plan.salt.clone()),
            bandit: None,
        }
    }

    /// What is noted of requests.
    pub(super) fn judge(&self) -> Judge {
        if self.last.state.is_over() {
            return Judge::default();
        }
        let trial = Some((self.candidate.clone(), Arc::clone(&self.tally)));
        Judge { trial, ledger: self.ledger.clone() }
    }

    /// Looks at what was counted and decides.
    pub(super) fn look(&mut self, entry: Option<&ModelEntry>, now_ms: u64) -> Look {
        self.tally.turn_window(now_ms >= self.window_ms + WINDOW_MS);
        if now_ms >= self.window_ms + WINDOW_MS {
            self.window_ms = now_ms;
        }
        let evidence = self.evidence(entry, now_ms);
        let state = &self.last.state;
        let (decision, next) = decide(&self.plan, state, &evidence, now_ms);
        self.view = next.view(self.id, &self.plan);
        let holds = matches!(decision, Decision::Hold(_));
        let is_news = next.guards != state.guards || next.decision != state.decision;
        if holds && next.chose_as(state) && !(is_news && now_ms >= self.last.at_ms + RECORD_MS) {
            return Look::Same;
        }
        // the same values give the same decision
        match step(&self.plan, Some(&self.last), (now_ms, CONTROLLER), Input::Look(Box::new(evidence))) {
            Ok(record) => Look::Keep(Box::new(record), !holds),
            Err(_) => Look::Same,
        }
    }

    /// Stands where a record says that is kept now.
    pub(super) fn stand(&mut self, record: Record, entry: Option<&ModelEntry>) {
        let counts_anew = record.state.epoch != self.last.state.epoch;
        let before = self.last.state.latency_threshold_us;
        self.last = record;
        self.view = self.last.state.view(self.id, &self.plan);
        if counts_anew {
            self.count_anew(entry);
        } else if let Some(us) = self.last.state.latency_threshold_us.filter(|us| before != Some(*us)) {
            self.tally.set_slow(us);
        }
    }

    fn evidence(&mut self, entry: Option<&ModelEntry>, now_ms: u64) -> Evidence {
        let shadowed = self.last.state.shadow_share(&self.plan) > 0.0;
        let evidence = Evidence {
            epoch: self.last.state.epoch,
            requests: self.tally.requests(),
            users: self.tally.users(),
            errors: Some(self.tally.errors()),
            stable_latency: self.tally.stable_latency(),
            slow: self.tally.slow(),
            outputs: self.tally.scores(),
            metrics: self.ledger.as_ref().map(|ledger| ledger.mature_arms(now_ms)).unwrap_or_default(),
            crashes_in_a_row: self.tally.crashes_in_a_row(),
            candidate_failed: self.candidate_failed(entry),
            pairs: None,
        };
        if shadowed { self.shadowed(evidence, entry) } else { evidence }
    }

    /// Of a shadow stage: what was counted of the copies takes the place of what was counted of the requests.
    fn shadowed(&self, evidence: Evidence, entry: Option<&ModelEntry>) -> Evidence {
        let before = &self.shadow_before;
        let now = entry.and_then(|entry| self.shadow(entry)).unwrap_or_default();
        let since = |read: fn(&Report) -> u64| read(&now).saturating_sub(read(before));
        let (compared, failed) = (since(|r| r.compared), since(|r| r.failed));
        let (primary_failed, both_failed) = (since(|r| r.primary_failed), since(|r| r.both_failed));
        let copies = compared + failed + primary_failed;
        let both = |count| Arms { candidate: count, stable: count };
        let bins = |counts: &[u64], before: Option<&Vec<u64>>| {
            let before = |bin: usize| before.and_then(|before| before.get(bin)).copied().unwrap_or(0);
            counts.iter().enumerate().map(|(bin, count)| count.saturating_sub(before(bin))).collect()
        };
        let outputs = now.scores.as_ref().map(|now| {
            let before = before.scores.as_ref();
            Arms {
                candidate: bins(&now.candidate, before.map(|before| &before.candidate)),
                stable: bins(&now.stable, before.map(|before| &before.stable)),
            }
        });
        Evidence {
            requests: both(copies),
            errors: Some(EventCounts {
                events: Arms { candidate: failed + both_failed, stable: primary_failed },
                trials: both(copies),
            }),
            slow: None,
            outputs,
            // a copy that could not be compared differs
            pairs: Some(PairCounts { pairs: compared + failed, disagreed: since(|r| r.disagreed) + failed }),
            ..evidence
        }
    }

    /// Why the candidate does not serve, if it is not just about to.
    fn candidate_failed(&mut self, entry: Option<&ModelEntry>) -> Option<String> {
        let found = entry.and_then(|entry| entry.version_entry(&self.candidate));
        if found.is_some_and(|found| found.servable.is_some()) {
            self.served = true;
            return None;
        }
        match found {
            Some(found) if found.status.refused => Some(found.status.describe()),
            // before its first load after a restart it may just not have been found
            _ if !self.served => None,
            None => Some("it is no longer there".into()),
            Some(found) if found.status.state == VersionState::Loading => None,
            Some(found) => Some(found.status.describe()),
        }
    }

    /// Latencies of a version: p50 and p99, each with its bounds, in microseconds.
    pub(super) fn latencies(&self, side: Side) -> serde_json::Value {
        let latencies = self.tally.latencies(side);
        let quantile = |share: f64| {
            let (lower, upper) = latencies.bounds_us(share, 0.05);
            serde_json::json!({ "estimate": latencies.quantile_us(share), "lower": lower, "upper": upper })
        };
        serde_json::json!({ "requests": latencies.count(), "p50_us": quantile(0.5), "p99_us": quantile(0.99) })
    }
}
