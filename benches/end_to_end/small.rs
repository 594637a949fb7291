//! A model so small that the server itself is what is measured. Must not know how processes are started.

use std::path::PathBuf;

use gannet_benches::{
    models::Net,
    rig::{self, Process, Role, SERVER_CPU, Wire},
};
use gannet_loadtest::{flags::Flags, measure::server_stats::ServerShare, report::RunReport};
use tempfile::TempDir;

use crate::{
    Effort,
    report::{Bar, Rounds, figure},
};

/// The server and what it is held against, all on one core, of which one works at a time.
struct Sides {
    net: Net,
    repository: TempDir,
    server: Process,
    fixed: Process,
    body: PathBuf,
    request: String,
}

impl Sides {
    fn start(net: Net, rows: usize) -> Self {
        let repository = tempfile::tempdir().expect("a folder for the repository");
        net.put(repository.path()).expect("the model is written");
        let request = net.request(rows, 7);
        let body = repository.path().join("request.json");
        std::fs::write(&body, &request).expect("the request is written");
        let server = Process::start(Role::Server, &[SERVER_CPU], repository.path());
        let fixed = Process::start(Role::Fixed, &[SERVER_CPU], repository.path());
        Self { net, repository, server, fixed, body, request }
    }

    fn echo(&self, wire: Wire) -> Process {
        let answers = rig::capture(&self.server, wire, self.net.name(), &self.request);
        // the echo reads them as it starts
        Process::start(Role::Echo, &[SERVER_CPU], answers.path())
    }

    fn run(
        &self,
        process: &Process,
        wire: Wire,
        seconds: f64,
        load: impl FnOnce(Flags) -> Flags,
    ) -> RunReport {
        let flags = rig::flags(process, wire, self.net.name(), &self.body, seconds);
        let server = process.pid() == self.server.pid();
        let report = rig::load(&load(Flags { no_server_stats: !server, ..flags }));
        assert!(report.failed == 0 || !server, "{} requests failed: {:?}", report.failed, report.quotes);
        report
    }
}

fn closed(in_flight: usize, wire: Wire) -> impl Fn(Flags) -> Flags {
    let connections = (wire == Wire::Grpc && in_flight > 8).then_some(8);
    move |flags| Flags { in_flight: Some(in_flight), connections, ..flags }
}

fn cpu_us(report: &RunReport) -> f64 {
    report.server_cpu_us.unwrap_or(f64::NAN)
}

/// Where a request's time went inside the server, by its own statistics.
fn parts(name: &str, reports: &[&RunReport]) {
    let shares: Vec<_> = reports.iter().filter_map(|report| report.server.as_ref()).collect();
    let of =
        |value: fn(&ServerShare) -> f64| shares.iter().map(|share| value(share)).collect::<Rounds>().median();
    println!(
        "  {name}: of {:.1} us inside the server: queue {:.1}, gathering {:.1}, run {:.1}, scattering {:.1}",
        of(|share| share.total_us),
        of(|share| share.queue_us),
        of(|share| share.compute_input_us),
        of(|share| share.compute_infer_us),
        of(|share| share.compute_output_us)
    );
}

/// 64 in flight over each wire.
pub(crate) fn busy(effort: Effort) {
    let sides = Sides::start(Net::Mlp, 1);
    let raw = rig::raw_runs(Net::Mlp, sides.repository.path(), SERVER_CPU, &[1, 8, 16, 32, 64], 0.3);
    for wire in Wire::ALL {
        let echo = sides.echo(wire);
        let rounds: Vec<[RunReport; 3]> = (0..effort.rounds)
            .map(|_| {
                [&sides.fixed, &echo, &sides.server]
                    .map(|side| sides.run(side, wire, effort.seconds, closed(64, wire)))
            })
            .collect();
        let each = |value: fn(&[RunReport; 3]) -> f64| -> Rounds { rounds.iter().map(value).collect() };
        let rows =
            each(|[_, _, server]| server.server.as_ref().map_or(1.0, |share| share.batch_rows)).median();
        // the bare run of as many rows as the server ran together
        let near =
            raw.iter().min_by(|a, b| (a.rows as f64 - rows).abs().total_cmp(&(b.rows as f64 - rows).abs()));
        let run_us = near.map_or(0.0, |run| run.us / run.rows as f64);
        let (name, grpc) = (wire.name(), wire == Wire::Grpc);
        let (rate, cpu, ratio) = if grpc { (100_000.0, 10.0, 1.15) } else { (95_000.0, 10.5, 1.3) };
        figure(
            &format!("{name}: server, requests/s"),
            "/s",
            &each(|[_, _, s]| s.rate),
            Some(Bar::AtLeast(rate)),
        );
        figure(
            &format!("{name}: server, CPU a request"),
            "us",
            &each(|[_, _, s]| cpu_us(s)),
            Some(Bar::AtMost(cpu)),
        );
        figure(&format!("{name}: fixed, requests/s"), "/s", &each(|[f, ..]| f.rate), None);
        figure(&format!("{name}: fixed, CPU a request"), "us", &each(|[f, ..]| cpu_us(f)), None);
        figure(&format!("{name}: echo, requests/s"), "/s", &each(|[_, e, _]| e.rate), None);
        figure(&format!("{name}: echo, CPU a request"), "us", &each(|[_, e, _]| cpu_us(e)), None);
        println!("  {name}: {rows:.1} rows ran together; a bare run of so many costs {run_us:.2} us a row");
        parts(name, &rounds.iter().map(|[_, _, server]| server).collect::<Vec<_>>());
        let added: Rounds = rounds.iter().map(|[_, e, s]| (cpu_us(s) - run_us) / cpu_us(e)).collect();
        figure(&format!("{name}: (server - run) / echo, CPU"), "x", &added, Some(Bar::AtMost(ratio)));
        let share = each(|[f, _, s]| s.rate / f.rate);
        figure(
            &format!("{name}: server / fixed, requests/s"),
            "x",
            &share,
            (!grpc).then_some(Bar::AtLeast(0.6)),
        );
    }
}

/// One request at a time.
pub(crate) fn lone(effort: Effort) {
    let sides = Sides::start(Net::Mlp, 1);
    for wire in Wire::ALL {
        let echo = sides.echo(wire);
        let rounds: Vec<[RunReport; 3]> = (0..effort.rounds * 2)
            .map(|_| {
                [&sides.fixed, &echo, &sides.server]
                    .map(|side| sides.run(side, wire, effort.seconds / 2.0, closed(1, wire)))
            })
            .collect();
        let each = |value: fn(&[RunReport; 3]) -> f64| -> Rounds { rounds.iter().map(value).collect() };
        let name = wire.name();
        figure(&format!("{name}: server, p50"), "us", &each(|[_, _, s]| s.latency.p50_us), None);
        figure(&format!("{name}: fixed, p50"), "us", &each(|[f, ..]| f.latency.p50_us), None);
        figure(&format!("{name}: echo, p50"), "us", &each(|[_, e, _]| e.latency.p50_us), None);
        let run = |s: &RunReport| s.server.as_ref().map_or(0.0, |share| share.compute_infer_us);
        let runs: Rounds = rounds.iter().map(|[_, _, s]| run(s)).collect();
        figure(&format!("{name}: the run inside the server at this cadence"), "us", &runs, None);
        parts(name, &rounds.iter().map(|[_, _, server]| server).collect::<Vec<_>>());
        let over_fixed = each(|[f, _, s]| s.latency.p50_us - f.latency.p50_us);
        let bar = (wire != Wire::Grpc).then_some(Bar::AtMost(25.0));
        figure(&format!("{name}: p50, server - fixed"), "us", &over_fixed, bar);
        let over_echo: Rounds =
            rounds.iter().map(|[_, e, s]| s.latency.p50_us - e.latency.p50_us - run(s)).collect();
        figure(&format!("{name}: p50, server - echo - run"), "us", &over_echo, Some(Bar::AtMost(10.0)));
    }
}

/// Poisson arrivals at 70 % of the maximum.
pub(crate) fn open(effort: Effort) {
    let sides = Sides::start(Net::Mlp, 1);
    let wire = Wire::Json;
    let most = |side| sides.run(side, wire, effort.seconds, closed(64, wire)).rate;
    let rates = [most(&sides.fixed), most(&sides.server)];
    let at = |rate: f64| move |flags: Flags| Flags { rate: Some(format!("{:.0}", rate * 0.7)), ..flags };
    let rounds: Vec<[RunReport; 2]> = (0..effort.rounds)
        .map(|_| {
            [
                sides.run(&sides.fixed, wire, effort.seconds * 2.0, at(rates[0])),
                sides.run(&sides.server, wire, effort.seconds * 2.0, at(rates[1])),
            ]
        })
        .collect();
    for (index, name) in ["fixed", "server"].into_iter().enumerate() {
        let each = |value: fn(&RunReport) -> f64| -> Rounds {
            rounds.iter().map(|reports| value(&reports[index])).collect()
        };
        println!("  {name}: {:.0} requests/s are due", rates[index] * 0.7);
        figure(&format!("{name}: p50, median over 50 ms windows"), "us", &each(|r| r.windows.p50_us), None);
        figure(&format!("{name}: p99, median over 50 ms windows"), "us", &each(|r| r.windows.p99_us), None);
        let bar = (name == "server").then_some(Bar::AtMost(3.5));
        figure(&format!("{name}: p99 / p50"), "x", &each(|r| r.windows.p99_us / r.windows.p50_us), bar);
    }
}

/// 600 KB in, one value out.
pub(crate) fn large(effort: Effort) {
    let sides = Sides::start(Net::Wide, 1);
    let wire = Wire::Binary;
    let echo = sides.echo(wire);
    let rounds: Vec<[RunReport; 2]> = (0..effort.rounds)
        .map(|_| [&echo, &sides.server].map(|side| sides.run(side, wire, effort.seconds, closed(4, wire))))
        .collect();
    let each = |value: fn(&[RunReport; 2]) -> f64| -> Rounds { rounds.iter().map(value).collect() };
    figure("echo, CPU a request", "us", &each(|[e, _]| cpu_us(e)), None);
    figure("server, CPU a request", "us", &each(|[_, s]| cpu_us(s)), None);
    figure("server / echo, CPU", "x", &each(|[e, s]| cpu_us(s) / cpu_us(e)), Some(Bar::AtMost(1.15)));
}
