//! `HOST:PORT` as an operator writes it. Must not know which listener it is for.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
};

/// Where to listen: a host name or an address literal, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or a literal, without brackets.
    pub host: String,
    /// 0: any that is free.
    pub port: u16,
}

impl Address {
    /// That port on 127.0.0.1.
    #[must_use]
    pub fn loopback(port: u16) -> Self {
        Self { host: "127.0.0.1".into(), port }
    }

    /// Reads `127.0.0.1:8000`, `[::1]:8000` or `localhost:8000`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(literal) = text.parse::<SocketAddr>() {
            return Some(Self { host: literal.ip().to_string(), port: literal.port() });
        }
        let (host, port) = text.rsplit_once(':')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let named =
            !host.is_empty() && host.chars().all(is_name) && host.contains(|c: char| c.is_ascii_alphabetic());
        let number = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
        (named && number).then_some(())?;
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }

    /// Whether only this machine reaches it, as far as the text tells: a loopback literal, or a name that is
    /// reserved for loopback.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback(),
            Err(_) => is_localhost(&self.host),
        }
    }

    /// What it stands for now.
    ///
    /// # Errors
    /// When the name cannot be resolved.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}

/// Whether a host name is reserved for loopback.
pub(crate) fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["127.0.0.1:8000", "[::1]:8000", "localhost:0", "0.0.0.0:80", "my-host.example:65535"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            ":8000",
            "localhost",
            "localhost:",
            "localhost:+1",
            "::1:8000",
            "1.2.3:80",
            "a b:1",
            "a:65536",
        ] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }

    #[test]
    fn loopback_is_told_from_the_text() {
        let check = |text: &str, expected| {
            assert_eq!(Address::parse(text).unwrap().is_loopback(), expected, "{text}")
        };
        check("127.0.0.1:1", true);
        check("127.9.9.9:1", true);
        check("[::1]:1", true);
        check("LocalHost:1", true);
        check("a.localhost:1", true);
        check("0.0.0.0:1", false);
        check("[::]:1", false);
        check("notlocalhost:1", false);
        check("localhost.example:1", false);
    }
}
