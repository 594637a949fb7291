//! A control plane with one fake model whose versions come from a store in a folder of its own.

use std::{collections::BTreeMap, fs, sync::Arc, thread::JoinHandle, time::Duration};

use gannet_models::{
    Artifact, IngestLimits, ModelName, ModelSettings, Store, Version, VersionLocation, settings::Padding,
};
use gannet_runtime::{
    clock,
    control::{
        lifecycle::{LifecycleLimits, State, VersionStatus},
        loader::LoadSpec,
        manager::{Control, ControlConfig, TrafficChange},
    },
    route::{Route, RouteFile},
    table::TableReader,
    testing::{FakeBackend, NoGolden},
};

pub(crate) const MODEL: &str = "counter";

/// Longest that a condition may take to come true.
const WAIT_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Bench {
    pub(crate) backend: FakeBackend,
    control: Control,
    manager: Option<JoinHandle<()>>,
    store: Store,
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let backend = FakeBackend::default();
        let config = ControlConfig {
            limits: LifecycleLimits::default(),
            backends: vec![Arc::new(backend.clone())],
            qualify: Arc::new(NoGolden),
            loader_nice: 0,
            drift: None,
        };
        let (control, manager) = Control::start(config).unwrap();
        Self { backend, control, manager: Some(manager), store, folder }
    }

    pub(crate) fn table(&self) -> TableReader {
        self.control.table().clone()
    }

    /// Wants `version` alone, whose answers are its number more than their question. An axis called `seq` is padded.
    pub(crate) fn aspire(&self, version: u64, behaviour: &str) -> Vec<VersionStatus> {
        self.aspire_all(&[(version, behaviour)])
    }

    /// Routes the requests that name no version.
    pub(crate) fn route(&self, file: &RouteFile) {
        let route = Some(Route::new(MODEL, file).unwrap());
        let change = TrafficChange { route, ..TrafficChange::default() };
        self.control.set_traffic(ModelName::new(MODEL).unwrap(), change);
        self.control.published().blocking_recv().unwrap();
    }

    /// Wants these versions alone.
    pub(crate) fn aspire_all(&self, versions: &[(u64, &str)]) -> Vec<VersionStatus> {
        let specs = versions.iter().map(|(version, behaviour)| self.spec(*version, behaviour)).collect();
        let model = ModelName::new(MODEL).unwrap();
        self.control.aspire(model.clone(), specs, BTreeMap::new());
        self.control.settle(model).blocking_recv().unwrap()
    }

    fn spec(&self, version: u64, behaviour: &str) -> LoadSpec {
        let padding = vec![Padding { axis: Arc::from("seq"), buckets: vec![4], value: 0.0 }];
        let settings = ModelSettings { instances: Some(2), padding, ..ModelSettings::default() };
        LoadSpec {
            version: Version::new(&version.to_string()).unwrap(),
            artifact: self.artifact(version, behaviour),
            settings: Arc::new(settings),
            class_labels: None,
            backend: Arc::new(self.backend.clone()),
            may_run_code: false,
            origin: Arc::from("a test"),
            event_loops: 1,
        }
    }

    /// As [`Bench::aspire`], and it must serve at once.
    pub(crate) fn swap_to(&self, version: u64, behaviour: &str) {
        let states = self.aspire(version, behaviour);
        let ready = |s: &VersionStatus| s.version.as_str() == version.to_string() && s.state == State::Ready;
        assert!(states.iter().any(ready), "version {version} is not ready: {states:?}");
    }

    /// Swaps in a fresh copy of what serves.
    pub(crate) fn reload(&self, version: u64) {
        let model = ModelName::new(MODEL).unwrap();
        let version = Version::new(&version.to_string()).unwrap();
        self.control.reload(model.clone(), version).blocking_recv().unwrap().unwrap();
        self.control.settle(model).blocking_recv().unwrap();
    }

    fn artifact(&self, version: u64, behaviour: &str) -> Artifact {
        let path = self.folder.path().join(version.to_string());
        fs::create_dir(&path).unwrap();
        fs::write(path.join(FakeBackend::MODEL_FILE), format!("add = {version}\n{behaviour}\n")).unwrap();
        let location = VersionLocation { root: path.clone(), path, stored_as: None };
        self.store.ingest(&location, &IngestLimits::default()).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.control.stop();
        if let Some(manager) = self.manager.take() {
            let _ = manager.join();
        }
    }
}

/// Looks until `condition` holds.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = clock::now() + WAIT_MAX;
    while !condition() {
        assert!(clock::now() < deadline, "{what}: not within {WAIT_MAX:?}");
        std::thread::park_timeout(Duration::from_micros(200));
    }
}
