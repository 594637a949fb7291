//! The part of the plan that says when requests are due.
//!
//! Must not know what is sent or where.

use super::{CONNECTIONS_MAX, Faults};
use crate::arrivals::{Profile, Spacing, parse_recorded};
use crate::clock::SECOND_NS;
use crate::flags::Flags;
use crate::quantity::{parse_rate, show_rate};

/// Where a search begins when no rate is given.
const FIND_START_RATE: f64 = 1000.0;

/// What decides when requests are due.
#[derive(Debug, Clone)]
pub enum LoadPlan {
    /// Requests always in flight.
    Closed {
        /// How many.
        in_flight: usize,
    },
    /// Arrivals in time.
    Open {
        /// Rate over time.
        profile: Profile,
        /// Their spacing.
        spacing: Spacing,
    },
}

impl std::fmt::Display for LoadPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed { in_flight } => write!(f, "closed loop, {in_flight} in flight"),
            Self::Open { profile, spacing } => {
                let spacing = match spacing {
                    Spacing::Even => "evenly spaced",
                    Spacing::Poisson => "Poisson",
                };
                match profile {
                    Profile::Steady { rate } => {
                        write!(f, "open loop, {} requests/s {spacing}", show_rate(*rate))
                    }
                    Profile::Ramp { from, to, .. } => {
                        let (from, to) = (show_rate(*from), show_rate(*to));
                        write!(f, "open loop, {from} to {to} requests/s {spacing}")
                    }
                    Profile::Bursts { rate, size } => {
                        let rate = show_rate(*rate);
                        write!(f, "open loop, {rate} requests/s in bursts of {size}")
                    }
                    Profile::Recorded { due_ns } => {
                        write!(f, "open loop, {} recorded arrivals", due_ns.len())
                    }
                }
            }
        }
    }
}

pub(super) fn load(flags: &Flags, duration_ns: u64, faults: &mut Faults) -> Option<LoadPlan> {
    let rate = faults.option("rate", flags.rate.as_ref(), parse_rate);
    let open = flags.rate.is_some() || flags.arrivals_file.is_some() || flags.find_max;
    if let Some(in_flight) = flags.in_flight
        && open
    {
        faults.add(format!(
            "--in-flight {in_flight} (closed loop) and --rate or --arrivals-file (open loop) \
             exclude each other; leave one out"
        ));
        return None;
    }
    let kind = flags.arrivals.as_deref();
    if !open {
        if let Some(kind) = kind {
            faults.add(format!("--arrivals {kind}: expected a --rate; add --rate N"));
        }
        let in_flight = flags.in_flight.unwrap_or(1);
        faults.range("in-flight", Some(in_flight), (1, CONNECTIONS_MAX * 16));
        return Some(LoadPlan::Closed { in_flight });
    }
    if let Some(path) = &flags.arrivals_file {
        if flags.rate.is_some() || kind.is_some() {
            faults.add("--arrivals-file says all times itself; leave --rate and --arrivals out");
        }
        let due_ns = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot be read: {error}"))
            .and_then(|text| parse_recorded(&text))
            .map_err(|fault| format!("--arrivals-file {}: {fault}", path.display()));
        let profile = Profile::Recorded { due_ns: faults.take(due_ns)? };
        return Some(LoadPlan::Open { profile, spacing: Spacing::Even });
    }
    let rate = rate.or(flags.rate.is_none().then_some(FIND_START_RATE))?;
    by_kind(flags, rate, duration_ns, faults)
}

/// The arrivals that `--arrivals` names.
fn by_kind(flags: &Flags, rate: f64, duration_ns: u64, faults: &mut Faults) -> Option<LoadPlan> {
    let ramp_to = faults.option("ramp-to", flags.ramp_to.as_ref(), parse_rate);
    let kind = flags.arrivals.as_deref();
    if flags.burst_size.is_some() && kind != Some("bursts") {
        faults.add("--burst-size goes with --arrivals bursts; add that, or leave it out");
    }
    if flags.ramp_to.is_some() && kind != Some("ramp") {
        faults.add("--ramp-to goes with --arrivals ramp; add that, or leave it out");
    }
    let (profile, spacing) = match kind {
        None | Some("poisson") => (Profile::Steady { rate }, Spacing::Poisson),
        Some("constant") => (Profile::Steady { rate }, Spacing::Even),
        Some("bursts") => {
            let size = flags.burst_size.unwrap_or(10);
            faults.range("burst-size", Some(size), (1, 1 << 20));
            (Profile::Bursts { rate, size }, Spacing::Even)
        }
        Some("ramp") => {
            if flags.ramp_to.is_none() {
                faults.add("--arrivals ramp: expected the last rate; add --ramp-to RATE");
            }
            let profile =
                Profile::Ramp { from: rate, to: ramp_to?, seconds: duration_ns as f64 / SECOND_NS as f64 };
            (profile, Spacing::Poisson)
        }
        Some(other) => {
            faults.add(format!(
                "--arrivals: expected poisson, constant, bursts or ramp, got {other:?}; choose one, \
                 or use --arrivals-file"
            ));
            return None;
        }
    };
    Some(LoadPlan::Open { profile, spacing })
}
