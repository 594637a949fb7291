//! What keeps a source from being made. What happens to it later is its health. Must not know any protocol.

/// Every error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Paths in which no models can be looked for; one line each.
    #[error("{}", .0.join("\n"))]
    Roots(Vec<String>),
}
