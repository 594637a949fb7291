//! The two protocols of the data ports. Must not know how either is spoken.

/// How a connection, or a request on it, came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP, version 1 or 2.
    Http,
    /// gRPC.
    Grpc,
}

impl Protocol {
    /// As metrics, logs and traces call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}
