//! What observing costs the requests: one in a hundred is looked at for drift and one in a hundred is captured, or none is.
//! Expected: a hundredth of a percent of processor time for the countdown, and less than one percent for the samples. Must
//! not know how processes are started.

use gannet_benches::{
    models::Net,
    rig::{self, Process, Role, SERVER_CPU, Wire},
};
use gannet_loadtest::{flags::Flags, report::RunReport};

use crate::{
    Effort,
    report::{Bar, Rounds, figure},
};

/// Without and with: at the most that is answered, and at half of it.
type Round = [(RunReport, RunReport); 2];

/// A small model on two servers that take turns on one core: one that samples and captures, one that does neither.
pub(crate) fn observers(effort: Effort) {
    let net = Net::Mlp;
    let start = |role: Role, rate: &str| {
        let repository = tempfile::tempdir().expect("a folder for the repository");
        net.put(repository.path()).expect("the model is written");
        let settings = repository.path().join(net.name()).join("model.toml");
        std::fs::write(settings, format!("[drift]\nrate = {rate}\n")).expect("the settings are written");
        let server = Process::start(role, &[SERVER_CPU], repository.path());
        (repository, server)
    };
    let (folder, without) = start(Role::Server, "0.0");
    let (_folder, with) = start(Role::Capturing, "0.01");
    let body = folder.path().join("request.json");
    std::fs::write(&body, net.request(1, 7)).expect("the request is written");
    let load = |server: &Process, flags: &dyn Fn(Flags) -> Flags| -> RunReport {
        let report = rig::load(&flags(rig::flags(server, Wire::Json, net.name(), &body, effort.seconds)));
        assert_eq!(report.failed, 0, "{:?}", report.quotes);
        report
    };
    let most = load(&without, &|flags| Flags { in_flight: Some(64), ..flags }).rate;
    let run = |server: &Process| {
        let busy = load(server, &|flags| Flags { in_flight: Some(64), ..flags });
        let open = load(server, &|flags| Flags { rate: Some(format!("{:.0}", most * 0.5)), ..flags });
        (busy, open)
    };
    // who goes first changes too
    let rounds: Vec<Round> = (0..effort.rounds)
        .map(|round| {
            if round % 2 == 0 {
                let first = run(&without);
                [first, run(&with)]
            } else {
                let first = run(&with);
                [run(&without), first]
            }
        })
        .collect();
    let cpu = |report: &RunReport| report.server_cpu_us.unwrap_or(f64::NAN);
    let each = |value: &dyn Fn(&Round) -> f64| -> Rounds { rounds.iter().map(value).collect() };
    figure("CPU of a request without", "us", &each(&|[without, _]| cpu(&without.0)), None);
    let ratio = each(&|[without, with]| cpu(&with.0) / cpu(&without.0));
    figure("CPU of a request, with / without", "x", &ratio, Some(Bar::AtMost(1.01)));
    figure("p99 without", "us", &each(&|[without, _]| without.1.windows.p99_us), None);
    let ratio = each(&|[without, with]| with.1.windows.p99_us / without.1.windows.p99_us);
    figure("p99, median over 50 ms windows, with / without", "x", &ratio, Some(Bar::AtMost(1.05)));
}
