//! Keeps web pages away from listeners on loopback: a page whose name was rebound to 127.0.0.1 sends its own name
//! as the host, and a page that calls across origins sends its origin. Pure. Must not know any endpoint.

use std::net::{IpAddr, SocketAddr};

use crate::{
    config::address::is_localhost,
    respond::{Kind, Refusal},
};

/// The listener that a request came to.
#[derive(Debug, Clone, Copy)]
pub struct Local<'a> {
    /// What it is bound to.
    pub address: SocketAddr,
    /// The name it was configured with, if that was no address literal.
    pub bind_host: Option<&'a str>,
}

impl From<SocketAddr> for Local<'static> {
    fn from(address: SocketAddr) -> Self {
        Self { address, bind_host: None }
    }
}

/// Whether a request may be served: always on a listener that is not on loopback. On loopback the host (the header,
/// or `:authority`) must be `localhost`, a name below it, an address literal or the name of the listener, and the
/// origin, where there is one, must be local too. No browser leaves the host out, so its absence is no fault.
///
/// # Errors
/// [`Kind::Forbidden`], saying what to do.
pub fn check<'a>(
    host: Option<&str>,
    origin: Option<&str>,
    local: impl Into<Local<'a>>,
) -> Result<(), Refusal> {
    let local: Local<'_> = local.into();
    if !local.address.ip().is_loopback() {
        return Ok(());
    }
    let is_bind_host = |name: &str| local.bind_host.is_some_and(|bound| bound.eq_ignore_ascii_case(name));
    if let Some(host) = host {
        let name = host_name(host);
        // a literal cannot be rebound
        if !(literal(name).is_some() || is_localhost(name) || is_bind_host(name)) {
            return Err(refusal(format!(
                "the Host header names {host:?}, but this listener is on loopback and answers for localhost and \
                 addresses only; call it by one of these, or listen on another address"
            )));
        }
    }
    if let Some(origin) = origin {
        let name = origin.split_once("://").map(|(_, authority)| host_name(authority));
        let is_local = |name: &str| {
            literal(name).is_some_and(|ip| ip.is_loopback()) || is_localhost(name) || is_bind_host(name)
        };
        if !name.is_some_and(is_local) || !(origin.starts_with("http://") || origin.starts_with("https://")) {
            return Err(refusal(format!(
                "the Origin header names {origin:?}, and web pages from elsewhere may not call a listener on loopback; \
                 let the page's own server call Gannet, or listen on another address"
            )));
        }
    }
    Ok(())
}

fn refusal(message: String) -> Refusal {
    Refusal::new(Kind::Forbidden, message)
}

/// The host without its port.
fn host_name(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.find(']').map_or(authority, |end| &authority[..=end]);
    }
    authority.rsplit_once(':').map_or(authority, |(name, _)| name)
}

fn literal(name: &str) -> Option<IpAddr> {
    let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => name.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_origins() {
        let check = |host: Option<&str>, origin: Option<&str>, expected: bool| {
            let local = Local { address: "127.0.0.1:8000".parse().unwrap(), bind_host: Some("box.example") };
            let result = super::check(host, origin, local);
            assert_eq!(result.is_ok(), expected, "{host:?} {origin:?} {result:?}");
        };
        for host in [
            "localhost",
            "localhost:8000",
            "LOCALHOST.:1",
            "a.localhost",
            "127.0.0.1:8000",
            "10.1.2.3",
            "[::1]:8000",
            "[::1]",
            "Box.Example:8000",
        ] {
            check(Some(host), None, true);
        }
        for host in [
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "",
            ":8000",
            "[evil]",
            "::1",
            "127.0.0.1.evil.example",
        ] {
            check(Some(host), None, false);
        }
        check(None, None, true);
        for origin in
            ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8000", "http://box.example"]
        {
            check(Some("localhost"), Some(origin), true);
        }
        for origin in [
            "http://evil.example",
            "null",
            "",
            "http://6.6.6.6",
            "file://",
            "chrome-extension://localhost",
            "http://localhost.evil.example",
        ] {
            check(Some("localhost"), Some(origin), false);
        }
    }

    #[test]
    fn other_listeners_answer_for_any_name() {
        let address: SocketAddr = "0.0.0.0:8000".parse().unwrap();
        assert!(super::check(Some("models.example"), Some("http://app.example"), address).is_ok());
    }
}
