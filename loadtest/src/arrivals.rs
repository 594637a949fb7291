//! When requests are due: pure functions of a profile, a seed and the arrival's number.
//!
//! A profile gives the expected number of arrivals up to a time; arrival k is due where that
//! number reaches its level: k for even spacing, a sum of k exponentials for Poisson (inversion of
//! the cumulative rate, Çinlar 1975). Must not know about clocks, sockets or requests.

use crate::clock::SECOND_NS;
use crate::random::Random;

/// Expected arrivals over time. Rates are per second, times in seconds.
#[derive(Debug, Clone, PartialEq)]
pub enum Profile {
    /// The same rate always.
    Steady {
        /// Arrivals a second.
        rate: f64,
    },
    /// From one rate to another, linearly, then the last rate for ever.
    Ramp {
        /// Rate at the start.
        from: f64,
        /// Rate at the end.
        to: f64,
        /// Seconds the change takes.
        seconds: f64,
    },
    /// `size` arrivals at one instant, as often as the rate asks for.
    Bursts {
        /// Mean arrivals a second.
        rate: f64,
        /// Arrivals in a burst.
        size: u32,
    },
    /// Recorded due times in nanoseconds, ascending.
    Recorded {
        /// Nanoseconds from the start.
        due_ns: Vec<u64>,
    },
}

/// How arrivals lie around the profile's expectation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// At the expected times.
    Even,
    /// A Poisson process with the profile's rate.
    Poisson,
}

/// Due times in order; infinite unless recorded.
#[derive(Debug, Clone)]
pub struct Arrivals {
    profile: Profile,
    spacing: Spacing,
    random: Random,
    number: u64,
    level: f64,
}

impl Profile {
    /// Due time of the arrival at `level` expected arrivals; `number` counts arrivals from 0.
    /// `None` when the profile has ended.
    pub fn due_ns(&self, number: u64, level: f64) -> Option<u64> {
        let seconds = match self {
            Self::Steady { rate } => level / rate,
            Self::Ramp { from, to, seconds } => ramp_seconds(*from, *to, *seconds, level),
            Self::Bursts { rate, size } => {
                let burst = number / u64::from(*size);
                burst as f64 * f64::from(*size) / rate
            }
            Self::Recorded { due_ns } => {
                return due_ns.get(usize::try_from(number).ok()?).copied();
            }
        };
        // A float-to-integer cast saturates, so a far future stays in the future.
        Some((seconds * SECOND_NS as f64) as u64)
    }

    /// The highest rate the profile reaches, where that is known without counting.
    pub fn mean_rate(&self) -> f64 {
        match self {
            Self::Steady { rate } | Self::Bursts { rate, .. } => *rate,
            Self::Ramp { from, to, .. } => (from + to) / 2.0,
            Self::Recorded { due_ns } => {
                let last_ns = due_ns.last().copied().unwrap_or(0).max(1);
                due_ns.len() as f64 * SECOND_NS as f64 / last_ns as f64
            }
        }
    }
}

/// Time at which a linear ramp has had `level` expected arrivals.
fn ramp_seconds(from: f64, to: f64, seconds: f64, level: f64) -> f64 {
    let whole = (from + to) / 2.0 * seconds;
    if level >= whole {
        return seconds + (level - whole) / to;
    }
    let slope = (to - from) / seconds;
    if slope == 0.0 {
        return level / from;
    }
    // slope/2 t^2 + from t - level = 0; this form does not cancel for small slopes.
    2.0 * level / (from + (from * from + 2.0 * slope * level).max(0.0).sqrt())
}

impl Arrivals {
    /// The sequence of a profile; equal seeds give equal sequences.
    pub fn new(profile: Profile, spacing: Spacing, seed: u64) -> Self {
        Self { profile, spacing, random: Random::new(seed), number: 0, level: 0.0 }
    }
}

impl Iterator for Arrivals {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.level = match self.spacing {
            Spacing::Even => self.number as f64,
            Spacing::Poisson => self.level + self.random.next_exponential(),
        };
        let due_ns = self.profile.due_ns(self.number, self.level);
        self.number += 1;
        due_ns
    }
}

/// Reads recorded arrivals: one time in seconds a line, ascending; the first is time 0.
/// Empty lines and lines that begin with `#` are skipped.
pub fn parse_recorded(text: &str) -> Result<Vec<u64>, String> {
    let mut seconds: Vec<f64> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        let time: f64 = line.parse().ok().filter(|t: &f64| t.is_finite()).ok_or_else(|| {
            format!("line {number}: expected a time in seconds, got {line:?}; write one number a line")
        })?;
        if seconds.last().is_some_and(|last| time < *last) {
            return Err(format!(
                "line {number}: expected a time not before the line above it, got {time}; sort the file"
            ));
        }
        seconds.push(time);
    }
    let Some(&first) = seconds.first() else {
        return Err("expected at least one arrival, got none; write one time in seconds a line".into());
    };
    let due_ns = |time: f64| ((time - first) * SECOND_NS as f64).round() as u64;
    Ok(seconds.into_iter().map(due_ns).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(profile: &Profile, spacing: Spacing, expected_ms: &[u64]) {
        let arrivals = Arrivals::new(profile.clone(), spacing, 1);
        let due_ms: Vec<u64> =
            arrivals.take(expected_ms.len()).map(|ns| (ns + 500_000) / 1_000_000).collect();
        assert_eq!(due_ms, expected_ms, "{profile:?}");
    }

    #[test]
    fn even_arrivals() {
        check(&Profile::Steady { rate: 100.0 }, Spacing::Even, &[0, 10, 20, 30]);
        let bursts = Profile::Bursts { rate: 100.0, size: 3 };
        check(&bursts, Spacing::Even, &[0, 0, 0, 30, 30, 30, 60]);
        let ramp = |from, to| Profile::Ramp { from, to, seconds: 1.0 };
        // Cumulative 5 t^2 up to 5 arrivals, then 10 a second.
        check(&ramp(0.0, 10.0), Spacing::Even, &[0, 447, 632, 775, 894, 1000, 1100]);
        check(&ramp(10.0, 10.0), Spacing::Even, &[0, 100, 200]);
        check(&ramp(10.0, 2.0), Spacing::Even, &[0, 104, 219, 349, 500, 691, 1000, 1500]);
        let recorded = Profile::Recorded { due_ns: vec![0, 7_000_000] };
        check(&recorded, Spacing::Even, &[0, 7]);
        assert_eq!(Arrivals::new(recorded, Spacing::Even, 1).count(), 2);
    }

    #[test]
    fn poisson_arrivals_depend_on_the_seed_alone_and_keep_the_rate() {
        let draw = |seed| -> Vec<u64> {
            Arrivals::new(Profile::Steady { rate: 1000.0 }, Spacing::Poisson, seed).take(100_000).collect()
        };
        let due_ns = draw(5);
        assert_eq!(due_ns, draw(5));
        assert_ne!(due_ns, draw(6));
        assert!(due_ns.is_sorted());
        let last_seconds = due_ns[99_999] as f64 / 1e9;
        assert!((last_seconds - 100.0).abs() < 2.0, "{last_seconds}");
        // The gaps' standard deviation equals their mean.
        let gaps: Vec<f64> = due_ns.windows(2).map(|w| (w[1] - w[0]) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02);
    }

    #[test]
    fn recorded_files() {
        assert_eq!(parse_recorded("# times\n5.0\n\n5.25\n"), Ok(vec![0, 250_000_000]));
        for (text, place) in [("1\nx", "line 2"), ("2\n1", "line 2"), ("# no", "at least one")] {
            let error = parse_recorded(text).unwrap_err();
            assert!(error.contains(place), "{error}");
        }
    }
}
