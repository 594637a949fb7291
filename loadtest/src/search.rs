//! `--find-max`: which rate to try next. Grows or shrinks by a factor until the objective is
//! bracketed, then bisects geometrically.
//!
//! Pure; bounded by a number of steps. Must not know how a rate is tried.

use crate::quantity::RATE_MAX;

/// Factor between rates until one holds and one misses.
const GROWTH: f64 = 2.0;
/// Bisection stops when the bracket is narrower than this.
const PRECISION: f64 = 1.03;
/// Lower rates are not tried.
const RATE_MIN: f64 = 0.1;

/// The state of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    held: Option<f64>,
    missed: Option<f64>,
    next: f64,
    steps_left: u32,
}

impl Search {
    /// A search that tries `start` first and `steps_max` rates at most.
    pub fn new(start: f64, steps_max: u32) -> Self {
        Self { held: None, missed: None, next: start, steps_left: steps_max }
    }

    /// The rate to try, or `None` when the search is over.
    pub fn next_rate(&self) -> Option<f64> {
        let narrow = matches!((self.held, self.missed), (Some(h), Some(m)) if m / h < PRECISION);
        let outside = !(RATE_MIN..=RATE_MAX).contains(&self.next);
        (self.steps_left > 0 && !narrow && !outside).then_some(self.next)
    }

    /// Takes the outcome of the rate last asked for.
    pub fn observe(&mut self, held: bool) {
        self.steps_left = self.steps_left.saturating_sub(1);
        if held {
            self.held = Some(self.next);
        } else {
            self.missed = Some(self.next);
        }
        self.next = match (self.held, self.missed) {
            (Some(held), Some(missed)) => (held * missed).sqrt(),
            (Some(held), None) => held * GROWTH,
            (None, Some(missed)) => missed / GROWTH,
            (None, None) => self.next,
        };
    }

    /// The highest rate that held.
    pub fn best(&self) -> Option<f64> {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a server that holds every rate up to `limit`.
    fn check(start: f64, steps: u32, limit: f64, tolerance: f64) {
        let mut search = Search::new(start, steps);
        let mut tried = 0;
        while let Some(rate) = search.next_rate() {
            tried += 1;
            search.observe(rate <= limit);
        }
        assert!(tried <= steps);
        let best = search.best().unwrap();
        assert!(best <= limit && best >= limit / tolerance, "{best} of {limit}");
    }

    #[test]
    fn finds_the_limit() {
        check(1000.0, 24, 86_000.0, PRECISION);
        check(1000.0, 24, 17.0, PRECISION);
        check(1000.0, 24, 1000.0, PRECISION);
        check(1000.0, 9, 86_000.0, 1.5);
    }

    #[test]
    fn ends_when_nothing_holds_or_everything_does() {
        for (held, bound) in [(false, None), (true, Some(8_192_000.0))] {
            let mut search = Search::new(1000.0, 100);
            while search.next_rate().is_some() {
                search.observe(held);
            }
            assert_eq!(search.best(), bound);
            assert!(search.steps_left > 50);
        }
    }
}
