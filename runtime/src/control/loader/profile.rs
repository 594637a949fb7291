//! Measures what runs of a model cost on this machine: by rows, by threads in one run, and by instances side by side.
//! What nobody configured is chosen from less of the same at load. Must not know who asks, or how it is shown.

use std::time::Duration;

use super::{LoadSpec, decide_batch_axis, declare, open, warm_up};
use crate::{batch::assemble::Layout, clock, servable::instance::Worker};

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rows of a run; all but 1 are left out for a model without a batch axis.
    pub rows: Vec<usize>,
    /// Threads in one run.
    pub threads: Vec<usize>,
    /// Instances side by side, each of one thread, at the best number of rows.
    pub instances: Vec<usize>,
    /// Time for each point.
    pub each: Duration,
}

/// What one way to run the model gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Instances that ran side by side.
    pub instances: usize,
    /// Threads in each run.
    pub threads: usize,
    /// Rows of a run.
    pub rows: usize,
    /// Median time of a run, in microseconds.
    pub median_us: f64,
    /// 95 % of the runs took no longer, in microseconds.
    pub p95_us: f64,
    /// Of all instances together.
    pub rows_per_second: f64,
}

/// Runs whose times are kept at most.
const RUNS_MAX: usize = 100_000;
/// A run that takes longer than this many times a point's time ends a series: larger ones would only take longer.
const SLOW_FACTOR: u32 = 2;

/// Measures the points of the plan one after the other; `seen` is shown each at once.
///
/// # Errors
/// A text saying why the model cannot be run: with zeros, as no data are known.
pub fn measure(spec: &LoadSpec, plan: &Plan, seen: &mut dyn FnMut(&Point)) -> Result<Vec<Point>, String> {
    let mut points = Vec::new();
    let mut first = open(spec, 1)?;
    let mut signature = first.signature().clone();
    declare(&mut signature, spec)?;
    decide_batch_axis(&mut signature, &spec.settings, &mut first)?;
    let batched = signature.batched;
    let probe = Probe { spec, layout: Layout::new(&signature, &spec.settings.padding), signature };
    for &threads in &plan.threads {
        let mut worker =
            if threads == 1 { std::mem::replace(&mut first, open(spec, 1)?) } else { open(spec, threads)? };
        for &rows in plan.rows.iter().filter(|&&rows| batched || rows == 1) {
            let times = probe.series(&mut worker, rows, plan.each)?;
            let point = Point::of(1, threads, rows, &[times]);
            seen(&point);
            points.push(point);
            if point.median_us > f64::from(SLOW_FACTOR) * plan.each.as_secs_f64() * 1e6 {
                break;
            }
        }
    }
    let alone = |point: &&Point| point.threads == 1;
    let best = points.iter().filter(alone).max_by(|a, b| a.rows_per_second.total_cmp(&b.rows_per_second));
    let rows = best.map_or(1, |point| point.rows);
    for &instances in plan.instances.iter().filter(|&&count| count > 1) {
        let mut workers = (0..instances).map(|_| open(spec, 1)).collect::<Result<Vec<_>, _>>()?;
        let series: Result<Vec<Vec<u64>>, String> = std::thread::scope(|scope| {
            let run = |worker| scope.spawn(|| probe.series(worker, rows, plan.each));
            let threads: Vec<_> = workers.iter_mut().map(run).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a run panicked".into()))).collect()
        });
        let point = Point::of(instances, 1, rows, &series?);
        seen(&point);
        points.push(point);
    }
    Ok(points)
}

struct Probe<'a> {
    spec: &'a LoadSpec,
    layout: Layout,
    signature: gannet_models::Signature,
}

impl Probe<'_> {
    /// Times of runs of `rows` rows, in nanoseconds; at least one, the cold one left out.
    fn series(&self, worker: &mut Worker, rows: usize, each: Duration) -> Result<Vec<u64>, String> {
        let settings = &self.spec.settings;
        let mut run = || warm_up::probe(&self.signature, settings, &self.layout, worker, rows);
        let refused = |error| format!("a run of {rows} rows of zeros failed: {error}");
        run().map_err(refused)?;
        let end = clock::now() + each;
        let mut times = Vec::new();
        while times.is_empty() || (clock::now() < end && times.len() < RUNS_MAX) {
            times.push(run().map_err(refused)?.1.compute_ns);
        }
        Ok(times)
    }
}

impl Point {
    /// From the times of each instance's runs.
    fn of(instances: usize, threads: usize, rows: usize, series: &[Vec<u64>]) -> Self {
        let mut all: Vec<u64> = series.iter().flatten().copied().collect();
        all.sort_unstable();
        let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize] as f64 / 1e3;
        let rate = |times: &Vec<u64>| {
            let total_ns: u64 = times.iter().sum();
            (times.len() * rows) as f64 * 1e9 / total_ns.max(1) as f64
        };
        let rows_per_second = series.iter().map(rate).sum();
        Self { instances, threads, rows, median_us: at(0.5), p95_us: at(0.95), rows_per_second }
    }
}

/// Throughput within this share of the best counts as the best: measurements differ by more.
const NEAR: f64 = 0.97;

/// The way to run that gives the most rows a second; of those that are near it, the one with the shortest runs, then
/// with the fewest instances.
#[must_use]
pub fn recommend(points: &[Point]) -> Option<Point> {
    let best = points.iter().map(|point| point.rows_per_second).max_by(f64::total_cmp)?;
    let near = points.iter().filter(|point| point.rows_per_second >= best * NEAR);
    near.min_by(|a, b| a.median_us.total_cmp(&b.median_us).then(a.instances.cmp(&b.instances))).copied()
}

/// The way to run that answers a single row soonest.
#[must_use]
pub fn soonest(points: &[Point]) -> Option<Point> {
    points.iter().filter(|point| point.rows == 1).min_by(|a, b| a.median_us.total_cmp(&b.median_us)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_rows_then_shortest_runs() {
        let point = |instances, threads, rows, median_us: f64| Point {
            instances,
            threads,
            rows,
            median_us,
            p95_us: median_us,
            rows_per_second: (instances * rows) as f64 * 1e6 / median_us,
        };
        let points = [
            point(1, 1, 1, 10.0),
            point(1, 1, 32, 60.0),
            point(1, 1, 64, 119.0),
            point(1, 2, 1, 8.0),
            point(1, 2, 32, 45.0),
            point(2, 1, 32, 61.0),
        ];
        assert_eq!(recommend(&points), Some(points[5]));
        assert_eq!(recommend(&points[..3]), Some(points[1]), "64 rows bring nothing over 32");
        assert_eq!(soonest(&points), Some(points[3]));
        assert_eq!(recommend(&[]), None);
    }

    #[test]
    fn points_are_summed_over_instances() {
        let point = Point::of(2, 1, 10, &[vec![1_000_000, 1_000_000], vec![2_000_000]]);
        assert_eq!((point.median_us, point.rows_per_second), (1000.0, 15_000.0));
    }
}
