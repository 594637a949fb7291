//! When captured requests are due once more. Pure: times go in, times come out. Must not know a clock, nor who sends.

use std::{str::FromStr, time::Duration};

/// The fastest that a replay goes, other than as fast as it can.
const SPEED_MAX: f64 = 1e6;

/// How fast requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::cli::replay) enum Pace {
    /// So many times as fast as they came.
    Times(f64),
    /// As fast as those before them are answered.
    Max,
}

/// When each request is due, one after the other, as they came.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    pace: Pace,
    pause_max: Option<Duration>,
    /// The latest that a request came so far, in microseconds since 1970.
    last_us: Option<i64>,
    due: Duration,
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let speed = text.parse().ok().filter(|speed| *speed > 0.0 && *speed <= SPEED_MAX);
        speed.map(Self::Times).ok_or_else(|| {
            format!("expected a number above 0 and up to {SPEED_MAX}, such as 1 or 0.5, or max, got {text:?}")
        })
    }
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Times(speed) => write!(f, "{speed}"),
            Self::Max => f.write_str("max"),
        }
    }
}

impl Schedule {
    /// No two requests are further apart than `pause_max`, in the time of the replay.
    pub(super) fn new(pace: Pace, pause_max: Option<Duration>) -> Self {
        Self { pace, pause_max, last_us: None, due: Duration::ZERO }
    }

    /// When the next request is due, which came at `time_us`: since the first one. `None`: at once. One that came before
    /// the last one is due with it.
    pub(super) fn due(&mut self, time_us: i64) -> Option<Duration> {
        let Pace::Times(speed) = self.pace else { return None };
        let last = *self.last_us.get_or_insert(time_us);
        self.last_us = Some(time_us.max(last));
        #[expect(clippy::cast_precision_loss, reason = "microseconds of 285 years are exact")]
        let seconds = time_us.saturating_sub(last).max(0) as f64 / 1e6 / speed;
        let gap = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let gap = self.pause_max.map_or(gap, |longest| gap.min(longest));
        self.due = self.due.saturating_add(gap);
        Some(self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_as_they_came_faster_slower_and_without_long_pauses() {
        const MS: i64 = 1000;
        let check = |pace: &str, pause_max: Option<u64>, times_ms: &[i64], expected: &[Option<u64>]| {
            let mut schedule = Schedule::new(pace.parse().unwrap(), pause_max.map(Duration::from_millis));
            // times are since 1970
            let mut due = |ms: &i64| schedule.due(1_764_000_000_000_000 + ms * MS);
            let found: Vec<Option<u64>> = times_ms
                .iter()
                .map(|ms| due(ms).map(|due| u64::try_from(due.as_micros()).unwrap()))
                .collect();
            assert_eq!(found, expected, "{pace} {pause_max:?} {times_ms:?}");
        };
        let us = |ms: &[u64]| ms.iter().map(|ms| Some(ms * 1000)).collect::<Vec<_>>();
        let came = [50, 50, 60, 160, 10_160];
        check("1", None, &came, &us(&[0, 0, 10, 110, 10_110]));
        check("4", None, &came, &[Some(0), Some(0), Some(2_500), Some(27_500), Some(2_527_500)]);
        check("0.5", None, &came, &us(&[0, 0, 20, 220, 20_220]));
        // a pause is cut as it would be waited for
        check("1", Some(50), &came, &us(&[0, 0, 10, 60, 110]));
        check("2", Some(50), &came, &us(&[0, 0, 5, 55, 105]));
        check("1", Some(0), &came, &us(&[0, 0, 0, 0, 0]));
        check("max", None, &came, &[None; 5]);
        // what comes out of order is due at once, and moves nothing behind it
        check("1", None, &[0, 100, 40, 110], &us(&[0, 100, 100, 110]));
        check("1", None, &[], &[]);
    }

    #[test]
    fn ends_of_the_scale_are_no_reason_to_fall() {
        let mut schedule = Schedule::new(Pace::Times(1e-300), None);
        assert_eq!(schedule.due(0), Some(Duration::ZERO));
        assert_eq!(schedule.due(i64::MAX), Some(Duration::MAX));
        assert_eq!(schedule.due(i64::MIN), Some(Duration::MAX));
    }

    #[test]
    fn a_pace_is_a_number_above_nothing_or_max() {
        assert_eq!("max".parse(), Ok(Pace::Max));
        assert_eq!("2.5".parse(), Ok(Pace::Times(2.5)));
        for wrong in ["0", "-1", "NaN", "inf", "1e7", "fast", ""] {
            let why = wrong.parse::<Pace>().unwrap_err();
            assert!(why.contains("expected a number above 0") && why.contains(wrong), "{why}");
        }
    }
}
