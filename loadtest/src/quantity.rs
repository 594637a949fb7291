//! Durations, shares and counts as people write them: `5ms`, `0.1%`, `20k`.
//!
//! Must not know which option they belong to.

use crate::clock::SECOND_NS;

/// Highest rate: the arrivals of a run that no server follows must be counted in time.
pub(crate) const RATE_MAX: f64 = 1e7;

/// Parses `250us`, `5ms`, `10s`, `2min`; the unit is required, so that no one guesses it.
pub fn parse_duration_ns(text: &str) -> Result<u64, String> {
    let fault = || format!("expected a duration such as 250us, 5ms, 10s or 2min, got {text:?}");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ns = match &text[digits.len()..] {
        "ns" => 1,
        "us" => 1000,
        "ms" => 1_000_000,
        "s" => SECOND_NS,
        "m" | "min" => 60 * SECOND_NS,
        "h" => 3600 * SECOND_NS,
        _ => return Err(fault()),
    };
    let number: f64 = digits.trim().parse().map_err(|_| fault())?;
    let nanoseconds = number * unit_ns as f64;
    match (0.0..=1e18).contains(&nanoseconds) {
        true => Ok(nanoseconds.round() as u64),
        false => Err(fault()),
    }
}

/// Parses `0.1%` or `0.001` into a share from 0 to 1.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().map(|n| n / scale).ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("expected a share such as 0.1% or 0.001, got {text:?}"))
}

/// Parses `1500`, `20k` or `1.5M` into a positive number.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1e3),
        Some(b'M') => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    let rate = number.trim().parse::<f64>().map(|n| n * scale).ok();
    rate.filter(|rate| *rate > 0.0 && *rate <= RATE_MAX)
        .ok_or_else(|| format!("expected a rate a second such as 1500, 20k or 1.5M, got {text:?}"))
}

/// A latency with a unit that keeps three digits.
pub fn show_us(us: f64) -> String {
    match us {
        ..1000.0 => format!(
            "{us:.*} us",
            if us < 10.0 {
                2
            } else if us < 100.0 {
                1
            } else {
                0
            }
        ),
        ..1e6 => format!("{:.*} ms", if us < 1e4 { 2 } else { 1 }, us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

/// A rate with thousands separated.
pub fn show_rate(rate: f64) -> String {
    if rate < 100.0 {
        return format!("{rate:.1}");
    }
    show_count(rate.round() as u64)
}

/// A count with thousands separated.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(parse_duration_ns(text).ok(), expected, "{text}");
    }

    #[test]
    fn durations() {
        check("250us", Some(250_000));
        check("1.5ms", Some(1_500_000));
        check("10s", Some(10 * SECOND_NS));
        check("2min", Some(120 * SECOND_NS));
        check("10", None);
        check("-1s", None);
        check("s", None);
        check("1e99s", None);
    }

    #[test]
    fn shares_rates_and_their_display() {
        assert_eq!(parse_share("0.1%"), Ok(0.001));
        assert!(parse_share("101%").is_err());
        assert_eq!(parse_rate("20k"), Ok(20_000.0));
        assert!(parse_rate("0").is_err());
        assert!(parse_rate("x").is_err());
        assert_eq!(show_count(1_234_567), "1,234,567");
        assert_eq!(show_us(4.256), "4.26 us");
        assert_eq!(show_us(85_300.0), "85.3 ms");
        assert_eq!(show_rate(12.34), "12.3");
    }
}
