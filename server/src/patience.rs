//! Waiting with an end, without a timer for what is already there. Must not know what is waited for.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

/// What `work` gives, or `None` after `left`, which is asked for only if `work` has to wait: most bodies came with
/// their heads.
pub(crate) async fn within<F: Future>(work: F, left: impl FnOnce() -> Duration) -> Option<F::Output> {
    let mut work = pin!(work);
    match poll_fn(|ctx| Poll::Ready(work.as_mut().poll(ctx))).await {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout(left(), work).await.ok(),
    }
}
