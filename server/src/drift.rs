//! What leaves the drift monitor: views for people and programs, a webhook, and values for a tracking server. Must not
//! know how drift is found.

pub mod disclose;
mod event;
mod outlet;

pub use self::outlet::Outlet;
