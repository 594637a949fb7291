//! A registry's pointer that moved: what served keeps the traffic, the version that it points to now is rolled out, and
//! the registry is told how that ended. Runs on the thread that keeps routes. Must not know any registry.

use std::sync::Arc;

use gannet_models::{ModelName, Version};
use gannet_registry::{AliasMoved, Registry};
use gannet_runtime::{
    control::rollout::{PlanFile, StageFile},
    route::{RouteFile, WeightFile},
};
use serde::{Deserialize, Serialize};

use super::{Condition, Keeper, Saved};
use crate::respond::Refusal;

/// Who begins such a rollout.
const ACTOR: &str = "registry";

/// A move that is under way, as it is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedMove {
    /// What served until then.
    pub from: Version,
    /// Where the pointer leads.
    pub to: Version,
    /// Rollouts with a lower number are of before.
    pub since: u64,
}

/// What becomes of a move.
enum Next {
    Wait,
    Start,
    Settle(Version, String),
}

impl Keeper {
    /// Takes a move in: from here on the version that served keeps all requests until the other one is rolled out.
    pub(super) fn alias_moved(
        &mut self,
        moved: &AliasMoved,
        registry: &Arc<Registry>,
    ) -> Result<(), Refusal> {
        let AliasMoved { model, from, to } = moved;
        self.take_over()?;
        self.rolls_out(model)?;
        self.registry = Some(Arc::clone(registry));
        let has_route = self.saved.load().models.get(model).is_some_and(|kept| kept.route.is_some());
        if !has_route {
            let split = vec![WeightFile { version: from.to_string(), weight_bp: 10_000 }];
            self.route(model, Some(RouteFile { split, ..RouteFile::default() }), &Condition::Always)?;
        }
        let (from, to, since) = (from.clone(), to.clone(), self.rollouts.next_id());
        self.save_move(model, Some(SavedMove { from, to, since }))
    }

    fn save_move(&mut self, model: &ModelName, under_way: Option<SavedMove>) -> Result<(), Refusal> {
        let mut saved = Saved::clone(&self.saved.load());
        saved.models.entry(model.clone()).or_default().alias_move = under_way;
        self.write(&saved)?;
        self.saved.store(Arc::new(saved));
        Ok(())
    }

    /// Whether no move is under way.
    pub(super) fn is_settled(&self) -> bool {
        self.saved.load().models.values().all(|kept| kept.alias_move.is_none())
    }

    /// Carries every move on.
    pub(super) fn follow_moves(&mut self) {
        let saved = self.saved.load_full();
        let moves = saved.models.iter().filter_map(|(model, kept)| Some((model, kept.alias_move.as_ref()?)));
        for (model, under_way) in moves {
            match self.next(model, under_way) {
                Next::Wait => {}
                Next::Start => self.begin(model, under_way),
                Next::Settle(stays, reason) => self.settle(model, &stays, &reason),
            }
        }
    }

    fn next(&self, model: &ModelName, SavedMove { from, to, since }: &SavedMove) -> Next {
        if self.rollouts.of(model).is_some() {
            return Next::Wait;
        }
        if let Some(view) = self.rollouts.ended_since(model, *since) {
            let stays = if view.state == "promoted" { to } else { from };
            return Next::Settle(stays.clone(), view.decision.clone());
        }
        let table = self.control.table().snapshot();
        let found = table.model(model.as_str()).and_then(|entry| entry.version_entry(to));
        match found {
            Some(found) if found.servable.is_some() => Next::Start,
            Some(found) if found.status.refused => Next::Settle(from.clone(), found.status.describe()),
            _ => Next::Wait,
        }
    }

    fn begin(&mut self, model: &ModelName, SavedMove { from, to, .. }: &SavedMove) {
        let sticky = self.sticky(model).is_some();
        let stage = |shadow: Option<f64>, weight_bp: Option<u32>| StageFile {
            shadow,
            weight_bp,
            // requests that carry no key have no users to count
            min_users: (!sticky).then_some(0),
            ..StageFile::default()
        };
        let weights = [100, 500, 2500, 5000, 10_000].map(|weight_bp| stage(None, Some(weight_bp)));
        let plan = PlanFile {
            candidate: to.to_string(),
            baseline: Some(from.to_string()),
            stages: Some(std::iter::once(stage(Some(1.0), None)).chain(weights).collect()),
            // the pointer was moved on purpose, whatever became of another version a while ago
            cool_down_seconds: Some(0),
            ..PlanFile::default()
        };
        if let Err(refusal) = self.start_rollout(model, &plan, ACTOR) {
            tracing::warn!(%model, version = %to, reason = %refusal.message, "the registry's pointer is not followed");
            let reason = format!("no rollout could begin: {}", refusal.message);
            self.settle(model, from, &reason);
        }
    }

    /// Tells the registry which version stays. Without a registry, as after it was taken out of the configuration, there
    /// is nobody to tell.
    fn settle(&mut self, model: &ModelName, stays: &Version, reason: &str) {
        if let Some(registry) = &self.registry {
            registry.settle(model, stays, reason);
        }
        if let Err(refusal) = self.save_move(model, None) {
            tracing::error!(%model, error = %refusal.message, "the end of a move is not saved, and is told again after a restart");
        }
    }
}
