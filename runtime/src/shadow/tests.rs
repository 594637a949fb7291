//! Comparing answers, and what is remembered of it.

use bytes::Bytes;
use gannet_models::{DType, Dim, Redaction, Signature, TensorSpec, redaction::Method};

use super::{
    compare::{Difference, Pair, compare},
    report::Findings,
    *,
};
use crate::{Tensor, tensor::Shape};

fn signature(name: &str) -> Signature {
    let shape = vec![Dim::Dynamic(None), Dim::Fixed(3)];
    let spec = TensorSpec { name: name.into(), dtype: DType::Fp32, shape, labels: None };
    Signature { inputs: Vec::new(), outputs: vec![spec], batched: true }
}

fn rows(values: &[[f32; 3]]) -> Tensors {
    let data: Vec<u8> = values.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let shape = Shape::from_slice(&[values.len(), 3]);
    std::iter::once(Tensor { dtype: DType::Fp32, shape, data: Bytes::from(data) }).collect()
}

fn difference(a: &[[f32; 3]], b: &[[f32; 3]], tolerance: f64) -> Difference {
    let (signature, a, b) = (signature("y"), rows(a), rows(b));
    let tolerances = [("y".to_owned(), tolerance)].into();
    let pair = Pair {
        primary: (&signature, &a),
        shadow: (&signature, &b),
        rows: a[0].shape[0],
        redaction: &Redaction::default(),
    };
    compare(&pair, &tolerances)
}

#[test]
fn values_are_compared_within_their_tolerance() {
    let a = [[1.0, 2.0, 100.0]];
    assert_eq!(difference(&a, &a, 0.01).largest, 0.0);
    let near = difference(&a, &[[1.0, 2.0, 100.5]], 0.01);
    assert!((near.largest - 0.5).abs() < 1e-6, "{near:?}");
    let far = difference(&a, &[[1.0, 2.05, 100.0]], 0.01);
    assert!(far.largest > 1.0 && far.place.contains("output 'y' at 1: 2.05"), "{far:?}");
    assert_eq!(difference(&[[f32::NAN; 3]], &[[f32::NAN; 3]], 0.01).largest, 0.0);
    assert_eq!(difference(&a, &[[1.0, 2.0, f32::NAN]], 0.01).largest, f64::INFINITY);
    let more = difference(&a, &[[1.0; 3], [1.0; 3]], 0.01);
    assert!(more.largest.is_infinite() && more.place.contains("FP32 [2, 3], was FP32 [1, 3]"), "{more:?}");
}

#[test]
fn what_is_redacted_is_not_shown() {
    let (signature, a, b) = (signature("y"), rows(&[[1.0, 2.0, 3.0]]), rows(&[[1.0, 2.0, 777.0]]));
    let redaction = Redaction { outputs: [("y".to_owned(), Method::Hash)].into(), ..Redaction::default() };
    let pair = Pair { primary: (&signature, &a), shadow: (&signature, &b), rows: 1, redaction: &redaction };
    let found = compare(&pair, &Tolerances::new());
    assert!(found.largest > 1.0, "it is still found: {found:?}");
    assert_eq!(found.place, "output 'y' differs; its values are redacted");
}

#[test]
fn order_is_compared_row_by_row() {
    let found = difference(&[[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], &[[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], 1.0);
    assert_eq!(found.best_same, [true, false]);
    assert!((found.ranks[0] - 1.0).abs() < 1e-12 && (found.ranks[1] + 1.0).abs() < 1e-12, "{found:?}");
    assert_eq!(found.scores, [(3.0, 3.0), (3.0, 3.0)]);
    assert!(difference(&[[1.0; 3]], &[[1.0, 2.0, 3.0]], 1.0).ranks.is_empty(), "all the same have no order");
}

#[test]
fn an_output_that_is_missing_is_a_difference() {
    let (first, second) = (signature("y"), signature("z"));
    let tensors = rows(&[[1.0; 3]]);
    let pair = Pair {
        primary: (&first, &tensors),
        shadow: (&second, &tensors),
        rows: 1,
        redaction: &Redaction::default(),
    };
    let found = compare(&pair, &Tolerances::new());
    assert!(found.largest.is_infinite() && found.place.contains("'y' is missing"), "{found:?}");
}

#[test]
fn the_worst_cases_and_the_means_are_kept() {
    let mut findings = Findings::default();
    for index in 0..40u32 {
        let shifted = (index % 10) as f32 / 100.0;
        let found = difference(&[[1.0, 2.0, 3.0]], &[[1.0, 2.0, 3.0 + shifted]], 0.01);
        findings.compared(&format!("id-{index}"), found, Some((300, 200)));
    }
    findings.failed("broken", "no");
    findings.primary_failed(true);
    let report = findings.report();
    // of a relative difference of up to 9/300, what is above 1/100 disagrees: six of ten
    assert_eq!((report.compared, report.disagreed, report.failed), (40, 24, 1));
    assert_eq!((report.primary_failed, report.both_failed), (1, 1));
    assert_eq!((report.worst.len(), &*report.worst[0].id, &*report.worst[1].id), (16, "broken", "id-9"));
    assert!(report.worst.is_sorted_by(|a, b| a.size >= b.size));
    assert_eq!((report.best_same, report.rank_correlation), (Some(1.0), Some(1.0)));
    assert_eq!((report.latency_ratio, report.score_distance), (Some(1.5), None));
}

#[test]
fn distributions_of_scores_are_compared_once_there_are_enough() {
    let distance = |shift: f64| {
        let mut findings = Findings::default();
        for index in 0..512u32 {
            let score = f64::from(index.wrapping_mul(2_654_435_761) >> 16);
            let found = Difference { scores: vec![(score, score + shift)], ..Difference::default() };
            findings.compared("", found, None);
        }
        findings.report().score_distance.unwrap()
    };
    assert!(distance(0.0) < 1e-9 && distance(20_000.0) > 0.2, "{} {}", distance(0.0), distance(20_000.0));
}
