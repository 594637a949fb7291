//! Which of a stream of events are sampled: each with the same probability, independently, at the cost of a
//! countdown. Must not know what the events are.

use crate::random::Random;

/// Admits a share of events. One for each thread.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Events until the next that is admitted.
    left: u64,
    /// `ln(1 - rate)`; 0 admits none.
    log_miss: f64,
    random: Random,
}

impl Gate {
    /// Admits each event with probability `rate`, from 0 to 1.
    #[must_use]
    pub fn new(rate: f64, seed: u64) -> Self {
        let mut gate = Self { left: 0, log_miss: (-rate.clamp(0.0, 1.0)).ln_1p(), random: Random::new(seed) };
        gate.left = gate.skip();
        gate
    }

    /// Whether this event is admitted.
    #[inline]
    pub fn admits(&mut self) -> bool {
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        self.left = self.skip();
        // a rate of zero skips as many as there are numbers; that the last of them has come is not this event's doing
        self.log_miss < 0.0
    }

    /// Events that are passed over before the next admitted one: geometrically distributed.
    #[cold]
    fn skip(&mut self) -> u64 {
        if self.log_miss == 0.0 {
            return u64::MAX;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 and more; as saturates"
        )]
        let skip = (self.random.positive().ln() / self.log_miss) as u64;
        skip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_the_share_that_was_asked_for() {
        let count = |rate: f64, events: u32| {
            let mut gate = Gate::new(rate, 42);
            (0..events).filter(|_| gate.admits()).count() as f64
        };
        assert_eq!(count(0.0, 10_000), 0.0);
        assert_eq!(count(1.0, 10_000), 10_000.0);
        for rate in [0.01, 0.3, 0.9] {
            let (events, admitted) = (1_000_000.0, count(rate, 1_000_000));
            let deviation = (events * rate * (1.0 - rate)).sqrt();
            assert!((admitted - events * rate).abs() < 5.0 * deviation, "{rate}: {admitted}");
        }
    }

    #[test]
    fn gaps_forget_how_long_they_have_lasted() {
        let mut gate = Gate::new(0.1, 7);
        let (mut gaps, mut gap) = (Vec::new(), 0u32);
        for _ in 0..1_000_000 {
            gap += 1;
            if gate.admits() {
                gaps.push(gap);
                gap = 0;
            }
        }
        let share = |longer: u32| gaps.iter().filter(|&&g| g > longer).count() as f64 / gaps.len() as f64;
        assert!((share(10) - 0.9f64.powi(10)).abs() < 0.01, "{}", share(10));
        assert!((share(20) / share(10) - share(10)).abs() < 0.02);
    }
}
