//! What every endpoint needs, in one value: the serving table, the repository, the limits. Must not know any
//! protocol.

use std::{sync::Arc, time::Duration};

use gannet_runtime::{control::manager::Control, drift::Drift, metrics::process, table::TableReader};
use http::{HeaderMap, header};

use crate::{
    admission::Admission,
    capture::Capture,
    edge::EdgeJobs,
    ota::Ota,
    repository::Repository,
    respond::{Kind, Refusal},
    token::TokenFile,
    trace::Tracer,
    traffic::Traffic,
};

/// The name that server metadata shows.
pub const SERVER_NAME: &str = "gannet";
/// The version that server metadata shows.
pub const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Protocol extensions that work, in Triton's order and words.
pub const EXTENSIONS: [&str; 8] = [
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
];

/// Bounds of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one body, after decompression too, on HTTP and gRPC.
    pub body_bytes_max: usize,
    /// Time for a body to arrive whole.
    pub body_time_max: Duration,
    /// Time for a request's head to arrive.
    pub head_time_max: Duration,
    /// Connections of one listener.
    pub connections_max: usize,
    /// Requests of one HTTP/2 connection that run side by side.
    pub streams_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 << 20,
            body_time_max: Duration::from_secs(60),
            head_time_max: Duration::from_secs(10),
            connections_max: 10_000,
            streams_max: 1024,
        }
    }
}

/// What the data ports let a caller do to the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryAccess {
    /// Index only.
    Index,
    /// Load, unload and upload too.
    Full,
}

/// Shared by all endpoints.
#[derive(Debug)]
pub struct State {
    /// The control plane.
    pub control: Control,
    /// What is found and wanted.
    pub repository: Repository,
    /// Who changes routes and labels.
    pub traffic: Traffic,
    /// Compilations for microcontrollers.
    pub edge: EdgeJobs,
    /// Deliveries to devices, where there are any.
    pub ota: Option<Arc<Ota>>,
    /// Who keeps a share of the requests, where that is wanted.
    pub capture: Option<Capture>,
    /// Who looks at a share of the requests.
    pub drift: Arc<Drift>,
    /// Who traces a share of the requests, where that is wanted.
    pub tracer: Option<Arc<Tracer>>,
    /// What is in flight.
    pub admission: Arc<Admission>,
    /// Bounds of one request.
    pub limits: Limits,
    /// Who may call the data ports; `None`: anyone who can reach them.
    pub tokens: Option<TokenFile>,
    /// What the data ports allow.
    pub repository_access: RepositoryAccess,
}

impl RepositoryAccess {
    /// Whether the data ports may change what is served.
    ///
    /// # Errors
    /// [`Kind::Forbidden`], saying how to allow it.
    pub fn check(self) -> Result<(), Refusal> {
        match self {
            Self::Full => Ok(()),
            Self::Index => Err(Refusal::new(
                Kind::Forbidden,
                "this port offers the repository's index only; to load and unload through it, start with \
                 --model-control explicit, and with --repository-api full where it is not bound to loopback",
            )),
        }
    }
}

impl State {
    /// Whether a data port may load and unload.
    ///
    /// # Errors
    /// [`Kind::Forbidden`]: the mode or the access does not allow it.
    pub fn allow_repository_change(&self) -> Result<(), Refusal> {
        self.repository.check_mode()?;
        self.repository_access.check()
    }

    /// Whether a caller of a data port shows a token, where one is wanted.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`].
    pub fn check_token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        tokens.check(shown).inspect_err(|_| process::refused("token"))
    }

    /// Tells every thread behind it to end.
    pub fn stop(&self) {
        self.edge.stop();
        if let Some(ota) = &self.ota {
            ota.stop();
        }
        self.repository.stop();
        self.traffic.stop();
        self.control.stop();
        self.drift.stop();
        if let Some(capture) = &self.capture {
            capture.stop();
        }
        if let Some(tracer) = &self.tracer {
            tracer.stop();
        }
    }

    /// What requests see.
    #[must_use]
    pub fn table(&self) -> &TableReader {
        self.control.table()
    }

    /// Whether the server wants requests: not draining, and every model that is wanted has a version that serves.
    /// Loading another version or model never clears it once the first look at the repository is done.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.admission.is_draining() && self.repository.is_ready()
    }
}
