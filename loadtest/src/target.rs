//! Where load goes: URLs, their addresses, and the rule that load stays on this machine.
//!
//! Must not know what is sent.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1 without TLS.
    Http,
    /// gRPC over HTTP/2 without TLS.
    Grpc,
}

/// A server's URL: `http://host:port` or `grpc://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Host and port as written.
    pub authority: String,
}

impl ServerUrl {
    /// Parses a URL; the port may be left out (8000 for HTTP, 8001 for gRPC, as Triton has them).
    pub fn parse(text: &str) -> Result<Self, String> {
        let fault = |got: &str| {
            format!("expected http://HOST:PORT or grpc://HOST:PORT, got {got:?}; correct the URL")
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| fault(text))?;
        let (scheme, port) = match scheme {
            "http" => (Scheme::Http, 8000),
            "grpc" => (Scheme::Grpc, 8001),
            "https" | "grpcs" => {
                return Err(format!("{text}: TLS is not supported; test behind the TLS endpoint"));
            }
            _ => return Err(fault(text)),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() || authority.contains(['/', '@', ' ']) {
            return Err(fault(text));
        }
        let has_port = match authority.rsplit_once(':') {
            Some((_, port)) => !port.ends_with(']'),
            None => false,
        };
        let authority = match has_port {
            true => authority.to_string(),
            false => format!("{authority}:{port}"),
        };
        Ok(Self { scheme, authority })
    }

    /// The address to connect to. Refuses addresses off this machine unless `allow_remote`.
    pub fn resolve(&self, allow_remote: bool) -> Result<SocketAddr, String> {
        let addresses = self
            .authority
            .to_socket_addrs()
            .map_err(|error| format!("{self}: the host cannot be resolved ({error}); correct the URL"))?;
        let addresses: Vec<SocketAddr> = addresses.collect();
        if !allow_remote && let Some(remote) = addresses.iter().find(|a| !is_loopback(a.ip())) {
            return Err(format!(
                "{self}: expected a loopback address, got {}; add --allow-remote if that machine \
                 is yours to load",
                remote.ip()
            ));
        }
        // Servers mostly listen on IPv4 when a name has both.
        let first = addresses.iter().find(|a| a.is_ipv4()).or(addresses.first());
        first.copied().ok_or_else(|| format!("{self}: the host has no address; correct the URL"))
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

impl std::fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Grpc => "grpc",
        };
        write!(f, "{scheme}://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let parsed = ServerUrl::parse(text).ok().map(|url| url.to_string());
        assert_eq!(parsed.as_deref(), expected, "{text}");
    }

    #[test]
    fn urls() {
        check("http://127.0.0.1:9", Some("http://127.0.0.1:9"));
        check("http://localhost", Some("http://localhost:8000"));
        check("grpc://localhost/", Some("grpc://localhost:8001"));
        check("http://[::1]", Some("http://[::1]:8000"));
        check("http://[::1]:5", Some("http://[::1]:5"));
        check("https://localhost", None);
        check("localhost:8000", None);
        check("http://a/b", None);
        check("http://", None);
    }

    #[test]
    fn load_stays_on_this_machine() {
        let resolve = |text, remote| ServerUrl::parse(text).unwrap().resolve(remote);
        assert!(resolve("http://127.0.0.1:1", false).is_ok());
        assert!(resolve("http://127.9.9.9:1", false).is_ok());
        assert!(resolve("http://[::1]:1", false).is_ok());
        assert!(resolve("http://[::ffff:127.0.0.1]:1", false).is_ok());
        for remote in ["http://10.0.0.1:1", "http://0.0.0.0:1", "http://[::]:1", "grpc://8.8.8.8:1"] {
            let error = resolve(remote, false).unwrap_err();
            assert!(error.contains("--allow-remote"), "{error}");
            assert!(resolve(remote, true).is_ok());
        }
    }
}
