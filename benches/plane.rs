//! A control plane with one model that runs in memory: what a swap and a table cost without an engine. Must not know
//! what is measured with it.

use std::{collections::BTreeMap, fs, sync::Arc, thread::JoinHandle};

use gannet_models::{IngestLimits, ModelName, ModelSettings, Store, Version, VersionLocation};
use gannet_runtime::{
    control::{
        lifecycle::LifecycleLimits,
        loader::LoadSpec,
        manager::{Control, ControlConfig},
    },
    drift::Drift,
    table::TableReader,
    testing::{FakeBackend, NoGolden},
};

/// The model's name.
pub const MODEL: &str = "counter";

/// A running control plane. Ends when dropped.
#[derive(Debug)]
pub struct Plane {
    backend: FakeBackend,
    control: Control,
    manager: Option<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

impl Plane {
    /// Starts one that serves nothing.
    ///
    /// # Panics
    /// When the system gives no thread or folder.
    #[must_use]
    pub fn start() -> Self {
        Self::start_watched(None)
    }

    /// The same, a share of whose requests is looked at.
    ///
    /// # Panics
    /// As [`Plane::start`].
    #[must_use]
    pub fn start_watched(drift: Option<Arc<Drift>>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let backend = FakeBackend::default();
        let config = ControlConfig {
            limits: LifecycleLimits::default(),
            backends: vec![Arc::new(backend.clone())],
            qualify: Arc::new(NoGolden),
            loader_nice: 0,
            drift,
        };
        let (control, manager) = Control::start(config).expect("a thread");
        Self { backend, control, manager: Some(manager), folder }
    }

    /// What requests see.
    #[must_use]
    pub fn table(&self) -> TableReader {
        self.control.table().clone()
    }

    /// Serves `version` alone, from when this returns.
    ///
    /// # Panics
    /// When it cannot be loaded.
    pub fn swap_to(&self, version: u64) {
        let path = self.folder.path().join(version.to_string());
        fs::create_dir_all(&path).expect("a folder");
        fs::write(path.join(FakeBackend::MODEL_FILE), format!("add = {version}\n")).expect("a file");
        let location = VersionLocation { root: path.clone(), path, stored_as: None };
        let store = Store::open(&self.folder.path().join("store")).expect("a store");
        let spec = LoadSpec {
            version: Version::new(&version.to_string()).expect("a version"),
            artifact: store.ingest(&location, &IngestLimits::default()).expect("an artifact"),
            settings: Arc::new(ModelSettings::default()),
            class_labels: None,
            backend: Arc::new(self.backend.clone()),
            may_run_code: false,
            origin: Arc::from("a benchmark"),
            event_loops: 1,
        };
        self.control.aspire(model(), vec![spec], BTreeMap::new());
        self.control.settle(model()).blocking_recv().expect("the control plane answers");
        assert!(self.table().resolve(MODEL, None).is_ok(), "the version is not ready");
    }

    /// Swaps in a fresh copy of `version`.
    ///
    /// # Panics
    /// When it cannot be loaded.
    pub fn reload(&self, version: u64) {
        let version = Version::new(&version.to_string()).expect("a version");
        let reloaded =
            self.control.reload(model(), version).blocking_recv().expect("the control plane answers");
        reloaded.expect("the version is known");
        self.control.settle(model()).blocking_recv().expect("the control plane answers");
    }
}

fn model() -> ModelName {
    ModelName::new(MODEL).expect("a name")
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.control.stop();
        if let Some(manager) = self.manager.take() {
            let _ = manager.join();
        }
    }
}
