//! When a batch goes, and whether a request can still make its deadline. Pure functions of values, time
//! included. Must not know queues, threads or clocks.

use super::{cost::Costs, queue::Head};
use crate::Time;

/// How one servable batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Rows that run together at most; 1 for a model without a batch axis.
    pub rows_max: usize,
    /// How long the first request may wait for company, in nanoseconds.
    pub delay_ns_max: u64,
    /// Sizes to stop at, ascending; empty: any.
    pub preferred_rows: Vec<usize>,
}

/// What an idle instance does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatch {
    /// Take up to this many rows and run.
    Run {
        /// Rows to take at most.
        rows_max: usize,
    },
    /// Nothing yet; look again at that time, or when a request joins.
    WaitUntil(Time),
    /// Nothing waits.
    Idle,
}

/// Greedy: what waits goes, unless a delay was asked for and the batch is not full.
#[must_use]
pub fn dispatch(head: Option<Head>, policy: &BatchPolicy, now: Time) -> Dispatch {
    let Some(head) = head else { return Dispatch::Idle };
    if head.rows >= policy.rows_max {
        return Dispatch::Run { rows_max: policy.rows_max };
    }
    let reached = policy.preferred_rows.iter().rev().find(|&&size| size <= head.rows);
    if let Some(&rows_max) = reached {
        return Dispatch::Run { rows_max };
    }
    let due = head.queued.plus_ns(policy.delay_ns_max);
    if now < due { Dispatch::WaitUntil(due) } else { Dispatch::Run { rows_max: policy.rows_max } }
}

/// Share of the time left that a prediction may fill. Learned costs err: 5 % is kept for that.
const BUDGET_SHARE: f64 = 0.95;

/// The state of a servable when a request with a deadline asks to come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait.
    pub waiting_rows: usize,
    /// Until the first instance is free, in nanoseconds.
    pub busy_ns: u64,
    /// Instances that work side by side.
    pub instances: usize,
    /// Rows that run together at most.
    pub rows_max: usize,
}

/// Whether a request of `rows` rows can be answered within `budget_ns`: `Err` holds the time it would need.
/// Prices the full batches ahead of it, not the request alone: an optimistic price serves everything just late.
///
/// # Errors
/// The predicted time in nanoseconds, when it is over the budget.
pub fn affordable(load: Load, rows: usize, budget_ns: u64, costs: &dyn Costs) -> Result<(), u64> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a duration"
    )]
    let limit_ns = (budget_ns as f64 * BUDGET_SHARE) as u64;
    if load.waiting_rows == 0 && load.busy_ns == 0 {
        return match costs.upper_ns(rows.min(load.rows_max)) {
            Some(cost_ns) if cost_ns > limit_ns => Err(cost_ns),
            _ => Ok(()),
        };
    }
    let Some((batch_rows, cost_ns)) = batch_within(load.rows_max, budget_ns / 2, costs) else {
        return Ok(());
    };
    let batches = (load.waiting_rows + rows).div_ceil(batch_rows).div_ceil(load.instances.max(1)) as u64;
    let needed_ns = load.busy_ns.saturating_add(batches.saturating_mul(cost_ns));
    if needed_ns > limit_ns { Err(needed_ns) } else { Ok(()) }
}

/// The largest batch, in powers of two, whose cost fits `bound_ns`, and its cost; the single row if none fits;
/// `None` while no cost is known.
fn batch_within(rows_max: usize, bound_ns: u64, costs: &dyn Costs) -> Option<(usize, u64)> {
    let mut best = (1, costs.upper_ns(1)?);
    let mut rows = 2;
    while rows <= rows_max {
        match costs.upper_ns(rows) {
            Some(cost_ns) if cost_ns <= bound_ns => best = (rows, cost_ns),
            Some(_) => {}
            None => break,
        }
        rows *= 2;
    }
    Some(best)
}

/// Whether an entry at the head of `waiting_rows` rows can no longer be answered in time and is dropped.
#[must_use]
pub fn too_late(deadline: Option<Time>, now: Time, batch_cost_ns: u64) -> bool {
    // 6 % over the median covers the learned cost's own residuals
    deadline.is_some_and(|deadline| now.plus_ns(batch_cost_ns + batch_cost_ns * 6 / 100) > deadline)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// a + b * rows, in nanoseconds.
    struct Line(u64, u64);

    impl Costs for Line {
        fn median_ns(&self, rows: usize) -> Option<u64> {
            Some(self.0 + self.1 * rows as u64)
        }
        fn upper_ns(&self, rows: usize) -> Option<u64> {
            self.median_ns(rows)
        }
    }

    #[test]
    fn greedy_by_default_and_patient_when_asked() {
        let check = |rows: usize, delay_ns_max: u64, preferred: &[usize], now: u64, expected: Dispatch| {
            let policy = BatchPolicy { rows_max: 8, delay_ns_max, preferred_rows: preferred.to_vec() };
            let head = (rows > 0).then_some(Head { queued: Time::from_ns(1000), rows });
            assert_eq!(dispatch(head, &policy, Time::from_ns(now)), expected, "{rows} rows at {now}");
        };
        check(0, 0, &[], 1000, Dispatch::Idle);
        check(3, 0, &[], 1000, Dispatch::Run { rows_max: 8 });
        check(3, 500, &[], 1000, Dispatch::WaitUntil(Time::from_ns(1500)));
        check(3, 500, &[], 1500, Dispatch::Run { rows_max: 8 });
        check(9, 500, &[], 1000, Dispatch::Run { rows_max: 8 });
        check(5, 500, &[2, 4], 1000, Dispatch::Run { rows_max: 4 });
        check(1, 500, &[2, 4], 1000, Dispatch::WaitUntil(Time::from_ns(1500)));
    }

    #[test]
    fn a_deadline_is_priced_by_full_batches() {
        let costs = Line(200_000, 20_000);
        let idle = Load { waiting_rows: 0, busy_ns: 0, instances: 1, rows_max: 32 };
        let check = |load: Load, budget_us: u64, ok: bool| {
            assert_eq!(affordable(load, 1, budget_us * 1000, &costs).is_ok(), ok, "{load:?} {budget_us}");
        };
        check(idle, 300, true);
        check(idle, 230, false);
        // full batches of 32 cost 840 us; half of 5 ms holds one
        let busy = |waiting_rows| Load { waiting_rows, busy_ns: 840_000, ..idle };
        check(busy(31), 5000, true);
        check(busy(127), 5000, true);
        check(busy(128), 5000, false);
        check(Load { instances: 2, ..busy(128) }, 5000, true);
        // half of 700 us holds 4 rows (280 us): 840 + 280 is over 665
        check(busy(0), 700, false);
    }

    #[test]
    fn too_late_counts_the_run_itself() {
        let at = Time::from_ns;
        assert!(!too_late(None, at(5_000_000), 1000));
        assert!(!too_late(Some(at(10_000)), at(8_000), 1000));
        assert!(too_late(Some(at(10_000)), at(8_950), 1000));
        assert!(too_late(Some(at(10_000)), at(10_001), 0));
    }
}
