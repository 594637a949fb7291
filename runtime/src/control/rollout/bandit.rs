//! A route that learns by itself which version earns more: Thompson sampling or epsilon-greedy over rewards that are
//! fed back.
//!
//! **It makes no test.** It sends more traffic to what looks better, so its counts are biased towards what it chose,
//! and no error probability, promotion or rollback may be read from them; a rollout with guards is the tool for that.
//! It is a kind of route of its own and shares no state with rollouts. Must not know what a reward is.

use gannet_stats::random::Random;
use serde::{Deserialize, Serialize};

/// Versions of one route at most.
pub const ARMS_MAX: usize = 32;

/// How the next version is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// A draw from what each version's mean reward may be; the highest goes.
    Thompson,
    /// The best mean so far, but with this probability any version.
    EpsilonGreedy(f64),
}

/// What is known of one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// The version.
    pub version: String,
    /// Rewards so far, each 0 to 1, added up.
    pub rewards: f64,
    /// How many.
    pub pulls: u64,
}

/// A route that learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bandit {
    policy: Policy,
    arms: Vec<Arm>,
    random: Random,
}

/// Why a bandit cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BanditError {
    /// Nothing to choose from, or too much.
    #[error("versions: expected 2 to {ARMS_MAX}, got {0}")]
    Arms(usize),
    /// A version that is listed twice.
    #[error("versions: '{0}' is there twice; keep one")]
    Twice(String),
    /// An epsilon that is no probability.
    #[error("epsilon: expected 0 to 1, got {0}")]
    Epsilon(f64),
    /// A version that it does not have.
    #[error("version: expected one of {known}, got '{got}'")]
    Unknown {
        /// Those it has.
        known: String,
        /// What was given.
        got: String,
    },
    /// A reward out of range.
    #[error("reward: expected 0 to 1 (scale it), got {0}")]
    Reward(f64),
}

impl Bandit {
    /// Nothing is known yet. The same seed and the same rewards give the same choices.
    ///
    /// # Errors
    /// [`BanditError`] for fewer than two versions, more than [`ARMS_MAX`], one twice, or an epsilon outside 0 to 1.
    pub fn new(policy: Policy, versions: &[String], seed: u64) -> Result<Self, BanditError> {
        if !(2..=ARMS_MAX).contains(&versions.len()) {
            return Err(BanditError::Arms(versions.len()));
        }
        if let Policy::EpsilonGreedy(epsilon) = policy
            && !(0.0..=1.0).contains(&epsilon)
        {
            return Err(BanditError::Epsilon(epsilon));
        }
        for (index, version) in versions.iter().enumerate() {
            if versions[..index].contains(version) {
                return Err(BanditError::Twice(version.clone()));
            }
        }
        let arms = versions.iter().map(|version| Arm { version: version.clone(), rewards: 0.0, pulls: 0 });
        Ok(Self { policy, arms: arms.collect(), random: Random::new(seed) })
    }

    /// The version that answers the next request.
    pub fn choose(&mut self) -> &str {
        let Self { policy, arms, random } = self;
        let best = |scores: &mut dyn FnMut(&Arm) -> f64| {
            let scored = arms.iter().map(scores).enumerate();
            scored.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(index, _)| index)
        };
        let index = match *policy {
            Policy::Thompson => best(&mut |arm| {
                // a uniform prior; fractional rewards count as parts of a success
                random.beta(1.0 + arm.rewards, 1.0 + (arm.pulls as f64 - arm.rewards).max(0.0))
            }),
            Policy::EpsilonGreedy(epsilon) if random.uniform() < epsilon => {
                random.below(arms.len() as u64) as usize
            }
            // one imagined success a version: each is tried before one is given up
            Policy::EpsilonGreedy(_) => best(&mut |arm| (arm.rewards + 1.0) / (arm.pulls as f64 + 1.0)),
        };
        &self.arms[index].version
    }

    /// A reward came in for a request that `version` answered.
    ///
    /// # Errors
    /// [`BanditError`] for an unknown version or a reward outside 0 to 1.
    pub fn reward(&mut self, version: &str, reward: f64) -> Result<(), BanditError> {
        if !(0.0..=1.0).contains(&reward) {
            return Err(BanditError::Reward(reward));
        }
        let arm = self.arm(version)?;
        arm.rewards += reward;
        arm.pulls += 1;
        Ok(())
    }

    /// What is known of a version by now, counted elsewhere.
    ///
    /// # Errors
    /// [`BanditError`] for an unknown version.
    pub fn set(&mut self, version: &str, rewards: f64, pulls: u64) -> Result<(), BanditError> {
        let arm = self.arm(version)?;
        (arm.rewards, arm.pulls) = (rewards, pulls);
        Ok(())
    }

    fn arm(&mut self, version: &str) -> Result<&mut Arm, BanditError> {
        let known: Vec<&str> = self.arms.iter().map(|arm| arm.version.as_str()).collect();
        let unknown = BanditError::Unknown { known: known.join(", "), got: version.to_owned() };
        self.arms.iter_mut().find(|arm| arm.version == version).ok_or(unknown)
    }

    /// The share of requests that each version would be chosen for now, in basis points that sum to 10000, each at
    /// least `least_bp`: who gets nothing is never learnt of again.
    pub fn shares_bp(&mut self, draws: u32, least_bp: u32) -> Vec<u32> {
        let versions: Vec<String> = self.arms.iter().map(|arm| arm.version.clone()).collect();
        let mut counts = vec![0u64; versions.len()];
        for _ in 0..draws {
            let chosen = self.choose().to_owned();
            let place = versions.iter().position(|version| *version == chosen);
            counts[place.unwrap_or(0)] += 1;
        }
        let left = u64::from(10_000 - least_bp * versions.len() as u32);
        let share = |count: &u64| least_bp + (count * left / u64::from(draws.max(1))) as u32;
        let mut shares: Vec<u32> = counts.iter().map(share).collect();
        let best = (0..shares.len()).max_by_key(|index| shares[*index]).unwrap_or(0);
        shares[best] += 10_000 - shares.iter().sum::<u32>();
        shares
    }

    /// What is known.
    #[must_use]
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(policy: Policy, seed: u64) -> Vec<u64> {
        let versions = ["1", "2", "3"].map(String::from);
        let (mut bandit, mut world) = (Bandit::new(policy, &versions, seed).unwrap(), Random::new(seed + 99));
        for _ in 0..3000 {
            let version = bandit.choose().to_owned();
            let rate = [0.1, 0.3, 0.2][version.parse::<usize>().unwrap() - 1];
            bandit.reward(&version, f64::from(u8::from(world.uniform() < rate))).unwrap();
        }
        bandit.arms().iter().map(|arm| arm.pulls).collect()
    }

    #[test]
    fn most_requests_go_to_the_best() {
        for seed in 0..5 {
            for policy in [Policy::Thompson, Policy::EpsilonGreedy(0.1)] {
                let pulls = run(policy, seed);
                assert!(pulls[1] > 1800, "{policy:?}, seed {seed}: {pulls:?}");
                assert_eq!(pulls, run(policy, seed), "the same seed chooses the same");
            }
        }
    }

    #[test]
    fn shares_follow_what_is_known_and_leave_something_to_everyone() {
        for policy in [Policy::Thompson, Policy::EpsilonGreedy(0.1)] {
            let mut bandit = Bandit::new(policy, &["1", "2", "3"].map(String::from), 7).unwrap();
            bandit.set("1", 100.0, 1000).unwrap();
            bandit.set("2", 300.0, 1000).unwrap();
            bandit.set("3", 200.0, 1000).unwrap();
            let shares = bandit.shares_bp(1000, 100);
            assert_eq!(shares.iter().sum::<u32>(), 10_000);
            assert!(shares[1] > 8500 && shares[0] >= 100 && shares[2] >= 100, "{policy:?}: {shares:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let new = |policy, versions: &[&str]| {
            let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
            Bandit::new(policy, &versions, 1)
        };
        assert_eq!(new(Policy::Thompson, &["1"]).unwrap_err(), BanditError::Arms(1));
        assert_eq!(new(Policy::Thompson, &["1", "1"]).unwrap_err(), BanditError::Twice("1".into()));
        assert_eq!(
            new(Policy::EpsilonGreedy(2.0), &["1", "2"]).unwrap_err().to_string(),
            "epsilon: expected 0 to 1, got 2"
        );
        let mut bandit = new(Policy::Thompson, &["1", "2"]).unwrap();
        assert_eq!(bandit.reward("1", 2.0).unwrap_err(), BanditError::Reward(2.0));
        assert_eq!(
            bandit.reward("3", 1.0).unwrap_err().to_string(),
            "version: expected one of 1, 2, got '3'"
        );
    }
}
