//! Destroys retired servables once their last request is done, on a thread of its own: freeing a session takes
//! milliseconds and must never fall to a request. Must not know why a servable was retired.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::{
    backend::Backend,
    metrics,
    servable::{Incarnation, Servable},
};

/// Servables that may wait for their last request.
const RETIRED_MAX: usize = 4096;

/// How often a retired servable is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A servable without new requests, and its instance threads.
#[derive(Debug)]
pub(super) struct Retired {
    pub(super) servable: Arc<Servable>,
    pub(super) threads: Vec<JoinHandle<()>>,
}

impl Retired {
    /// Only this and the instance threads hold it: no request does, and none can come.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.servable) == 1 + self.threads.len()
    }

    fn destroy(self) -> Incarnation {
        self.servable.stop();
        for thread in self.threads {
            // an instance thread does not panic: runs are caught; if it did, there is nothing left to do for it
            let _ = thread.join();
        }
        let incarnation = self.servable.incarnation;
        drop(self.servable);
        incarnation
    }
}

/// Starts the thread. Destroyed incarnations are reported to `destroyed`, which must never refuse for long.
pub(super) fn start(
    backends: Vec<Arc<dyn Backend>>,
    nice: i32,
    destroyed: impl Fn(Incarnation) + Send + 'static,
) -> std::io::Result<(Sender<Retired>, JoinHandle<()>)> {
    let (sender, receiver) = bounded(RETIRED_MAX);
    let run = move || {
        super::manager::step_back(nice);
        reap(&receiver, &backends, &destroyed);
    };
    let thread = std::thread::Builder::new().name("gannet-reaper".into()).spawn(run)?;
    Ok((sender, thread))
}

fn reap(receiver: &Receiver<Retired>, backends: &[Arc<dyn Backend>], destroyed: &dyn Fn(Incarnation)) {
    let mut retired: Vec<Retired> = Vec::new();
    let mut open = true;
    while open || !retired.is_empty() {
        let next = if retired.is_empty() {
            receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            receiver.recv_timeout(LOOK_EVERY)
        };
        match next {
            Ok(next) => retired.push(next),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                open = false;
                if retired.iter().any(|r| !r.is_idle()) {
                    // nobody waits for us any more: what requests still hold dies with the process
                    return;
                }
            }
        }
        let (idle, busy): (Vec<_>, Vec<_>) = retired.into_iter().partition(Retired::is_idle);
        retired = busy;
        for one in idle {
            let incarnation = one.destroy();
            backends.iter().for_each(|backend| backend.release_memory());
            metrics::process::unload();
            destroyed(incarnation);
        }
    }
}
