//! Models that keep a core busy: how much of the runtime's own best does the server reach? Must not know how
//! processes are started.

use gannet_benches::{
    models::Net,
    rig::{self, Process, Role, SERVER_CPU, Wire},
};
use gannet_loadtest::{flags::Flags, report::RunReport};

use crate::{
    Effort,
    report::{Bar, Rounds, figure},
};

/// Batch sizes among which the runtime's best is looked for.
const SIZES: [usize; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

struct Question {
    net: Net,
    rows: usize,
    in_flight: usize,
    wire: Wire,
    /// Times the usual measured time: slow models answer rarely.
    longer: f64,
    bar: f64,
}

/// An encoder and an image net, single rows.
pub(crate) fn dense(effort: Effort) {
    for net in [Net::Encoder, Net::Resnet50] {
        against_raw(
            &Question { net, rows: 1, in_flight: 32, wire: Wire::Binary, longer: 6.0, bar: 0.97 },
            effort,
        );
    }
}

/// A small CNN, 32 rows.
pub(crate) fn digits(effort: Effort) {
    let question =
        Question { net: Net::Digits, rows: 32, in_flight: 8, wire: Wire::Binary, longer: 1.0, bar: 0.76 };
    against_raw(&question, effort);
}

/// Trees, 64 rows.
pub(crate) fn trees(effort: Effort) {
    let question =
        Question { net: Net::Trees, rows: 64, in_flight: 8, wire: Wire::Binary, longer: 1.0, bar: 0.75 };
    against_raw(&question, effort);
}

fn against_raw(question: &Question, effort: Effort) {
    let &Question { net, rows, in_flight, wire, longer, bar } = question;
    let repository = tempfile::tempdir().expect("a folder for the repository");
    net.put(repository.path()).expect("the model is written");
    let body = repository.path().join("request.json");
    std::fs::write(&body, net.request(rows, 7)).expect("the request is written");
    let slow = longer > 1.0;
    let sizes = if slow { &SIZES[..5] } else { &SIZES[..] };
    let looked = rig::raw_runs(net, repository.path(), SERVER_CPU, sizes, 0.2 * longer);
    let best =
        looked.iter().max_by(|a, b| a.rows_per_second.total_cmp(&b.rows_per_second)).expect("some size");
    println!(
        "  {}: the runtime alone does best with {} rows a run ({:.1} us)",
        net.name(),
        best.rows,
        best.us
    );
    let server = Process::start(Role::Server, &[SERVER_CPU], repository.path());
    let seconds = effort.seconds * longer;
    let mut ratios = Vec::new();
    let (mut raws, mut served) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let raw = rig::raw_runs(net, repository.path(), SERVER_CPU, &[best.rows], seconds)[0].rows_per_second;
        let flags = rig::flags(&server, wire, net.name(), &body, seconds);
        let warmup = slow.then(|| "4s".to_owned()).or(flags.warmup.clone());
        let report = rig::load(&Flags { in_flight: Some(in_flight), warmup, ..flags });
        assert_eq!(report.failed, 0, "{:?}", report.quotes);
        let rate = report.rate * rows as f64;
        raws.push(raw);
        served.push(rate);
        ratios.push(rate / raw);
    }
    let name = net.name();
    figure(&format!("{name}: the runtime alone"), "rows/s", &raws.into_iter().collect(), None);
    figure(&format!("{name}: served, {rows} rows a request"), "rows/s", &served.into_iter().collect(), None);
    figure(&format!("{name}: served / alone"), "x", &ratios.into_iter().collect(), Some(Bar::AtLeast(bar)));
}

/// A table's rows, on all that the machine has.
pub(crate) fn tabular(effort: Effort) {
    let net = Net::Mlp30;
    let repository = tempfile::tempdir().expect("a folder for the repository");
    net.put(repository.path()).expect("the model is written");
    let server = Process::start(Role::Server, &[SERVER_CPU, rig::LOADER_CPU], repository.path());
    for (rows, bar) in [(32, 1.8e6), (64, 2.7e6)] {
        let body = repository.path().join(format!("{rows}.json"));
        std::fs::write(&body, net.request(rows, 7)).expect("the request is written");
        let rounds: Vec<RunReport> = (0..effort.rounds)
            .map(|_| {
                let flags = rig::flags(&server, Wire::Binary, net.name(), &body, effort.seconds);
                rig::load(&Flags { in_flight: Some(16), pin: None, ..flags })
            })
            .collect();
        let rates: Rounds = rounds.iter().map(|report| report.rate * rows as f64).collect();
        figure(&format!("{rows} rows a request, loader included"), "rows/s", &rates, Some(Bar::AtLeast(bar)));
    }
}
