//! What the operator wants, composed out of flags, `gannet.toml` and the environment: the first of these that names
//! a key decides. Every fault of all three is reported at once. Must not know what the values are used for.

mod capture;
mod compose;
mod drift;
mod given;
mod key;
mod registry;
mod text;
mod tls;
mod toml_file;
mod trace;

pub mod address;
pub mod fault;

use std::{collections::BTreeMap, num::NonZero, path::PathBuf, time::Duration};

use gannet_models::IngestLimits;
use gannet_runtime::control::transition::SwapPolicy;
use serde_json::Value;

use self::address::Address;
pub use self::{
    capture::{CaptureSettings, Root},
    compose::{FileText, Sources, compose},
    drift::DriftSettings,
    fault::{Fault, Faults},
    given::Given,
    key::{Key, keys},
    registry::{Credentials, RegistryConfig, SourceConfig, TrustConfig, WebhookConfig},
    tls::{Port, TlsConfig},
    trace::TraceSettings,
};
use crate::{repository::ControlMode, state::Limits};

/// The file that is read when it lies in the working directory and no other is named.
pub const FILE_NAME: &str = "gannet.toml";

/// Everything that can be set. A value of this type was checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// Where models come from, and who decides which.
    pub repository: RepositoryConfig,
    /// Registries that are followed over a network, and what may come from them.
    pub registry: RegistryConfig,
    /// Who may tell of changes at once.
    pub webhook: WebhookConfig,
    /// Deliveries to devices.
    pub ota: OtaConfig,
    /// Where the store and everything that must survive a restart is.
    pub state_dir: PathBuf,
    /// Bounds of one request.
    pub limits: Limits,
    /// Bytes of all bodies and answers in flight together.
    pub inflight_bytes_max: usize,
    /// Memory that all loaded models may take, as estimated; `None`: not bounded.
    pub memory_bytes_max: Option<u64>,
    /// Threads and swaps.
    pub runtime: RuntimeConfig,
    /// How to end.
    pub shutdown: ShutdownConfig,
    /// Which requests are captured, and where they are kept.
    pub capture: CaptureSettings,
    /// Which requests are traced, and who is told.
    pub trace: TraceSettings,
    /// How drift is watched, and who is told.
    pub drift: DriftSettings,
    /// Which listeners are secured, and with what.
    pub tls: TlsConfig,
    /// The file that holds the bearer tokens of the admin API.
    pub admin_token_file: Option<PathBuf>,
    /// The one of the data ports.
    pub inference_token_file: Option<PathBuf>,
    /// The one of the metrics.
    pub metrics_token_file: Option<PathBuf>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Who decided each key that is not at its default.
    pub sources: BTreeMap<&'static str, String>,
    /// What is odd but no fault, for the log.
    pub warnings: Vec<String>,
}

/// Where to listen; `None`: not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Inference over HTTP.
    pub http: Option<Address>,
    /// Inference over gRPC.
    pub grpc: Option<Address>,
    /// Prometheus.
    pub metrics: Option<Address>,
    /// The admin API.
    pub admin: Option<Address>,
}

/// Deliveries to devices; without a listener there are none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OtaConfig {
    /// Where devices come to.
    pub listen: Option<Address>,
    /// The file of devices and digests of their tokens.
    pub devices_file: Option<PathBuf>,
    /// Files of the public halves of release keys.
    pub keys: Vec<PathBuf>,
}

/// Where models come from, and who decides which.
#[derive(Debug, Clone)]
pub struct RepositoryConfig {
    /// Repositories, model folders or model files.
    pub paths: Vec<PathBuf>,
    /// Who decides what is served.
    pub mode: ControlMode,
    /// Models to load at the start in explicit mode; empty: all.
    pub load_models: Vec<String>,
    /// What the data ports may do to the repository.
    pub api: RepositoryApi,
    /// Time between two looks.
    pub scan: Duration,
    /// Time that files must have been at rest.
    pub settle: Duration,
    /// The most that is read from one version.
    pub ingest: IngestLimits,
    /// Whether TorchScript, which is code, is loaded whatever a model's own settings say.
    pub allow_torchscript: bool,
    /// Time for the first load of such a file, in a process of its own.
    pub rehearsal: Duration,
    /// The program that is started for that; `None`: this one.
    pub rehearsal_program: Option<PathBuf>,
}

/// What the data ports may do to the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryApi {
    /// Load and unload in explicit mode while all data ports are on loopback.
    Auto,
    /// Index only.
    Index,
    /// Load and unload in explicit mode, wherever the ports are.
    Full,
}

/// Threads and swaps.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Event loops of the data ports.
    pub io_threads: usize,
    /// Threads of the pool that models with more than one thread share.
    pub pool_threads: usize,
    /// Loads that run side by side.
    pub loader_threads: usize,
    /// How far loader threads step back.
    pub loader_nice: i32,
    /// What goes first when a version is replaced.
    pub swap_policy: SwapPolicy,
    /// The library of ONNX Runtime that the operator named (`ORT_DYLIB_PATH`).
    pub ort_dylib: Option<PathBuf>,
}

/// How to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// Time between "not ready" and the end of accepting connections.
    pub lame_duck: Duration,
    /// Time for what is in flight after that.
    pub grace: Duration,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level, or directives such as `info,gannet_runtime=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One key as it is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective<'a> {
    /// Such as `listen.http`.
    pub key: &'static str,
    /// As the admin API shows it.
    pub value: Value,
    /// Such as `--http`, `gannet.toml:3`, `GANNET_LISTEN_HTTP` or `default`.
    pub source: &'a str,
}

impl Config {
    /// The defaults, with `state_dir` for everything that is written.
    #[must_use]
    pub fn new(state_dir: PathBuf) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let at = |port| Some(Address::loopback(port));
        Self {
            listen: Listen { http: at(8000), grpc: at(8001), metrics: at(8002), admin: at(8003) },
            repository: RepositoryConfig {
                paths: vec![PathBuf::from("models/zoo")],
                mode: ControlMode::Poll,
                load_models: Vec::new(),
                api: RepositoryApi::Auto,
                scan: Duration::from_millis(1000),
                settle: Duration::from_millis(500),
                ingest: IngestLimits::default(),
                allow_torchscript: false,
                rehearsal: Duration::from_secs(120),
                rehearsal_program: None,
            },
            registry: RegistryConfig::default(),
            webhook: WebhookConfig::default(),
            ota: OtaConfig::default(),
            state_dir,
            limits: Limits::default(),
            inflight_bytes_max: 1 << 30,
            memory_bytes_max: None,
            runtime: RuntimeConfig {
                io_threads: cores,
                pool_threads: cores,
                loader_threads: 1,
                loader_nice: 19,
                swap_policy: SwapPolicy::PreserveAvailability,
                ort_dylib: None,
            },
            shutdown: ShutdownConfig {
                lame_duck: Duration::from_millis(2000),
                grace: Duration::from_millis(25_000),
            },
            capture: CaptureSettings::default(),
            trace: TraceSettings::default(),
            drift: DriftSettings::default(),
            tls: TlsConfig::default(),
            admin_token_file: None,
            inference_token_file: None,
            metrics_token_file: None,
            log: LogConfig { level: "info".into(), format: LogFormat::Text },
            sources: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Every key with its value and where that came from.
    pub fn effective(&self) -> impl Iterator<Item = Effective<'_>> {
        keys().iter().map(|key| Effective {
            key: key.name,
            value: (key.show)(self),
            source: self.source(key.name),
        })
    }

    /// Where the value of a key came from.
    #[must_use]
    pub fn source(&self, key: &str) -> &str {
        self.sources.get(key).map_or("default", String::as_str)
    }
}
