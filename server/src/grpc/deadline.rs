//! The caller's deadline: the `grpc-timeout` header, and keeping to it. Must not know what is being done meanwhile.

use std::{future::Future, time::Duration};

use gannet_runtime::{Time, clock};
use http::HeaderMap;

use crate::respond::{Kind, Refusal};

/// When a call that arrived at `arrived` has to be answered, if its headers say so.
///
/// # Errors
/// When the header is there and cannot be read.
pub(super) fn read(headers: &HeaderMap, arrived: Time) -> Result<Option<Time>, Refusal> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    match parse(value.as_bytes()) {
        Some(timeout) => Ok(Some(arrived + timeout)),
        None => Err(Refusal::invalid(format!(
            "header 'grpc-timeout': expected 1 to 8 digits and one of H, M, S, m, u, n, got {value:?}"
        ))),
    }
}

/// `work`, unless the deadline comes first.
///
/// # Errors
/// When it does.
pub(super) async fn within<F: Future>(
    arrived: Time,
    deadline: Option<Time>,
    work: F,
) -> Result<F::Output, Refusal> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => {
            let left = deadline - clock::now();
            tokio::time::timeout(left, work).await.map_err(|_| passed(arrived, deadline))
        }
    }
}

/// The deadline came first.
pub(super) fn passed(arrived: Time, deadline: Time) -> Refusal {
    let allowed_us = deadline.ns_since(arrived) / 1000;
    Refusal::new(Kind::Expired, format!("the call was not answered in the {allowed_us} us that it allows"))
}

/// At most eight digits and a unit, as gRPC over HTTP/2 has it.
fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0u64, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_nothing_else() {
        let check = |text: &str, expected_ns: Option<u128>| {
            assert_eq!(parse(text.as_bytes()).map(|timeout| timeout.as_nanos()), expected_ns, "{text:?}");
        };
        check("1H", Some(3_600_000_000_000));
        check("2M", Some(120_000_000_000));
        check("3S", Some(3_000_000_000));
        check("4m", Some(4_000_000));
        check("5u", Some(5_000));
        check("6n", Some(6));
        check("0n", Some(0));
        check("99999999H", Some(359_999_996_400_000_000_000));
        for bad in ["", "S", "1", "1s", "1h", "-1S", "+1S", "1.5S", " 1S", "1S ", "123456789n", "٣S"] {
            check(bad, None);
        }
    }

    #[test]
    fn the_deadline_counts_from_arrival() {
        let arrived = Time::from_ns(1_000);
        let check = |value: &str, expected: Result<Option<u64>, &str>| {
            let mut headers = HeaderMap::new();
            if !value.is_empty() {
                headers.insert("grpc-timeout", value.parse().unwrap());
            }
            match (read(&headers, arrived), expected) {
                (Ok(deadline), Ok(expected)) => assert_eq!(deadline.map(Time::as_ns), expected, "{value:?}"),
                (Err(refusal), Err(words)) => assert!(refusal.message.contains(words), "{refusal:?}"),
                (got, expected) => panic!("{value:?}: expected {expected:?}, got {got:?}"),
            }
        };
        check("", Ok(None));
        check("5u", Ok(Some(6_000)));
        check("99999999H", Ok(Some(u64::MAX)));
        check("5x", Err("5x"));
    }
}
