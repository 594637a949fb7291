//! What was found of a shadow so far: counts, means and the worst cases. Must not know how answers are compared.

use gannet_stats::{moments::Moments, score::scores};

use super::compare::Difference;
use crate::control::rollout::Arms;

/// Worst cases kept.
const WORST_MAX: usize = 16;
/// Bytes of a request's id and of a description that are kept.
const TEXT_BYTES_MAX: usize = 512;
/// Scores of the primary whose quantiles become the bins' edges.
const SCORES_FIRST: usize = 256;
const BINS: usize = 16;

/// A shadow's answers beside the primary's, since it began.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Pairs of answers that were compared.
    pub compared: u64,
    /// Pairs with a value that differs by more than its tolerance.
    pub disagreed: u64,
    /// Requests that the shadow failed and the primary answered.
    pub failed: u64,
    /// Requests that the primary's model failed, whatever the shadow did.
    pub primary_failed: u64,
    /// Of them, those that the shadow failed too.
    pub both_failed: u64,
    /// Share of rows whose largest column is the same.
    pub best_same: Option<f64>,
    /// Share of the five largest columns of a row that both have.
    pub best_shared: Option<f64>,
    /// Mean rank correlation of a row's columns.
    pub rank_correlation: Option<f64>,
    /// Total variation between the distributions of the rows' largest values; known from 256 rows on.
    pub score_distance: Option<f64>,
    /// Those values by bin, of the shadow and of the primary; known from 256 rows on.
    pub scores: Option<Arms<Vec<u64>>>,
    /// The shadow's computing time by the primary's usual one, for the same number of rows.
    pub latency_ratio: Option<f64>,
    /// The worst first.
    pub worst: Vec<Worst>,
}

/// One request that was answered otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Worst {
    /// The request's id.
    pub id: String,
    /// The largest difference, in tolerances; infinite for a failure or an answer of another form.
    pub size: f64,
    /// Where, with the values.
    pub what: String,
}

#[derive(Debug, Default)]
pub(super) struct Findings {
    report: Report,
    best_same: Moments,
    best_shared: Moments,
    ranks: Moments,
    /// Nanoseconds of the shadow, and of the primary.
    spent_ns: (u64, u64),
    scores: Scores,
}

#[derive(Debug, Default)]
struct Scores {
    first: Vec<(f64, f64)>,
    edges: Vec<f64>,
    primary: Vec<u64>,
    shadow: Vec<u64>,
}

impl Findings {
    pub(super) fn primary_failed(&mut self, shadow_failed: bool) {
        self.report.primary_failed += 1;
        self.report.both_failed += u64::from(shadow_failed);
    }

    pub(super) fn failed(&mut self, id: &str, why: &str) {
        self.report.failed += 1;
        self.keep(id, f64::INFINITY, why);
    }

    pub(super) fn compared(&mut self, id: &str, found: Difference, spent_ns: Option<(u64, u64)>) {
        self.report.compared += 1;
        if found.largest > 1.0 {
            self.report.disagreed += 1;
            self.keep(id, found.largest, &found.place);
        }
        found.best_same.iter().for_each(|same| self.best_same.push(f64::from(u8::from(*same))));
        found.best_shared.iter().for_each(|share| self.best_shared.push(*share));
        found.ranks.iter().for_each(|rank| self.ranks.push(*rank));
        found.scores.into_iter().for_each(|pair| self.scores.add(pair));
        if let Some((shadow, primary)) = spent_ns {
            self.spent_ns.0 += shadow;
            self.spent_ns.1 += primary;
        }
    }

    pub(super) fn report(&self) -> Report {
        let mean = |moments: &Moments| (moments.n() > 0).then(|| moments.mean());
        let (shadow, primary) = self.spent_ns;
        Report {
            best_same: mean(&self.best_same),
            best_shared: mean(&self.best_shared),
            rank_correlation: mean(&self.ranks),
            score_distance: self.scores.distance(),
            scores: self.scores.counts(),
            latency_ratio: (primary > 0).then(|| shadow as f64 / primary as f64),
            ..self.report.clone()
        }
    }

    fn keep(&mut self, id: &str, size: f64, what: &str) {
        let worst = &mut self.report.worst;
        let place = worst.partition_point(|other| other.size >= size);
        if place >= WORST_MAX {
            return;
        }
        let cut = |text: &str| text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned();
        worst.insert(place, Worst { id: cut(id), size, what: cut(what) });
        worst.truncate(WORST_MAX);
    }
}

impl Scores {
    fn add(&mut self, (primary, shadow): (f64, f64)) {
        if !primary.is_finite() || !shadow.is_finite() {
            return;
        }
        if !self.edges.is_empty() {
            self.count(primary, shadow);
            return;
        }
        self.first.push((primary, shadow));
        if self.first.len() == SCORES_FIRST {
            let mut sorted: Vec<f64> = self.first.iter().map(|(primary, _)| *primary).collect();
            sorted.sort_by(f64::total_cmp);
            self.edges = (1..BINS).map(|bin| sorted[bin * SCORES_FIRST / BINS]).collect();
            self.edges.dedup();
            self.primary = vec![0; self.edges.len() + 1];
            self.shadow = vec![0; self.edges.len() + 1];
            for (primary, shadow) in std::mem::take(&mut self.first) {
                self.count(primary, shadow);
            }
        }
    }

    fn count(&mut self, primary: f64, shadow: f64) {
        let bin = |edges: &[f64], score: f64| edges.partition_point(|edge| *edge <= score);
        self.primary[bin(&self.edges, primary)] += 1;
        self.shadow[bin(&self.edges, shadow)] += 1;
    }

    fn counts(&self) -> Option<Arms<Vec<u64>>> {
        let known = !self.edges.is_empty();
        known.then(|| Arms { candidate: self.shadow.clone(), stable: self.primary.clone() })
    }

    fn distance(&self) -> Option<f64> {
        scores(&self.primary, &self.shadow).ok().map(|scores| scores.total_variation)
    }
}
