//! The one place that reads the monotonic clock. Decisions take a [`Time`] as a value, so that they can be
//! replayed and simulated. Must not know who asks.

use std::{
    ops::{Add, Sub},
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Nanoseconds since the process first asked; starts at one hour, so that subtraction has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

const START_NS: u64 = 3_600_000_000_000;

/// The time now. About 25 ns.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Time {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    Time(START_NS + u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX / 2))
}

/// How long the calling thread has worked, in nanoseconds; good for differences only. A system call.
#[must_use]
pub fn thread_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let parts = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    parts.0.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(parts.1.unwrap_or(0))
}

/// The wall clock at `time`, in milliseconds since 1970. Read once a process and carried on by the monotonic
/// clock, so it costs nothing; it ignores later adjustments of the system's clock.
#[must_use]
pub fn wall_ms(time: Time) -> u64 {
    wall_ns(time) / 1_000_000
}

/// As [`wall_ms`], in nanoseconds; a time before the first reading is that of the first reading.
#[must_use]
pub fn wall_ns(time: Time) -> u64 {
    static BASE_NS: OnceLock<(Time, u64)> = OnceLock::new();
    let (at, ns) = *BASE_NS.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (now(), u64::try_from(since.as_nanos()).unwrap_or(0))
    });
    ns + time.ns_since(at)
}

impl Time {
    /// A time that no clock gave: for simulations and tables of cases.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// The count of nanoseconds, good for differences only.
    #[must_use]
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// Nanoseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub const fn ns_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `self` plus that many nanoseconds.
    #[must_use]
    pub const fn plus_ns(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        self.plus_ns(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Sub for Time {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.ns_since(earlier))
    }
}
