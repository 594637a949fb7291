//! What is counted of a request's end, and when.

use gannet_models::{DType, Dim, ModelName, TensorSpec, Version};
use smallvec::smallvec;

use super::*;
use crate::request::Timing;

fn signature() -> Signature {
    let spec = |name: &str, dtype| TensorSpec {
        name: name.into(),
        dtype,
        shape: vec![Dim::Dynamic(None), Dim::Fixed(2)],
        labels: None,
    };
    Signature {
        outputs: vec![spec("scores", DType::Fp32), spec("label", DType::Int64)],
        batched: true,
        ..Signature::default()
    }
}

fn response(scores: [f32; 2]) -> InferResponse {
    let tensor = |dtype, data: Vec<u8>| Tensor { dtype, shape: smallvec![1, 2], data: data.into() };
    let scores = scores.iter().flat_map(|score| score.to_le_bytes()).collect();
    let labels = [9i64, 9].iter().flat_map(|label| label.to_le_bytes()).collect();
    InferResponse {
        outputs: smallvec![tensor(DType::Fp32, scores), tensor(DType::Int64, labels)],
        timing: Timing::default(),
    }
}

fn crash() -> InferError {
    let (model, version) = (ModelName::new("m").unwrap(), Version::new("2").unwrap());
    InferError::Backend { model, version, message: "no".into() }
}

#[test]
fn without_users_every_request_is_a_trial() {
    let (tally, signature) = (Tally::new(Wishes::default()), signature());
    for index in 0..10u64 {
        tally.assigned(Side::Stable, index);
        tally.ended(Side::Stable, 7, (&signature, Ok(&response([0.1, 0.2]))), 1_000_000);
        tally.ended(Side::Candidate, 7, (&signature, Err(&crash())), 1_000_000);
    }
    tally.ended(Side::Candidate, 7, (&signature, Err(&InferError::Invalid("no".into()))), 1);
    tally.ended(Side::Candidate, 7, (&signature, Err(&InferError::Cancelled)), 1);
    let errors = tally.errors();
    assert_eq!(errors.trials, Arms { candidate: 11, stable: 10 });
    assert_eq!(errors.events, Arms { candidate: 11, stable: 0 });
    assert_eq!((tally.requests().stable, tally.users(), tally.crashes_in_a_row()), (10, None, 10));
    tally.ended(Side::Candidate, 7, (&signature, Ok(&response([0.1, 0.2]))), 1);
    tally.ended(Side::Candidate, 7, (&signature, Err(&crash())), 1);
    assert_eq!(tally.crashes_in_a_row(), 10, "the longest row counts");
}

#[test]
fn a_user_is_one_trial_and_one_event_a_window() {
    let (tally, signature) = (Tally::new(Wishes { by_user: true, scores: false }), signature());
    let fail = || tally.ended(Side::Candidate, 7, (&signature, Err(&crash())), 1);
    (0..5).for_each(|_| fail());
    assert_eq!((tally.errors().events.candidate, tally.errors().trials.candidate), (1, 1));
    tally.turn_window(false);
    fail();
    assert_eq!(tally.errors().events.candidate, 1, "the window is not over");
    tally.turn_window(true);
    fail();
    assert_eq!((tally.errors().events.candidate, tally.errors().trials.candidate), (2, 2));
    (0..300u64).for_each(|user| tally.assigned(Side::Candidate, user));
    assert_eq!(tally.users().unwrap().candidate, 300);
}

#[test]
fn what_is_slow_is_counted_once_it_is_known() {
    let (tally, signature) = (Tally::new(Wishes::default()), signature());
    let take = |us: u64| tally.ended(Side::Stable, 1, (&signature, Ok(&response([0.0, 0.0]))), us * 1000);
    assert_eq!(tally.stable_latency(), None);
    (1..=1000).for_each(take);
    let latency = tally.stable_latency().unwrap();
    assert!(latency.requests == 1000 && (latency.p99_us / 990.0 - 1.0).abs() < 0.07, "{latency:?}");
    assert_eq!(tally.slow(), None);
    tally.set_slow(latency.p99_us);
    take(500);
    take(5000);
    let slow = tally.slow().unwrap();
    assert_eq!((slow.events.stable, slow.trials.stable), (1, 2));
}

#[test]
fn scores_fall_into_the_bins_of_the_first_ones() {
    let (tally, signature) = (Tally::new(Wishes { by_user: false, scores: true }), signature());
    let take = |side, score: f32| tally.ended(side, 1, (&signature, Ok(&response([score, -1.0]))), 1);
    (0..256).for_each(|index| take(Side::Stable, index as f32));
    assert_eq!(tally.scores().unwrap().stable, vec![0; 16], "the first ones only say where the bins are");
    (0..160).for_each(|index| take(Side::Stable, index as f32 * 1.6));
    (0..16).for_each(|_| take(Side::Candidate, 1000.0));
    let scores = tally.scores().unwrap();
    assert!(scores.stable.iter().all(|count| (9..=11).contains(count)), "{scores:?}");
    assert_eq!(scores.candidate.last(), Some(&16));
}
