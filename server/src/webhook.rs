//! Webhooks of MLflow: a signed word that something changed, upon which the registry is looked at at once. What it says
//! is not believed: the look decides. Must not know how a registry is looked at.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use gannet_registry::Registry;
use hmac::{Hmac, Mac as _};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use sha2::Sha256;

use crate::{
    admin::listener::{Endpoint, refuse},
    config::Credentials,
    respond::{Kind, Refusal},
};

/// Where webhooks come to.
pub const PATH: &str = "/hooks/mlflow";
/// Bytes of a body; MLflow's are some hundred.
const BODY_BYTES_MAX: usize = 256 << 10;
/// Time for a body to arrive whole.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// How far the sender's clock may be off.
const SKEW_S_MAX: u64 = 300;
/// Deliveries that are remembered, so that none counts twice.
const DELIVERIES_MAX: usize = 10_000;
/// Bytes of a delivery's name.
const DELIVERY_BYTES_MAX: usize = 200;

/// Takes webhooks.
pub struct Webhook {
    /// Who looks.
    pub registry: Arc<Registry>,
    /// What they are signed with.
    pub secret: Credentials,
    seen: Mutex<Seen>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("secret", &self.secret).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Seen {
    order: VecDeque<String>,
    names: HashSet<String>,
}

/// As much of a delivery as is looked at.
#[derive(Deserialize)]
struct Delivery {
    #[serde(default)]
    entity: String,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
struct Data {
    #[serde(default)]
    name: String,
    #[serde(default)]
    key: String,
}

/// The headers that make a delivery.
#[derive(Debug, Clone, Copy)]
struct Stamp<'a> {
    delivery: &'a str,
    timestamp: &'a str,
    signature: &'a str,
}

impl Webhook {
    /// Of a registry, signed with a secret that is read at each delivery.
    #[must_use]
    pub fn new(registry: Arc<Registry>, secret: Credentials) -> Self {
        Self { registry, secret, seen: Mutex::default() }
    }

    async fn take(&self, request: Request<Incoming>) -> Result<(), Refusal> {
        if request.uri().path() != PATH {
            return Err(Refusal::new(Kind::NotFound, format!("webhooks come to {PATH}")));
        }
        if request.method() != Method::POST {
            return Err(Refusal::new(Kind::MethodNotAllowed, "webhooks are sent with POST"));
        }
        let (head, body) = request.into_parts();
        let text = |name: &str| {
            head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or("")
        };
        let stamp = Stamp {
            delivery: text("x-mlflow-delivery-id"),
            timestamp: text("x-mlflow-timestamp"),
            signature: text("x-mlflow-signature"),
        };
        let whole = tokio::time::timeout(BODY_TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
        let body = match whole {
            Ok(Ok(whole)) => whole.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(Refusal::new(
                    Kind::TooLarge,
                    format!("the body has more than {BODY_BYTES_MAX} bytes"),
                ));
            }
            Ok(Err(error)) => return Err(Refusal::invalid(format!("the body could not be read: {error}"))),
            Err(_) => return Err(Refusal::new(Kind::SlowSender, "the body took too long")),
        };
        let secret = self.secret.read().map_err(|why| Refusal::new(Kind::Unavailable, why))?;
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        check(stamp, &body, secret.as_bytes(), now_s)?;
        let first = self.seen.lock().unwrap_or_else(PoisonError::into_inner).first(stamp.delivery);
        if !first {
            return Err(Refusal::new(Kind::Conflict, "this delivery was taken already"));
        }
        let delivery: Delivery = serde_json::from_slice(&body)
            .map_err(|error| Refusal::invalid(format!("the body is no event of MLflow: {error}")))?;
        if is_own(&delivery) {
            return Ok(());
        }
        let model = Some(delivery.data.name.as_str()).filter(|name| !name.is_empty());
        let looked = self.registry.nudge(model);
        tracing::debug!(entity = %delivery.entity, model, sources = looked, "a webhook");
        Ok(())
    }
}

impl Seen {
    /// Whether a delivery comes for the first time, as far as is remembered.
    fn first(&mut self, delivery: &str) -> bool {
        if !self.names.insert(delivery.to_owned()) {
            return false;
        }
        self.order.push_back(delivery.to_owned());
        if self.order.len() > DELIVERIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        true
    }
}

/// Whether a delivery was signed with the secret, and lately.
fn check(stamp: Stamp<'_>, body: &[u8], secret: &[u8], now_s: u64) -> Result<(), Refusal> {
    let denied = |why: &str| Err(Refusal::new(Kind::Unauthenticated, format!("the webhook: {why}")));
    if stamp.delivery.is_empty() || stamp.delivery.len() > DELIVERY_BYTES_MAX {
        return denied("expected X-MLflow-Delivery-Id, X-MLflow-Timestamp and X-MLflow-Signature");
    }
    let signature = stamp.signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
    let Some(signature) = signature else { return denied("expected a signature v1,BASE64") };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return denied("the secret is no key") };
    for part in [stamp.delivery.as_bytes(), b".", stamp.timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    // compared in constant time
    if mac.verify_slice(&signature).is_err() {
        return denied("the signature is not valid; use the same secret here and there");
    }
    match stamp.timestamp.parse::<u64>() {
        Ok(sent_s) if sent_s.abs_diff(now_s) <= SKEW_S_MAX => Ok(()),
        _ => denied("its time is more than 300 s off; set the clocks"),
    }
}

/// Whether it tells of what this server, or another one like it, wrote itself.
fn is_own(delivery: &Delivery) -> bool {
    delivery.entity == "model_version_tag" && delivery.data.key.starts_with("serving.")
}

impl Endpoint for Webhook {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.take(request).await {
            Ok(()) => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            Err(refusal) => {
                let mut response = refuse(&refusal);
                response.headers_mut().remove(header::WWW_AUTHENTICATE);
                response
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As MLflow 3.17 sent it, with the secret "s3cr3t".
    const BODY: &str = r#"{"entity": "model_version_alias", "action": "created", "timestamp": "2026-11-21T22:45:32.372817+00:00", "data": {"name": "iris-onnx", "alias": "challenger", "version": "1"}}"#;
    const STAMP: Stamp<'_> = Stamp {
        delivery: "95a7cd82-53ed-4f8c-b7ba-32448083d9ec",
        timestamp: "1795301132",
        signature: "v1,HrnCl37BiGeaAzyzCXKBFoM+Qbld+cuolgQc8+OGIRs=",
    };

    #[test]
    fn a_recorded_delivery_is_believed_and_no_other() {
        let denied = |stamp, body: &str, secret: &str, now_s| {
            check(stamp, body.as_bytes(), secret.as_bytes(), now_s).err().map(|refusal| refusal.kind)
        };
        let unauthenticated = Some(Kind::Unauthenticated);
        assert_eq!(denied(STAMP, BODY, "s3cr3t", 1_795_301_132), None);
        assert_eq!(denied(STAMP, BODY, "s3cr3t", 1_795_301_432), None);
        assert_eq!(denied(STAMP, BODY, "s3cr3t", 1_795_301_433), unauthenticated);
        assert_eq!(denied(STAMP, BODY, "s3cr3t", 1_795_300_831), unauthenticated);
        assert_eq!(denied(STAMP, BODY, "other", 1_795_301_132), unauthenticated);
        assert_eq!(denied(STAMP, &BODY.replace("iris", "Iris"), "s3cr3t", 1_795_301_132), unauthenticated);
        assert_eq!(denied(Stamp { delivery: "", ..STAMP }, BODY, "s3cr3t", 1_795_301_132), unauthenticated);
        assert_eq!(
            denied(Stamp { signature: "v1,", ..STAMP }, BODY, "s3cr3t", 1_795_301_132),
            unauthenticated
        );
    }

    #[test]
    fn a_delivery_counts_once_and_few_are_remembered() {
        let mut seen = Seen::default();
        assert!(seen.first("a"));
        assert!(!seen.first("a"));
        for number in 0..DELIVERIES_MAX {
            assert!(seen.first(&number.to_string()));
        }
        assert_eq!((seen.order.len(), seen.names.len()), (DELIVERIES_MAX, DELIVERIES_MAX));
        assert!(seen.first("a"));
    }

    #[test]
    fn what_we_wrote_ourselves_is_no_news() {
        let own = |text: &str| is_own(&serde_json::from_str(text).unwrap());
        assert!(own(r#"{"entity":"model_version_tag","data":{"name":"m","key":"serving.host.state"}}"#));
        assert!(!own(r#"{"entity":"model_version_tag","data":{"name":"m","key":"validation_status"}}"#));
        assert!(!own(BODY));
    }
}
