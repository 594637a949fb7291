//! What devices talk to: an own listener, where a credential opens three things. A device asks for something newer, fetches
//! what it is offered, and reports. Must not know how a fleet is judged.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    Counted, Ota, Report,
    devices::Device,
    offer::{Ask, may_take, offer},
    report::BYTES_MAX,
    shelf::{MODEL, Signed},
};
use crate::{
    admin::{
        self,
        listener::{Endpoint, refuse},
    },
    guard,
    respond::{Kind, Refusal},
};

/// What devices talk to.
#[derive(Debug)]
pub struct Door {
    /// Deliveries.
    pub ota: Arc<Ota>,
    /// The listener's address.
    pub local: SocketAddr,
    /// The name it was configured with.
    pub bind_host: Option<String>,
}

/// An answer.
enum Said {
    Json(Value),
    File(Bytes),
}

impl Endpoint for Door {
    // a fleet is many, and each comes rarely
    const CONNECTIONS_MAX: usize = 1024;
    const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.respond(request).await {
            Ok(Said::Json(body)) => with(Bytes::from(body.to_string()), "application/json"),
            Ok(Said::File(bytes)) => with(bytes, "application/octet-stream"),
            Err(refusal) => {
                let unknown = refusal.kind == Kind::Unauthenticated;
                self.ota.count(if unknown { Counted::Unknown } else { Counted::Refused });
                refuse(&refusal)
            }
        }
    }
}

fn with(body: Bytes, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

impl Door {
    async fn respond(&self, request: Request<Incoming>) -> Result<Said, Refusal> {
        let text =
            |name| request.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
        let local = guard::Local { address: self.local, bind_host: self.bind_host.as_deref() };
        guard::check(text(header::HOST), text(header::ORIGIN), local)?;
        let device = self.ota.devices.check(text(header::AUTHORIZATION))?;
        let path = request.uri().path().to_owned();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (request.method(), &segments[..]) {
            (&Method::POST, ["ota", "v1", "check"]) => {
                let body = admin::read(request.into_body(), BYTES_MAX).await?;
                self.check(&device, &body).map(Said::Json)
            }
            (&Method::POST, ["ota", "v1", "report"]) => {
                let body = admin::read(request.into_body(), BYTES_MAX).await?;
                let taken = self.ota.report(device, Report::read(&body)?).await?;
                self.ota.count(if taken { Counted::Reported } else { Counted::Stale });
                Ok(Said::Json(json!({ "taken": taken })))
            }
            (&Method::GET, ["ota", "v1", "bundles", id, name]) => {
                self.file(device, id, name).await.map(Said::File)
            }
            (method, _) => {
                let message = format!(
                    "there is no {method} {path:?}; devices POST /ota/v1/check and /ota/v1/report, and GET what they are offered"
                );
                Err(Refusal::new(Kind::NotFound, message))
            }
        }
    }

    fn check(&self, device: &Device, body: &[u8]) -> Result<Value, Refusal> {
        let ask: Ask = serde_json::from_slice(body).map_err(|error| {
            Refusal::invalid(format!(
                "the body: expected class, model, sequence and abi of the device: {error}"
            ))
        })?;
        if ask.class != device.class {
            let message = format!(
                "class: expected '{}', which this credential is for, got '{}'",
                device.class, ask.class
            );
            return Err(Refusal::new(Kind::Forbidden, message));
        }
        let shown = self.ota.shown();
        match offer(&shown.rollouts, &shown.bundles, device, &ask) {
            Ok(bundle) => {
                self.ota.count(Counted::Offered);
                Ok(json!({ "update": offered(&bundle), "why": null }))
            }
            Err(why) => {
                self.ota.count(Counted::NothingNewer);
                Ok(json!({ "update": null, "why": why }))
            }
        }
    }

    async fn file(&self, device: Arc<Device>, id: &str, name: &str) -> Result<Bytes, Refusal> {
        let shown = self.ota.shown();
        // one answer, whether there is no such bundle or it is not for this device
        let none =
            || Refusal::new(Kind::NotFound, "there is no such file for this device; ask /ota/v1/check");
        let bundle = may_take(&shown.rollouts, &shown.bundles, &device, id).ok_or_else(none)?;
        let bytes = bundle.file(name).cloned().ok_or_else(none)?;
        if name == MODEL {
            // from here on it is expected to report
            self.ota.took(device, bundle).await?;
        }
        self.ota.count(Counted::Fetched);
        Ok(bytes)
    }
}

fn offered(bundle: &Signed) -> Value {
    let manifest = bundle.manifest();
    let file = |(name, bytes): (&'static str, &Bytes)| {
        let path = format!("/ota/v1/bundles/{}/{name}", bundle.id());
        (name.to_owned(), json!({ "path": path, "bytes": bytes.len() }))
    };
    json!({
        "bundle": bundle.id(),
        "model": manifest.model,
        "version": manifest.version,
        "sequence": manifest.sequence,
        "files": bundle.files().map(file).collect::<serde_json::Map<String, Value>>(),
    })
}
