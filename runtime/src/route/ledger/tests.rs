//! Requests and their outcomes: what counts, once, for whom and when.

use gannet_models::{DType, Dim, TensorSpec};
use smallvec::smallvec;

use super::*;
use crate::{Tensor, request::Timing};

fn ledger(metrics: &[&str], horizon_ms: u64, rewards: bool) -> Ledger {
    Ledger::new(LedgerSpec {
        versions: ["1", "2"].map(|version| Version::new(version).unwrap()).to_vec(),
        metrics: metrics.iter().map(ToString::to_string).collect(),
        horizon_ms,
        rewards,
    })
}

fn note(ledger: &Ledger, id: &str, version: &str, now_ms: u64) {
    let spec = TensorSpec {
        name: "p".into(),
        dtype: DType::Fp32,
        shape: vec![Dim::Dynamic(None), Dim::Fixed(3)],
        labels: None,
    };
    let signature = Signature { outputs: vec![spec], batched: true, ..Signature::default() };
    let data: Vec<u8> = [0.1f32, 0.7, 0.2].iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = Tensor { dtype: DType::Fp32, shape: smallvec![1, 3], data: data.into() };
    let response = InferResponse { outputs: smallvec![tensor], timing: Timing::default() };
    ledger.note(id, &Version::new(version).unwrap(), (&signature, &response), now_ms);
}

fn outcome(id: &str, metric: &str, value: f64) -> Outcome {
    Outcome { id: id.into(), version: None, label: None, metrics: [(metric.to_owned(), value)].into() }
}

const NOW: u64 = 1_800_000_000_000;

#[test]
fn each_outcome_counts_once_for_who_answered() {
    let ledger = ledger(&["sales"], 0, false);
    note(&ledger, "a", "1", NOW);
    note(&ledger, "b", "2", NOW);
    note(&ledger, "c", "3", NOW);
    let outcomes = [
        outcome("a", "sales", 3.0),
        outcome("b", "sales", 5.0),
        outcome("c", "sales", 1.0),
        outcome("b", "sales", 5.0),
    ];
    let fed = ledger.feed(&outcomes, NOW + 5000).unwrap();
    assert_eq!(fed, Fed { accepted: 2, unknown: 1, repeated: 1, unused: 0 });
    assert_eq!(ledger.feed(&[outcome("b", "other", 1.0)], NOW + 5000).unwrap().unused, 1);
    let sums = &ledger.mature(NOW + 5000)["sales"];
    assert_eq!((sums[0].n(), sums[0].mean(), sums[1].n(), sums[1].mean()), (1, 3.0, 1, 5.0));
    assert_eq!((ledger.fed().accepted, ledger.fed().unused), (2, 1));
}

#[test]
fn outcomes_wait_for_their_horizon_and_late_ones_count_at_once() {
    let ledger = ledger(&["sales"], 60_000, false);
    note(&ledger, "early", "1", NOW);
    note(&ledger, "late", "1", NOW);
    ledger.feed(&[outcome("early", "sales", 1.0)], NOW + 10_000).unwrap();
    assert!(ledger.mature(NOW + 59_000).is_empty());
    assert_eq!(ledger.mature(NOW + 62_000)["sales"][0].n(), 1);
    ledger.feed(&[outcome("late", "sales", 1.0)], NOW + 500_000).unwrap();
    assert_eq!(ledger.mature(NOW + 500_000)["sales"][0].n(), 2);
    ledger.begin(NOW + 500_000);
    note(&ledger, "new", "1", NOW + 501_000);
    note(&ledger, "old", "1", NOW + 499_000);
    ledger.feed(&[outcome("new", "sales", 1.0), outcome("old", "sales", 1.0)], NOW + 900_000).unwrap();
    assert_eq!(ledger.mature(NOW + 900_000)["sales"][0].n(), 1, "who was asked before does not count");
}

#[test]
fn what_cannot_be_is_refused_and_nothing_of_it_counts() {
    let ledger = ledger(&["click"], 0, true);
    note(&ledger, "a", "1", NOW);
    let wrong = Outcome { version: Some("2".into()), ..outcome("a", "click", 1.0) };
    let error = ledger.feed(&[outcome("a", "click", 1.0), wrong], NOW).unwrap_err().to_string();
    assert_eq!(error, "[1].version: request 'a' was answered by version '1', got '2'; leave it out");
    let error = ledger.feed(&[outcome("a", "click", 2.0)], NOW).unwrap_err().to_string();
    assert_eq!(error, "[0].metrics.click: expected a reward from 0 to 1 (scale it), got 2");
    assert_eq!(ledger.feed(&[outcome("a", "click", 1.0)], NOW).unwrap().accepted, 1, "it still counts once");
}

#[test]
fn labels_become_accuracy() {
    let ledger = ledger(&[ACCURACY], 0, false);
    let label = |id: &str, label| Outcome {
        id: id.into(),
        version: None,
        label: Some(label),
        metrics: BTreeMap::new(),
    };
    note(&ledger, "a", "2", NOW);
    note(&ledger, "b", "2", NOW);
    let fed = ledger.feed(&[label("a", 1.0), label("b", 2.0), label("a", 1.0)], NOW + 2000).unwrap();
    assert_eq!((fed.accepted, fed.repeated, fed.unused), (2, 1, 0));
    let sums = &ledger.mature(NOW + 2000)[ACCURACY];
    assert_eq!((sums[1].n(), sums[1].mean()), (2, 0.5));
}

#[test]
fn the_oldest_are_forgotten() {
    let ledger = ledger(&["sales"], 0, false);
    for index in 0..2 * REQUESTS_MAX as u64 {
        note(&ledger, &index.to_string(), "1", NOW + index);
    }
    let known = |range: std::ops::Range<usize>| {
        range.step_by(97).filter(|index| ledger.find(&index.to_string()).is_some()).count() as f64
    };
    let half = REQUESTS_MAX / 2;
    let of = |range: std::ops::Range<usize>| known(range.clone()) / (range.len().div_ceil(97)) as f64;
    // a bucket keeps its last four: of those that six to eight others followed, 9 % have had three followers or fewer,
    // and of those that up to two followed, 96 %
    let (old, new) = (of(0..half), of(2 * REQUESTS_MAX - half..2 * REQUESTS_MAX));
    assert!((0.05..0.13).contains(&old) && (0.92..0.99).contains(&new), "{old}, {new}");
}
