//! What a shadow can do to the requests that it sees copies of: nothing.

use std::{borrow::Cow, fs};

use bytes::Bytes;
use gannet_models::DType;
use gannet_runtime::{
    InferRequest, Tensor, clock,
    request::Checked,
    route::{RouteFile, ShadowFile, WeightFile},
    servable::turn,
    shadow::Watched,
    table::{Routed, TableReader},
};
use smallvec::smallvec;

use super::bench::{Bench, MODEL, wait_until};

/// More than a shadow's queue takes.
const REQUESTS: usize = 600;
/// Copies that a shadow's queue takes, with the one that runs.
const HELD: u64 = 256;

fn shadowed(behaviour: &str) -> Bench {
    let bench = Bench::start();
    bench.aspire_all(&[(1, ""), (2, behaviour)]);
    let split = vec![WeightFile { version: "1".into(), weight_bp: 10_000 }];
    let shadow = vec![ShadowFile { version: "2".into(), fraction: 1.0, ..ShadowFile::default() }];
    bench.route(&RouteFile { split, shadow, ..RouteFile::default() });
    bench
}

/// Asks one value after the other, as the server does.
fn ask_all(table: &TableReader, value: f32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let flusher = tokio::spawn(turn::flusher());
        tokio::task::yield_now().await;
        for index in 0..REQUESTS {
            let routed = table.route(MODEL, None, |_| Ok(Cow::Borrowed(b"user"))).unwrap();
            let Routed { servable, shadows, .. } = routed;
            let data = Bytes::copy_from_slice(&value.to_le_bytes());
            let inputs = smallvec![Tensor { dtype: DType::Fp32, shape: smallvec![1, 1], data }];
            let checked = Checked { inputs, rows: 1 };
            let watched = Watched::new(shadows, &checked).expect("it is watched");
            let request = InferRequest {
                inputs: checked.inputs,
                rows: 1,
                priority: 0,
                deadline: None,
                arrived: clock::now(),
            };
            let answer = servable.infer(request).await;
            (*watched).answered(&servable, &index.to_string(), &answer);
            let outputs = answer.unwrap().outputs;
            assert_eq!(outputs[0].data[..], (value + 1.0).to_le_bytes(), "the first version answers");
        }
        flusher.abort();
    });
}

fn line(table: &TableReader) -> (u64, gannet_runtime::shadow::Report) {
    let table = table.snapshot();
    let line = &table.model(MODEL).unwrap().route.as_ref().unwrap().lines[0];
    (line.dropped(), (*line.report()).clone())
}

#[test]
fn a_shadow_that_hangs_is_not_waited_for() {
    let bench = shadowed("hang_value = 17");
    let started = clock::now();
    ask_all(&bench.table(), 17.0);
    let (dropped, report) = line(&bench.table());
    // the first copy alone hangs for three seconds: had anybody waited, one second would not do
    assert!(report.compared == 0, "it hangs still: {report:?}");
    assert!(clock::now() - started < std::time::Duration::from_secs(3));
    assert!(dropped >= REQUESTS as u64 - HELD, "{dropped} were dropped");
}

#[test]
fn a_shadow_that_eats_the_processor_runs_only_while_nobody_else_wants_it() {
    let bench = shadowed("spin_value = 16");
    ask_all(&bench.table(), 16.0);
    // field 41 of a thread's status is its scheduling policy, and 5 is the idle one (proc(5), sched(7))
    let idle = |stat: String| {
        let (name, rest) = stat.rsplit_once(')').unwrap();
        name.ends_with("(shadow 2").then(|| rest.split_whitespace().nth(38) == Some("5"))
    };
    let policies = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
        stats.filter_map(idle).collect::<Vec<bool>>()
    };
    wait_until("the shadow's thread steps back", || {
        let policies = policies();
        !policies.is_empty() && policies.iter().all(|is_idle| *is_idle)
    });
    wait_until("it goes on with what it held", || line(&bench.table()).1.compared > 0);
}

#[test]
fn a_shadow_that_fails_and_panics_is_counted() {
    for behaviour in ["fail_value = 18", "panic_value = 18", "wrong_rank_value = 18"] {
        let bench = shadowed(behaviour);
        ask_all(&bench.table(), 18.0);
        wait_until("some were looked at", || {
            let (_, report) = line(&bench.table());
            report.failed + report.disagreed > 0 && report.worst[0].size.is_infinite()
        });
    }
}
