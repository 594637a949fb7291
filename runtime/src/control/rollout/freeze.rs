//! Times in which a candidate does not go on. Must not know any clock: a time is milliseconds since 1970, UTC.

use serde::{Deserialize, Serialize};

const MINUTES_A_WEEK: u64 = 7 * 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A window as an operator writes it: `from_ms` and `until_ms`, or `weekly_from` and `weekly_until` such as
/// `fri 16:00`, UTC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeFile {
    /// Begin, once.
    pub from_ms: Option<u64>,
    /// End, once; not part of the window.
    pub until_ms: Option<u64>,
    /// Begin, every week.
    pub weekly_from: Option<String>,
    /// End, every week; not part of the window.
    pub weekly_until: Option<String>,
}

/// A checked window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreezeWindow {
    /// One time.
    Once {
        /// Begin.
        from_ms: u64,
        /// End; not part of it.
        until_ms: u64,
    },
    /// Every week, in minutes since Monday 00:00 UTC; may run over the end of the week.
    Weekly {
        /// Begin.
        from_minute: u64,
        /// End; not part of it.
        until_minute: u64,
    },
}

impl FreezeWindow {
    /// Checks a window; the error says what is expected.
    pub(super) fn parse(file: &FreezeFile) -> Result<Self, String> {
        match (file.from_ms, file.until_ms, &file.weekly_from, &file.weekly_until) {
            (Some(from_ms), Some(until_ms), None, None) if from_ms < until_ms => {
                Ok(Self::Once { from_ms, until_ms })
            }
            (Some(from), Some(until), None, None) => {
                Err(format!("expected until_ms after from_ms ({from}), got {until}; exchange them"))
            }
            (None, None, Some(from), Some(until)) => {
                let (from_minute, until_minute) = (minute_of_week(from)?, minute_of_week(until)?);
                if from_minute == until_minute {
                    return Err(format!("the window begins and ends at '{from}'; give it a length"));
                }
                Ok(Self::Weekly { from_minute, until_minute })
            }
            _ => Err("expected from_ms and until_ms, or weekly_from and weekly_until; give one pair".into()),
        }
    }

    /// The end of the window if `now_ms` lies within it.
    #[must_use]
    pub fn frozen_until(&self, now_ms: u64) -> Option<u64> {
        match *self {
            Self::Once { from_ms, until_ms } => (from_ms..until_ms).contains(&now_ms).then_some(until_ms),
            Self::Weekly { from_minute, until_minute } => {
                // 1970 began on a Thursday
                let minute = (now_ms / 60_000 + 3 * 24 * 60) % MINUTES_A_WEEK;
                let length = (until_minute + MINUTES_A_WEEK - from_minute) % MINUTES_A_WEEK;
                let inside = (minute + MINUTES_A_WEEK - from_minute) % MINUTES_A_WEEK;
                (inside < length).then(|| (now_ms / 60_000 + length - inside) * 60_000)
            }
        }
    }
}

fn minute_of_week(text: &str) -> Result<u64, String> {
    let fault = || format!("expected a weekday and a time such as 'fri 16:00' (UTC), got '{text}'");
    let (day, time) = text.trim().split_once(' ').ok_or_else(fault)?;
    let day = DAYS.iter().position(|name| day.eq_ignore_ascii_case(name)).ok_or_else(fault)?;
    let (hour, minute) = time.trim().split_once(':').ok_or_else(fault)?;
    let number = |digits: &str, below: u64| digits.parse::<u64>().ok().filter(|number| *number < below);
    let (hour, minute) = (number(hour, 24).ok_or_else(fault)?, number(minute, 60).ok_or_else(fault)?);
    Ok((day as u64 * 24 + hour) * 60 + minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday 2024-01-01 00:00 UTC.
    const MONDAY_MS: u64 = 1_704_067_200_000;
    const HOUR_MS: u64 = 3_600_000;

    fn weekly(from: &str, until: &str) -> Result<FreezeWindow, String> {
        let [weekly_from, weekly_until] = [from, until].map(|text| Some(text.to_owned()));
        FreezeWindow::parse(&FreezeFile { weekly_from, weekly_until, ..FreezeFile::default() })
    }

    #[test]
    fn windows_begin_and_end_when_they_say() {
        let weekend = weekly("fri 16:00", "mon 08:00").unwrap();
        let check = |hours: u64, until: Option<u64>| {
            let got = weekend.frozen_until(MONDAY_MS + hours * HOUR_MS);
            assert_eq!(got, until.map(|hours| MONDAY_MS + hours * HOUR_MS), "hour {hours} of the week");
        };
        check(7, Some(8));
        check(8, None);
        check(4 * 24 + 15, None);
        check(4 * 24 + 16, Some(7 * 24 + 8));
        check(6 * 24 + 23, Some(7 * 24 + 8));
        let once = FreezeWindow::Once { from_ms: 10, until_ms: 20 };
        assert_eq!([9, 10, 19, 20].map(|now| once.frozen_until(now)), [None, Some(20), Some(20), None]);
    }

    #[test]
    fn what_is_no_window_is_refused() {
        assert_eq!(
            weekly("fryday 16:00", "mon 08:00").unwrap_err(),
            "expected a weekday and a time such as 'fri 16:00' (UTC), got 'fryday 16:00'"
        );
        assert!(weekly("fri 24:00", "mon 08:00").is_err() && weekly("fri 16:00", "fri 16:00").is_err());
        assert!(FreezeWindow::parse(&FreezeFile { from_ms: Some(1), ..FreezeFile::default() }).is_err());
        let turned = FreezeFile { from_ms: Some(2), until_ms: Some(1), ..FreezeFile::default() };
        assert!(FreezeWindow::parse(&turned).unwrap_err().contains("exchange them"));
    }
}
