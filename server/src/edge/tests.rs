//! Cases of jobs: one at a time, so many waiting, and calling off. Real compilations are tested over HTTP.

use std::{path::Path, time::Duration};

use crossbeam::channel::after;
use gannet_models::{IngestLimits, Store, VersionLocation};

use super::*;

/// Bound of everything that is waited for.
const WAIT_MAX: Duration = Duration::from_secs(30);

fn order(store: &Store, version: &str) -> EdgeOrder {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/zoo/iris");
    let location = VersionLocation { path: root.join("1"), root, stored_as: None };
    EdgeOrder {
        model: ModelName::new("iris").unwrap(),
        version: Version::new(version).unwrap(),
        artifact: store.ingest(&location, &IngestLimits::default()).unwrap(),
        options: EdgeOptions::default(),
    }
}

fn until(jobs: &EdgeJobs, order: &EdgeOrder, what: &str, is: impl Fn(&JobState) -> bool) {
    let end = gannet_runtime::clock::now() + WAIT_MAX;
    loop {
        let state = jobs.of(&order.model, &order.version).unwrap().state;
        if is(&state) {
            return;
        }
        assert!(gannet_runtime::clock::now() < end, "{what}: {state:?}");
        let _ = after(Duration::from_millis(2)).recv();
    }
}

#[test]
fn jobs_go_one_by_one_and_can_be_called_off() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (go, gate) = bounded::<()>(1);
    let compile = move |_: &EdgeOrder, tell: &mut Tell<'_>| {
        // runs until it is let go or called off
        let mut done = 0;
        loop {
            done += 1;
            if !tell(Progress { step: "calibrating", done, of: 1000 }) {
                return Err("cancelled".into());
            }
            if gate.recv_timeout(Duration::from_millis(2)).is_ok() {
                return Ok(Bundle::default());
            }
        }
    };
    let (jobs, thread) = EdgeJobs::start_with(0, compile).unwrap();
    let orders: Vec<EdgeOrder> = (1..=WAITING_MAX + 2).map(|n| order(&store, &n.to_string())).collect();
    let running = |state: &JobState| matches!(state, JobState::Running(_));
    assert_eq!(jobs.ask(orders[0].clone()).unwrap().id, 1);
    until(&jobs, &orders[0], "the first runs", running);
    for order in &orders[1..=WAITING_MAX] {
        assert!(matches!(jobs.ask(order.clone()).unwrap().state, JobState::Waiting));
    }
    let refused = jobs.ask(orders[WAITING_MAX + 1].clone()).unwrap_err();
    assert_eq!(refused.kind, Kind::Exhausted, "{refused:?}");
    assert_eq!(jobs.ask(orders[0].clone()).unwrap().id, 1, "the same once more");
    let mut other = orders[0].clone();
    other.options.sequence = Some(9);
    assert_eq!(jobs.ask(other).unwrap_err().kind, Kind::Conflict);

    // one that waits is called off at once, one that runs when it next says how far it is
    assert!(matches!(jobs.cancel(&orders[1].model, &orders[1].version).unwrap().state, JobState::Cancelled));
    let _ = jobs.cancel(&orders[0].model, &orders[0].version);
    let over = |state: &JobState| matches!(state, JobState::Cancelled);
    until(&jobs, &orders[0], "the first is called off", over);
    until(&jobs, &orders[2], "the third runs, the second never", running);
    assert!(over(&jobs.of(&orders[1].model, &orders[1].version).unwrap().state));
    go.send(()).unwrap();
    until(&jobs, &orders[2], "the third is done", |state| matches!(state, JobState::Done(_)));
    assert!(jobs.of(&orders[WAITING_MAX + 1].model, &orders[WAITING_MAX + 1].version).is_none());

    // what is over makes room
    for number in 0..KEPT_MAX + 4 {
        let mut order = orders[1].clone();
        order.options.sequence = Some(number as u64);
        let _ = jobs.cancel(&order.model, &order.version);
        let _ = jobs.ask(order);
        assert!(lock(&jobs.board).jobs.len() <= KEPT_MAX);
    }
    jobs.stop();
    thread.join().unwrap();
    assert_eq!(jobs.ask(orders[0].clone()).unwrap_err().kind, Kind::Unavailable);
}

#[test]
fn a_fault_of_the_compiler_ends_one_job() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let compile = |order: &EdgeOrder, _: &mut Tell<'_>| {
        assert_ne!(order.version.as_str(), "1", "a fault on purpose");
        Ok(Bundle::default())
    };
    let (jobs, thread) = EdgeJobs::start_with(0, compile).unwrap();
    let (bad, good) = (order(&store, "1"), order(&store, "2"));
    jobs.ask(bad.clone()).unwrap();
    jobs.ask(good.clone()).unwrap();
    until(&jobs, &good, "the next one is done", |state| matches!(state, JobState::Done(_)));
    let state = jobs.of(&bad.model, &bad.version).unwrap().state;
    assert!(matches!(&state, JobState::Failed(why) if why.contains("has a fault")), "{state:?}");
    jobs.stop();
    thread.join().unwrap();
}
