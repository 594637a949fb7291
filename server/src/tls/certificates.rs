//! The files of certificates and keys, and what they make of a listener. Must not know connections.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use gannet_models::scan::Stamp;

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use crate::config::{Port, TlsConfig};

/// Bytes of a file of certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a listener's certificates are.
#[derive(Debug, Clone)]
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    /// Whose clients may come; `None`: clients show no certificate.
    client_ca: Option<PathBuf>,
}

/// Changes when a file does.
pub(super) type Stamps = Vec<Option<Stamp>>;

impl Files {
    pub(super) fn of(config: &TlsConfig, port: Port) -> Option<Self> {
        let (certificate, key) = config.certificate.clone().zip(config.key.clone())?;
        let client_ca = config.client_ca.clone().filter(|_| port.asks_clients());
        config.listeners.contains(&port).then_some(Self { certificate, key, client_ca })
    }

    pub(super) fn stamps(&self) -> Stamps {
        // through links, which is how orchestrators replace secrets
        let stamp = |path: &PathBuf| fs::metadata(path).map(|metadata| Stamp::from(&metadata)).ok();
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(stamp)
            .collect()
    }

    /// Reads all of them.
    pub(super) fn read(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, String> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates("tls.certificate", &self.certificate)?;
        let key = private_key(&self.key)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => builder.with_client_cert_verifier(clients(path, provider)?),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            let (certificate, key) = (self.certificate.display(), self.key.display());
            format!(
                "tls.certificate ({certificate}) and tls.key ({key}): expected a certificate and its own key: {error}"
            )
        })?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.ticketer = ring::Ticketer::new().map_err(|error| format!("TLS: {error}"))?;
        Ok(Arc::new(config))
    }
}

fn clients(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let bad = |error: &dyn std::fmt::Display| {
        format!("tls.client_ca ({}): expected certificates that may sign others: {error}", path.display())
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls.client_ca", path)? {
        roots.add(certificate).map_err(|error| bad(&error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| bad(&error))
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(key, path)?;
    let bad = |why: &dyn std::fmt::Display| {
        format!(
            "{key} ({}): expected certificates in PEM, BEGIN CERTIFICATE and so on: {why}",
            path.display()
        )
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| bad(&error))?;
    if found.is_empty() { Err(bad(&"got none")) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read("tls.key", path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        format!("tls.key ({}): expected a private key in PEM without a password: {error}", path.display())
    })
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{key} ({}): {error}", path.display());
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!(
            "{key} ({}): expected at most {FILE_BYTES_MAX} bytes, got {size}",
            path.display()
        ));
    }
    fs::read(path).map_err(failed)
}
