//! Compilations for microcontrollers as jobs: asked for, watched, called off, fetched. One thread of low priority does
//! one after another; what it made is kept in memory, for the same version and options make the same bytes again. Must
//! not know HTTP, nor how a model is compiled.

mod job;

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use gannet_edge::{bundle::Bundle, compile::Progress};
use gannet_models::{Artifact, ModelName, Version};
use gannet_runtime::control::manager::step_back;

pub use self::job::{Calibration, EdgeOptions, Range};
use crate::respond::{Kind, Refusal};

/// Jobs that may wait.
pub const WAITING_MAX: usize = 8;
/// Jobs that are remembered with what they made; the oldest that are over go first.
pub const KEPT_MAX: usize = 16;

/// What is to be compiled.
#[derive(Debug, Clone)]
pub struct EdgeOrder {
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// Its files, which stay as long as the order.
    pub artifact: Artifact,
    /// How.
    pub options: EdgeOptions,
}

/// How far a job is.
#[derive(Debug, Clone)]
pub enum JobState {
    /// Others go before it.
    Waiting,
    /// It is at this step.
    Running(Progress),
    /// It is over, and this came out.
    Done(Arc<Bundle>),
    /// It is over, and nothing came out, for this reason.
    Failed(String),
    /// It was called off.
    Cancelled,
}

/// A job as it stands.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its number.
    pub id: u64,
    /// What it compiles.
    pub order: EdgeOrder,
    /// How far it is.
    pub state: JobState,
    cancel: Arc<AtomicBool>,
}

impl Job {
    /// Whether it waits or runs.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        matches!(self.state, JobState::Waiting | JobState::Running(_))
    }
}

/// Told how far a compilation is; answers whether to go on.
type Tell<'a> = dyn FnMut(Progress) -> bool + 'a;

#[derive(Debug, Default)]
struct Board {
    last_id: u64,
    /// The oldest first.
    jobs: VecDeque<Job>,
}

/// The jobs, seen by endpoints.
#[derive(Debug)]
pub struct EdgeJobs {
    board: Arc<Mutex<Board>>,
    orders: Sender<Option<u64>>,
}

impl EdgeJobs {
    /// Starts the thread, which steps back by `nice` (0: not at all, to 19).
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(nice: i32) -> io::Result<(Self, JoinHandle<()>)> {
        Self::start_with(nice, job::run)
    }

    fn start_with(
        nice: i32,
        compile: impl Fn(&EdgeOrder, &mut Tell<'_>) -> Result<Bundle, String> + Send + 'static,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let board = Arc::new(Mutex::new(Board::default()));
        let (orders, receiver) = bounded(WAITING_MAX);
        let shared = Arc::clone(&board);
        let run = move || {
            step_back(nice);
            work(&shared, &receiver, &compile);
        };
        let thread = std::thread::Builder::new().name("gannet-edge".into()).spawn(run)?;
        Ok((Self { board, orders }, thread))
    }

    /// Asks for a compilation. One of the same version and options that goes on already is given back instead.
    ///
    /// # Errors
    /// [`Kind::Conflict`] while the version is compiled with other options, [`Kind::Exhausted`] when too many wait.
    pub fn ask(&self, order: EdgeOrder) -> Result<Job, Refusal> {
        let mut board = lock(&self.board);
        if let Some(job) = board.newest(&order.model, &order.version).filter(|job| job.goes_on()) {
            let same = job.order.options == order.options && job.order.artifact == order.artifact;
            let (id, version, model) = (job.id, &order.version, &order.model);
            return if same {
                Ok(job.clone())
            } else {
                Err(Refusal::new(
                    Kind::Conflict,
                    format!(
                        "job {id} compiles version '{version}' of '{model}' with other options; wait for it, or DELETE it"
                    ),
                ))
            };
        }
        let id = board.last_id + 1;
        match self.orders.try_send(Some(id)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                let message = format!("{WAITING_MAX} compilations wait already; try again, or DELETE one");
                return Err(Refusal { retry_after_ms: Some(5000), ..Refusal::new(Kind::Exhausted, message) });
            }
            Err(TrySendError::Disconnected(_)) => {
                return Err(Refusal::new(Kind::Unavailable, "the server is shutting down"));
            }
        }
        board.last_id = id;
        let job = Job { id, order, state: JobState::Waiting, cancel: Arc::default() };
        board.jobs.push_back(job.clone());
        while board.jobs.len() > KEPT_MAX {
            // fewer than are kept can wait, so one of them is over
            let Some(place) = board.jobs.iter().position(|job| !job.goes_on()) else { break };
            board.jobs.remove(place);
        }
        Ok(job)
    }

    /// The newest job of a version.
    #[must_use]
    pub fn of(&self, model: &ModelName, version: &Version) -> Option<Job> {
        lock(&self.board).newest(model, version).cloned()
    }

    /// Calls the newest job of a version off; one that is over is forgotten with what it made.
    #[must_use]
    pub fn cancel(&self, model: &ModelName, version: &Version) -> Option<Job> {
        let mut board = lock(&self.board);
        let job = board.newest_mut(model, version)?;
        job.cancel.store(true, Ordering::Relaxed);
        // the thread says when it really stopped
        if !matches!(job.state, JobState::Running(_)) {
            job.state = JobState::Cancelled;
        }
        Some(job.clone())
    }

    /// Calls everything off, and ends the thread.
    pub fn stop(&self) {
        lock(&self.board).jobs.iter().for_each(|job| job.cancel.store(true, Ordering::Relaxed));
        // a full queue drains at once: everything in it is called off
        let _ = self.orders.send(None);
    }
}

impl Board {
    fn newest(&self, model: &ModelName, version: &Version) -> Option<&Job> {
        let of = |job: &&Job| job.order.model == *model && job.order.version == *version;
        self.jobs.iter().rev().find(of)
    }

    fn newest_mut(&mut self, model: &ModelName, version: &Version) -> Option<&mut Job> {
        let of = |job: &&mut Job| job.order.model == *model && job.order.version == *version;
        self.jobs.iter_mut().rev().find(of)
    }

    fn set(&mut self, id: u64, state: JobState) {
        if let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) {
            job.state = state;
        }
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(
    board: &Mutex<Board>,
    orders: &Receiver<Option<u64>>,
    compile: &dyn Fn(&EdgeOrder, &mut Tell<'_>) -> Result<Bundle, String>,
) {
    while let Ok(Some(id)) = orders.recv() {
        let waiting = lock(board).jobs.iter().find(|job| job.id == id && job.goes_on()).cloned();
        let Some(Job { order, cancel, .. }) = waiting else { continue };
        let mut tell = |progress: Progress| {
            lock(board).set(id, JobState::Running(progress));
            !cancel.load(Ordering::Relaxed)
        };
        let (model, version) = (&order.model, &order.version);
        // a fault of the compiler ends this job, not all that come after it
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compile(&order, &mut tell)));
        let state = match made {
            _ if cancel.load(Ordering::Relaxed) => JobState::Cancelled,
            Ok(Ok(bundle)) => JobState::Done(Arc::new(bundle)),
            Ok(Err(why)) => JobState::Failed(why),
            Err(_) => JobState::Failed("the compiler has a fault: please report the model".into()),
        };
        match &state {
            JobState::Failed(why) => tracing::warn!(%model, %version, id, why, "a compilation failed"),
            _ => tracing::info!(%model, %version, id, "a compilation is over"),
        }
        lock(board).set(id, state);
    }
}

#[cfg(test)]
mod tests;
