//! Versions swap under load, with the real control plane and threads, over the backend without an engine.

mod bench;
mod client;
mod shadowed;

use std::sync::atomic::Ordering;

use gannet_runtime::{InferError, control::lifecycle::State};

use self::bench::{Bench, MODEL, wait_until};
use self::client::{Clients, ask, ask_without_flusher};
use crate::support::proof::scaled;

#[test]
fn versions_swap_under_load_and_no_request_fails() {
    let bench = Bench::start();
    bench.swap_to(1, "");
    let clients = Clients::start(&bench.table(), 4);
    let swaps = scaled(50, 2000);
    for version in 2..=swaps + 1 {
        let before = clients.seen.answered.load(Ordering::Relaxed);
        bench.swap_to(version, "");
        if version.is_multiple_of(5) {
            bench.reload(version);
        }
        // each version answers some requests before the next one comes
        wait_until("requests go on", || clients.seen.answered.load(Ordering::Relaxed) > before + 4);
    }
    let seen = clients.stop();
    let faults = seen.faults.lock().unwrap();
    assert!(faults.is_empty(), "{} faults, such as {}", faults.len(), faults[0]);
    assert!(seen.dropped.load(Ordering::Relaxed) > 0, "no future was dropped in flight");
    let servable = bench.table().resolve(MODEL, None).unwrap();
    wait_until("nothing waits", || servable.waiting() == 0 && servable.inflight() == 0);
    wait_until("the reaper is done", || bench.backend.live() == servable.instances());
    let loads = swaps + 1 + (swaps + 1) / 5;
    assert_eq!(bench.backend.opened(), loads * servable.instances() as u64);
    let threads: Vec<String> = bench.backend.dropped_on().into_keys().collect();
    assert_eq!(threads, ["gannet-reaper"], "instances are destroyed by the reaper alone");
    let held = seen.servables.lock().unwrap();
    let alive = held.values().filter(|servable| servable.strong_count() > 0).count();
    assert!(alive <= 1, "{alive} of {} servables are still held", held.len());
}

#[test]
fn a_version_that_cannot_be_opened_leaves_the_old_one_serving() {
    let bench = Bench::start();
    bench.swap_to(1, "");
    let states = bench.aspire(2, "fail_open = true");
    let found: Vec<(&str, State)> = states.iter().map(|s| (s.version.as_str(), s.state)).collect();
    assert_eq!(found, [("1", State::Ready), ("2", State::Unavailable)]);
    assert!(states[1].reason.contains("fail_open"), "{}", states[1].reason);
    assert_eq!(ask(&bench.table(), &[&[5.0]])[0], Ok(vec![6.0]));
    bench.swap_to(3, "");
    assert_eq!(ask(&bench.table(), &[&[5.0]])[0], Ok(vec![8.0]));
}

#[test]
fn a_failing_or_panicking_engine_harms_its_own_request_alone() {
    let bench = Bench::start();
    bench.swap_to(1, "fail_value = 13\npanic_value = 14");
    let answers = ask(&bench.table(), &[&[1.0], &[13.0], &[2.0], &[14.0], &[3.0, 4.0]]);
    for (index, expected) in [(0, vec![2.0]), (2, vec![3.0]), (4, vec![4.0, 5.0])] {
        assert_eq!(answers[index], Ok(expected));
    }
    for index in [1, 3] {
        let failed =
            matches!(&answers[index], Err(InferError::Backend { version, .. }) if version.as_str() == "1");
        assert!(failed, "{:?}", answers[index]);
    }
}

#[test]
fn outputs_of_a_wrong_shape_harm_their_own_request_alone() {
    let bench = Bench::start();
    for (version, behaviour) in
        [(1, "wrong_rows = true"), (2, "input = x FP32 -1 seq\nwrong_rank_value = 15")]
    {
        bench.swap_to(version, behaviour);
        // more often than there are instances: one that ended would not answer any more
        for _ in 0..4 {
            let answers = ask(&bench.table(), &[&[15.0]]);
            let failed = matches!(&answers[0], Err(InferError::Backend { .. }));
            assert!(failed, "{behaviour}: {:?}", answers[0]);
        }
    }
    assert_eq!(ask(&bench.table(), &[&[1.0], &[15.0]])[0], Ok(vec![3.0]));
}

#[test]
fn a_thread_whose_flusher_is_gone_is_still_answered() {
    let bench = Bench::start();
    bench.swap_to(1, "");
    // each call has a runtime with a flusher of its own, all on this thread
    for _ in 0..3 {
        assert_eq!(ask(&bench.table(), &[&[1.0]])[0], Ok(vec![2.0]));
    }
    assert_eq!(ask_without_flusher(&bench.table(), &[1.0]), Ok(vec![2.0]));
}
