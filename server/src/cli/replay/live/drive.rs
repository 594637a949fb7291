//! Sends captured requests when they are due: one thread reads ahead, one waits until each is due and lets it go, one owns
//! every connection, and the caller's holds the answers. A request that finds all seats taken is sent late. Must not know when
//! requests are due, nor what answers mean.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Scope, ScopedJoinHandle},
    time::Duration,
};

use crossbeam::channel::{Receiver, Sender, bounded};
use gannet_capture::{Arrival, CaptureError, Table};
use gannet_models::redaction::Side;
use gannet_runtime::{Time, clock};
use tokio::{runtime::Runtime, sync::mpsc, sync::oneshot};

use super::{
    super::kept,
    schedule::Schedule,
    target::{Failure, Reply, Target},
};

/// Requests that are read ahead.
const READ_AHEAD_MAX: usize = 64;
/// Answers that wait to be held against what was given.
const ENDED_MAX: usize = 64;
/// The longest wait without a look at whether to go on.
const LOOK: Duration = Duration::from_millis(100);

/// One request that was sent once more.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) arrival: Arrival,
    /// When it was due; `None`: at once.
    pub(super) due: Option<Time>,
    pub(super) sent: Time,
    pub(super) ended: Time,
    pub(super) reply: Result<Reply, Failure>,
}

/// What is sent, how, and to whom.
pub(super) struct Drive<'a, A> {
    pub(super) tables: &'a [Table],
    /// Requests as they came, without those that are not wanted.
    pub(super) arrivals: A,
    pub(super) target: Arc<Target>,
    pub(super) schedule: Schedule,
    pub(super) concurrency: usize,
}

/// A place among those that are under way; given back when it is dropped.
struct Seat(Sender<()>);

impl Drop for Seat {
    fn drop(&mut self) {
        // there is room for every seat
        let _ = self.0.try_send(());
    }
}

impl<'a, A> Drive<'a, A>
where
    A: Iterator<Item = Result<Arrival, CaptureError>> + Send + 'a,
{
    /// Sends all, and hears what became of each. Whether it came to its end, or was interrupted.
    ///
    /// # Errors
    /// A text: why the rest could not be read or sent; what was sent was heard of.
    pub(super) fn run(self, runtime: Runtime, mut hear: impl FnMut(Outcome)) -> Result<bool, String> {
        let Self { tables, arrivals, target, schedule, concurrency } = self;
        let (ahead, waiting) = bounded(READ_AHEAD_MAX);
        let (ended, mut outcomes) = mpsc::channel(ENDED_MAX);
        let (finished, finish) = oneshot::channel::<()>();
        let stop = Arc::new(AtomicBool::new(false));
        let handle = runtime.handle().clone();
        thread::scope(|scope| {
            let read = move || {
                for arrival in arrivals {
                    // nobody takes more once it is interrupted, or once something could not be read
                    if ahead.send(arrival).is_err() {
                        return;
                    }
                }
            };
            spawn(scope, "gannet-replay-read", read)?;
            let its = Arc::clone(&stop);
            spawn(scope, "gannet-replay-send", move || runtime.block_on(until_finished(finish, &its)))?;
            let go = Go { tables, target, ended, handle, stop: Arc::clone(&stop) };
            let pace = move || go.each(&waiting, schedule, concurrency);
            let pacing = spawn(scope, "gannet-replay-pace", pace)?;
            while let Some(outcome) = outcomes.blocking_recv() {
                hear(outcome);
            }
            drop(finished);
            pacing.join().map_err(|_| "the thread that sends requests fell".to_owned())??;
            Ok(!stop.load(Ordering::Relaxed))
        })
    }
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, String> {
    let thread = thread::Builder::new().name(name.into()).spawn_scoped(scope, work);
    thread.map_err(|error| format!("no thread {name}: {error}"))
}

/// Runs what is under way until all of it ended. The first interrupt ends the sending alone.
async fn until_finished(mut finish: oneshot::Receiver<()>, stop: &AtomicBool) {
    tokio::select! {
        _ = &mut finish => return,
        Ok(()) = tokio::signal::ctrl_c() => stop.store(true, Ordering::Relaxed),
    }
    let _ = finish.await;
}

/// What the thread that lets requests go has.
struct Go<'a> {
    tables: &'a [Table],
    target: Arc<Target>,
    ended: mpsc::Sender<Outcome>,
    handle: tokio::runtime::Handle,
    stop: Arc<AtomicBool>,
}

impl Go<'_> {
    fn each(
        &self,
        waiting: &Receiver<Result<Arrival, CaptureError>>,
        mut schedule: Schedule,
        concurrency: usize,
    ) -> Result<(), String> {
        let (back, seats) = bounded(concurrency);
        (0..concurrency).for_each(|_| drop(Seat(back.clone())));
        let mut began = None;
        for arrival in waiting {
            let arrival = arrival.map_err(|error| error.to_string())?;
            let began = *began.get_or_insert_with(clock::now);
            let due = schedule.due(arrival.captured.time_us).map(|due| began + due);
            if !self.waits_until(due) || seats.recv().is_err() {
                return Ok(());
            }
            self.send(arrival, due, Seat(back.clone()));
        }
        Ok(())
    }

    /// Whether it is still wanted then.
    fn waits_until(&self, due: Option<Time>) -> bool {
        while !self.stop.load(Ordering::Relaxed) {
            let left = due.map_or(Duration::ZERO, |due| due - clock::now());
            if left.is_zero() {
                return true;
            }
            thread::park_timeout(left.min(LOOK));
        }
        false
    }

    fn send(&self, arrival: Arrival, due: Option<Time>, seat: Seat) {
        let table = &self.tables[arrival.table];
        let inputs = kept(&arrival.captured, table.layout(), Side::Input);
        let body = self.target.body(&arrival.captured.id, &inputs);
        let (model, target, ended) = (table.model().to_owned(), Arc::clone(&self.target), self.ended.clone());
        self.handle.spawn(async move {
            let sent = clock::now();
            let reply = target.ask(&model, body).await;
            let outcome = Outcome { arrival, due, sent, ended: clock::now(), reply };
            // nobody listens only when all is over
            let _ = ended.send(outcome).await;
            drop(seat);
        });
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{
        super::{LiveArgs, schedule::Pace},
        *,
    };

    #[derive(Parser)]
    struct Only {
        /// A value that the others name.
        #[arg(long)]
        candidate: Option<String>,
        #[command(flatten)]
        live: LiveArgs,
    }

    #[test]
    fn what_cannot_be_read_ends_it_with_the_reason() {
        let Only { live, candidate } = Only::parse_from(["replay"]);
        assert!(candidate.is_none());
        let gone = CaptureError::Conflict("a file: was removed".into());
        let drive = Drive {
            tables: &[],
            arrivals: vec![Err(gone)].into_iter(),
            target: Arc::new(Target::new("http://127.0.0.1:9", &live).unwrap()),
            schedule: Schedule::new(Pace::Max, None),
            concurrency: 2,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut heard = 0;
        let ended = drive.run(runtime, |_| heard += 1);
        assert_eq!((ended, heard), (Err("a file: was removed".to_owned()), 0));
    }
}
