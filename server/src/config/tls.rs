//! `[tls]`: which listeners are secured, and with what. Must not know certificates.

use std::path::PathBuf;

/// Something that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Inference over HTTP.
    Http,
    /// Inference over gRPC.
    Grpc,
    /// Prometheus.
    Metrics,
    /// The admin API.
    Admin,
    /// Webhooks of registries.
    Webhook,
    /// Devices.
    Ota,
}

impl Port {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Http, Self::Grpc, Self::Metrics, Self::Admin, Self::Webhook, Self::Ota];

    /// As it is called in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
            Self::Webhook => "webhook",
            Self::Ota => "ota",
        }
    }

    /// Whether its clients show certificates, where some are asked for. Those of the others show tokens or signatures.
    #[must_use]
    pub fn asks_clients(self) -> bool {
        matches!(self, Self::Http | Self::Grpc | Self::Metrics)
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|port| port.name() == text)
    }
}

/// What is secured, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// A file of certificates, the server's own first.
    pub certificate: Option<PathBuf>,
    /// The file of its key.
    pub key: Option<PathBuf>,
    /// A file of certificates by which those of clients must be signed.
    pub client_ca: Option<PathBuf>,
    /// What is secured.
    pub listeners: Vec<Port>,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self { certificate: None, key: None, client_ca: None, listeners: Port::ALL.to_vec() }
    }
}

impl TlsConfig {
    /// Whether a listener is secured.
    #[must_use]
    pub fn secures(&self, port: Port) -> bool {
        self.certificate.is_some() && self.listeners.contains(&port)
    }

    /// Reads names of listeners.
    pub(super) fn ports(names: &[String]) -> Option<Vec<Port>> {
        names.iter().map(|name| Port::parse(name)).collect()
    }
}
