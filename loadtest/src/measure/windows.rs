//! 50 ms windows: each has its own p50 and p99, and a run is summed up by their medians.
//!
//! A virtual machine stops for milliseconds now and then; that decides the p99 of a whole run but
//! touches few windows. Must not know about requests.

use serde::Serialize;

use super::LatencyHistogram;

/// Length of a window.
pub const WINDOW_NS: u64 = 50_000_000;
/// Windows kept: 24 hours of them.
const WINDOWS_MAX: usize = 24 * 3600 * 20;
/// Significant digits of a window's percentiles.
const WINDOW_DIGITS: u8 = 2;

/// One window, by time of completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Window {
    /// Successful answers.
    pub answers: u32,
    /// Failures.
    pub failures: u32,
    /// Median latency of the successful answers.
    pub p50_us: f32,
    /// 99th percentile of the successful answers.
    pub p99_us: f32,
    /// Largest latency.
    pub max_us: f32,
}

/// Medians over the windows that had answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct WindowSummary {
    /// Windows with at least one answer.
    pub windows: usize,
    /// Median of their p50.
    pub p50_us: f64,
    /// Median of their p99.
    pub p99_us: f64,
}

/// Windows of a run in progress.
#[derive(Debug)]
pub(crate) struct Windows {
    current: LatencyHistogram,
    failures: u32,
    end_ns: u64,
    done: Vec<Window>,
}

impl Windows {
    pub(crate) fn new() -> Self {
        Self {
            current: LatencyHistogram::new(WINDOW_DIGITS),
            failures: 0,
            end_ns: u64::MAX,
            done: Vec::new(),
        }
    }

    /// The first window begins now.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        self.end_ns = now_ns + WINDOW_NS;
    }

    /// Closes the windows that ended before now.
    pub(crate) fn advance(&mut self, now_ns: u64) {
        while now_ns >= self.end_ns {
            self.end_ns += WINDOW_NS;
            let window = Window {
                answers: self.current.count() as u32,
                failures: self.failures,
                p50_us: self.current.at_us(0.5) as f32,
                p99_us: self.current.at_us(0.99) as f32,
                max_us: self.current.max_us() as f32,
            };
            if self.done.len() < WINDOWS_MAX {
                self.done.push(window);
            }
            if window.answers > 0 {
                self.current.clear();
            }
            self.failures = 0;
        }
    }

    pub(crate) fn success(&mut self, latency_ns: u64) {
        self.current.record(latency_ns);
    }

    pub(crate) fn failure(&mut self) {
        self.failures += 1;
    }

    /// The whole windows; the last, cut short, is left out.
    pub(crate) fn finish(self) -> Vec<Window> {
        self.done
    }
}

/// The medians of a run's windows.
pub(crate) fn summary(windows: &[Window]) -> WindowSummary {
    let answered: Vec<&Window> = windows.iter().filter(|w| w.answers > 0).collect();
    let median = |of: fn(&Window) -> f32| {
        let mut values: Vec<f32> = answered.iter().map(|w| of(w)).collect();
        values.sort_unstable_by(f32::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0).into()
    };
    WindowSummary { windows: answered.len(), p50_us: median(|w| w.p50_us), p99_us: median(|w| w.p99_us) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stall_does_not_decide() {
        let mut windows = Windows::new();
        windows.begin(1000);
        for i in 0..10u64 {
            windows.advance(1000 + i * WINDOW_NS);
            let stalled = if i == 4 { 90_000_000 } else { 100_000 };
            (0..100).for_each(|_| windows.success(stalled));
        }
        windows.advance(1000 + 12 * WINDOW_NS);
        let windows = windows.finish();
        assert_eq!(windows.len(), 12);
        let summary = summary(&windows);
        assert_eq!(summary.windows, 10);
        assert!((summary.p99_us / 100.0 - 1.0).abs() < 0.02, "{summary:?}");
    }
}
