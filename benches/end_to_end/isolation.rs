//! One model's tail while another is loaded, warmed and swapped in: is a reload felt by who has nothing to do with
//! it? Must not know how processes are started.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use gannet_benches::{
    models::Net,
    rig::{self, Process, Role, SERVER_CPU, Wire},
};
use gannet_loadtest::{flags::Flags, report::RunReport};

use crate::{
    Effort,
    report::{Bar, Rounds, figure},
};

/// A small model at half its capacity; beside it 100 MB are swapped, without a pause.
pub(crate) fn reload(effort: Effort) {
    let repository = tempfile::tempdir().expect("a folder for the repository");
    let drawer =
        tempfile::tempdir_in(repository.path().parent().expect("a parent")).expect("a folder beside it");
    Net::Mlp.put(repository.path()).expect("the model is written");
    Net::Resnet50.put_as(repository.path(), "b", "1").expect("the model is written");
    let body = drawer.path().join("request.json");
    fs::write(&body, Net::Mlp.request(1, 7)).expect("the request is written");
    let server = Process::start(Role::Server, &[SERVER_CPU], repository.path());
    let run = |load: &dyn Fn(Flags) -> Flags, seconds| {
        let report = rig::load(&load(rig::flags(&server, Wire::Json, "mlp", &body, seconds)));
        assert_eq!(report.failed, 0, "{:?}", report.quotes);
        report
    };
    let most = run(&|flags| Flags { in_flight: Some(64), ..flags }, effort.seconds).rate;
    let half = |flags: Flags| Flags { rate: Some(format!("{:.0}", most * 0.5)), ..flags };
    let mut version = 1;
    let mut swaps = 0;
    let rounds: Vec<(RunReport, RunReport)> = (0..effort.rounds)
        .map(|_| {
            let alone = run(&half, effort.seconds * 4.0);
            let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
            let beside = std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        version += 1;
                        swap(repository.path(), drawer.path(), version, &server);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
                let report = run(&half, effort.seconds * 4.0);
                stop.store(true, Ordering::Relaxed);
                report
            });
            swaps += done.into_inner();
            (alone, beside)
        })
        .collect();
    println!("  {swaps} swaps of 100 MB; {:.0} requests/s are due, all answered", most * 0.5);
    let each = |value: fn(&(RunReport, RunReport)) -> f64| -> Rounds { rounds.iter().map(value).collect() };
    figure("p99 alone", "us", &each(|(alone, _)| alone.latency.p99_us), None);
    figure("p99 beside the reloads", "us", &each(|(_, beside)| beside.latency.p99_us), None);
    let ratio = each(|(alone, beside)| beside.latency.p99_us / alone.latency.p99_us);
    figure("p99, beside / alone", "x", &ratio, Some(Bar::AtMost(1.25)));
    let windows = each(|(alone, beside)| beside.windows.p99_us / alone.windows.p99_us);
    figure("p99, median over 50 ms windows, beside / alone", "x", &windows, None);
}

/// Puts the next version beside the one that serves, waits until it serves, and takes the other away.
fn swap(repository: &Path, drawer: &Path, version: usize, server: &Process) {
    let name = version.to_string();
    let model = repository.join("b");
    let staged = drawer.join(&name);
    fs::create_dir_all(&staged).expect("a folder");
    fs::hard_link(model.join((version - 1).to_string()).join("model.onnx"), staged.join("model.onnx"))
        .expect("a link");
    fs::rename(&staged, model.join(&name)).expect("it appears at once");
    let path = format!("/v2/models/b/versions/{name}/ready");
    while !rig::is_ok(server, &path) {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    fs::remove_dir_all(model.join((version - 1).to_string())).expect("it is removed");
}
