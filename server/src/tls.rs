//! TLS on the server's own listeners: certificates out of files, read anew when they change, and clients that show one.
//! Must not know what is spoken inside.

mod certificates;
mod stream;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gannet_runtime::{Time, clock};
use rustls::ServerConfig;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::TlsAcceptor;

use self::certificates::{Files, Stamps};
pub(crate) use self::stream::Stream;
use crate::config::{Port, TlsConfig};

/// Time between two looks at the files.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// What is said to who speaks HTTP in clear.
const IN_CLEAR: &str = r#"{"error":"this port speaks TLS: expected https://, got a request in clear"}"#;

/// What connections of one listener are secured with.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    /// Protocols to agree on, best first.
    alpn: &'static [&'static [u8]],
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    config: Arc<ServerConfig>,
    stamps: Stamps,
    looked: Time,
}

impl Tls {
    /// What `port` is secured with; `None`: it speaks in clear.
    ///
    /// # Errors
    /// A text that names the file and what is wrong with it.
    pub fn of(config: &TlsConfig, port: Port) -> Result<Option<Arc<Self>>, String> {
        let Some(files) = Files::of(config, port) else { return Ok(None) };
        let alpn: &[&[u8]] = match port {
            Port::Http => &[b"h2", b"http/1.1"],
            Port::Grpc => &[b"h2"],
            Port::Metrics | Port::Admin | Port::Webhook | Port::Ota => &[b"http/1.1"],
        };
        let stamps = files.stamps();
        let config = files.read(alpn)?;
        let held = Mutex::new(Held { config, stamps, looked: clock::now() });
        Ok(Some(Arc::new(Self { files, alpn, held })))
    }

    /// Agrees with a client. Not bounded in time.
    ///
    /// # Errors
    /// When the client goes, does not agree, or speaks something else.
    pub(crate) async fn accept(&self, mut stream: TcpStream) -> io::Result<Stream> {
        let mut first = [0];
        stream.peek(&mut first).await?;
        // no record of TLS begins with a letter, and every method does
        if first[0].is_ascii_uppercase() {
            let length = IN_CLEAR.len();
            let head = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\n";
            let answer = format!("{head}content-length: {length}\r\n\r\n{IN_CLEAR}");
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            return Err(io::Error::other("a request in clear"));
        }
        let accepted = TlsAcceptor::from(self.current()).accept(stream).await?;
        Ok(Stream::Tls(Box::new(accepted)))
    }

    /// As the files say now; as they said last where they are no good.
    fn current(&self) -> Arc<ServerConfig> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        if now - held.looked >= LOOK_PAUSE {
            held.looked = now;
            let stamps = self.files.stamps();
            if stamps != held.stamps {
                held.stamps = stamps;
                match self.files.read(self.alpn) {
                    Ok(config) => {
                        tracing::info!("the certificate of TLS was changed");
                        held.config = config;
                    }
                    Err(why) => tracing::warn!(why, "the certificate of TLS stays as it was"),
                }
            }
        }
        Arc::clone(&held.config)
    }
}

/// What each listener is secured with.
#[derive(Debug, Clone, Default)]
pub struct Secured {
    /// Inference over HTTP.
    pub http: Option<Arc<Tls>>,
    /// Inference over gRPC.
    pub grpc: Option<Arc<Tls>>,
    /// Prometheus.
    pub metrics: Option<Arc<Tls>>,
    /// The admin API.
    pub admin: Option<Arc<Tls>>,
    /// Webhooks of registries.
    pub webhook: Option<Arc<Tls>>,
    /// Devices.
    pub ota: Option<Arc<Tls>>,
}

impl Secured {
    /// Reads the certificates that the configuration names.
    ///
    /// # Errors
    /// As [`Tls::of`].
    pub fn load(config: &TlsConfig) -> Result<Self, String> {
        let of = |port| Tls::of(config, port);
        Ok(Self {
            http: of(Port::Http)?,
            grpc: of(Port::Grpc)?,
            metrics: of(Port::Metrics)?,
            admin: of(Port::Admin)?,
            webhook: of(Port::Webhook)?,
            ota: of(Port::Ota)?,
        })
    }
}
