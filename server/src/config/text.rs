//! Names of the choices that keys offer, read and shown in one place. Must not know where they are given.

use gannet_runtime::control::transition::SwapPolicy;

use super::{LogFormat, RepositoryApi};
use crate::repository::ControlMode;

/// A closed set of values, each with its name.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// All of them.
    const NAMES: &'static [(&'static str, Self)];

    fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
    }

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}

impl Choice for ControlMode {
    const NAMES: &'static [(&'static str, Self)] =
        &[("poll", Self::Poll), ("explicit", Self::Explicit), ("none", Self::None)];
}

impl Choice for RepositoryApi {
    const NAMES: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("index", Self::Index), ("full", Self::Full)];
}

impl Choice for SwapPolicy {
    const NAMES: &'static [(&'static str, Self)] =
        &[("availability", Self::PreserveAvailability), ("resources", Self::PreserveResources)];
}

impl Choice for LogFormat {
    const NAMES: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}
