//! What a run costs on this machine, learned from the runs themselves: for each size class of batch the median
//! and an upper quantile of the time. A table, not a line: tree ensembles get dearer per row in large batches.
//! Must not know why a run was made.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use super::queue::GroupKey;

/// Costs of runs by number of rows, in nanoseconds; `None` while nothing like it was seen.
pub trait Costs {
    /// The median.
    fn median_ns(&self, rows: usize) -> Option<u64>;
    /// A value that 19 runs of 20 stay under.
    fn upper_ns(&self, rows: usize) -> Option<u64>;
}

/// Size classes: rows 1, 2, 3-4, 5-8, ... up to 2^16 and above.
const CLASSES: usize = 18;

/// A learned table. Any thread may read and write; a lost update costs one sample.
#[derive(Debug)]
pub struct CostTable {
    classes: [Class; CLASSES],
}

#[derive(Debug, Default)]
struct Class {
    /// 0: unknown.
    median_ns: AtomicU64,
    upper_ns: AtomicU64,
    /// Median of the running thread's own time: what a run costs where nobody else takes the core meanwhile.
    own_ns: AtomicU64,
}

impl Default for CostTable {
    fn default() -> Self {
        Self { classes: std::array::from_fn(|_| Class::default()) }
    }
}

fn class_of(rows: usize) -> usize {
    (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(CLASSES - 1)
}

/// One step of a stochastic quantile estimate: up by `up` parts of 64, down by `down`, of the estimate.
fn step(estimate_ns: u64, sample_ns: u64, up: u64, down: u64) -> u64 {
    match sample_ns.cmp(&estimate_ns) {
        std::cmp::Ordering::Greater => estimate_ns + (estimate_ns * up / 64).max(1),
        std::cmp::Ordering::Less => estimate_ns - (estimate_ns * down / 64).max(1).min(estimate_ns - 1),
        std::cmp::Ordering::Equal => estimate_ns,
    }
}

impl CostTable {
    /// Learns from one run: how long it took, and how much of that its thread worked.
    pub fn record(&self, rows: usize, cost_ns: u64, own_ns: u64) {
        let class = &self.classes[class_of(rows)];
        let (cost_ns, own_ns) = (cost_ns.max(1), own_ns.max(1));
        let own = class.own_ns.load(Ordering::Relaxed);
        class.own_ns.store(if own == 0 { own_ns } else { step(own, own_ns, 2, 2) }, Ordering::Relaxed);
        let median_ns = class.median_ns.load(Ordering::Relaxed);
        if median_ns == 0 {
            class.median_ns.store(cost_ns, Ordering::Relaxed);
            class.upper_ns.store(cost_ns + cost_ns / 4, Ordering::Relaxed);
            return;
        }
        class.median_ns.store(step(median_ns, cost_ns, 2, 2), Ordering::Relaxed);
        // balanced where 1 of 20 samples lies above: up 19 times as far as down; an outlier moves it by 30 %
        let upper_ns = class.upper_ns.load(Ordering::Relaxed);
        class.upper_ns.store(step(upper_ns, cost_ns, 19, 1).max(median_ns), Ordering::Relaxed);
    }

    fn known(&self, rows: usize, pick: fn(&Class) -> &AtomicU64) -> Option<u64> {
        let class = class_of(rows);
        let value =
            |class: usize| Some(pick(&self.classes[class]).load(Ordering::Relaxed)).filter(|&ns| ns > 0);
        // a larger class bounds a smaller one from above
        (class..CLASSES).find_map(value)
    }

    /// Rows for one run that make `rows` rows cheapest: `rows` itself, or a smaller power of two whose price per
    /// row is at least a tenth lower.
    #[must_use]
    pub fn call_rows(&self, rows: usize) -> usize {
        if rows == 0 {
            return rows;
        }
        let Some(whole_ns) = self.exact(rows) else { return rows };
        let price = |ns: u64, rows: usize| ns.saturating_mul(1024) / rows as u64;
        let mut best = (price(whole_ns, rows) * 9 / 10, rows);
        let mut size = rows.next_power_of_two() / 2;
        while size >= 8 {
            if let Some(ns) = self.exact(size)
                && price(ns, size) < best.0
            {
                best = (price(ns, size), size);
            }
            size /= 2;
        }
        best.1
    }

    /// The median of the running thread's own time, `None` while nothing like it was seen.
    pub fn own_ns(&self, rows: usize) -> Option<u64> {
        self.known(rows, |class| &class.own_ns)
    }

    fn exact(&self, rows: usize) -> Option<u64> {
        Some(self.classes[class_of(rows)].median_ns.load(Ordering::Relaxed)).filter(|&ns| ns > 0)
    }

    /// (largest rows of the class, median, upper) of every class that was seen, for the admin API.
    pub fn rows(&self) -> impl Iterator<Item = (usize, u64, u64)> + '_ {
        self.classes.iter().enumerate().filter_map(|(index, class)| {
            let median_ns = class.median_ns.load(Ordering::Relaxed);
            (median_ns > 0).then(|| (1 << index, median_ns, class.upper_ns.load(Ordering::Relaxed)))
        })
    }
}

impl Costs for CostTable {
    fn median_ns(&self, rows: usize) -> Option<u64> {
        self.known(rows, |class| &class.median_ns)
    }

    /// Where nothing as large was seen, the largest that was bounds it from below: admission lets in what may turn
    /// out late, but refuses what surely would.
    fn upper_ns(&self, rows: usize) -> Option<u64> {
        let largest = || {
            self.classes.iter().rev().map(|class| class.upper_ns.load(Ordering::Relaxed)).find(|&ns| ns > 0)
        };
        self.known(rows, |class| &class.upper_ns).or_else(largest)
    }
}

/// Shape classes: the volume of the variable axes, in powers of two.
const SHAPE_CLASSES: usize = 32;

/// One table for each class of shapes, so that a long text does not teach the price of a short one.
#[derive(Debug, Default)]
pub struct ShapeCosts {
    tables: [OnceLock<Box<CostTable>>; SHAPE_CLASSES],
}

impl ShapeCosts {
    /// The table for requests of that group.
    pub fn table(&self, group: &GroupKey) -> &CostTable {
        let volume = group.iter().fold(1usize, |product, &axis| product.saturating_mul(axis.max(1)));
        let class = (usize::BITS - 1 - volume.leading_zeros()) as usize;
        self.tables[class.min(SHAPE_CLASSES - 1)].get_or_init(Box::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_the_median_and_an_upper_bound() {
        let table = CostTable::default();
        assert_eq!(table.median_ns(1), None);
        for i in 0..4000u64 {
            let outlier = if i % 50 == 0 { 900 } else { 0 };
            table.record(4, 1000 + (i * 37 % 100) + outlier, 900);
        }
        let (median, upper) = (table.median_ns(4).unwrap(), table.upper_ns(4).unwrap());
        assert!((1000..1130).contains(&median), "{median}");
        assert!((1050..1900).contains(&upper), "{upper}");
        assert_eq!(table.own_ns(4), Some(900));
        assert_eq!(table.median_ns(3), Some(median), "3 and 4 rows share a class");
        assert_eq!(table.median_ns(1), Some(median), "a larger batch bounds a smaller one");
        assert_eq!(table.median_ns(5), None);
        assert_eq!(table.upper_ns(5), Some(upper), "nothing larger is known: a lower bound");
    }

    #[test]
    fn a_dear_large_batch_is_split() {
        let table = CostTable::default();
        for (rows, ns) in [(1, 3_000), (32, 30_000), (64, 58_000), (128, 404_000), (256, 820_000)] {
            table.record(rows, ns, ns);
        }
        assert_eq!(table.call_rows(256), 64);
        assert_eq!(table.call_rows(64), 64);
        assert_eq!(table.call_rows(1), 1);
        assert_eq!(table.call_rows(0), 0);
        let cheap = CostTable::default();
        for (rows, ns) in [(1, 3_000), (64, 5_000), (256, 9_000)] {
            cheap.record(rows, ns, ns);
        }
        assert_eq!(cheap.call_rows(256), 256);
    }
}
