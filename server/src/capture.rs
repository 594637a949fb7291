//! Captured requests and answers: one thread takes copies from the tap and keeps them as tables, within bounds. A store
//! that is down or full costs rows, which are counted, and nothing else. Must not know how a request is answered.

mod events;
mod keeper;
mod numbers;
mod shown;
mod storage;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use arc_swap::ArcSwap;
use gannet_capture::{Storage, storage::check_conditional};
use gannet_models::RedactionKey;
use gannet_runtime::capture::Tap;

pub use self::shown::{Shown, TableShown};
pub(crate) use self::storage::open as open_storage;
use self::{events::Events, keeper::Keeper, numbers::Numbers};
use crate::{
    cloud_event::{Courier, WebhookOut},
    config::{CaptureSettings, Credentials},
};

/// What is counted of rows, whatever their model.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) files: AtomicU64,
    /// Rows that could not be kept, by why.
    pub(crate) no_store: AtomicU64,
    pub(crate) no_room: AtomicU64,
    pub(crate) unfit: AtomicU64,
    /// Events that their receiver took.
    pub(crate) events: AtomicU64,
    /// Events that were not sent, or not taken, by why.
    pub(crate) events_no_room: AtomicU64,
    pub(crate) events_refused: AtomicU64,
    pub(crate) events_unfit: AtomicU64,
    pub(crate) events_ended: AtomicU64,
}

/// Capturing, seen by endpoints.
#[derive(Debug)]
pub struct Capture {
    tap: Arc<Tap>,
    counts: Arc<Counts>,
    shown: Arc<ArcSwap<Shown>>,
    stop: Arc<AtomicBool>,
}

/// What was started, and its threads.
pub type Started = (Capture, Vec<JoinHandle<()>>);

impl Capture {
    /// Starts the thread that keeps what comes out of a new tap, and the one that sends events of it; `None` where nothing
    /// is to be captured.
    ///
    /// # Errors
    /// A text: the place, key or credentials that cannot be used, and what to do.
    pub fn start(
        settings: &CaptureSettings,
        (state_dir, instance, nice): (&std::path::Path, &str, i32),
    ) -> Result<Option<Started>, String> {
        let Some(root) = &settings.root else { return Ok(None) };
        let named = |why: String| format!("capture.root: {why}");
        let storage: Arc<dyn Storage> = storage::open(root, settings).map_err(named)?;
        check_conditional(&*storage).map_err(|error| named(error.to_string()))?;
        let key = redaction_key(settings.redaction_key.as_ref())?;
        let numbers =
            Numbers::open(&state_dir.join("capture")).map_err(|error| format!("state.dir: {error}"))?;
        let (tap, copies) = Tap::new(settings.tap);
        for (model, next) in numbers.all() {
            tap.stream(model).begin_at(next);
        }
        let shown = Arc::new(ArcSwap::from_pointee(Shown { place: storage.place(), ..Shown::default() }));
        let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let (events, sending) = start_events(settings, instance, &counts)?.unzip();
        let keeper = Keeper {
            events: events.map(Arc::new),
            storage,
            key,
            instance: instance.to_owned(),
            settings: settings.clone(),
            numbers,
            tap: Arc::clone(&tap),
            counts: Arc::clone(&counts),
            shown: Arc::clone(&shown),
            stop: Arc::clone(&stop),
            tables: Default::default(),
            places: Default::default(),
            kept_at: None,
            full: false,
        };
        let run = move || {
            gannet_runtime::control::manager::step_back(nice);
            keeper.run(&copies);
        };
        let thread = std::thread::Builder::new().name("gannet-capture".into()).spawn(run);
        let thread = thread.map_err(|error: io::Error| format!("no thread for capturing: {error}"))?;
        let threads = std::iter::once(thread).chain(sending).collect();
        Ok(Some((Self { tap, counts, shown, stop }, threads)))
    }

    /// Where copies of requests are taken.
    #[must_use]
    pub fn tap(&self) -> &Arc<Tap> {
        &self.tap
    }

    /// The tables as they stand.
    #[must_use]
    pub fn shown(&self) -> Arc<Shown> {
        self.shown.load_full()
    }

    /// What is counted: a name, a reason or nothing, and how many.
    #[must_use]
    pub fn counted(&self) -> [(&'static str, &'static str, u64); 12] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &*self.counts;
        let dropped: u64 = self.tap.streams().iter().map(|(_, stream)| stream.dropped()).sum();
        [
            ("rows", "", read(&counts.rows)),
            ("bytes", "", read(&counts.bytes)),
            ("files", "", read(&counts.files)),
            ("dropped", "queue_full", dropped),
            ("dropped", "store", read(&counts.no_store)),
            ("dropped", "room", read(&counts.no_room)),
            ("dropped", "unfit", read(&counts.unfit)),
            ("events", "", read(&counts.events)),
            ("events_dropped", "queue_full", read(&counts.events_no_room)),
            ("events_dropped", "receiver", read(&counts.events_refused)),
            ("events_dropped", "unfit", read(&counts.events_unfit)),
            ("events_dropped", "shutdown", read(&counts.events_ended)),
        ]
    }

    /// Ends the thread, which writes what waits first.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Who sends events, where some are to be sent.
fn start_events(
    settings: &CaptureSettings,
    server: &str,
    counts: &Arc<Counts>,
) -> Result<Option<(Events, JoinHandle<()>)>, String> {
    let to = settings.events_url.clone().zip(settings.events_secret.clone());
    let Some((url, secret)) = to else { return Ok(None) };
    let failed = |error: io::Error| format!("capture.events_url: nothing can be sent there: {error}");
    let courier = Courier::new(WebhookOut { url, secret }).map_err(failed)?;
    Events::start(courier, server, settings.tap.bytes_max, Arc::clone(counts)).map(Some).map_err(failed)
}

/// The key that values are hashed with.
pub(crate) fn redaction_key(named: Option<&Credentials>) -> Result<Option<RedactionKey>, String> {
    let Some(named) = named else { return Ok(None) };
    let secret = named.read().map_err(|why| format!("redaction.key: {why}"))?;
    RedactionKey::new(secret.as_bytes()).map(Some).map_err(|why| format!("redaction.key: {why}"))
}
