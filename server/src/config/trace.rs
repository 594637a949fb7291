//! What of tracing can be set. Must not know how requests are traced.

use super::{Credentials, Given};

/// Where spans are sent, and of which requests.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// Where a collector takes OTLP over HTTP; `None`: nothing is traced.
    pub url: Option<String>,
    /// Share of the requests that say nothing of a trace of their own.
    pub rate: f64,
    /// What this service is called.
    pub service_name: String,
    /// What the collector is told of us.
    pub credentials: Option<Credentials>,
    /// Whether a collector on another machine may be told without TLS.
    pub plain_http: bool,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { url: None, rate: 0.0, service_name: "gannet".into(), credentials: None, plain_http: false }
    }
}

/// A collector's address; where it has no path, spans go to the usual one.
pub(super) fn url(given: &Given) -> Option<String> {
    let text = given.text()?;
    let uri: http::Uri = text.parse().ok()?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path == "/" { "/v1/traces" } else { path };
    Some(format!("{scheme}://{authority}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_have_an_address() {
        let url = |text: &str| url(&Given::Text(text.into()));
        assert_eq!(url("http://127.0.0.1:4318").as_deref(), Some("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(url("https://c.example/").as_deref(), Some("https://c.example/v1/traces"));
        assert_eq!(url("https://c.example/otlp/x?y=1").as_deref(), Some("https://c.example/otlp/x?y=1"));
        for bad in ["127.0.0.1:4318", "grpc://127.0.0.1:4317", "https://user:secret@c.example", "/v1/traces"]
        {
            assert_eq!(url(bad), None, "{bad}");
        }
    }
}
