//! What the made-up sources want: versions whose content decides their size and whether they load.

use gannet_models::Version;
use gannet_runtime::control::lifecycle::Wanted;

/// A version with a content; two of the same content load to the same servable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) version: Version,
    pub(super) content: u64,
}

impl Spec {
    /// Whether loading it fails always.
    pub(super) fn is_broken(&self) -> bool {
        self.content.is_multiple_of(7)
    }
}

impl Wanted for Spec {
    fn version(&self) -> &Version {
        &self.version
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }

    fn memory_bytes(&self) -> u64 {
        10 + self.content % 5 * 10
    }
}
