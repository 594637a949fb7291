//! Days of the calendar out of milliseconds since 1970. Must not know a clock.

const DAY_MS: i64 = 86_400_000;

/// `YYYY-MM-DD` of a moment, in UTC (Howard Hinnant's `civil_from_days`).
#[must_use]
pub fn date(ms: i64) -> String {
    let days = ms.div_euclid(DAY_MS) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        let check = |ms: i64, expected: &str| assert_eq!(date(ms), expected);
        check(0, "1970-01-01");
        check(-1, "1969-12-31");
        check(951_782_400_000, "2000-02-29");
        check(1_709_251_199_999, "2024-02-29");
        check(1_709_251_200_000, "2024-03-01");
        check(4_102_444_799_999, "2099-12-31");
    }
}
