//! Three times as much as the server can do: does it still do all it can? Must not know how processes are started.

use gannet_benches::{
    models::Net,
    rig::{self, Process, Role, SERVER_CPU, Wire},
};
use gannet_loadtest::{flags::Flags, report::RunReport};

use crate::{
    Effort,
    report::{Bar, Rounds, figure},
};

/// Every request may take four times what the runtime's best batch costs.
pub(crate) fn overload(effort: Effort) {
    for (net, longer, sizes) in
        [(Net::Encoder, 8.0, &[1, 2, 4, 8, 16][..]), (Net::Mlp, 1.0, &[64, 128, 256, 512][..])]
    {
        let repository = tempfile::tempdir().expect("a folder for the repository");
        net.put(repository.path()).expect("the model is written");
        let body = repository.path().join("request.json");
        std::fs::write(&body, net.request(1, 7)).expect("the request is written");
        let raw = rig::raw_runs(net, repository.path(), SERVER_CPU, sizes, 0.2 * longer);
        let best =
            raw.iter().max_by(|a, b| a.rows_per_second.total_cmp(&b.rows_per_second)).expect("some size");
        // a loader cannot tell less than some milliseconds from this machine's own stalls
        let timeout_us = (best.us * 4.0).max(4000.0);
        println!(
            "  {}: {} rows cost {:.0} us; every request may take {timeout_us:.0} us",
            net.name(),
            best.rows,
            best.us
        );
        let server = Process::start(Role::Server, &[SERVER_CPU], repository.path());
        let seconds = effort.seconds * longer;
        let run = |load: &dyn Fn(Flags) -> Flags| {
            rig::load(&load(rig::flags(&server, Wire::Binary, net.name(), &body, seconds)))
        };
        let rounds: Vec<(RunReport, RunReport)> = (0..effort.rounds)
            .map(|_| {
                let capacity = run(&|flags| Flags { in_flight: Some(64), ..flags });
                let rate = capacity.rate * 3.0;
                let timeout_us = Some(timeout_us as u64);
                let flooded = run(&|flags| Flags { rate: Some(format!("{rate:.1}")), timeout_us, ..flags });
                (capacity, flooded)
            })
            .collect();
        let name = net.name();
        let capacity: Rounds = rounds.iter().map(|(capacity, _)| capacity.rate).collect();
        figure(&format!("{name}: capacity"), "/s", &capacity, None);
        let late: Rounds = rounds.iter().map(|(_, flooded)| late_percent(flooded, timeout_us)).collect();
        let on_time = |(capacity, flooded): &(RunReport, RunReport)| {
            flooded.rate * (1.0 - late_percent(flooded, timeout_us) / 100.0) / capacity.rate
        };
        let goodput: Rounds = rounds.iter().map(on_time).collect();
        let bar = |bar| (net == Net::Encoder).then_some(bar);
        figure(&format!("{name}: answered in time / capacity"), "x", &goodput, bar(Bar::AtLeast(0.95)));
        figure(&format!("{name}: answers that came late"), "%", &late, bar(Bar::AtMost(1.0)));
        let refused: Rounds =
            rounds.iter().map(|(_, r)| r.failed as f64 / r.sent.max(1) as f64 * 100.0).collect();
        figure(&format!("{name}: refused"), "%", &refused, None);
        let answer: Rounds = rounds.iter().map(|(_, r)| r.failed_latency.p50_us).collect();
        figure(&format!("{name}: p50 of a refusal"), "us", &answer, None);
        // a deadline that has passed as it comes: nothing but refusals
        let refusals = (0..effort.rounds).map(|_| {
            let refused = run(&|flags| Flags { in_flight: Some(64), timeout_us: Some(1), ..flags });
            assert_eq!(refused.succeeded, 0, "a request was answered within a microsecond");
            refused.server_cpu_us.unwrap_or(f64::NAN)
        });
        figure(&format!("{name}: CPU of a refusal"), "us", &refusals.collect(), None);
    }
}

fn late_percent(report: &RunReport, timeout_us: f64) -> f64 {
    let on_time = report.curve.iter().take_while(|(_, us)| *us <= timeout_us).map(|(quantile, _)| *quantile);
    (1.0 - on_time.last().unwrap_or(0.0)) * 100.0
}
