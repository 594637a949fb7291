//! Thresholds of the population stability index, each computed once: they are a quantile that is found by trial, and
//! features of one window share them. Must not know features.

use std::collections::HashMap;

use crate::{StatsError, score::PsiThreshold};

/// Thresholds that are remembered.
const KNOWN_MAX: usize = 4096;

/// Thresholds for one share of false alarms.
#[derive(Debug, Clone)]
pub struct Thresholds {
    /// Share of windows at the tolerated index that are over it.
    pub(super) alpha: f64,
    known: HashMap<(u64, u64, u64), f64>,
}

impl Thresholds {
    /// None known yet.
    #[must_use]
    pub fn new(alpha: f64) -> Self {
        Self { alpha, known: HashMap::new() }
    }

    pub(super) fn of(&mut self, mut sizes: PsiThreshold) -> Result<f64, StatsError> {
        // of two digits that matter: with fewer rows the threshold is a little higher, and never too low
        let step = 10u64.pow(sizes.current.checked_ilog10().unwrap_or(0).saturating_sub(1));
        sizes.current = sizes.current / step * step;
        let key = (sizes.bins, sizes.reference, sizes.current);
        if let Some(known) = self.known.get(&key) {
            return Ok(*known);
        }
        let value = sizes.value()?;
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(key, value);
        Ok(value)
    }
}
