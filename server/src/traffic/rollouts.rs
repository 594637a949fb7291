//! Rollouts carried out: begun, looked at, obeyed and ended, each step on the disk before requests feel it. Runs on the
//! thread that keeps routes. Must not know how anything is decided or counted, nor HTTP.

use std::{collections::BTreeMap, sync::Arc};

use gannet_models::{ModelName, Version};
use gannet_runtime::{
    clock,
    control::{
        manager::TrafficChange,
        rollout::{
            Command, Decision, Ended, Phase, Plan, PlanFile, Status, View,
            audit::{Input, Record, step},
        },
    },
    route::{Route, RouteFile, StickyFile, WeightFile, tally::Side},
    table::ModelEntry,
};
use serde_json::Value;

use super::{
    Keeper, Labels, SavedRoute, check,
    log::{LogWriter, Logs, RolloutLog},
    trial::{CONTROLLER, Look, Trial},
};
use crate::respond::{Kind, Refusal};

/// Rollouts that are over and listed; older ones are in their logs alone.
const ENDED_MAX: usize = 256;
/// The label that follows a promotion.
const STABLE: &str = "stable";

/// A wish for a rollout.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The model.
    pub model: ModelName,
    /// The rollout's number.
    pub id: u64,
    /// What is wished.
    pub command: Command,
    /// Who wishes it.
    pub actor: String,
    /// What the writer knows of it, if anything: one of these ETags.
    pub known: Option<Vec<String>>,
}

/// Every rollout as it stands, for those who ask.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The newest first.
    pub rollouts: Vec<ShownRollout>,
    /// Decisions since the process began, by model.
    pub decisions: BTreeMap<(String, &'static str), u64>,
}

/// One rollout as it stands.
#[derive(Debug, Clone)]
pub struct ShownRollout {
    /// What there is to see of it.
    pub view: View,
    /// Its place: another one once anything but the figures changed.
    pub etag: String,
    /// Whether it goes on.
    pub goes_on: bool,
    /// Latencies of the baseline and of the candidate.
    pub latencies: Option<[Value; 2]>,
}

/// What the thread knows of rollouts.
#[derive(Debug)]
pub(super) struct Rollouts {
    logs: Logs,
    next_id: u64,
    trials: BTreeMap<ModelName, (Trial, LogWriter)>,
    /// The oldest first.
    ended: Vec<ShownRollout>,
    last_rollback: BTreeMap<ModelName, Ended>,
    decisions: BTreeMap<(String, &'static str), u64>,
}

impl Rollouts {
    pub(super) fn new(logs: Logs) -> Self {
        Self {
            logs,
            next_id: 1,
            trials: BTreeMap::new(),
            ended: Vec::new(),
            last_rollback: BTreeMap::new(),
            decisions: BTreeMap::new(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.trials.is_empty()
    }

    /// The rollout that decides a model's route.
    pub(super) fn of(&self, model: &ModelName) -> Option<&Trial> {
        self.trials.get(model).map(|(trial, _)| trial)
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// The newest rollout of a model that is over, of those from `id` on.
    pub(super) fn ended_since(&self, model: &ModelName, id: u64) -> Option<&View> {
        let views = self.ended.iter().map(|shown| &shown.view);
        views.rev().find(|view| view.id >= id && view.model == model.as_str())
    }

    pub(super) fn shown(&self) -> Shown {
        let latencies = |trial: &Trial| [Side::Stable, Side::Candidate].map(|side| trial.latencies(side));
        let trials = self.trials.values().map(|(trial, _)| ShownRollout {
            latencies: Some(latencies(trial)),
            ..shown(trial.view().clone(), &trial.last)
        });
        let mut rollouts: Vec<ShownRollout> = self.ended.iter().cloned().chain(trials).collect();
        rollouts.sort_by_key(|shown| std::cmp::Reverse(shown.view.id));
        Shown { rollouts, decisions: self.decisions.clone() }
    }

    fn count(&mut self, model: &ModelName, decision: &Decision) {
        let name = match decision {
            Decision::Hold(_) => return,
            Decision::Advance(_) => "advance",
            Decision::Promote => "promote",
            Decision::RollBack(_) => "rollback",
        };
        *self.decisions.entry((model.to_string(), name)).or_default() += 1;
    }

    /// Remembers one that is over.
    fn end(&mut self, id: u64, model: &ModelName, plan: &Plan, last: &Record) {
        if last.state.status == Status::RolledBack {
            self.last_rollback.insert(model.clone(), Ended { rolled_back_ms: last.state.since_ms });
        }
        self.ended.push(shown(last.state.view(id, plan), last));
        if self.ended.len() > ENDED_MAX {
            self.ended.remove(0);
        }
    }
}

fn shown(view: View, last: &Record) -> ShownRollout {
    let state = &last.state;
    let etag = format!("\"{}-{}-{:?}\"", view.id, state.epoch, state.status);
    ShownRollout { etag, goes_on: !state.is_over(), view, latencies: None }
}

/// Begins anew with what was kept: rollouts go on where they stood, and count from zero.
pub(super) fn restore(keeper: &mut Keeper) -> Result<(), String> {
    let logs = keeper.rollouts.logs.clone();
    keeper.rollouts = Rollouts::new(logs.clone());
    for id in logs.ids()? {
        keeper.rollouts.next_id = id + 1;
        let (RolloutLog { plan, mut records, .. }, mut log) = logs.open(id)?;
        let last = records.pop().expect("a log that was read has a record");
        let model =
            ModelName::new(&plan.model).map_err(|error| format!("{}: {error}", log.path().display()))?;
        if last.state.is_over() {
            keeper.rollouts.end(id, &model, &plan, &last);
            continue;
        }
        let now_ms = clock::wall_ms(clock::now()).max(last.at_ms);
        let record = step(&plan, Some(&last), (now_ms, CONTROLLER), Input::Command(Command::Recount))?;
        log.append(&record).map_err(|error| format!("{}: {error}", log.path().display()))?;
        let sticky = keeper.sticky(&model);
        let trial = Trial::new(id, plan, record, (sticky, false))?;
        tracing::info!(%model, id, phase = trial.view().state, "a rollout goes on where it stood");
        keeper.rollouts.trials.insert(model.clone(), (trial, log));
        keeper.carry_out(&model);
    }
    Ok(())
}

impl Keeper {
    pub(super) fn sticky(&self, model: &ModelName) -> Option<StickyFile> {
        self.saved.load().models.get(model)?.route.as_ref()?.route.sticky.clone()
    }

    /// Begins a rollout. The same one once more changes nothing.
    pub(super) fn start_rollout(
        &mut self,
        model: &ModelName,
        file: &PlanFile,
        actor: &str,
    ) -> Result<u64, Refusal> {
        self.take_over()?;
        let conflict = |why: String| Refusal::new(Kind::Conflict, why);
        let table = self.control.table().snapshot();
        let Some(entry) = table.model(model.as_str()) else {
            return Err(Refusal::new(Kind::NotFound, format!("'{model}' is not served; load it first")));
        };
        let Some(serving) = entry.primary().map(|servable| servable.version.clone()) else {
            return Err(conflict(format!(
                "no version of '{model}' serves, so there is nothing to compare with"
            )));
        };
        if let Some(trial) = self.rollouts.of(model) {
            let plan = Plan::new(model, &baseline_of(trial), file).ok();
            if plan.is_some_and(|plan| plan.fingerprint() == trial.plan.fingerprint()) {
                return Ok(trial.id);
            }
            return Err(conflict(format!(
                "rollout {} of '{model}' goes on (candidate '{}'); promote it or roll it back first",
                trial.id, trial.plan.candidate
            )));
        }
        let plan = Plan::new(model, &serving, file).map_err(|faults| Refusal::invalid(faults.to_string()))?;
        self.free_route(model, &plan)?;
        check::route(model, &both(&plan), self.control.table())?;
        let now_ms = clock::wall_ms(clock::now());
        let last = self.rollouts.last_rollback.get(model).copied();
        let record = step(&plan, None, (now_ms, actor), Input::Start(last)).map_err(conflict)?;
        let id = self.rollouts.next_id;
        let trial = Trial::new(id, plan.clone(), record.clone(), (self.sticky(model), true))
            .map_err(Refusal::invalid)?;
        let log = self.rollouts.logs.create(id, &plan, &record).map_err(|error| {
            let path = self.rollouts.logs.path(id);
            unwritten(&path.display().to_string(), &error)
        })?;
        tracing::info!(%model, id, actor, candidate = plan.candidate, "a rollout begins");
        self.rollouts.next_id += 1;
        self.rollouts.trials.insert(model.clone(), (trial, log));
        self.carry_out(model);
        Ok(id)
    }

    /// Whether a rollout may decide the route: one that sends every request to the baseline, or none.
    fn free_route(&self, model: &ModelName, plan: &Plan) -> Result<(), Refusal> {
        let saved = self.saved.load();
        let Some(kept) = saved.models.get(model).and_then(|kept| kept.route.as_ref()) else { return Ok(()) };
        let route = &kept.route;
        let others = |weight: &WeightFile| weight.weight_bp > 0 && weight.version != plan.baseline;
        let what = if route.bandit.is_some() {
            "learns by itself"
        } else if !route.shadow.is_empty() {
            "has a shadow"
        } else if route.split.iter().any(others) {
            "sends requests to other versions than the baseline"
        } else {
            return Ok(());
        };
        Err(Refusal::new(
            Kind::Conflict,
            format!(
                "the route of '{model}' {what}; PUT one whose only version is the baseline, '{}', or DELETE it",
                plan.baseline
            ),
        ))
    }

    /// Obeys a wish. One that is fulfilled already changes nothing.
    pub(super) fn wish(&mut self, wish: &Wish) -> Result<(), Refusal> {
        let Wish { model, id, command, actor, known } = wish;
        self.take_over()?;
        let shown = self.rollouts.shown();
        let found =
            shown.rollouts.iter().find(|shown| shown.view.id == *id && shown.view.model == model.as_str());
        let Some(found) = found else { return Err(no_rollout(model, *id)) };
        if let Some(known) = known
            && !known.contains(&found.etag)
        {
            let now = &found.etag;
            return Err(Refusal::new(
                Kind::Precondition,
                format!(
                    "rollout {id} of '{model}' has the ETag {now}: it went on meanwhile; GET it and decide anew"
                ),
            ));
        }
        let Some((trial, _)) = self.rollouts.trials.get(model).filter(|(trial, _)| trial.id == *id) else {
            return match (command, found.view.state) {
                (Command::Promote, "promoted") | (Command::RollBack { .. }, "rolled_back") => Ok(()),
                (_, state) => Err(Refusal::new(
                    Kind::Conflict,
                    format!("rollout {id} of '{model}' is over ({state}); begin a new one"),
                )),
            };
        };
        let status = trial.last.state.status;
        if matches!((command, status), (Command::Pause, Status::Paused) | (Command::Resume, Status::Running))
        {
            return Ok(());
        }
        let now_ms = clock::wall_ms(clock::now()).max(trial.last.at_ms);
        let record = step(&trial.plan, Some(&trial.last), (now_ms, actor), Input::Command(command.clone()))
            .map_err(|why| Refusal::new(Kind::Conflict, why))?;
        self.keep(model, record)?;
        self.carry_out(model);
        Ok(())
    }

    /// Looks at every rollout once.
    pub(super) fn look(&mut self) {
        let now_ms = clock::wall_ms(clock::now());
        let models: Vec<ModelName> = self.rollouts.trials.keys().cloned().collect();
        let table = self.control.table().snapshot();
        for model in models {
            let Some((trial, _)) = self.rollouts.trials.get_mut(&model) else { continue };
            let entry = table.model(model.as_str());
            // a clock that was set back does not undo what was decided
            let look = trial.look(entry, now_ms.max(trial.last.at_ms));
            if let Look::Keep(record, moves) = look {
                let (id, decision) = (trial.id, record.decision.clone());
                match self.keep(&model, *record) {
                    Ok(()) if moves => {
                        tracing::info!(%model, id, %decision, "a rollout moves");
                        self.carry_out(&model);
                    }
                    Ok(()) => {}
                    // not decided then: the next look decides again
                    Err(error) => {
                        tracing::error!(%model, id, error = %error.message, "a decision could not be kept")
                    }
                }
            }
        }
        self.show();
    }

    /// Writes a record down, and stands where it says.
    fn keep(&mut self, model: &ModelName, record: Record) -> Result<(), Refusal> {
        let table = self.control.table().snapshot();
        let Some((trial, log)) = self.rollouts.trials.get_mut(model) else { return Ok(()) };
        log.append(&record).map_err(|error| unwritten(&log.path().display().to_string(), &error))?;
        let decision = record.decision.clone();
        trial.stand(record, table.model(model.as_str()));
        self.rollouts.count(model, &decision);
        Ok(())
    }

    /// Puts in force what follows from where a rollout stands: route, labels and what is counted in one publish. The
    /// log has it already: what cannot be written here is found there after a restart.
    pub(super) fn carry_out(&mut self, model: &ModelName) {
        let Some((trial, _)) = self.rollouts.trials.get(model) else { return };
        let (file, judge) = (trial.route(), trial.judge());
        let Ok(route) = Route::new(model.as_str(), &file) else {
            tracing::error!(%model, "the route of a rollout is none");
            return;
        };
        let mut saved = super::Saved::clone(&self.saved.load());
        let kept = saved.models.entry(model.clone()).or_default();
        let labels =
            promoted_labels(trial, self.control.table().snapshot().model(model.as_str()), &kept.labels);
        if let Some(labels) = &labels {
            kept.labels.clone_from(labels);
        }
        if kept.route.as_ref().is_none_or(|kept| kept.route != file) {
            saved.revision += 1;
            kept.route = Some(SavedRoute { revision: saved.revision, route: file });
        }
        if let Err(error) = self.write(&saved) {
            tracing::error!(%model, error = %error.message, "the route of a rollout holds until a restart only");
        }
        self.control.set_traffic(model.clone(), TrafficChange { route: Some(route), judge, labels });
        let _ = self.follow(saved);
        if trial_is_over(&self.rollouts, model)
            && let Some((trial, _)) = self.rollouts.trials.remove(model)
        {
            self.rollouts.end(trial.id, model, &trial.plan, &trial.last);
        }
        self.show();
    }

    /// What a rollout does not let others change.
    pub(super) fn rolls_out(&self, model: &ModelName) -> Result<(), Refusal> {
        let Some(trial) = self.rollouts.of(model) else { return Ok(()) };
        Err(Refusal::new(
            Kind::Conflict,
            format!(
                "rollout {} decides the route of '{model}'; POST .../rollouts/{}/promote or .../rollback first",
                trial.id, trial.id
            ),
        ))
    }

    pub(super) fn show(&self) {
        self.shown.store(Arc::new(self.rollouts.shown()));
    }
}

fn trial_is_over(rollouts: &Rollouts, model: &ModelName) -> bool {
    rollouts.of(model).is_some_and(|trial| trial.last.state.is_over())
}

fn baseline_of(trial: &Trial) -> Version {
    Version::new(&trial.plan.baseline).expect("a plan that was checked names versions")
}

/// A route with both versions, to be checked as any other.
fn both(plan: &Plan) -> RouteFile {
    let weight = |version: &str, weight_bp| WeightFile { version: version.to_owned(), weight_bp };
    RouteFile {
        split: vec![weight(&plan.baseline, 10_000), weight(&plan.candidate, 0)],
        salt: Some(plan.salt.clone()),
        ..RouteFile::default()
    }
}

/// The labels after a promotion: the one that says which version is the stable one goes along.
fn promoted_labels(trial: &Trial, entry: Option<&ModelEntry>, before: &Labels) -> Option<Labels> {
    if trial.last.state.phase(&trial.plan) != Phase::Promoted {
        return None;
    }
    let stable = entry?.labels.get(STABLE)?;
    (stable.as_str() == trial.plan.baseline).then(|| {
        let mut labels = before.clone();
        labels.insert(STABLE.to_owned(), Some(trial.candidate().clone()));
        labels
    })
}

/// What there is to say of a rollout that is not known.
#[must_use]
pub fn no_rollout(model: &ModelName, id: u64) -> Refusal {
    Refusal::new(
        Kind::NotFound,
        format!("'{model}' has no rollout {id}; GET /admin/v1/models/{model}/rollouts lists those it has"),
    )
}

fn unwritten(path: &str, error: &std::io::Error) -> Refusal {
    Refusal::new(
        Kind::Internal,
        format!(
            "{path} could not be written, and nothing was changed: {error}; see to the disk and try again"
        ),
    )
}
