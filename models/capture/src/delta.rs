//! The log of a table, after Delta's public protocol (reader version 1, writer version 2): numbered files of actions,
//! each written by whoever is first, and checkpoints that say the same at once. Must not know what the rows hold.

mod action;
mod checkpoint;
mod snapshot;

pub(crate) use self::{
    action::{Action, Add, Format, Metadata, Protocol},
    snapshot::{Snapshot, commit, last_checkpoint, load},
};
