//! Routes that learn: every second the shares follow from the rewards that were fed back. Runs on the thread that keeps
//! routes. Must not know how shares follow from rewards, nor rollouts: on shares that were chosen for their success
//! nothing is tested.

use std::{collections::BTreeMap, sync::Arc};

use gannet_models::ModelName;
use gannet_runtime::{
    clock,
    control::{
        manager::TrafficChange,
        rollout::bandit::{Arm, Bandit},
    },
    route::{
        Judge, Route, RouteFile,
        ledger::{Ledger, LedgerSpec},
    },
};

use super::{Keeper, Saved, SavedModel};

/// Time between two new shares.
const LEARN_MS: u64 = 1000;
/// Time between two writes of what was learnt.
const SAVE_MS: u64 = 10_000;
/// Draws that shares are made of.
const DRAWS: u32 = 1000;
/// What every version gets at least, in basis points.
const LEAST_BP: u32 = 100;
/// Shares that move less are left as they are, in basis points.
const MOVES_BP: u32 = 50;

/// What the thread knows of routes that learn.
#[derive(Debug, Default)]
pub(super) struct Bandits {
    learners: BTreeMap<ModelName, Learner>,
    learnt_ms: u64,
    saved_ms: u64,
}

#[derive(Debug)]
struct Learner {
    bandit: Bandit,
    reward: String,
    ledger: Arc<Ledger>,
    /// What was learnt before this process.
    before: Vec<Arm>,
    file: RouteFile,
}

impl Bandits {
    pub(super) fn is_idle(&self) -> bool {
        self.learners.is_empty()
    }
}

impl Keeper {
    /// What is noted of a model's requests where its saved route learns; a route that does not forgets it.
    pub(super) fn learner(&mut self, model: &ModelName, kept: &SavedModel) -> Judge {
        self.bandits.learners.remove(model);
        let learner = kept.route.as_ref().and_then(|saved| Learner::new(model, &saved.route, &kept.rewards));
        let Some(learner) = learner else { return Judge::default() };
        let ledger = Arc::clone(&learner.ledger);
        self.bandits.learners.insert(model.clone(), learner);
        Judge { trial: None, ledger: Some(ledger) }
    }

    /// Lets shares follow from rewards.
    pub(super) fn learn(&mut self) {
        let now_ms = clock::wall_ms(clock::now());
        if now_ms.abs_diff(self.bandits.learnt_ms) < LEARN_MS {
            return;
        }
        self.bandits.learnt_ms = now_ms;
        for (model, learner) in &mut self.bandits.learners {
            learner.look(now_ms);
            let before: Vec<u32> = learner.file.split.iter().map(|weight| weight.weight_bp).collect();
            let shares = learner.bandit.shares_bp(DRAWS, LEAST_BP);
            if before.iter().zip(&shares).all(|(a, b)| a.abs_diff(*b) < MOVES_BP) {
                continue;
            }
            learner.file.split.iter_mut().zip(&shares).for_each(|(weight, share)| weight.weight_bp = *share);
            let Ok(route) = Route::new(model.as_str(), &learner.file) else { continue };
            let judge = Judge { trial: None, ledger: Some(Arc::clone(&learner.ledger)) };
            self.control
                .set_traffic(model.clone(), TrafficChange { route: Some(route), judge, labels: None });
        }
        self.save_rewards(now_ms);
    }

    fn save_rewards(&mut self, now_ms: u64) {
        if now_ms.abs_diff(self.bandits.saved_ms) < SAVE_MS || self.writer.is_none() {
            return;
        }
        self.bandits.saved_ms = now_ms;
        let mut saved = Saved::clone(&self.saved.load());
        for (model, learner) in &self.bandits.learners {
            if let Some(kept) = saved.models.get_mut(model) {
                kept.rewards = learner.bandit.arms().to_vec();
            }
        }
        if saved == **self.saved.load() {
            return;
        }
        match self.write(&saved) {
            Ok(()) => self.saved.store(Arc::new(saved)),
            Err(error) => tracing::warn!(error = %error.message, "what routes have learnt is not saved"),
        }
    }
}

impl Learner {
    fn new(model: &ModelName, file: &RouteFile, rewards: &[Arm]) -> Option<Self> {
        let route = Route::new(model.as_str(), file).ok()?;
        let spec = route.bandit()?.clone();
        let versions: Vec<String> = file.split.iter().map(|weight| weight.version.clone()).collect();
        let seed = clock::wall_ms(clock::now());
        let bandit = Bandit::new(spec.policy, &versions, seed).ok()?;
        let ledger = Ledger::new(LedgerSpec {
            versions: route.split().iter().map(|weight| weight.version.clone()).collect(),
            metrics: [spec.reward.clone()].into(),
            horizon_ms: 0,
            rewards: true,
        });
        let mut learner = Self {
            bandit,
            reward: spec.reward,
            ledger: Arc::new(ledger),
            before: rewards.to_vec(),
            file: file.clone(),
        };
        learner.look(seed);
        Some(learner)
    }

    /// Counts what was fed back so far, in this process and before.
    fn look(&mut self, now_ms: u64) {
        let sums = self.ledger.mature(now_ms);
        let here = sums.get(&self.reward);
        for (index, weight) in self.file.split.iter().enumerate() {
            let before = self.before.iter().find(|arm| arm.version == weight.version);
            let (mut rewards, mut pulls) = before.map_or((0.0, 0), |arm| (arm.rewards, arm.pulls));
            if let Some(moments) = here.and_then(|versions| versions.get(index)) {
                rewards += moments.mean() * moments.n() as f64;
                pulls += moments.n();
            }
            // the bandit was made of these versions
            let _ = self.bandit.set(&weight.version, rewards, pulls);
        }
    }
}
