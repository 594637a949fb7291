//! Copies of requests that another version answers unseen, and how its answers differ. Each shadow has a bounded queue
//! and one thread that only runs while nobody else wants the core: what it does not get to is dropped and counted,
//! and the request that was copied never waits for it. Must not know routes, tables or HTTP.

mod compare;
mod report;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use gannet_models::{Redaction, Signature, Version};
use smallvec::SmallVec;

pub use self::report::{Report, Worst};
use crate::{
    InferError, InferResponse,
    control::manager::step_back,
    request::{Checked, Tensors},
    servable::Servable,
};

/// Copies of one shadow that wait, with the one that runs.
const COPIES_MAX: usize = 256;
/// Bytes of the tensors of all copies of one shadow, waiting and running.
const COPY_BYTES_MAX: usize = 64 << 20;
/// Time between two looks at an empty queue.
const LOOK: Duration = Duration::from_millis(2);
/// The thread runs only while nobody else wants the core.
const NICE: i32 = 19;

/// By output: the relative difference of two values that counts as none.
pub type Tolerances = BTreeMap<String, f64>;

/// The way to one shadow: its queue and its thread, which ends with the last holder of this.
#[derive(Debug)]
pub struct Line {
    /// The version that sees the copies.
    pub version: Version,
    /// By output.
    pub tolerances: Tolerances,
    copies: Sender<Copy>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    report: ArcSwap<Report>,
    dropped: AtomicU64,
    /// Copies that wait or run, and the bytes of their tensors.
    held: AtomicUsize,
    bytes: AtomicUsize,
    stop: AtomicBool,
}

/// Who sees a copy: the version as it serves now, and the way to it.
#[derive(Debug, Clone)]
pub struct Watcher {
    /// The version.
    pub servable: Arc<Servable>,
    /// The way.
    pub line: Arc<Line>,
}

/// A request that is copied once it is answered.
#[derive(Debug)]
pub struct Watched {
    watchers: SmallVec<[Watcher; 1]>,
    inputs: Tensors,
}

#[derive(Debug)]
struct Copy {
    shadow: Arc<Servable>,
    primary: Arc<Servable>,
    id: String,
    inputs: Tensors,
    outputs: Result<Tensors, String>,
    bytes: usize,
}

impl Line {
    /// Starts the thread. Where the system gives none, every copy is dropped.
    #[must_use]
    pub fn start(version: Version, tolerances: Tolerances) -> Arc<Self> {
        let (copies, receiver) = bounded(COPIES_MAX + 1);
        let shared = Arc::new(Shared::default());
        let (seen, tolerated) = (Arc::clone(&shared), tolerances.clone());
        let name: String = format!("shadow {version}").chars().take(15).collect();
        let work = move || run(&receiver, &seen, &tolerated);
        if let Err(error) = std::thread::Builder::new().name(name).spawn(work) {
            tracing::warn!(%version, %error, "no thread for a shadow; its copies are dropped");
        }
        Arc::new(Self { version, tolerances, copies, shared })
    }

    /// What was found so far.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        self.shared.report.load_full()
    }

    /// Copies that were not looked at, because too many or too large ones waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn offer(&self, copy: Copy) {
        let bytes = copy.bytes;
        let held = self.shared.held.fetch_add(1, Ordering::Relaxed) + 1;
        let held_bytes = self.shared.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // a queue that is full may make its sender wait for a thread that is just taking from it: it is never full
        let fits = held <= COPIES_MAX && held_bytes <= COPY_BYTES_MAX;
        if !fits || self.copies.try_send(copy).is_err() {
            self.shared.held.fetch_sub(1, Ordering::Relaxed);
            self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Watched {
    /// Keeps what a copy takes: no bytes are copied. `None` when nobody watches.
    #[must_use]
    pub fn new(watchers: SmallVec<[Watcher; 1]>, request: &Checked) -> Option<Box<Self>> {
        (!watchers.is_empty()).then(|| Box::new(Self { watchers, inputs: request.inputs.clone() }))
    }

    /// Hands the copies over, with what `primary` answered. Answers that say nothing of the model are not compared.
    pub fn answered(self, primary: &Arc<Servable>, id: &str, answer: &Result<InferResponse, InferError>) {
        let outputs = match answer {
            Ok(response) => Ok(response.outputs.clone()),
            Err(error @ InferError::Backend { .. }) => Err(error.to_string()),
            Err(_) => return,
        };
        let size = |tensors: &Tensors| tensors.iter().map(|tensor| tensor.data.len()).sum::<usize>();
        let bytes = size(&self.inputs) + outputs.as_ref().map_or(0, size);
        for Watcher { servable: shadow, line } in self.watchers {
            line.offer(Copy {
                shadow,
                primary: Arc::clone(primary),
                id: id.to_owned(),
                inputs: self.inputs.clone(),
                outputs: outputs.clone(),
                bytes,
            });
        }
    }
}

/// Answers that are compared outside of a server: what was given once, and what another version gives.
#[derive(Debug, Default)]
pub struct Comparison(report::Findings);

impl Comparison {
    /// Compares two answers to a request of so many rows; those outputs alone that `primary` names.
    pub fn compared(
        &mut self,
        id: &str,
        primary: (&Signature, &Tensors),
        shadow: (&Signature, &Tensors),
        (rows, tolerances): (usize, &Tolerances),
    ) {
        // what was redacted was not kept: there is nothing to hide
        let pair = compare::Pair { primary, shadow, rows, redaction: &Redaction::default() };
        self.0.compared(id, compare::compare(&pair, tolerances), None);
    }

    /// The other version failed a request.
    pub fn failed(&mut self, id: &str, why: &str) {
        self.0.failed(id, why);
    }

    /// What was found.
    #[must_use]
    pub fn report(&self) -> Report {
        self.0.report()
    }
}

/// The life of a shadow's thread.
fn run(copies: &Receiver<Copy>, shared: &Shared, tolerances: &Tolerances) {
    step_back(NICE);
    let mut findings = report::Findings::default();
    while !shared.stop.load(Ordering::Relaxed) {
        let copy = match copies.try_recv() {
            Ok(copy) => copy,
            // never blocks in the queue: who wakes it would have to wait for a lock that it may hold and not run
            Err(TryRecvError::Empty) => {
                std::thread::park_timeout(LOOK);
                continue;
            }
            Err(TryRecvError::Disconnected) => return,
        };
        let bytes = copy.bytes;
        look(&copy, tolerances, &mut findings);
        drop(copy);
        shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
        shared.held.fetch_sub(1, Ordering::Relaxed);
        // whoever reads never waits for this thread, which may not run for long
        shared.report.store(Arc::new(findings.report()));
    }
}

fn look(copy: &Copy, tolerances: &Tolerances, findings: &mut report::Findings) {
    let names = copy.primary.signature.inputs.iter().map(|spec| spec.name.as_str());
    let given = names.zip(copy.inputs.iter().cloned());
    let answer = copy.shadow.contract().check(given).and_then(|checked| copy.shadow.run_apart(&checked));
    match (&copy.outputs, answer) {
        (Err(_), answer) => findings.primary_failed(answer.is_err()),
        (Ok(_), Err(error)) => {
            // what an engine says of a failure may quote the values that it failed on
            let hidden = copy.primary.settings.redaction.hides_inputs();
            let why = if hidden {
                "it failed; why is not shown, for inputs are redacted".into()
            } else {
                error.to_string()
            };
            findings.failed(&copy.id, &why);
        }
        (Ok(outputs), Ok(apart)) => {
            let usual_ns = copy.primary.own_ns(&copy.inputs, apart.rows);
            let pair = compare::Pair {
                primary: (&copy.primary.signature, outputs),
                shadow: (&copy.shadow.signature, &apart.outputs),
                rows: apart.rows,
                redaction: &copy.primary.settings.redaction,
            };
            let found = compare::compare(&pair, tolerances);
            findings.compared(&copy.id, found, usual_ns.map(|usual_ns| (apart.own_ns, usual_ns)));
        }
    }
}

#[cfg(test)]
mod tests;
