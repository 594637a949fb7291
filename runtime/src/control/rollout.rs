//! Which version deserves the traffic, decided with evidence: a candidate goes through stages (shadow, a small share,
//! a larger one), goes on only when every guard is known to be safe, and goes back when any is known to be harmed.
//!
//! Everything here is a function of values, time included, and every value can be written down: [`decide`] takes a
//! [`Plan`], a [`State`] and the [`Evidence`] counted so far, and gives a [`Decision`] and the next state. The audit
//! log of all inputs is replayed to the same decisions by [`audit::explain`].
//!
//! Must not know how requests are counted, routed or stored, and no clock.

mod plan;

mod freeze;

mod evidence;

mod guard;

mod state;

mod decide;

mod command;

pub mod audit;

pub mod bandit;

pub use command::{Command, CommandError, Ended, StartError, command, start};
pub use decide::decide;
pub use evidence::{Arms, EventCounts, Evidence, PairCounts, StableLatency};
pub use freeze::{FreezeFile, FreezeWindow};
pub use guard::{GuardMemory, GuardReport, Unit, Verdict};
pub use plan::{Better, Guard, GuardFile, Measure, Plan, PlanFaults, PlanFile, Stage, StageFile, Traffic};
pub use state::{Decision, HoldReason, Phase, RollbackReason, State, Status, View};

#[cfg(test)]
mod tests;
