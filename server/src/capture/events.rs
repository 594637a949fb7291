//! Captured requests and their answers as CloudEvents in the format of KServe's logger: two events for each, with one id, in
//! binary mode. They are redacted before they wait. One thread sends them; what does not fit, and what the receiver does not
//! take, is dropped and counted. Must not know tables, nor how a request is answered.

mod body;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use gannet_capture::{Row, Rows};
use gannet_runtime::{Time, clock};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::{sync::mpsc, task::JoinSet};

use super::Counts;
use crate::cloud_event::{Courier, Message, rfc3339};

/// Events that wait; more are dropped.
const EVENTS_MAX: usize = 65_536;
/// Events that are under way together.
const SENDING_MAX: usize = 16;
/// Time that what waits when the server ends still has to be sent.
const END_TIME_MAX: Duration = Duration::from_secs(2);
/// Bytes that an event takes beside its body and texts.
const EVENT_BYTES: usize = 256;
/// What a value of a header may not hold, by the HTTP binding of CloudEvents: it is percent-encoded.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Which of both an event is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Response,
}

/// One event that waits. Nothing is in it that must not leave.
#[derive(Debug)]
struct Event {
    kind: Kind,
    id: String,
    model: String,
    version: String,
    at_ms: u64,
    body: Vec<u8>,
}

/// What both ends share.
#[derive(Debug)]
struct Shared {
    counts: Arc<Counts>,
    waiting_bytes: AtomicUsize,
    /// Whether the last one was not taken.
    failing: AtomicBool,
    /// How the events' source is called.
    source: String,
}

/// The end that events are put in; the thread ends some time after it is dropped.
#[derive(Debug)]
pub(super) struct Events {
    queue: mpsc::Sender<Event>,
    shared: Arc<Shared>,
    bytes_max: usize,
}

impl Kind {
    /// As KServe calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Request => "org.kubeflow.serving.inference.request",
            Self::Response => "org.kubeflow.serving.inference.response",
        }
    }

    /// What tells the delivery of a request from that of its answer.
    fn suffix(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

impl Event {
    fn bytes(&self) -> usize {
        EVENT_BYTES + self.body.len() + self.id.len() + self.model.len() + self.version.len()
    }

    /// The attributes that KServe's logger sends. A namespace is always named there; there is none here, so it is the one
    /// that Kubernetes takes where none is named. Its endpoint was the variant of a service that answered: a version.
    fn message(self, source: &str) -> Message {
        let text = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", text(&self.id)),
            ("ce-type", self.kind.name().to_owned()),
            ("ce-source", text(source)),
            ("ce-time", rfc3339(self.at_ms)),
            ("ce-inferenceservicename", text(&self.model)),
            ("ce-namespace", "default".to_owned()),
            ("ce-component", "predictor".to_owned()),
            ("ce-endpoint", text(&self.version)),
        ];
        let id = format!("{}/{}", text(&self.id), self.kind.suffix());
        Message { id, headers, body: Bytes::from(self.body) }
    }
}

fn add(count: &AtomicU64, number: u64) {
    count.fetch_add(number, Ordering::Relaxed);
}

impl Events {
    /// Starts the thread. So many bytes wait at most.
    ///
    /// # Errors
    /// When the system gives no thread or event loop.
    pub(super) fn start(
        courier: Courier,
        server: &str,
        bytes_max: usize,
        counts: Arc<Counts>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (queue, waiting) = mpsc::channel(EVENTS_MAX);
        let source = format!("/gannet/{server}");
        let shared = Shared { counts, waiting_bytes: AtomicUsize::new(0), failing: false.into(), source };
        let shared = Arc::new(shared);
        let (courier, its) = (Arc::new(courier), Arc::clone(&shared));
        let run = move || runtime.block_on(send_all(waiting, &courier, &its));
        let thread = std::thread::Builder::new().name("gannet-capture-events".into()).spawn(run)?;
        Ok((Self { queue, shared, bytes_max }, thread))
    }

    /// Tells of a request that arrived at its row's time, and of its answer. Both wait, or none.
    pub(super) fn tell(&self, rows: &Rows, row: &Row, model: &str, ended_ms: u64) {
        let counts = &self.shared.counts;
        // before they are written, which is what costs
        if self.shared.waiting_bytes.load(Ordering::Relaxed) >= self.bytes_max {
            return add(&counts.events_no_room, 2);
        }
        let (request, response) = match body::of(rows, row, model) {
            Ok(bodies) => bodies,
            Err(_) => return add(&counts.events_unfit, 2),
        };
        let event = |kind, at_ms, body| Event {
            kind,
            id: row.id.clone(),
            model: model.to_owned(),
            version: row.version.clone(),
            at_ms,
            body,
        };
        let arrived_ms = u64::try_from(row.time_us / 1000).unwrap_or(0);
        let events = [event(Kind::Request, arrived_ms, request), event(Kind::Response, ended_ms, response)];
        let bytes = events.iter().map(Event::bytes).sum::<usize>();
        let waiting = self.shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // one thread alone puts events in: the room does not shrink in between
        if waiting > self.bytes_max || self.queue.capacity() < events.len() {
            self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return add(&counts.events_no_room, 2);
        }
        for event in events {
            if let Err(mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event)) =
                self.queue.try_send(event)
            {
                self.shared.waiting_bytes.fetch_sub(event.bytes(), Ordering::Relaxed);
                add(&counts.events_no_room, 1);
            }
        }
    }
}

/// The life of the thread.
async fn send_all(mut queue: mpsc::Receiver<Event>, courier: &Arc<Courier>, shared: &Arc<Shared>) {
    let mut sending = JoinSet::new();
    let mut ending: Option<Time> = None;
    while let Some(event) = queue.recv().await {
        if queue.is_closed() && clock::now() - *ending.get_or_insert_with(clock::now) > END_TIME_MAX {
            add(&shared.counts.events_ended, 1 + queue.len() as u64);
            break;
        }
        while sending.len() >= SENDING_MAX {
            sending.join_next().await;
        }
        while sending.try_join_next().is_some() {}
        sending.spawn(send(event, Arc::clone(courier), Arc::clone(shared)));
    }
    while sending.join_next().await.is_some() {}
}

async fn send(event: Event, courier: Arc<Courier>, shared: Arc<Shared>) {
    let bytes = event.bytes();
    let sent = courier.send(event.message(&shared.source)).await;
    shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    match sent {
        Ok(()) => {
            add(&shared.counts.events, 1);
            shared.failing.store(false, Ordering::Relaxed);
        }
        Err(why) => {
            add(&shared.counts.events_refused, 1);
            if !shared.failing.swap(true, Ordering::Relaxed) {
                tracing::warn!(url = %courier.url(), %why, "events of captured requests are not taken; they are dropped");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_attributes_of_kserves_logger() {
        let event = Event {
            kind: Kind::Response,
            id: "ü 100%".into(),
            model: "iris".into(),
            version: "3".into(),
            at_ms: 951_782_400_001,
            body: b"{}".to_vec(),
        };
        let message = event.message("/gannet/host");
        assert_eq!(message.id, "%C3%BC%20100%25/response");
        let expected = [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "%C3%BC%20100%25"),
            ("ce-type", "org.kubeflow.serving.inference.response"),
            ("ce-source", "/gannet/host"),
            ("ce-time", "2000-02-29T00:00:00.001Z"),
            ("ce-inferenceservicename", "iris"),
            ("ce-namespace", "default"),
            ("ce-component", "predictor"),
            ("ce-endpoint", "3"),
        ];
        let found: Vec<(&str, &str)> =
            message.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(found, expected);
    }
}
