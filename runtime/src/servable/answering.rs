//! A request that was taken in, waiting for its answer. Must not know how it is run.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use tokio::{sync::oneshot, time::Sleep};

use super::{Servable, expired, outcome_of};
use crate::{InferError, InferResponse, Time, clock, metrics::Outcome, request::Tensors};

type Reply = Result<InferResponse, InferError>;

/// The answer to come. Counts the request's end, also when it is dropped.
#[derive(Debug)]
#[must_use = "the request is taken out when this is dropped"]
pub struct Answering {
    servable: Arc<Servable>,
    reply: oneshot::Receiver<Reply>,
    arrived: Time,
    deadline: Option<Time>,
    /// Set at the first wait, if there is a deadline: most requests with one are answered without a timer.
    timer: Option<Pin<Box<Sleep>>>,
    outcome: Outcome,
}

impl Answering {
    pub(super) fn new(
        servable: Arc<Servable>,
        reply: oneshot::Receiver<Reply>,
        arrived: Time,
        deadline: Option<Time>,
    ) -> Self {
        Self { servable, reply, arrived, deadline, timer: None, outcome: Outcome::Cancelled }
    }

    /// Who answers.
    #[must_use]
    pub fn servable(&self) -> &Arc<Servable> {
        &self.servable
    }

    /// When the request had arrived whole.
    #[must_use]
    pub fn arrived(&self) -> Time {
        self.arrived
    }

    fn lost(&self) -> InferError {
        InferError::Backend {
            model: self.servable.model.clone(),
            version: self.servable.version.clone(),
            message: "the batch was lost to a fault in the server; its log says more".into(),
        }
    }

    fn is_late(&mut self, ctx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline else { return false };
        let timer = || Box::pin(tokio::time::sleep(deadline - clock::now()));
        self.timer.get_or_insert_with(timer).as_mut().poll(ctx).is_ready()
    }
}

impl Future for Answering {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<Reply> {
        let result = match Pin::new(&mut self.reply).poll(ctx) {
            Poll::Ready(Ok(result)) => result,
            Poll::Ready(Err(_)) => Err(self.lost()),
            Poll::Pending if self.is_late(ctx) => {
                Err(expired(self.arrived, self.deadline.unwrap_or(self.arrived)))
            }
            Poll::Pending => return Poll::Pending,
        };
        self.outcome = match &result {
            Ok(_) => Outcome::Ok,
            Err(error) => outcome_of(error),
        };
        Poll::Ready(result)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.servable.inflight.fetch_sub(1, Ordering::Relaxed);
        self.servable.finished(self.outcome, self.arrived);
    }
}

impl Servable {
    /// Answers one request on the calling thread, apart from all others: for commands that serve nobody.
    ///
    /// # Errors
    /// [`InferError::Invalid`] and [`InferError::Backend`].
    pub fn answer_apart<N: AsRef<str>>(
        &self,
        inputs: impl IntoIterator<Item = (N, crate::Tensor)>,
    ) -> Result<Tensors, InferError> {
        Ok(self.run_apart(&self.contract().check(inputs)?)?.outputs)
    }
}
