//! The keys of what is secured, and with what. Must not know what the values are used for.

use serde_json::json;

use super::{super::TlsConfig, Key, PATH, path};

pub(super) const KEYS: &[Key] = &[
    key!(
        "tls.certificate",
        "a PEM file of the server's certificate and what signed it; read anew when it changes",
        PATH,
        |c, g| c.tls.certificate = Some(path(g)?),
        c.tls.certificate
    ),
    key!(
        "tls.key",
        "the PEM file of that certificate's key, without a password",
        PATH,
        |c, g| c.tls.key = Some(path(g)?),
        c.tls.key
    ),
    key!(
        "tls.client_ca",
        "a PEM file of who must have signed the certificates of clients of http, grpc and metrics",
        PATH,
        |c, g| c.tls.client_ca = Some(path(g)?),
        c.tls.client_ca
    ),
    key!(
        "tls.listeners",
        "what is secured [default: all]",
        "any of http, grpc, metrics, admin, webhook, ota: a list, or a text with commas",
        |c, g| c.tls.listeners = TlsConfig::ports(&g.list()?)?,
        c.tls.listeners.iter().map(|port| port.name()).collect::<Vec<_>>()
    ),
    key!(
        "admin.token_file",
        "bearer tokens of the admin API, one a line",
        PATH,
        |c, g| c.admin_token_file = Some(path(g)?),
        c.admin_token_file
    ),
    key!(
        "inference.token_file",
        "bearer tokens of inference over HTTP and gRPC, one a line; without, anyone who can reach the ports may call",
        PATH,
        |c, g| c.inference_token_file = Some(path(g)?),
        c.inference_token_file
    ),
    key!(
        "metrics.token_file",
        "bearer tokens of the metrics, one a line; without, anyone who can reach the port may read",
        PATH,
        |c, g| c.metrics_token_file = Some(path(g)?),
        c.metrics_token_file
    ),
];
