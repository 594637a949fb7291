//! An authority that signs certificates, and a client that trusts it and says which certificate it was shown. Must not
//! know what is tested.

use std::{fs, io, net::SocketAddr, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use super::call::{self, Answer};

/// An authority, in a folder of its own.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let own = params.self_signed(&key).expect("a certificate");
        fs::write(folder.path().join("ca.pem"), own.pem()).expect("a file");
        fs::write(folder.path().join("ca.key"), key.serialize_pem()).expect("a file");
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// The file of the authority's own certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What it signs with.
    pub(crate) fn own(&self) -> Signed {
        Signed { certificate: self.certificate(), key: self.folder.path().join("ca.key") }
    }

    /// Signs a certificate for this machine, and writes it to the files `name.pem` and `name.key`.
    pub(crate) fn sign(&self, name: &str) -> Signed {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("sound names");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |end: &str| self.folder.path().join(format!("{name}.{end}"));
        fs::write(file("key"), key.serialize_pem()).expect("a file");
        fs::write(file("pem"), signed.pem()).expect("a file");
        Signed { certificate: file("pem"), key: file("key") }
    }

    /// Asks a server whose certificate this authority signed, showing `own` where there is one; the answer, and the
    /// server's certificate.
    pub(crate) fn ask(
        &self,
        address: SocketAddr,
        own: Option<&Signed>,
        start: &str,
        body: &[u8],
    ) -> io::Result<(Answer, Vec<u8>)> {
        let read = |path: &PathBuf| CertificateDer::from_pem_file(path).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(read(&self.certificate())).expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::from_pem_file(&own.key).expect("a key");
                config.with_client_auth_cert(vec![read(&own.certificate)], key).expect("its own key")
            }
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, call::connect(address)?);
        let answer = call::exchange(&mut stream, start, &[], body)?;
        let shown = stream.conn.peer_certificates().and_then(<[_]>::first).expect("it was shown one");
        Ok((answer, shown.to_vec()))
    }
}

/// The first certificate of a file.
pub(crate) fn der(path: &PathBuf) -> Vec<u8> {
    CertificateDer::from_pem_file(path).expect("a certificate").to_vec()
}
