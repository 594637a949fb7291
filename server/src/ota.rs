//! Deliveries over the air: signed bundles that reach a fleet of devices stage by stage, and stop by themselves when the
//! devices say that they are worse. One thread is the only writer; requests read what it shows. Release keys never come
//! here: what is signed was signed elsewhere. Must not know HTTP.

pub mod archive;
mod decide;
pub mod devices;
pub mod endpoint;
mod fleet;
mod histograms;
mod keeper;
mod offer;
mod plan;
mod report;
mod saved;
pub mod shelf;
pub mod view;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use arc_swap::ArcSwap;
use crossbeam::channel::{Sender, TrySendError, bounded};
use gannet_edge::{bundle::Bundle, sign::PublicKey};
use gannet_runtime::drift::Drift;
use tokio::sync::oneshot;

pub(crate) use self::keeper::no_rollout;
pub use self::{
    decide::{Rollout, Status},
    devices::Device,
    fleet::Counts,
    histograms::Seen,
    keeper::{Audit, DeviceLine, Histograms},
    plan::{Plan, PlanFile},
    report::Report,
};
use self::{
    devices::DeviceFile,
    fleet::DeviceRecord,
    keeper::{Keeper, Parts},
    saved::Files,
    shelf::{Bundles, Shelf, Signed},
};
use crate::{
    config::OtaConfig,
    respond::{Kind, Refusal},
};

/// Reports and wishes that may wait.
const CHANGES_MAX: usize = 1024;

/// What an operator wants of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandKind {
    /// Offer it to nobody new.
    Pause,
    /// Let it go on by itself.
    Resume,
    /// Offer it to nobody any more; its fallback to those who have it.
    Halt,
}

type Reply = oneshot::Sender<Result<bool, Refusal>>;
/// A change that is to be written down, and who waits for it.
type Pending = (Result<Option<DeviceRecord>, Refusal>, Reply);

/// What the thread is told.
enum Change {
    Report {
        device: Arc<Device>,
        report: Box<Report>,
        reply: Reply,
    },
    Took {
        device: Arc<Device>,
        bundle: Arc<Signed>,
        reply: Reply,
    },
    Publish {
        bundle: Box<Bundle>,
        signed: Box<Signed>,
        actor: String,
        reply: oneshot::Sender<Result<Arc<Signed>, Refusal>>,
    },
    Remove {
        id: String,
        actor: String,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Start {
        plan: Box<Plan>,
        actor: String,
        reply: oneshot::Sender<Result<u64, Refusal>>,
    },
    Command {
        id: u64,
        kind: CommandKind,
        actor: String,
        reason: String,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Stop,
}

/// Everything as it stands, for those who ask.
#[derive(Debug, Default)]
pub struct Shown {
    /// The oldest first.
    pub rollouts: Vec<Rollout>,
    /// By rollout.
    pub counts: HashMap<u64, Counts>,
    /// What may be offered.
    pub bundles: Arc<Bundles>,
    /// Where the inputs of devices fall.
    pub histograms: Histograms,
    /// The last lines of devices' logs.
    pub lines: Vec<DeviceLine>,
    /// The last records of the audit log.
    pub audit: Vec<Audit>,
}

/// What is counted of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// A device was offered something.
    Offered,
    /// There was nothing newer.
    NothingNewer,
    /// A file was fetched.
    Fetched,
    /// A report was taken.
    Reported,
    /// A report was not newer than what was known.
    Stale,
    /// A request was refused: its sender is not known.
    Unknown,
    /// A request was refused for another reason.
    Refused,
}

impl Counted {
    const ALL: [Self; 7] = [
        Self::Offered,
        Self::NothingNewer,
        Self::Fetched,
        Self::Reported,
        Self::Stale,
        Self::Unknown,
        Self::Refused,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::NothingNewer => "nothing_newer",
            Self::Fetched => "fetched",
            Self::Reported => "reported",
            Self::Stale => "stale",
            Self::Unknown => "unknown_device",
            Self::Refused => "refused",
        }
    }
}

/// Deliveries, seen by endpoints.
#[derive(Debug)]
pub struct Ota {
    changes: Sender<Change>,
    shown: Arc<ArcSwap<Shown>>,
    devices: Arc<DeviceFile>,
    keys: Vec<PublicKey>,
    counted: [AtomicU64; 7],
}

impl Ota {
    /// Puts in force what the state folder holds, and starts the thread, which gives `drift` what devices see.
    ///
    /// # Errors
    /// A text: the key, device file or saved file that cannot be used, and what to do.
    pub fn start(
        config: &OtaConfig,
        state_dir: &std::path::Path,
        drift: Arc<Drift>,
    ) -> Result<(Self, JoinHandle<()>), String> {
        let keys = shelf::keys(&config.keys)?;
        let path = config.devices_file.clone().unwrap_or_default();
        let devices = Arc::new(DeviceFile::open(&path)?);
        let files = Files::open(state_dir)?;
        let folder = files.path("bundles");
        let named = |error: std::io::Error| format!("{}: {error}", folder.display());
        let shelf = Shelf::open(folder.clone()).map_err(named)?;
        let bundles = shelf.read(&keys).map_err(named)?;
        let shown = Arc::new(ArcSwap::from_pointee(Shown::default()));
        let parts =
            Parts { files, shelf, bundles, devices: Arc::clone(&devices), drift, shown: Arc::clone(&shown) };
        let keeper = Keeper::open(parts)?;
        let (changes, receiver) = bounded(CHANGES_MAX);
        let thread =
            std::thread::Builder::new().name("gannet-ota".into()).spawn(move || keeper.run(&receiver));
        let thread = thread.map_err(|error| format!("no thread for deliveries: {error}"))?;
        Ok((Self { changes, shown, devices, keys, counted: Default::default() }, thread))
    }

    /// Everything as it stands.
    #[must_use]
    pub fn shown(&self) -> Arc<Shown> {
        self.shown.load_full()
    }

    /// The highest sequence of a model that was published.
    #[must_use]
    pub fn sequence_of(&self, model: &str) -> Option<u64> {
        let shown = self.shown();
        let published = shown.bundles.values().map(|bundle| bundle.manifest());
        let published =
            published.filter(|manifest| manifest.model == model).map(|manifest| manifest.sequence);
        let sent =
            shown.rollouts.iter().filter(|rollout| rollout.model == model).map(|rollout| rollout.sequence);
        published.chain(sent).max()
    }

    /// What devices saw of the inputs of a model, by sequence.
    #[must_use]
    pub fn inputs(
        &self,
        model: &str,
    ) -> std::collections::BTreeMap<u64, std::collections::BTreeMap<String, Seen>> {
        self.shown().histograms.get(model).cloned().unwrap_or_default()
    }

    /// Checks a bundle (which takes a while: call it where blocking is allowed) and takes what is signed.
    ///
    /// # Errors
    /// [`Kind::Invalid`]: it is none, or no known key signed it.
    pub fn check(&self, archive: &[u8]) -> Result<(Bundle, Signed), Refusal> {
        let wrong = |why: String| Refusal::invalid(format!("the bundle: {why}"));
        let bundle = archive::unpack(archive).map_err(wrong)?;
        let signed = Signed::check(&bundle, &self.keys).map_err(wrong)?;
        Ok((bundle, signed))
    }

    /// Puts a bundle on the shelf. Returns once it would outlast a crash. The same one once more changes nothing.
    ///
    /// # Errors
    /// [`Kind::Conflict`] for a sequence that is taken, [`Kind::Exhausted`] when the shelf is full.
    pub async fn publish(
        &self,
        bundle: Bundle,
        signed: Signed,
        actor: String,
    ) -> Result<Arc<Signed>, Refusal> {
        let (reply, done) = oneshot::channel();
        self.ask(Change::Publish { bundle: Box::new(bundle), signed: Box::new(signed), actor, reply }, done)
            .await
    }

    /// Takes a bundle off the shelf.
    ///
    /// # Errors
    /// [`Kind::NotFound`], and [`Kind::Conflict`] while a rollout needs it.
    pub async fn remove(&self, id: String, actor: String) -> Result<(), Refusal> {
        let (reply, done) = oneshot::channel();
        self.ask(Change::Remove { id, actor, reply }, done).await
    }

    /// Begins a rollout and gives its number. The same one once more changes nothing.
    ///
    /// # Errors
    /// [`Kind::NotFound`] without its bundle, [`Kind::Conflict`] beside another one or when its sequence is too low.
    pub async fn begin(&self, plan: Plan, actor: String) -> Result<u64, Refusal> {
        let (reply, done) = oneshot::channel();
        self.ask(Change::Start { plan: Box::new(plan), actor, reply }, done).await
    }

    /// Obeys a wish for a rollout.
    ///
    /// # Errors
    /// [`Kind::NotFound`], and [`Kind::Conflict`] when it is over.
    pub async fn command(
        &self,
        id: u64,
        kind: CommandKind,
        actor: String,
        reason: String,
    ) -> Result<(), Refusal> {
        let (reply, done) = oneshot::channel();
        self.ask(Change::Command { id, kind, actor, reason, reply }, done).await
    }

    /// Takes a report; whether it changed anything.
    async fn report(&self, device: Arc<Device>, report: Report) -> Result<bool, Refusal> {
        let (reply, done) = oneshot::channel();
        self.ask(Change::Report { device, report: Box::new(report), reply }, done).await
    }

    /// Notes that a device takes a bundle, before it has it.
    async fn took(&self, device: Arc<Device>, bundle: Arc<Signed>) -> Result<bool, Refusal> {
        let (reply, done) = oneshot::channel();
        self.ask(Change::Took { device, bundle, reply }, done).await
    }

    fn count(&self, what: Counted) {
        self.counted[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests of devices so far, by what came of them.
    pub fn counted(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Counted::ALL
            .into_iter()
            .map(|what| (what.name(), self.counted[what as usize].load(Ordering::Relaxed)))
    }

    /// Ends the thread.
    pub fn stop(&self) {
        let _ = self.changes.send(Change::Stop);
    }

    async fn ask<T>(
        &self,
        change: Change,
        done: oneshot::Receiver<Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let stopping = || Refusal::new(Kind::Unavailable, "the server is shutting down");
        self.changes.try_send(change).map_err(|error| match error {
            TrySendError::Full(_) => Refusal {
                retry_after_ms: Some(2000),
                ..Refusal::new(Kind::Exhausted, format!("{CHANGES_MAX} reports wait already; try again"))
            },
            TrySendError::Disconnected(_) => stopping(),
        })?;
        done.await.unwrap_or_else(|_| Err(stopping()))
    }
}
