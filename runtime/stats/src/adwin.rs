//! ADWIN (Bifet and Gavaldà 2007): a window over a stream that drops its old part as soon as the means of two parts
//! differ. A second look at scores and errors; it forgets the reference, and its bound takes values of 0 to 1 for
//! granted. Must not know what the values are.

use std::collections::VecDeque;

/// Buckets of one size.
const BUCKETS_MAX: usize = 5;
/// Values between two looks.
const CLOCK: u64 = 32;
/// Values of either part, at least.
const PART_MIN: f64 = 5.0;
/// Values before the first look.
const GRACE: f64 = 10.0;

/// Sum, and sum of squared deviations, of a bucket's values.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Bucket {
    total: f64,
    squares: f64,
}

/// The window.
#[derive(Debug, Clone, PartialEq)]
pub struct Adwin {
    delta: f64,
    /// By size, 1, 2, 4 and so on values; in each the oldest first.
    rows: Vec<VecDeque<Bucket>>,
    all: Bucket,
    width: f64,
    ticks: u64,
    changed: bool,
}

impl Adwin {
    /// `delta` bounds the probability of a false cut at one look; 0.002 is usual.
    #[must_use]
    pub fn new(delta: f64) -> Self {
        let delta = delta.clamp(f64::MIN_POSITIVE, 1.0);
        Self {
            delta,
            rows: vec![VecDeque::new()],
            all: Bucket::default(),
            width: 0.0,
            ticks: 0,
            changed: false,
        }
    }

    /// Takes a value; whether the mean changed. The window then begins anew.
    pub fn push(&mut self, value: f64) -> bool {
        if !value.is_finite() {
            return false;
        }
        if self.changed {
            *self = Self::new(self.delta);
        }
        self.insert(value);
        self.ticks += 1;
        if self.ticks.is_multiple_of(CLOCK) && self.width > GRACE {
            while self.cuts() {
                self.changed = true;
                self.forget();
            }
        }
        self.changed
    }

    /// Values in the window.
    #[must_use]
    pub fn width(&self) -> f64 {
        self.width
    }

    /// Their mean; 0 for none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.width > 0.0 { self.all.total / self.width } else { 0.0 }
    }

    fn insert(&mut self, value: f64) {
        self.rows[0].push_back(Bucket { total: value, squares: 0.0 });
        self.width += 1.0;
        if self.width > 1.0 {
            let off = value - self.all.total / (self.width - 1.0);
            self.all.squares += (self.width - 1.0) * off * off / self.width;
        }
        self.all.total += value;
        for size in 0.. {
            if self.rows[size].len() <= BUCKETS_MAX {
                return;
            }
            if self.rows.len() == size + 1 {
                self.rows.push(VecDeque::new());
            }
            let mut oldest = || self.rows[size].pop_front().unwrap_or_default();
            let (first, second) = (oldest(), oldest());
            let n = f64::from(1u32 << size.min(31));
            let off = (first.total - second.total) / n;
            self.rows[size + 1].push_back(Bucket {
                total: first.total + second.total,
                squares: first.squares + second.squares + n * off * off / 2.0,
            });
        }
    }

    /// Whether the window has two parts whose means differ, looking from the oldest value on.
    fn cuts(&self) -> bool {
        let (mut n, mut total) = (0.0, 0.0);
        for (size, row) in self.rows.iter().enumerate().rev() {
            for bucket in row {
                n += f64::from(1u32 << size.min(31));
                total += bucket.total;
                let rest = self.width - n;
                let apart = total / n - (self.all.total - total) / rest;
                if n >= PART_MIN && rest >= PART_MIN && apart.abs() > self.bound(n, rest) {
                    return true;
                }
            }
        }
        false
    }

    fn bound(&self, n: f64, rest: f64) -> f64 {
        let delta = (2.0 * self.width.ln() / self.delta).ln();
        let inverse = 1.0 / (n - PART_MIN + 1.0) + 1.0 / (rest - PART_MIN + 1.0);
        let variance = self.all.squares / self.width;
        (2.0 * inverse * variance * delta).sqrt() + 2.0 / 3.0 * delta * inverse
    }

    /// Drops the oldest bucket.
    fn forget(&mut self) {
        let size = self.rows.len() - 1;
        let Some(oldest) = self.rows[size].pop_front() else { return };
        let n = f64::from(1u32 << size.min(31));
        self.width -= n;
        self.all.total -= oldest.total;
        if self.width > 0.0 {
            let off = oldest.total / n - self.all.total / self.width;
            self.all.squares -= oldest.squares + n * self.width * off * off / (n + self.width);
        }
        while self.rows.len() > 1 && self.rows.last().is_some_and(VecDeque::is_empty) {
            self.rows.pop();
        }
    }
}
