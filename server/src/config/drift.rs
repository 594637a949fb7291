//! What of drift can be set. Must not know how it is found.

use gannet_runtime::drift::DriftConfig;

use super::{Credentials, Given};

/// Drift, and whom to tell.
#[derive(Debug, Clone, Default)]
pub struct DriftSettings {
    /// How it is watched.
    pub watch: DriftConfig,
    /// Where alarms are sent; `None`: nowhere.
    pub webhook_url: Option<String>,
    /// What they are signed with.
    pub webhook_secret: Option<Credentials>,
}

/// A share, 0 to 1, or "off".
pub(super) fn share(given: &Given) -> Option<f64> {
    match given {
        Given::Text(text) if text == "off" => Some(0.0),
        given => number(given).filter(|share| (0.0..=1.0).contains(share)),
    }
}

/// Days above 0.
pub(super) fn days(given: &Given) -> Option<f64> {
    number(given).filter(|days| *days > 0.0 && *days <= 36_500.0)
}

/// Days, or 0.
pub(super) fn days_or_none(given: &Given) -> Option<f64> {
    number(given).filter(|days| (0.0..=36_500.0).contains(days))
}

/// Where events may be sent: with TLS, or to this machine.
pub(super) fn url(given: &Given) -> Option<String> {
    let text = given.text()?;
    let uri: http::Uri = text.parse().ok()?;
    let host = uri.host()?;
    let is_here = ["127.0.0.1", "[::1]", "localhost"].contains(&host);
    let fits = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_here,
        _ => false,
    };
    fits.then(|| text.to_owned())
}

fn number(given: &Given) -> Option<f64> {
    match given {
        Given::Text(text) | Given::Other(text) => text.parse().ok(),
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        Given::Integer(number) => Some(*number as f64),
        Given::List(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let text = |text: &str| Given::Text(text.into());
        for (given, expected) in [
            (text("off"), Some(0.0)),
            (text("0.05"), Some(0.05)),
            (Given::Other("0.5".into()), Some(0.5)),
            (Given::Integer(1), Some(1.0)),
            (text("1.5"), None),
            (text("NaN"), None),
            (text("often"), None),
        ] {
            assert_eq!(share(&given), expected, "{given}");
        }
        assert_eq!((days(&text("30")), days(&text("0"))), (Some(30.0), None));
        for (address, is_good) in [
            ("https://example.org/hook", true),
            ("http://127.0.0.1:1/x", true),
            ("http://example.org/", false),
            ("ftp://127.0.0.1/", false),
            ("/x", false),
        ] {
            assert_eq!(url(&text(address)).is_some(), is_good, "{address}");
        }
    }
}
