//! One turn of an I/O thread's event loop is one batch: requests that were parsed in the same turn are listed, and
//! a task that is woken by the first of them, and so runs behind all ready tasks, runs the list. Relies on the
//! first-in-first-out queue of a current-thread scheduler. Must not know what a request is.

use std::{
    cell::RefCell,
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
};

use super::{Pending, Servable};
use crate::batch::queue::{Entry, Queue};

thread_local!(static TURN: RefCell<Turn> = const { RefCell::new(Turn::new()) });

struct Turn {
    /// One list for each servable that was asked in this turn.
    lists: Vec<(Arc<Servable>, Queue<Pending>)>,
    /// Set while this thread's flusher sleeps.
    flusher: Option<Waker>,
    /// A list that was run, for its memory.
    spare: Queue<Pending>,
}

impl Turn {
    const fn new() -> Self {
        Self { lists: Vec::new(), flusher: None, spare: Queue::new() }
    }

    /// Puts a list that was not run to its end before what has joined meanwhile.
    fn keep(&mut self, servable: Arc<Servable>, mut list: Queue<Pending>) {
        match self.lists.iter_mut().find(|(listed, _)| Arc::ptr_eq(listed, &servable)) {
            Some((_, joined)) => {
                list.append(joined);
                *joined = list;
            }
            None => self.lists.push((servable, list)),
        }
    }
}

/// Puts the request into this turn's list. Gives it back when this thread has no flusher or it is not listening:
/// then the request belongs into the shared queue.
pub(super) fn join(servable: &Arc<Servable>, entry: Entry<Pending>) -> Option<Entry<Pending>> {
    TURN.with_borrow_mut(|turn| {
        if let Some((_, list)) = turn.lists.iter_mut().find(|(listed, _)| Arc::ptr_eq(listed, servable)) {
            list.push(entry);
            return None;
        }
        if turn.lists.is_empty() {
            let Some(flusher) = turn.flusher.take() else { return Some(entry) };
            flusher.wake();
        }
        let mut list = std::mem::take(&mut turn.spare);
        list.push(entry);
        turn.lists.push((Arc::clone(servable), list));
        None
    })
}

/// Runs the lists of this thread's turns, for ever. Spawn one on each I/O thread's own runtime, before any
/// connection.
pub async fn flusher() {
    let _ends = Ends;
    let mut lists = Vec::new();
    loop {
        poll_fn(|ctx| {
            TURN.with_borrow_mut(|turn| {
                if turn.lists.is_empty() {
                    turn.flusher = Some(ctx.waker().clone());
                    return Poll::Pending;
                }
                std::mem::swap(&mut turn.lists, &mut lists);
                Poll::Ready(())
            })
        })
        .await;
        // the borrow has ended: running wakes other tasks, which may join at once
        for (servable, mut list) in lists.drain(..) {
            let more = servable.flush(&mut list);
            TURN.with_borrow_mut(|turn| if more { turn.keep(servable, list) } else { turn.spare = list });
        }
        // what is left runs behind all that is ready now
        if TURN.with_borrow(|turn| !turn.lists.is_empty()) {
            tokio::task::yield_now().await;
        }
    }
}

/// The flusher's end, with its runtime: what it would have run goes to the shared queues, as what comes later does.
struct Ends;

impl Drop for Ends {
    fn drop(&mut self) {
        let take = |turn: &RefCell<Turn>| {
            let mut turn = turn.borrow_mut();
            turn.flusher = None;
            std::mem::take(&mut turn.lists)
        };
        // the thread itself may be ending: then nobody waits for its lists
        for (servable, mut list) in TURN.try_with(take).unwrap_or_default() {
            servable.enqueue(|queue| queue.append(&mut list));
        }
    }
}
