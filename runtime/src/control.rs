//! The control plane: which versions are wanted ([`lifecycle`]), what to do next about it ([`transition`]), and the
//! threads that do it ([`manager`], [`loader`], [`reaper`]).

pub mod lifecycle;
pub mod loader;
pub mod manager;
pub mod reaper;
pub mod rollout;
pub mod transition;
