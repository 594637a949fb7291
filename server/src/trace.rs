//! Traces of some requests, for OpenTelemetry: which are traced, and what of a request is told. A request that is not
//! traced costs a look at a header, and none ever waits: what does not fit is dropped and counted. Must not know how
//! spans are written or sent.

mod context;
mod otlp;
mod record;
mod sender;

use std::{io, sync::Arc, thread::JoinHandle};

use gannet_models::Version;
use gannet_runtime::{InferError, InferResponse, Time, clock, metrics::process, servable::Servable};
use http::HeaderMap;
use tokio::sync::mpsc;

use self::{
    context::{Context, own_number, random},
    record::{Outcome, Record},
    sender::Sending,
};
use crate::{config::TraceSettings, protocol::Protocol, respond::Refusal};

/// Requests that wait to be told of; more are dropped.
const WAITING_MAX: usize = 16_384;

/// Who decides what is traced.
#[derive(Debug)]
pub struct Tracer {
    rate: f64,
    waiting: mpsc::Sender<Record>,
    stop: Arc<tokio::sync::Notify>,
}

/// A traced request before it is answered.
#[derive(Debug)]
pub(crate) struct Traced {
    context: Context,
    span: [u8; 8],
    protocol: Protocol,
    arrived: Time,
    waiting: mpsc::Sender<Record>,
}

impl Tracer {
    /// Starts the thread that sends spans; `None` where nothing is to be sent. `server` is this server's name.
    ///
    /// # Errors
    /// When the system gives no thread, or there is no client to be had.
    pub fn start(settings: &TraceSettings, server: &str) -> io::Result<Option<(Arc<Self>, JoinHandle<()>)>> {
        let Some(url) = settings.url.clone() else { return Ok(None) };
        let (waiting, records) = mpsc::channel(WAITING_MAX);
        let stop = Arc::new(tokio::sync::Notify::new());
        let sending = Sending::new(url, settings, server, Arc::clone(&stop))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || runtime.block_on(sending.run(records));
        let thread = std::thread::Builder::new().name("gannet-trace".into()).spawn(run)?;
        Ok(Some((Arc::new(Self { rate: settings.rate, waiting, stop }), thread)))
    }

    /// A request's trace, if its caller traces it, or chance chooses one that says nothing of that.
    pub(crate) fn begin(
        &self,
        (headers, protocol): (&HeaderMap, Protocol),
        arrived: Time,
    ) -> Option<Box<Traced>> {
        let context = match Context::of(headers) {
            Some(context) => Some(context).filter(|context| context.sampled),
            None if self.rate <= 0.0 => None,
            None => random(|random| {
                (random.uniform() < self.rate).then(|| Context::first(random.bits(), random.bits()))
            }),
        };
        context.map(|context| {
            let (span, waiting) = (random(own_number), self.waiting.clone());
            Box::new(Traced { context, span, protocol, arrived, waiting })
        })
    }

    /// Sends what waits, within a bound of time, and ends the thread.
    pub fn stop(&self) {
        self.stop.notify_one();
    }
}

impl Traced {
    /// Tells of a request that was taken in.
    pub(crate) fn answered(
        self,
        servable: &Servable,
        (id, rows, arm): (&str, usize, Option<&Version>),
        answer: Result<&InferResponse, &InferError>,
    ) {
        let outcome = match answer {
            Ok(response) => Outcome::Answered {
                version: servable.version.clone(),
                arm: arm.cloned(),
                rows,
                timing: response.timing,
            },
            Err(error) => failed(Some(servable.version.clone()), &Refusal::from(error.clone())),
        };
        self.tell(servable.model.as_str(), id, outcome);
    }

    /// Tells of one that was not.
    pub(crate) fn refused(self, model: &str, id: &str, refusal: &Refusal) {
        self.tell(model, id, failed(None, refusal));
    }

    fn tell(self, model: &str, id: &str, outcome: Outcome) {
        let Self { context, span, protocol, arrived, waiting } = self;
        let record = Record {
            context,
            span,
            protocol,
            model: model.to_owned(),
            id: id.to_owned(),
            arrived,
            ended: clock::now(),
            outcome,
        };
        if waiting.try_send(record).is_err() {
            process::traced("queue_full", 1);
        }
    }
}

fn failed(version: Option<Version>, refusal: &Refusal) -> Outcome {
    Outcome::Failed { version, kind: refusal.kind.name(), message: refusal.message.clone().into_owned() }
}
