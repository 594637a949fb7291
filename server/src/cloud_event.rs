//! CloudEvents 1.0 on their way out: times as they are written, signatures as Standard Webhooks has them, and the request
//! that carries an event. Must not know what events tell, nor what becomes of those that are not taken.

use std::{fmt, io, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use gannet_runtime::clock;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::config::Credentials;

/// Time for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Where events go.
#[derive(Clone)]
pub struct WebhookOut {
    /// `https://...`, or `http://` to this machine.
    pub url: String,
    /// What events are signed with.
    pub secret: Credentials,
}

/// Brings events to one receiver.
pub(crate) struct Courier {
    to: WebhookOut,
    client: reqwest::Client,
}

/// One event as it is sent.
pub(crate) struct Message {
    /// The delivery's name, which no other one has.
    pub(crate) id: String,
    /// Beside those of the signature; names and values as they stand in a request.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Courier {
    /// # Errors
    /// When there is no client to be had.
    pub(crate) fn new(to: WebhookOut) -> io::Result<Self> {
        gannet_registry::provide_crypto();
        let builder = reqwest::Client::builder().timeout(ANSWER_TIME_MAX).no_proxy();
        let client = builder.redirect(reqwest::redirect::Policy::none()).build().map_err(io::Error::other)?;
        Ok(Self { to, client })
    }

    pub(crate) fn url(&self) -> &str {
        &self.to.url
    }

    /// Sends it once.
    ///
    /// # Errors
    /// A text: why it was not taken.
    pub(crate) async fn send(&self, message: Message) -> Result<(), String> {
        let Message { id, headers, body } = message;
        let secret = self.to.secret.read()?;
        let timestamp = (clock::wall_ms(clock::now()) / 1000).to_string();
        let signature = signature(secret.as_bytes(), &id, &timestamp, &body).ok_or("the secret is no key")?;
        let mut request = self.client.post(&self.to.url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body);
        let status = request.send().await.map_err(|error| error.to_string())?.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
    }
}

impl fmt::Debug for WebhookOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookOut").field("url", &self.url).finish_non_exhaustive()
    }
}

/// `v1,BASE64` of what is signed: id, time and body.
pub(crate) fn signature(secret: &[u8], id: &str, timestamp: &str, body: &[u8]) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// A time of the calendar in UTC.
pub(crate) fn rfc3339(ms: u64) -> String {
    let date = gannet_capture::date(i64::try_from(ms).unwrap_or(i64::MAX));
    let (seconds, fraction) = (ms / 1000, ms % 1000);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{date}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_301_132_372, "2026-11-21T22:45:32.372Z"),
        ] {
            assert_eq!(rfc3339(ms), expected);
        }
    }

    #[test]
    fn signatures_are_those_that_our_own_receiver_takes() {
        // MLflow signs in the same way; recorded from MLflow 3.17
        let body = r#"{"entity": "model_version_alias", "action": "created", "timestamp": "2026-11-21T22:45:32.372817+00:00", "data": {"name": "iris-onnx", "alias": "challenger", "version": "1"}}"#;
        let id = "95a7cd82-53ed-4f8c-b7ba-32448083d9ec";
        let signed = signature(b"s3cr3t", id, "1795301132", body.as_bytes()).unwrap();
        assert_eq!(signed, "v1,HrnCl37BiGeaAzyzCXKBFoM+Qbld+cuolgQc8+OGIRs=");
    }
}
