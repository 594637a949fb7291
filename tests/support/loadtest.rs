//! Traffic by the load tester, for as long as a test wants it. Must not know what is tested.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    thread::JoinHandle,
};

use gannet_loadtest::{flags::Flags, plan::Plan, report::RunReport, session};

/// Carries one run out on this thread.
pub(crate) fn load(flags: &Flags) -> RunReport {
    let plan = Plan::new(flags).unwrap_or_else(|faults| panic!("{}", faults.join("\n")));
    let (events, received) = sync_channel(16);
    std::thread::scope(|scope| {
        scope.spawn(move || received.iter().for_each(drop));
        let report = session::carry_out(&plan, &events).unwrap_or_else(|error| panic!("{error}"));
        drop(events);
        report.run.expect("one server, one run")
    })
}

/// Load until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(u64, u64, Vec<String>)>>,
}

/// Requests, those that failed, and the first failures in words.
pub(crate) struct Loaded {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) quotes: Vec<String>,
}

impl Load {
    /// Rows of a CSV file to model `m`, over HTTP and over gRPC, 600 requests a second each: other tests run
    /// beside.
    pub(crate) fn start(http: &str, grpc: &str, data: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let run = |url: String| {
            let (stop, data) = (Arc::clone(&stop), data.display().to_string());
            let work = move || {
                let flags = Flags {
                    url: Some(url),
                    model: Some("m".into()),
                    data: vec![data],
                    rate: Some("600".into()),
                    connections: Some(8),
                    idle: Some("sleep".into()),
                    duration: Some("500ms".into()),
                    warmup: Some("0s".into()),
                    no_server_stats: true,
                    ..Flags::default()
                };
                let (mut sent, mut failed, mut quotes) = (0, 0, Vec::new());
                while !stop.load(Ordering::Acquire) {
                    let report = load(&flags);
                    sent += report.sent;
                    failed += report.failed;
                    quotes.extend(report.quotes);
                    quotes.truncate(8);
                }
                (sent, failed, quotes)
            };
            std::thread::Builder::new().name("load".into()).spawn(work).expect("a thread")
        };
        let threads = vec![run(format!("http://{http}")), run(format!("grpc://{grpc}"))];
        Self { stop, threads }
    }

    pub(crate) fn stop(self) -> Loaded {
        self.stop.store(true, Ordering::Release);
        let mut all = Loaded { sent: 0, failed: 0, quotes: Vec::new() };
        for thread in self.threads {
            let (sent, failed, quotes) = thread.join().expect("the load ends");
            all.sent += sent;
            all.failed += failed;
            all.quotes.extend(quotes);
        }
        all
    }
}
