//! What a shadow costs the requests that it sees copies of: their tail, and processor time beyond the copies' own.
//! Expected: the tail as without, for the shadow runs only while nobody else wants the core; and for a copy what a
//! single run costs and as much again for comparing. Must not know how processes are started.

use gannet_benches::{
    models::Net,
    rig::{self, Process, Role, SERVER_CPU, Wire, admin},
};
use gannet_loadtest::{flags::Flags, report::RunReport};
use serde_json::{Value, json};

use crate::{
    Effort,
    report::{Bar, Rounds, figure},
};

/// One run: the load tester's report, and the copies that were looked at and dropped meanwhile.
struct Run {
    report: RunReport,
    compared: u64,
    dropped: u64,
}

/// A small convolutional net at half its capacity; every request goes to a shadow too, or none does.
pub(crate) fn shadow(effort: Effort) {
    let net = Net::Digits;
    let repository = tempfile::tempdir().expect("a folder for the repository");
    net.put_as(repository.path(), net.name(), "1").expect("the model is written");
    net.put_as(repository.path(), net.name(), "2").expect("the model is written");
    let settings = repository.path().join(net.name()).join("model.toml");
    std::fs::write(settings, "versions = \"all\"\n").expect("the settings are written");
    let body = repository.path().join("request.json");
    std::fs::write(&body, net.request(1, 7)).expect("the request is written");
    let lone = rig::raw_runs(net, repository.path(), SERVER_CPU, &[1], 0.3)[0].us;
    let server = Process::start(Role::Server, &[SERVER_CPU], repository.path());
    let load = |flags: &dyn Fn(Flags) -> Flags| {
        let report =
            rig::load(&flags(rig::flags(&server, Wire::Json, net.name(), &body, effort.seconds * 2.0)));
        assert_eq!(report.failed, 0, "{:?}", report.quotes);
        report
    };
    for version in ["1", "2"] {
        let path = format!("/v2/models/{}/versions/{version}/ready", net.name());
        while !rig::is_ok(&server, &path) {
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
    }
    route(&server, net, false);
    let most = load(&|flags| Flags { in_flight: Some(64), ..flags }).rate;
    let run = |shadowed: bool| {
        route(&server, net, shadowed);
        let before = looked_at(&server, net);
        let report = load(&|flags| Flags { rate: Some(format!("{:.0}", most * 0.5)), ..flags });
        let after = looked_at(&server, net);
        Run { report, compared: after.0 - before.0, dropped: after.1 - before.1 }
    };
    let rounds: Vec<[Run; 2]> = (0..effort.rounds).map(|_| [run(false), run(true)]).collect();
    let each = |value: fn(&[Run; 2]) -> f64| -> Rounds { rounds.iter().map(value).collect() };
    println!("  {:.0} requests/s are due; a single bare run costs {lone:.1} us", most * 0.5);
    figure("p99 without", "us", &each(|[without, _]| without.report.windows.p99_us), None);
    let ratio = each(|[without, with]| with.report.windows.p99_us / without.report.windows.p99_us);
    figure("p99, median over 50 ms windows, with / without", "x", &ratio, Some(Bar::AtMost(1.05)));
    let ratio = each(|[without, with]| with.report.latency.p99_us / without.report.latency.p99_us);
    figure("p99 of the whole run, with / without", "x", &ratio, None);
    let share = each(|[_, with]| with.compared as f64 / (with.compared + with.dropped).max(1) as f64 * 100.0);
    figure("copies that were looked at", "%", &share, None);
    let cpu = |run: &Run| run.report.server_cpu_us.unwrap_or(f64::NAN) * run.report.succeeded as f64;
    let copy: Rounds = rounds
        .iter()
        .map(|[without, with]| {
            let expected = cpu(without) * with.report.succeeded as f64 / without.report.succeeded as f64;
            (cpu(with) - expected) / with.compared.max(1) as f64
        })
        .collect();
    figure("CPU of a copy", "us", &copy, None);
}

fn route(server: &Process, net: Net, shadowed: bool) {
    let shadow = if shadowed { json!([{ "version": "2", "fraction": 1.0 }]) } else { json!([]) };
    let route = json!({ "split": [{ "version": "1", "weight_bp": 10_000 }], "shadow": shadow });
    admin(server, "PUT", &format!("/admin/v1/models/{}/traffic", net.name()), &route.to_string());
}

/// Copies that were looked at and dropped so far.
fn looked_at(server: &Process, net: Net) -> (u64, u64) {
    let body = admin(server, "GET", &format!("/admin/v1/models/{}/shadows", net.name()), "");
    let shadows: Value = serde_json::from_str(&body).expect("the answer is JSON");
    let count = |name: &str| shadows["shadows"][0][name].as_u64().unwrap_or(0);
    (count("compared"), count("dropped"))
}
